"""The Mooncake reader: sessions from shared prefixes, exact sharing between all prompts, rows with a session id."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from hashedrows import Row, check, hits, lcp, prompts, save
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.errors import TraceError
from workloom.prefix import common
from workloom.prompt import Prompt, planned
from workloom.session import Call, Inherit, Session, validate
from workloom.traces import open_trace, sniff
from workloom.traces.pool.rows import ids_of

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "mooncake"
BLOCK = 512


def row(start_s: float, ids: list[int], out: int, *, extra: int = 0) -> Row:
    """A request whose prompt is these blocks, the last one of only `extra` tokens if that is not 0."""
    tokens = len(ids) * BLOCK if not extra else (len(ids) - 1) * BLOCK + extra
    return {"timestamp": start_s * 1000, "input_length": tokens, "output_length": out, "hash_ids": ids}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[list[Row]], list[Session]]:
    """The sessions of a hand-made file, checked against its hashes."""

    def load(rows: list[Row]) -> list[Session]:
        sessions = list(open_trace([save(tmp_path / "t.jsonl", rows)]))
        check(sessions, rows, BLOCK)
        return sessions

    return load


def spans(call: Call) -> list[tuple[str, int, str]]:
    return [(span.name, span.tokens, span.scope) for span in call.spans]


def fresh(call: Call) -> int:
    return call.fresh_tokens


# ------------------------------------------------------------------------------------------------------- sessions


def test_a_conversation_is_one_session(load: Callable[[list[Row]], list[Session]]) -> None:
    (session,) = load(
        [
            row(10, [0, 1, 2], 100, extra=300),
            row(40.5, [0, 1, 3, 4], 7, extra=20),
            row(100, [0, 1, 3, 5, 6], 9),
        ]
    )
    c0, c1, c2 = session.calls
    assert (session.id, session.start_s, session.origin) == ("r0", 10.0, "mooncake:t.jsonl")
    assert [(edge.call, edge.wait_s, edge.gap) for edge in c1.after] == [("c0", 30.5, "human")]
    assert [(edge.call, edge.wait_s, edge.gap) for edge in c2.after] == [("c1", 59.5, "human")]
    assert [call.recorded.start_s for call in session.calls if call.recorded] == [0.0, 30.5, 90.0]
    assert (c0.inherit, c1.inherit, c2.inherit) == (None, Inherit("c0"), Inherit("c1"))
    assert [fresh(call) for call in session.calls] == [1324, 1556 - 1424, 2560 - 1563]
    assert not any(call.spans for call in session.calls)
    assert {(part.kind, call.agent) for call in session.calls for part in call.fresh} == {("user", "main")}


def test_who_cannot_have_followed_is_a_session_of_its_own(load: Callable[[list[Row]], list[Session]]) -> None:
    first = row(10, [0, 1, 2], 100, extra=300)
    for name, other in {
        "at the same time": row(10, [0, 1, 3], 7),
        "sooner than 1 ms a token of the answer": row(10.09, [0, 1, 3], 7),
        "too short for the answer": row(60, [0, 1, 3], 7, extra=399),
        "another second block": row(60, [0, 3, 4], 7),
        "shorter": row(60, [0], 7),
    }.items():
        sessions = load([first, other])
        assert [len(session.calls) for session in sessions] == [1, 1], name
        shared = lcp([0, 1, 2], other["hash_ids"]) * BLOCK
        assert [spans(s.calls[0]) for s in sessions] == [[("b0", shared, "trace")]] * 2, name
    assert [len(session.calls) for session in load([first, row(10.1, [0, 1, 3], 7, extra=400)])] == [2]


def test_the_longest_prompt_that_fits_is_continued_and_of_those_the_latest(
    load: Callable[[list[Row]], list[Session]],
) -> None:
    (session,) = load(
        [
            row(0, [0], 5),
            row(10, [0, 1], 6),
            row(20, [0, 2], 7),
            row(30, [0, 1, 3], 400),
            row(30.2, [0, 1, 3, 4], 8),  # c3 is still busy
            row(40, [0, 5], 9),
        ]
    )
    assert ["".join(edge.call for edge in call.after) for call in session.calls] == ["", "c0", "c0", "c1", "c1", "c0"]


def test_a_retry_follows_the_same_prompt_and_the_next_turn_the_retry(
    load: Callable[[list[Row]], list[Session]],
) -> None:
    (session,) = load(
        [row(0, [0, 1], 20, extra=100), row(9, [0, 1], 21, extra=100), row(30, [0, 2], 5, extra=200)],
    )
    c1, c2 = session.calls[1:]
    assert (c1.inherit, fresh(c1), c1.after[0].call) == (Inherit("c0", 612), 0, "c0")
    assert (c2.inherit, fresh(c2), c2.after[0].call) == (Inherit("c1"), 712 - 633, "c1")


def test_prompts_that_end_differently_in_a_shared_block_are_no_retry(
    load: Callable[[list[Row]], list[Session]],
) -> None:
    assert len(load([row(0, [0, 1], 20, extra=100), row(9, [0, 2], 21, extra=100)])) == 2


def test_of_two_branches_the_first_holds_an_answer_of_many_blocks(load: Callable[[list[Row]], list[Session]]) -> None:
    (session,) = load(
        [row(0, [0, 1], 1000), row(9, [0, 1, 2, 3, 4], 11), row(20, [0, 1, 5, 6, 7], 12)],
    )
    c1, c2 = session.calls[1:]
    assert (c1.inherit, c2.inherit) == (Inherit("c0"), Inherit("c0", 1024))
    assert c2.after[0].call == "c0"


def test_both_branches_hold_an_answer_that_both_have_the_blocks_of(load: Callable[[list[Row]], list[Session]]) -> None:
    """Its answer ends at 2,024. The first two share the block it ends in, and so say what is behind it in that."""
    (session,) = load(
        [
            row(0, [0, 1], 1000),
            row(9, [0, 1, 2, 3, 4], 11),
            row(20, [0, 1, 2, 3, 5], 12),
            row(30, [0, 1, 2, 6], 13),
            row(30, [0, 1, 7, 8, 9], 14),
        ],
    )
    c1, c2, c3, c4 = session.calls[1:]
    assert (c1.inherit, spans(c1), fresh(c1)) == (Inherit("c0", 1536), [("c1@3", 512, "session")], 512)
    assert (c2.inherit, spans(c2), fresh(c2)) == (Inherit("c0", 1536), [("c1@3", 512, "session")], 512)
    assert (c3.inherit, spans(c3), fresh(c3)) == (Inherit("c0"), [], 24)
    assert (c4.inherit, spans(c4), fresh(c4)) == (Inherit("c0", 1024), [], 1536), "another answer"
    assert all(call.after[0].call == "c0" for call in (c1, c2, c3, c4))


def test_what_many_begin_with_is_no_turn(load: Callable[[list[Row]], list[Session]], tmp_path: Path) -> None:
    """Four questions about a document of two blocks, and later one that would be long enough to be a next turn."""
    rows = [row(10 * n, [0, 1, 2 + n], 50 + n, extra=40 + n) for n in range(5)]
    late = row(100, [0, 1, 7, 8], 60)
    assert [len(session.calls) for session in load([*rows, late])] == [1] * 6
    reading = open_trace([tmp_path / "t.jsonl"])
    assert len(list(reading)) == 6
    assert reading.report.inferred == {
        "rows that begin with no earlier prompt but a text of many, like a system prompt": 5,
    }
    assert [len(session.calls) for session in load([*rows[:4], late])] == [1, 1, 1, 2], "three strangers may be edits"


# -------------------------------------------------------------------------------------------------------- sharing


def test_prompts_that_leave_a_run_early_use_less_of_its_span(load: Callable[[list[Row]], list[Session]]) -> None:
    one, two, three = load(
        [row(0, [0, 1, 2, 3], 900), row(0, [0, 1, 4, 5], 901), row(0, [0, 1, 4, 6], 902)],
    )
    assert spans(one.calls[0]) == [("b0", 1024, "trace")] and fresh(one.calls[0]) == 1024
    assert spans(two.calls[0]) == spans(three.calls[0]) == [("b0", 1024, "trace"), ("b4", 512, "trace")]
    one, two, three = load([row(0, [0, 1, 2, 3], 900), row(0, [0, 1, 2, 4], 901), row(0, [0, 5], 902)])
    assert [spans(s.calls[0]) for s in (one, two, three)] == [
        [("b0", 1536, "trace")],
        [("b0", 1536, "trace")],
        [("b0", 512, "trace")],
    ]


def test_what_one_session_uses_is_no_span_of_the_trace(load: Callable[[list[Row]], list[Session]]) -> None:
    session, other = load([row(0, [0, 1], 5), row(9, [0, 1, 2], 6), row(9, [0, 3], 7)])
    assert [spans(call) for call in session.calls] == [[("b0", 512, "trace")], []]
    assert session.calls[1].inherit == Inherit("c0")
    assert spans(other.calls[0]) == [("b0", 512, "trace")]


def test_a_turn_goes_on_in_a_run_that_another_session_has_too(load: Callable[[list[Row]], list[Session]]) -> None:
    """The second call has block 2 in common with another session, which cannot be an answer of its own session."""
    other, session = load([row(0, [0, 1, 2, 3], 600), row(0.1, [0, 1], 5), row(9, [0, 1, 2, 4], 6)])
    assert spans(other.calls[0]) == [("b0", 1536, "trace")]
    c0, c1 = session.calls
    assert spans(c0) == [("b0", 1024, "trace")] and c0.inherit is None
    assert spans(c1) == [("b0", 1536, "trace")] and c1.inherit is None and fresh(c1) == 512
    assert c1.after[0].call == "c0"


def test_a_last_block_that_is_not_full_is_shared_by_the_same_prompt_only(
    load: Callable[[list[Row]], list[Session]],
) -> None:
    one, two, three = load(
        [row(0, [0, 1], 900, extra=100), row(0, [0, 1], 901, extra=100), row(0, [0, 2], 902, extra=100)],
    )
    assert spans(one.calls[0]) == spans(two.calls[0]) == [("b0", 612, "trace")]
    assert spans(three.calls[0]) == [("b0", 512, "trace")]
    assert [fresh(s.calls[0]) for s in (one, two, three)] == [0, 0, 100]


def test_files_are_traces_of_their_own(tmp_path: Path) -> None:
    rows = [row(0, [0, 1], 900), row(0, [0, 2], 901)]
    sessions = list(open_trace([save(tmp_path / f"{n}.jsonl", rows) for n in range(2)]))
    assert [(s.id, s.calls[0].spans[0].name) for s in sessions] == [
        ("r0", "b0"),
        ("r1", "b0"),
        ("1.r0", "1.b0"),
        ("1.r1", "1.b0"),
    ]


@settings(max_examples=150, deadline=None)
@given(prompts(BLOCK), st.data())
def test_sessions_share_what_the_hashes_say(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    most = data.draw(st.sampled_from((30, 1500)))
    outputs = data.draw(st.lists(st.integers(1, most), min_size=len(made), max_size=len(made), unique=True))
    starts = sorted(data.draw(st.lists(st.integers(0, 60_000), min_size=len(made), max_size=len(made))))
    rows: list[Row] = [
        {"timestamp": start, "input_length": tokens, "output_length": output, "hash_ids": ids}
        for (tokens, ids), output, start in zip(made, outputs, starts, strict=True)
    ]
    check(list(open_trace([save(tmp_path_factory.getbasetemp() / "p.jsonl", rows)], format="mooncake")), rows, BLOCK)


# ------------------------------------------------------------------------------------------------- rows with sessions


def turn(session: str | int, tokens: int, out: int, ids: list[int] | None = None, **fields: float) -> Row:
    return {"session_id": session, "input_length": tokens, "output_length": out, "hash_ids": ids or [], **fields}


def test_turns_that_say_what_is_new(tmp_path: Path) -> None:
    reading = open_trace(
        [
            save(
                tmp_path / "t.jsonl",
                [
                    turn("a", 1000, 50, [0, 1], timestamp=2000),
                    turn(7, 900, 60, [0, 2], timestamp=2500),
                    turn("a", 300, 10, [3], delay=1500),
                    turn("a", 20, 30, delay=0, timestamp=9000),
                ],
            )
        ]
    )
    a, b = reading
    assert (a.id, a.start_s, b.id, b.start_s) == ("a", 2.0, "7", 2.5)
    assert [prompt.tokens for _, prompt in planned(a)] == [1000, 1350, 1380]
    assert [call.inherit for call in a.calls] == [None, Inherit("c0"), Inherit("c1")]
    assert [fresh(call) for call in a.calls] == [488, 300, 20]
    assert [edge.wait_s for call in a.calls for edge in call.after] == [1.5, 0.0]
    assert [call.recorded.start_s if call.recorded else None for call in a.calls] == [0.0, None, 7.0]
    assert spans(a.calls[0]) == spans(b.calls[0]) == [("b0", 512, "trace")]
    assert reading.report.dropped == {"hash ids of what is new in a turn": 1}
    assert "what is new in a turn" in reading.report.assumptions[0]


def test_turns_that_are_whole_prompts_are_told_by_their_blocks(tmp_path: Path) -> None:
    rows = [
        turn("a", 1000, 50, [0, 1], timestamp=2000),
        turn("a", 1100, 60, [0, 2, 3], timestamp=3000),
        turn("b", 600, 70, [0, 4], timestamp=4000),
    ]
    reading = open_trace([save(tmp_path / "t.jsonl", rows)])
    a, b = reading
    check([a, b], rows, BLOCK)
    assert [prompt.tokens for _, prompt in planned(a)] == [1000, 1100]
    assert a.calls[1].inherit == Inherit("c0") and a.calls[1].after[0].wait_s == 1.0
    assert "whole prompts" in reading.report.assumptions[0]


def test_a_file_with_both_kinds_of_turns_is_refused(tmp_path: Path) -> None:
    rows = [
        turn("a", 1000, 50, [0, 1]),
        turn("a", 1100, 60, [0, 2, 3]),
        turn("b", 1000, 50, [0, 1]),
        turn("b", 100, 50, [9]),
    ]
    path = save(tmp_path / "t.jsonl", rows)
    with pytest.raises(TraceError, match="some rows of a session are whole prompts and some are not") as caught:
        list(open_trace([path]))
    assert caught.value.where == f"{path}, line 4, hash_ids" and "as in line 2" in str(caught.value.expected)
    reading = open_trace([path], skip_bad=True)
    assert not list(reading) and len(reading.report.skipped) == 1


# ------------------------------------------------------------------------------------------------------- bad rows

GOOD = row(1, [0, 1], 5)
BAD = {
    "not JSON": (b'{"timestamp": 1,}', "line 2", "JSON in UTF-8", "trailing comma"),
    "a list": (b"[1]", "line 2, top level", "object", "[1]"),
    "no output": ({**GOOD, "output_length": ...}, "output_length", "required", "only"),
    "no time": ({**GOOD, "timestamp": ...}, "timestamp", "required", "only"),
    "negative": ({**GOOD, "input_length": -1}, "input_length", "`int` >= 0", "-1"),
    "huge": ({**GOOD, "output_length": 10**18}, "output_length", "<= ", "1000"),
    "far": ({**GOOD, "timestamp": 1e300}, "timestamp", "<= ", "1e+300"),
    "text": ({**GOOD, "timestamp": "x"}, "timestamp", "`float`", "x"),
    "too few hashes": ({**GOOD, "hash_ids": [0]}, "line 2, hash_ids", "2 ids (input_length 1024", "1 ids"),
    "too many hashes": ({**GOOD, "hash_ids": [0, 1, 2]}, "line 2, hash_ids", "2 ids (input_length 1024", "3 ids"),
    "hash is text": ({**GOOD, "hash_ids": [0, "x"]}, "line 2, hash_ids, [1]", "`int`", "x"),
    "hash is negative": ({**GOOD, "hash_ids": [0, -1]}, "line 2, hash_ids", "0 to 2^64 - 1", "-1"),
    "hash is huge": ({**GOOD, "hash_ids": [0, 1 << 64]}, "line 2, hash_ids", "0 to 2^64 - 1", "18446744073709551616"),
    "hashes are no list": ({**GOOD, "hash_ids": 7}, "line 2, hash_ids", "`array`", "7"),
    "a list of lists": ({**GOOD, "hash_ids": [[0], 1]}, "line 2, hash_ids, [0]", "`int`", "[0]"),
    "a session": ({**GOOD, "session_id": "s"}, "session_id", "null", "s"),
    "text instead": (b'{"timestamp": 1, "text_input": "x"}', "line 2", "input_length", "text_input"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    bad, where, expected, found = BAD[name]
    line = bad if isinstance(bad, bytes) else json.dumps({k: v for k, v in bad.items() if v is not ...}).encode()
    good = json.dumps(GOOD).encode()
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([good, line, b"", good]) + b"\n")
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 2" in error.where and where in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert sum(len(session.calls) for session in reading) == 2 and len(reading.report.skipped) == 1


def test_rows_of_text_are_known_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text_input": "x", "timestamp": 0, "output_length": 3}\n')
    assert sniff(path) == "mooncake"
    with pytest.raises(TraceError, match="a row gives text where its length is needed"):
        list(open_trace([path]))


def test_files_as_they_come(tmp_path: Path) -> None:
    rows = [GOOD, row(50, [0, 1, 2], 6), row(9, [0, 1, 3], 7)]
    content = b"\xef\xbb\xbf" + b"\r\n \n".join(json.dumps(each).encode() for each in rows) + b'\n{"time'
    for name, data in {"a.jsonl": content, "a.jsonl.gz": gzip.compress(content)}.items():
        (tmp_path / name).write_bytes(data)
        reading = open_trace([tmp_path / name])
        assert [len(session.calls) for session in reading] == [3]
        assert reading.report.dropped == {"half-written last line": 1}
        assert reading.report.inferred["rows that start before the row above them"] == 1
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content * 50)[:-20])
    with pytest.raises(TraceError, match="ends in the middle"):
        list(open_trace([tmp_path / "b.jsonl.gz"], format="mooncake"))


def test_rows_without_hashes_share_nothing(tmp_path: Path) -> None:
    rows = [{"timestamp": t, "input_length": 2000, "output_length": 5} for t in (0, 1000)]
    reading = open_trace([save(tmp_path / "t.jsonl", rows)])
    assert [(len(s.calls), s.calls[0].fresh_tokens) for s in reading] == [(1, 2000)] * 2
    assert reading.report.inferred == {"rows without hash_ids: they share nothing": 2}
    assert [double.session for double in reading.report.duplicates] == [], "they start at other times"


def test_what_is_counted_is_what_is_given(tmp_path: Path) -> None:
    """The report's figures come from columns; a wait out of bounds is a bad session and is not among them."""
    rows = [row(0, [0], 0), row(5, [0, 1], 3), row(6, [2], 4), turn("x", 5, 5) | {"timestamp": 1}]
    reading = open_trace([save(tmp_path / "a.jsonl", rows[:3])])
    sessions = list(reading)
    report = reading.report
    assert (report.sessions, report.calls, report.zero_outputs) == (2, 3, 1)
    assert report.prompt_tokens == sum(prompt.tokens for s in sessions for _, prompt in planned(s)) == 2048
    assert report.output_tokens == 7 and report.waits == {"human": (1, 5.0)}
    late = [turn("x", 600, 5, timestamp=0), turn("x", 5, 5, timestamp=2e12), turn("y", 7, 8, timestamp=3)]
    reading = open_trace([save(tmp_path / "b.jsonl", late)], skip_bad=True)
    assert [session.id for session in reading] == ["y"]
    assert (reading.report.sessions, reading.report.prompt_tokens, reading.report.waits) == (1, 7, {})
    assert "a wait is not a duration" in reading.report.skipped[0].why


