"""The server's texts: keys share exactly the words that texts share."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from workloom.prefix import Key, common
from workloom.serve.answers import answer_words, name
from workloom.serve.texts import Texts, check

SEPARATORS = (" ", " ", " ", "  ", "\n", "\t ", " ", "\x1c")
word = st.sampled_from(["a", "b", "ab", "aa", "é", "東"])
words = st.lists(word, max_size=14)


@st.composite
def written(draw: st.DrawFn, said: list[str]) -> str:
    """The words as a text with any white space between and around them."""
    gaps = draw(st.lists(st.sampled_from(SEPARATORS), min_size=len(said), max_size=len(said)))
    text = "".join(w + gap for w, gap in zip(said, gaps, strict=True))
    return draw(st.sampled_from(["", "", " ", "\n"])) + (text if draw(st.booleans()) else text.rstrip())


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[str], str]]:
    """Texts of which many go on from, or part from, an earlier one."""
    texts: list[list[str]] = []
    for _ in range(draw(st.integers(1, 12))):
        base = draw(st.sampled_from(texts)) if texts and draw(st.booleans()) else []
        texts.append(base[: draw(st.integers(0, len(base)))] + draw(words))
    return [(said, draw(written(said))) for said in texts]


def shared(a: list[str], b: list[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def well_formed(key: Key) -> bool:
    return all(start < end for start, end in zip((0, *key.ends), key.ends, strict=False))


@given(conversations())
@settings(max_examples=150, deadline=None)
@example([(["a", "b"], "a b"), (["a", "b", "a"], "a  b a"), (["a"], "a ")])
def test_keys_share_exactly_the_leading_words_that_texts_share(texts: list[tuple[list[str], str]]) -> None:
    known = Texts()
    keys = [known.prompt(text).key for _, text in texts]
    check(known)
    for (said, _), key in zip(texts, keys, strict=True):
        assert key.tokens == len(said) and well_formed(key)
        for (other, _), other_key in zip(texts, keys, strict=True):
            assert common(key, other_key) == shared(said, other)


@given(words.filter(bool), st.integers(1, 40), words, st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_an_answer_sent_back_is_the_text_that_was_generated(
    said: list[str], tokens: int, more: list[str], used: int
) -> None:
    known = Texts()
    place = known.prompt(" ".join(said))
    answer = known.answer(place, tokens)
    generated = place.key.plus(answer.number, tokens)
    again = known.prompt(" ".join(said + answer.words[:used] + more))
    check(known)
    wanted = min(used, tokens)
    follow = shared(answer.words[wanted:], more)
    assert common(generated, again.key) == len(said) + wanted + (follow if used < tokens else 0)


@given(st.lists(words.filter(bool), min_size=1, max_size=5), st.integers(1, 5))
def test_answers_part_at_their_first_word_whatever_was_said_before(texts: list[list[str]], tokens: int) -> None:
    known = Texts()
    known.prompt(" ".join([*texts[0], name(2), "x"]))  # somebody has said the name of an answer to come
    keys = []
    for said in texts:
        place = known.prompt(" ".join(said))
        answer = known.answer(place, tokens)
        keys.append((place.key.plus(answer.number, tokens), len(said)))
        check(known)
    for i, (key, size) in enumerate(keys):
        for other, other_size in keys[:i]:
            assert common(key, other) <= min(size, other_size)


@given(conversations(), st.integers(0, 6000))
@settings(max_examples=80, deadline=None)
def test_memory_is_bounded_and_what_was_dropped_comes_back_as_new_text(
    texts: list[tuple[list[str], str]], room: int
) -> None:
    known = Texts(max_bytes=room)
    for said, text in texts:
        place = known.prompt(text)
        if said:
            known.answer(place, 3)
        assert place.key.tokens == len(said) and well_formed(place.key)
        assert known.bytes <= room
        check(known)


def test_the_least_recently_used_text_goes_first() -> None:
    known = Texts(max_bytes=3 * 900)
    old, kept = known.prompt("old text"), known.prompt("kept text")
    known.prompt("kept text")
    known.prompt("a third text")
    known.prompt("kept text and more")
    assert common(known.prompt("kept text").key, kept.key) == 2
    assert common(known.prompt("old text").key, old.key) == 0


def test_answers_share_no_16_words() -> None:
    windows: set[tuple[str, ...]] = set()
    for number in range(1, 200):
        said = answer_words(number, 120)
        assert len(said) == 120 and said == answer_words(number, 300)[:120]
        mine = {tuple(said[i : i + 16]) for i in range(len(said) - 15)}
        assert not mine & windows
        windows |= mine
    assert len({name(n) for n in range(100_000)}) == 100_000
