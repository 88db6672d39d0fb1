"""The WEKA writer: exact files for hand-made sessions, what it leaves out, and sessions that come back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exported import shared, sizes, told_apart, waits
from hypothesis import given, settings
from msgspec.structs import replace
from strategies import sessions
from test_weka import files
from wekafiles import BLOCK, REAL, Row, document, marker, request, save

from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.traces import open_trace
from workloom.traces.reading import Report
from workloom.traces.weka.write import write


def call(name: str, *after: Edge, tokens: int = 8, agent: str = "main", **fields: Any) -> Call:
    return Call(name, 2, after, agent, "m", fresh=(Part("tool", tokens),), **fields)


def written(folder: Path, *given: Session, block: int | None = BLOCK) -> tuple[list[Row], Report, list[int]]:
    """The files that sessions become, the report, and who was left out."""
    report = Report()
    out = write(folder / "weka", Header(block_tokens=block), given, report)
    return [json.loads(path.read_bytes()) for path in sorted((folder / "weka").iterdir())], report, out


# ------------------------------------------------------------------------------------------------- exact files


def test_a_parent_and_a_subagent_as_they_stand_in_a_file(tmp_path: Path) -> None:
    begun = Recorded(0.0, 0.25, 2.0, streaming=True)
    first = Call(
        "a", 5, (), "main", "opus", None, (), (Part("definition", 6, "tools"), Part("user", 4)), recorded=begun
    )
    child = call("b", Edge("a", 1.5, "spawn"), agent="Explore:x", recorded=Recorded(3.5, None, 9.5))
    last = replace(
        call("c", Edge("a", 0.5, "tool"), Edge("b", 0.5, "tool"), tokens=3, inherit=Inherit("a")),
        recorded=Recorded(10.0, None, 12.5),
    )
    (row,), report, out = written(tmp_path, Session("s", (first, child, last)))
    assert out == [] and report == Report()
    assert row == {
        "id": "s",
        "models": ["opus", "m"],
        "block_size": 4,
        "hash_id_scope": "local",
        "tool_tokens": 6,
        "system_tokens": 0,
        "requests": [
            {"t": 0.0, "type": "s", "model": "opus", "in": 10, "out": 5, "hash_ids": [1, 2],
             "input_types": ["text"], "output_types": ["text", "tool_use"], "stop": "tool_use",
             "ttft": 0.25, "api_time": 2.0, "think_time": 0.0},
            {"t": 9.5, "type": "subagent", "agent_id": "x", "subagent_type": "Explore", "duration_ms": 6000,
             "total_tokens": 10, "tool_use_count": 0, "status": "completed", "tool_tokens": 0, "system_tokens": 0,
             "requests": [{"t": 0.0, "type": "n", "model": "m", "in": 8, "out": 2, "hash_ids": [3, 4],
                           "input_types": ["tool_result"], "output_types": ["text"], "stop": "end_turn",
                           "api_time": 6.0, "think_time": 0.0}],
             "models": ["m"]},
            {"t": 10.0, "type": "n", "model": "m", "in": 18, "out": 2, "hash_ids": [1, 2, 5, 6],
             "input_types": ["tool_result"], "output_types": ["text"], "stop": "end_turn",
             "api_time": 2.5, "think_time": 8.0},
        ],
        "totals": {"parent_tokens": {"input": 28, "output": 7}, "subagent_tokens": {"input": 8, "output": 2},
                   "combined_tokens": {"input": 36, "output": 9}, "subagent_count": 1},
    }  # fmt: skip


def test_names_sort_in_the_order_of_the_sessions(tmp_path: Path) -> None:
    rows, _, _ = written(tmp_path, *(Session(f"s{11 - i}", (call("a"),)) for i in range(12)))
    assert [row["id"] for row in rows] == [f"s{11 - i}" for i in range(12)]


def test_the_block_size_is_the_traces_own_or_64(tmp_path: Path) -> None:
    (row,), _, _ = written(tmp_path, Session("s", (call("a", tokens=130),)), block=None)
    assert (row["block_size"], row["requests"][0]["hash_ids"]) == (64, [1, 2])


def test_instants_are_planned_where_the_trace_has_none(tmp_path: Path) -> None:
    calls = (call("a"), call("b", Edge("a", 3.0, "human")), call("c", Edge("b", 4.5, "tool")))
    (row,), report, _ = written(tmp_path, Session("s", calls))
    assert [(r["t"], r["api_time"], r["think_time"]) for r in row["requests"]] == [(0, 0, 0), (3, 0, 3), (7.5, 0, 4.5)]
    assert [r["input_types"] for r in row["requests"]] == [["tool_result"], ["text"], ["tool_result"]]
    assert report.inferred == {"instants from waits, as if calls without recorded ends took no time": 3}


def test_an_unjoined_subagent_is_launched_asynchronously_or_comes_last(tmp_path: Path) -> None:
    calls = (
        call("a"),
        call("b", Edge("a", 1.0, "spawn"), agent="Explore:x"),
        call("c", Edge("a", 2.0, "tool")),
        call("d", Edge("c", 5.0, "human"), agent="Explore:y"),
    )
    (row,), _, _ = written(tmp_path, Session("s", calls))
    markers = [(r["status"], r["duration_ms"], r["t"]) for r in row["requests"] if r["type"] == "subagent"]
    assert markers == [("async_launched", None, 1.0), ("completed", 0, 7.0)]


# ---------------------------------------------------------------------------------------------- what does not fit

NESTED = "sessions left out: a subagent is launched by another subagent or by an earlier call than the last"
WAITS = "sessions left out: a call waits for others than the one before it and the subagents launched behind that"
UNFIT = {
    "a subagent of a subagent": (
        NESTED,
        [call("a"), call("b", Edge("a"), agent="x:1"), call("c", Edge("b"), agent="y:1")],
    ),
    "a subagent of an earlier call": (
        NESTED,
        [call("a"), call("b", Edge("a")), call("c", Edge("a"), agent="x:1")],
    ),
    "two calls behind one": (WAITS, [call("a"), call("b", Edge("a")), call("c", Edge("a"))]),
    "a late join": (
        WAITS,
        [call("a"), call("b", Edge("a"), agent="x:1"), call("c", Edge("a")), call("d", Edge("c"), Edge("b"))],
    ),
    "a join of a subagent in the middle of its work": (
        WAITS,
        [
            call("a"),
            call("b", Edge("a"), agent="x:1"),
            call("c", Edge("a"), Edge("b")),
            call("d", Edge("b"), agent="x:1"),
        ],
    ),
    "no model reads so much": (
        "sessions left out: a prompt or answer of more than 16,777,216 tokens",
        [call("a", tokens=(1 << 24) + 1)],
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_sessions_of_other_shapes_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    why, calls = UNFIT[name]
    good = Session("good", (call("a"),))
    rows, report, out = written(tmp_path, good, Session("bad", tuple(calls)), good)
    assert [row["id"] for row in rows] == ["good", "good"]
    assert out == [1] and report.dropped == {why: 1}


def test_what_is_changed_is_counted(tmp_path: Path) -> None:
    calls = (
        call("a", stop_after=1, spans=(Span("s", 4, "trace"),)),
        call("b", Edge("a", 1.0, "spawn"), agent="Explore:x", recorded=Recorded(0.5, None, 3.0)),
        call("c", Edge("a", 4.0, "none"), Edge("b", 2.0, "none"), recorded=Recorded(-1.0)),
    )
    (row,), report, _ = written(tmp_path, Session("s", calls))
    assert report.inferred == {
        "answers cut where their client hung up": 1,
        "instants from waits, as if calls without recorded ends took no time": 1,
        "instants before the start of the session, written as 0": 1,
        "waits of subagents that their instants do not bear out, written by the instants": 1,
        "waits that are neither for a tool nor for a human, written as what the prompt brings": 1,
        "joins whose edges wait differently, written as one wait behind the last": 1,
    }
    assert report.dropped == {"sessions whose shared text is that file's alone: hash ids are told apart by file": 1}
    assert row["requests"][0]["out"] == 1
    assert row["requests"][2]["think_time"] == 5.0, "due at 3 + 2, as b ended, while a ended at 0"


# ------------------------------------------------------------------------------------------------------ round trips


def back(folder: Path, header: Header, given: list[Session]) -> tuple[list[Session], list[int], Report]:
    report = Report()
    out = write(folder, header, given, report)
    return (list(open_trace([folder])) if len(out) < len(given) else []), out, report


@settings(max_examples=100, deadline=None)
@given(files().filter(lambda rows: any("requests" not in row for row in rows)))
def test_files_come_back_as_the_same_calls(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("weka")
    session = next(iter(open_trace([save(folder / "random.json", document(rows))])))
    ((again,), out, _) = back(folder / "written", Header(block_tokens=BLOCK), [session])
    assert out == []
    assert again.calls == session.calls


@settings(max_examples=80, deadline=None)
@given(sessions(max_calls=6, max_tokens=60, recorded=True))
def test_what_is_written_shares_what_was_shared(tmp_path_factory: pytest.TempPathFactory, session: Session) -> None:
    session = told_apart(session)
    again, out, report = back(tmp_path_factory.mktemp("weka") / "written", Header(block_tokens=16), [session])
    if out:
        assert report.dropped and not again
        return
    assert sizes(again[0]) == sizes(session)
    mine, theirs = shared(session, 16), shared(again[0], 16)
    assert {frozenset(pair): blocks for pair, blocks in mine.items()} == {
        frozenset(pair): blocks for pair, blocks in theirs.items()
    }
    if not any(sentence.startswith(("joins", "waits of the parent")) for sentence in report.inferred):
        assert waits(again[0]) == waits(session)
    stamps = {c.output_tokens: c.recorded for c in session.calls}
    for read in again[0].calls:
        then, now = stamps[read.output_tokens], read.recorded
        assert then is not None and now is not None and then.start_s is not None and then.end_s is not None
        assert (round(then.start_s, 6), round(then.end_s, 6), then.streaming) == (now.start_s, now.end_s, now.streaming)


@pytest.mark.skipif(not REAL.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")
def test_the_real_files_come_back_equal(tmp_path: Path) -> None:
    """All 4,652 calls of 52 files: tokens, edges, waits, agents, models, sharing, instants; no exception.

    39 of the files count their hash ids in the order in which they come; those are written with the same ids.
    """
    reading = open_trace(str(REAL))
    before = list(reading)
    report = Report()
    assert write(tmp_path / "weka", reading.header, before, report) == []
    assert report == Report(), "nothing is left out, changed or assumed"
    after = list(open_trace([tmp_path / "weka"]))
    assert len(after) == 52 and sum(len(session.calls) for session in after) == 4652
    assert [replace(session, origin=None) for session in after] == [replace(session, origin=None) for session in before]
    names = [sorted(folder.glob("*.json")) for folder in (REAL, tmp_path / "weka")]
    same = [_ids(one) == _ids(other) for one, other in zip(*names, strict=True)]
    assert sum(same) == 39


def _ids(path: Path) -> list[list[int]]:
    requests = json.loads(path.read_bytes())["requests"]
    return [row["hash_ids"] for entry in requests for row in entry.get("requests", [entry])]


def test_a_marker_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Ends that the trace does not tell stay untold."""
    rows = [request(0, [1]), request(9, [1, 2], api_time=None, think_time=8.0), request(10, [1, 2, 3], think_time=30.0)]
    rows.insert(1, marker(7.0, [request(0, [9]), request(3, [9, 8], api_time=None)], seconds=5.5))
    (before,) = open_trace([save(tmp_path / "t.json", document(rows))])
    ((after,), _, report) = back(tmp_path / "weka", Header(block_tokens=BLOCK), [before])
    assert after.calls == before.calls and report == Report()
    assert [c.recorded.end_s for c in after.calls if c.recorded] == [1.0, 2.5, None, None, 11.0]