_ids = st.lists(st.integers(0, 10**16 - 1) | st.integers(0, 9) | st.sampled_from((10**8 - 1, 10**8)), max_size=5)


@given(st.lists(st.tuples(_ids, st.sampled_from((",", ", ", " , ")))))
def test_numbers_are_read_as_json_reads_them(lists: list[tuple[list[int], str]]) -> None:
    texts = [f"[{between.join(map(str, ids))}]" for ids, between in lists]
    found = ids_of([msgspec.Raw(text.encode()) for text in texts])
    assert found is not None
    numbers, counts = found
    assert numbers.tolist() == [number for ids, _ in lists for number in ids]
    assert counts.tolist() == [len(ids) for ids, _ in lists]


@pytest.mark.parametrize("text", ["[-1]", "[1.0]", "[1e3]", "[[1]]", "7", "null", '["1"]', "{}", "[12345678901234567]"])
def test_what_is_no_list_of_short_numbers_is_left_to_the_decoder(text: str) -> None:
    assert ids_of([msgspec.Raw(text.encode()), msgspec.Raw(b"[1]")]) is None


# ------------------------------------------------------------------------------------------------ the real files

FIGURES = {  # rows, blocks, blocks an infinite cache hits: published as 36.6 % and 64.0 %
    "conversation_trace.jsonl": (12_031, 288_500, 105_710),
    "synthetic_trace.jsonl": (3_993, 121_877, 77_953),
}
real = pytest.mark.skipif(not REAL.is_dir(), reason="the Mooncake files of ../shared/data are not here")


