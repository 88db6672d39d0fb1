"""The Mooncake writer: exact rows for hand-made sessions, blocks shared as prompts share them, the real files again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import workload

from workloom.prefix import common
from workloom.prompt import planned
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.traces import open_trace
from workloom.traces.block_ids import BlockIds
from workloom.traces.mooncake.write import write
from workloom.traces.reading import Report

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "mooncake"
NO_START = "sessions without a start begin at 0, all at once"
PLANNED = "timestamps from waits, as if calls without recorded ends took no time"
CLOCK = Header(common_clock=True)


def call(name: str, *after: Edge, tokens: int = 600, **fields: Any) -> Call:
    return Call(name, 7, after, fresh=(Part("user", tokens),), **fields)


def written(
    folder: Path, *given: Session, header: Header = CLOCK
) -> tuple[list[tuple[Any, int, int, list[int]]], Report, list[int]]:
    report = Report()
    out = write(folder / "rows.jsonl", header, given, report)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert all(list(row) == ["timestamp", "input_length", "output_length", "hash_ids"] for row in rows)
    return [tuple(row.values()) for row in rows], report, out


def lcp(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# -------------------------------------------------------------------------------------------------- exact rows


def test_prompts_are_whole_and_rows_come_by_time(tmp_path: Path) -> None:
    one = Session(
        "one",
        (
            call("a", recorded=Recorded(0.0, None, 2.0)),
            call("b", Edge("a", 3.0), inherit=Inherit("a"), tokens=517, recorded=Recorded(5.0625, None, 6.0)),
        ),
        start_s=10.0,
    )
    other = Session("other", (call("a", tokens=512, recorded=Recorded(0.5)),), start_s=12.0)
    rows, report, out = written(tmp_path, one, other)
    assert rows == [
        (10_000, 600, 7, [0, 1]),
        (12_500, 512, 7, [2]),
        (15_062.5, 600 + 7 + 517, 7, [0, 3, 4]),
    ]
    assert out == [] and report == Report()
    first = (tmp_path / "rows.jsonl").read_text().splitlines()[0]
    assert first == '{"timestamp": 10000, "input_length": 600, "output_length": 7, "hash_ids": [0, 1]}'


def test_texts_of_the_trace_have_equal_ids_in_all_sessions_and_others_never(tmp_path: Path) -> None:
    def session(name: str) -> Session:
        shared = (Span("system", 1100, "trace"), Span("own", 500))
        return Session(name, (call("a", spans=shared), call("b", Edge("a"), spans=shared, tokens=1)), start_s=0.0)

    rows, _, _ = written(tmp_path, session("s"), session("t"))
    assert [ids for *_, ids in rows] == [
        [0, 1, 2, 3, 4],  # 2,200 tokens; 1,600 are shared in the session, 1,100 in the trace
        [0, 1, 2, 5],
        [0, 1, 6, 7, 8],
        [0, 1, 6, 9],
    ]


def test_equal_prompts_share_their_last_block_too(tmp_path: Path) -> None:
    spans = (Span("all", 700, "trace"),)
    calls = tuple(Call(name, 1, spans=spans) for name in "ab")
    rows, _, _ = written(tmp_path, Session("s", calls, start_s=0.0), Session("t", calls[:1], start_s=1.0))
    assert [ids for *_, ids in rows] == [[0, 1]] * 3


def test_times_are_planned_where_the_trace_has_none(tmp_path: Path) -> None:
    calls = (call("a"), call("b", Edge("a", 1.5)), call("c", Edge("a", 9.0), Edge("b", 0.25)))
    rows, report, _ = written(tmp_path, Session("s", calls))
    assert [row[0] for row in rows] == [0, 1500, 9000]
    assert report.inferred == {PLANNED: 3} and report.assumptions == [NO_START]


def test_a_wall_clock_counts_from_the_first_call(tmp_path: Path) -> None:
    sessions = [Session(f"s{i}", (call("a"),), start_s=1_700_000_000.0 + i / 8) for i in (3, 1)]
    rows, report, _ = written(tmp_path, *sessions)
    assert [row[0] for row in rows] == [0, 250]
    assert report.assumptions == ["timestamps count from the first call"]


def test_clocks_of_their_own_are_taken_for_one(tmp_path: Path) -> None:
    _, report, _ = written(tmp_path, Session("s", (call("a"),), start_s=1.0), header=Header(block_tokens=16))
    assert report.assumptions == [
        "the starts of all sessions are on one clock",
        "what prompts share in blocks of 16 tokens is told in blocks of 512",
    ]


def test_what_does_not_fit_is_left_out_and_what_is_cut_is_counted(tmp_path: Path) -> None:
    long = Session("long", (call("a", tokens=(1 << 24) + 1),), start_s=0.0)
    aborted = Session("cut", (call("a", stop_after=3),), start_s=0.0)
    rows, report, out = written(tmp_path, long, aborted)
    assert [row[2] for row in rows] == [3] and out == [0]
    assert report.dropped == {"sessions left out: a prompt or answer of more than 16,777,216 tokens": 1}
    assert report.inferred["answers cut where their client hung up"] == 1


# ----------------------------------------------------------------------------------------------------- sharing


@settings(max_examples=40, deadline=None)
@given(workload(max_calls=8, max_tokens=60), st.sampled_from((1, 4, 16, 64)), st.booleans())
def test_ids_are_shared_as_far_as_prompts_are(sessions: list[Session], size: int, partial: bool) -> None:
    blocks = BlockIds(size, first=5, partial=partial)
    keys, ids = [], []
    for place, session in enumerate(sessions):
        prompts = planned(session, place)
        keys += [prompt.key for _, prompt in prompts]
        ids += blocks.session(prompts)
    for i, (key, mine) in enumerate(zip(keys, ids, strict=True)):
        assert len(mine) == (-(-key.tokens // size) if partial else key.tokens // size)
        assert all(5 <= number < blocks.next for number in mine)
        for other, theirs in zip(keys[:i], ids[:i], strict=True):
            tokens = common(key, other)
            same = len(mine) if partial and key.tokens == other.tokens == tokens else tokens // size
            assert lcp(mine, theirs) == same
            assert len(set(mine) & set(theirs)) == same, "an id stands for all before it too"


@settings(max_examples=40, deadline=None)
@given(workload(max_calls=5, max_tokens=2000))
def test_rows_share_blocks_across_sessions(tmp_path_factory: pytest.TempPathFactory, sessions: list[Session]) -> None:
    apart = [
        replace(s, calls=tuple(replace(c, output_tokens=100 * (n + 2) + i) for i, c in enumerate(s.calls)))
        for n, s in enumerate(sessions)
    ]
    rows, _, _ = written(tmp_path_factory.mktemp("mooncake"), *apart)
    keys = {c.output_tokens: p.key for n, s in enumerate(apart) for c, p in planned(s, n)}
    assert sorted(row[2] for row in rows) == sorted(keys)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    for i, (_, tokens, output, mine) in enumerate(rows):
        assert tokens == keys[output].tokens
        for _, _, other, theirs in rows[:i]:
            assert lcp(mine, theirs) * 512 <= common(keys[output], keys[other]) + 511
            assert lcp(mine, theirs) >= common(keys[output], keys[other]) // 512
    seen = -1
    for number in (number for row in rows for number in row[3]):
        assert number <= seen + 1, "ids count up in the order in which they come"
        seen = max(seen, number)


# ---------------------------------------------------------------------------------------------- the real files


@pytest.mark.parametrize(("name", "rows"), [("conversation", 12_031), ("synthetic", 3_993)])
@pytest.mark.skipif(not REAL.is_dir(), reason="the Mooncake files of ../shared/data are not here")
def test_the_real_files_come_back(tmp_path: Path, name: str, rows: int) -> None:
    """Read and written again: equal timestamps and lengths, and ids that are another name for the old ones.

    The synthetic file is equal to the byte. In the other, rows of one instant may stand in another order, that of
    their sessions, so ids are counted in another order too.
    """
    source = REAL / f"{name}_trace.jsonl"
    reading = open_trace([source])
    report = Report()
    assert write(tmp_path / "again.jsonl", reading.header, reading, report) == []
    assert report == Report()
    before, after = (path.read_text().splitlines() for path in (source, tmp_path / "again.jsonl"))
    assert len(before) == rows
    if name == "synthetic":
        assert after == before
    old, new = _by_size(before), _by_size(after)
    assert [key for key, _ in old] == [key for key, _ in new]
    there: dict[int, int] = {}
    for (_, ids), (_, numbers) in zip(old, new, strict=True):
        assert [there.setdefault(one, other) for one, other in zip(ids, numbers, strict=True)] == numbers
    assert len(set(there.values())) == len(there), "one to one"


def _by_size(lines: list[str]) -> list[tuple[tuple[float, int, int], list[int]]]:
    """Rows by time and sizes, which tell all of them apart that are not equal."""
    rows = [json.loads(line) for line in lines]
    found = [((row["timestamp"], row["input_length"], row["output_length"]), row["hash_ids"]) for row in rows]
    return sorted(found, key=lambda row: row[0])
