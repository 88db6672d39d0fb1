"""Text without a tokenizer: exact lengths, prefixes, and nothing shared that is not declared."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.drive.styles import STYLES as VOCABULARIES
from workloom.drive.styles import style
from workloom.drive.text import CODE, FUNCTION_WORDS, PERIOD, ROWS, Texts, Vocabulary, pool
from workloom.errors import UsageError
from workloom.prompt import Prompts, trace_text
from workloom.session import Call, Part, Session, Span

numbers = st.one_of(
    st.builds(lambda instance, ordinal: instance + 1 << 24 | ordinal, st.integers(0, 10**6), st.integers(0, 3000)),
    st.text(max_size=5).map(trace_text),
)
salts = st.integers(0, 2**64 - 1)


def windows(text: bytes, size: int = 16) -> set[tuple[bytes, ...]]:
    words = text.split(b" ")
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def test_the_pool_is_many_plain_words() -> None:
    words = pool()
    assert len(words) == 4096 == len(set(words))
    assert list(words) == sorted(words)
    assert all(word.isalpha() and word.islower() and word.isascii() for word in words)
    assert not set(words) & {word.encode() for word in FUNCTION_WORDS}


@given(salts, numbers, st.integers(0, 400), st.integers(0, 400))
def test_a_text_has_its_length_and_begins_every_longer_one(salt: int, number: int, a: int, b: int) -> None:
    short, long = sorted((a, b))
    texts = Texts(salt)
    words = texts.text(number, long).split()
    assert len(words) == long
    assert texts.text(number, short).split() == words[:short]
    assert b"  " not in texts.text(number, long)


@settings(max_examples=10, deadline=None)
@given(numbers, st.integers(ROWS * PERIOD - 40, 3 * ROWS * PERIOD + 40))
def test_a_very_long_text_has_its_length_too(number: int, tokens: int) -> None:
    texts = Texts(3)
    words = texts.text(number, tokens).split()
    assert len(words) == tokens and texts.text(number, tokens - 1).split() == words[:-1]


@given(salts, numbers)
def test_any_16_words_hold_a_whole_code(salt: int, number: int) -> None:
    texts = Texts(salt)
    code = tuple(texts.code(number)[0].split())
    assert len(code) == CODE
    for window in windows(texts.text(number, 64)):
        assert any(window[i : i + CODE] == code for i in range(16 - CODE + 1))


def test_no_two_texts_share_16_words() -> None:
    owner: dict[tuple[bytes, ...], tuple[int, int]] = {}
    siblings, sessions, runs = range(12), (*range(30), 4095, 4096, 70_000), range(4)
    spans = [(salt, trace_text(name)) for salt, name in product(runs, ("a", "b", "scaffold"))]
    fresh = [(salt, instance + 1 << 24 | ordinal) for salt, instance, ordinal in product(runs, sessions, siblings)]
    for salt, number in [*fresh, *spans]:
        for window in windows(Texts(salt).text(number, 80)):
            assert owner.setdefault(window, (salt, number)) == (salt, number)


def test_one_word_texts_in_a_row_are_no_other_session_s() -> None:
    owner: dict[tuple[bytes, ...], int] = {}
    texts = Texts(5)
    for instance in range(200):
        row = b" ".join(texts.text(instance + 1 << 24 | ordinal, 1) for ordinal in range(100))
        for window in windows(row):
            assert owner.setdefault(window, instance) == instance


@given(salts, st.integers(0, 10**6), st.integers(0, 10**4))
def test_siblings_differ_from_the_first_word(salt: int, instance: int, ordinal: int) -> None:
    texts = Texts(salt)
    first = {texts.text(instance + 1 << 24 | ordinal + i, 1) for i in range(200)}
    assert len(first) == 200


@given(salts, st.integers(0, 10**6), st.integers(0, 10**4))
def test_sessions_differ_from_the_first_word_of_the_same_piece(salt: int, instance: int, ordinal: int) -> None:
    texts = Texts(salt)
    first = {texts.text(instance + 1 + i << 24 | ordinal, 1) for i in range(200)}
    assert len(first) == 200


@given(st.lists(salts, min_size=2, max_size=5, unique=True), numbers)
def test_a_second_run_finds_nothing_that_the_first_left_warm(salts: list[int], number: int) -> None:
    """Not even the scaffold that all its sessions share: a server that keeps KV has none of it."""
    owner: dict[tuple[bytes, ...], int] = {}
    for salt in salts:
        for window in windows(Texts(salt).text(number, 80)):
            assert owner.setdefault(window, salt) == salt


def test_a_trace_text_is_the_same_all_over_one_run() -> None:
    scaffold = Session("s", (Call("0", 4, spans=(Span("system", 50, "trace"),), fresh=(Part("user", 5),)),))
    first = {Prompts(scaffold, instance).make(scaffold.calls[0]).pieces[0].text for instance in range(20)}
    assert first == {trace_text("system")}
    assert Texts(1).text(trace_text("system"), 50) == Texts(1).text(trace_text("system"), 50)


def test_texts_are_the_same_in_every_process_and_version() -> None:
    assert Texts(7).text(1 << 24, 24) == PINNED


PINNED = (
    b"games thought butter bill wider then a basket into the permanent price "
    b"games thought butter bill wider the things of the hang and coffee"
)


# --- every style


@cache
def corpus() -> str:
    """English on every machine: CPython's own manual pages."""
    import pydoc_data.topics

    return str(Path(pydoc_data.topics.__file__))