def _rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (REAL / name).read_bytes().splitlines()]


def _paired(sessions: list[Session], rows: list[Row]) -> list[tuple[Prompt, Row]]:
    """Of every call its prompt and its row, by start and lengths (of equal ones the next)."""
    at: dict[tuple[float, int, int], list[Row]] = {}
    for each in rows:
        at.setdefault((each["timestamp"], each["input_length"], each["output_length"]), []).append(each)
    out = []
    for instance, session in enumerate(sessions):
        validate(session)
        for call, prompt in planned(session, instance):
            assert session.start_s is not None and call.recorded is not None and call.recorded.start_s is not None
            stamp = round((session.start_s + call.recorded.start_s) * 1000)
            out.append((prompt, at[stamp, prompt.tokens, call.output_tokens].pop(0)))
    assert not any(at.values()), "every row is a call"
    return out


@real
@pytest.mark.parametrize("name", FIGURES)
def test_the_real_hit_rate_of_an_infinite_cache(name: str) -> None:
    """Blocks that an earlier prompt has too, of all blocks, last ones that are not full included: 36.6 % and 64.0 %.

    From the ids (in these files an id stands for all before it, so a set of ids does) and from the sessions' prompts.
    """
    count, blocks, hit = FIGURES[name]
    rows = _rows(name)
    seen: set[int] = set()
    by_set = 0
    for each in rows:
        by_set += sum(block in seen for block in each["hash_ids"])
        seen.update(each["hash_ids"])
    assert (len(rows), sum(len(each["hash_ids"]) for each in rows), by_set) == (count, blocks, hit)
    sessions = list(open_trace([REAL / name]))
    assert hits([p for n, session in enumerate(sessions) for _, p in planned(session, n)], BLOCK) == hit


@real
def test_the_real_conversations() -> None:
    reading = open_trace([REAL / "conversation_trace.jsonl"])
    sessions = list(reading)
    report = reading.report
    assert reading.header.common_clock and reading.header.block_tokens == 512
    assert (report.calls, round(report.prompt_tokens / report.calls), round(report.output_tokens / report.calls)) == (
        12_031,
        12_035,
        343,
    )
    assert max(prompt.tokens for session in sessions for _, prompt in planned(session)) == 126_195
    assert (report.sessions, max(len(session.calls) for session in sessions)) == (8_295, 43)
    assert list(report.inferred.values()) == [3_736, 88, 113, 8_046]
    assert report.waits["human"][0] == 3_736
    turns = Counter(min(len(session.calls), 4) for session in sessions)
    assert turns == {1: 6_389, 2: 1_189, 3: 337, 4: 380}


@real
@pytest.mark.parametrize("name", FIGURES)
def test_real_prompts_share_what_their_hashes_say(name: str) -> None:
    """Of all pairs those with calls of several turns, spans and neighbours in time, and a sample of the rest."""
    rows = _rows(name)
    keys = [
        (prompt.key, each["hash_ids"][: each["input_length"] // BLOCK])
        for prompt, each in _paired(list(open_trace([REAL / name])), rows)
    ]
    random = Random(1)
    users: dict[int, list[int]] = {}
    for i, (key, ids) in enumerate(keys):
        some = [random.choice(users[block]) for block in ids[:: max(1, len(ids) // 4)] if block in users]
        for j in {random.randrange(len(keys)), max(0, i - 1), max(0, i - 2), *some}:
            assert common(key, keys[j][0]) // BLOCK == lcp(ids, keys[j][1]), (i, j)
        for block in ids:
            users.setdefault(block, []).append(i)


@real
def test_ids_of_any_kind_give_the_same_sessions(tmp_path: Path) -> None:
    """Ids that are hashes of 64 bits, or of the block alone, are laid row by row: nothing else may change."""
    rows = _rows("conversation_trace.jsonl")[:3000]
    expected = list(open_trace([save(tmp_path / "t.jsonl", rows)]))
    for each in rows:
        each["hash_ids"] = [block * 0x9E3779B97F4A7C15 % (1 << 64) for block in each["hash_ids"]]
    assert list(open_trace([save(tmp_path / "t.jsonl", rows)])) == expected