STYLES = ("patterns", "words", f"corpus:{corpus()}", "ids", "ids:5-2000", "recorded")
by_style = pytest.mark.parametrize("spec", STYLES, ids=lambda spec: spec[:8].strip(":5-/"))


@cache
def vocabulary(spec: str) -> Vocabulary:
    """What `style` makes texts of, made once."""
    name, _, argument = spec.partition(":")
    return VOCABULARIES[name](argument, None)


def split(spec: str, text: bytes) -> list[bytes]:
    """The words of a text; none of them empty or more than one."""
    words = text.split(b"," if spec.startswith("ids") else b" ")
    assert all(words) and (not spec.startswith("ids") or all(word.isdigit() for word in words))
    json.loads(b"[%s]" % text if spec.startswith("ids") else b'"%s"' % text)
    return words


@by_style
@settings(max_examples=60, deadline=None)
@given(salt=salts, number=numbers, a=st.integers(1, 400), b=st.integers(1, 400))
def test_in_every_style_a_text_has_its_length_and_begins_every_longer_one(
    spec: str, salt: int, number: int, a: int, b: int
) -> None:
    made = Texts(salt, vocabulary(spec))
    short, long = (split(spec, made.text(number, tokens)) for tokens in sorted((a, b)))
    assert len(long) == max(a, b) and short == long[: min(a, b)]
    assert made.text(number, 0) == b""


@by_style
def test_in_every_style_no_two_texts_share_16_words(spec: str) -> None:
    owner: dict[tuple[bytes, ...], tuple[int, int]] = {}
    fresh = [instance + 1 << 24 | ordinal for instance in (*range(12), 70_000) for ordinal in range(8)]
    for salt in (1, 2):
        made = Texts(salt, vocabulary(spec))
        for number in [*fresh, trace_text("a"), trace_text("b"), 1 << 90, 1 << 90 | 1]:
            words = split(spec, made.text(number, 240))
            for i in range(len(words) - 15):
                assert owner.setdefault(tuple(words[i : i + 16]), (salt, number)) == (salt, number)


@by_style
@settings(max_examples=25, deadline=None)
@given(salt=salts, instance=st.integers(0, 10**6), ordinal=st.integers(0, 10**4))
def test_in_every_style_siblings_and_sessions_differ_from_the_first_word(
    spec: str, salt: int, instance: int, ordinal: int
) -> None:
    made = Texts(salt, vocabulary(spec))
    siblings = {made.text(instance + 1 << 24 | ordinal + i, 1) for i in range(200)}
    others = {made.text(instance + 1 + i << 24 | ordinal, 1) for i in range(200)}
    assert len(siblings) == len(others) == 200


def test_a_corpus_is_read_from_a_place_of_its_own_by_every_text() -> None:
    words = [json.dumps(word, ensure_ascii=False)[1:-1].encode() for word in Path(corpus()).read_text("utf-8").split()]
    at = {tuple(words[i : i + 11]) for i in range(0, len(words) - 10, 11)}
    made, places = style(f"corpus:{corpus()}", 1), set()
    for number in range(1 << 24, (1 << 24) + 20):
        text = made.text(number, 64).split(b" ")
        rows = [tuple(text[i + 5 : i + 16]) for i in range(0, 64, 16)]
        assert at.issuperset(rows) and text[:5] == text[16:21]
        places.add(rows[0])
    assert len(places) == 20


def test_ids_stay_in_their_range() -> None:
    made = style("ids:300-500", 1)
    ids = {int(i) for number in range(1 << 24, (1 << 24) + 300) for i in made.text(number, 60).split(b",")}
    assert ids == set(range(300, 428))  # the largest power of two


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pattern", "did you mean patterns"),
        ("corpus", "needs a file"),
        ("corpus:/nowhere", "cannot be read"),
        (f"corpus:{__file__}.none", "cannot be read"),
        ("words:3", "no argument"),
        ("ids:5", "no range"),
        ("ids:9-3", "too few"),
        ("ids:0-63", "too few"),
    ],
)
def test_a_style_that_cannot_be_is_refused(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        style(spec, 1)


def test_a_short_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a few words " * 200)
    with pytest.raises(UsageError, match="too short"):
        style(f"corpus:{path}", 1)
