"""The TraceLab reader: rounds by session, waits from their events, subagents found by when they ran."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from samples import save
from samples.tracelab import files

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Session, prompt_tokens, ready, validate
from workloom.traces import Reading, open_trace

Row = dict[str, Any]


def stamp(at: float) -> str:
    return f"2026-06-01T05:{int(at) // 60:02d}:{at % 60:06.3f}Z"


def round_(
    session: str,
    index: int,
    prompt: int,
    output: int,
    came: list[tuple[float, str]],
    done: float | None,
    *tools: tuple[str, str, float, float],
    cached: int = 0,
    **fields: Any,
) -> Row:
    """A row: inputs (when, "user" or the id of a tool), the end, tools (id, name, when asked, when answered)."""
    events = [
        {"event_type": "user_message", "timestamp": stamp(at), "content_chars": 40}
        if what == "user"
        else {"event_type": "tool_result", "timestamp": stamp(at), "tool_call_id": what, "result_chars": 40}
        for at, what in came
    ]
    if done is not None:
        events.append({"event_type": "text", "timestamp": stamp(done), "content_chars": 4})
    called = [
        {"tool_call_id": id, "tool_name": name, "emitted_at": stamp(start), "result_at": stamp(end)}
        for id, name, start, end in tools
    ]
    return {
        "provider": "claude", "session_id": session, "round_index": index, "model": "m", "input_tokens_total": prompt,
        "prefix_tokens": cached, "newly_append_tokens": prompt - cached, "output_tokens": output,
        "reasoning_output_tokens": None, "timing_events": events, "tools": called, **fields,
    }  # fmt: skip


def load(folder: Path, *rows: Row, **options: Any) -> tuple[list[Session], Reading]:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = open_trace([path], **options)
    assert reading.format == "tracelab"
    sessions = list(reading)
    for session in sessions:
        check(session)
    return sessions, reading


def check(session: Session) -> None:
    """Valid, and every recorded start is when the waits make the call due."""
    validate(session)
    done: dict[str, float] = {}
    for call in session.calls:
        assert call.recorded is not None and call.recorded.end_s is not None
        assert ready(call, done) == pytest.approx(call.recorded.start_s, abs=2e-6), call.id
        done[call.id] = call.recorded.end_s


def after(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def test_rounds_are_calls_and_rows_may_interleave(tmp_path: Path) -> None:
    (one, two), _ = load(
        tmp_path,
        round_("a", 0, 1000, 20, [(0, "user")], 4, ("t", "Bash", 3, 6)),
        round_("b", 0, 500, 7, [(1, "user")], 2),
        round_("a", 1, 1030, 9, [(6, "t")], 9, cached=1000),
        round_("a", 2, 1049, 9, [(60, "user")], 62),
    )
    assert (one.id, two.id) == ("a", "b")
    assert list(prompt_tokens(one).values()) == [1000, 1030, 1049]
    assert [after(call) for call in one.calls] == [[], [("c0", 2.0, "tool")], [("c1", 51.0, "human")]]
    assert [(p.kind, p.tokens, p.name, p.seconds) for p in one.calls[1].fresh] == [("tool", 10, "Bash", 3.0)]
    assert [call.inherit for call in one.calls] == [None, Inherit("c0"), Inherit("c1")]
    assert [(part.kind, part.tokens) for part in one.calls[0].fresh] == [("definition", 990), ("user", 10)]
    assert one.calls[1].recorded and one.calls[1].recorded.cached_tokens == 1000
    assert two.start_s is not None and one.start_s is not None and two.start_s - one.start_s == 1.0


def test_parallel_tools_wait_for_the_slowest(tmp_path: Path) -> None:
    (one,), _ = load(
        tmp_path,
        round_("a", 0, 1000, 20, [(0, "user")], 4, ("t", "Bash", 3, 6), ("u", "Read", 4, 11)),
        round_("a", 1, 1060, 9, [(6, "t"), (11, "u")], 19),
    )
    assert after(one.calls[1]) == [("c0", 7.0, "tool")]
    assert [part.tokens for part in one.calls[1].fresh] == [20, 20]


def test_a_codex_session_leaves_out_reasoning_after_the_users_next_message(tmp_path: Path) -> None:
    codex = {"provider": "codex"}
    (one,), _ = load(
        tmp_path,
        round_("a", 0, 1000, 30, [(0, "user")], 4, reasoning_output_tokens=20, **codex),
        round_("a", 1, 1025, 9, [(60, "user")], 62, cached=896, **codex),
    )
    assert one.calls[0].reasoning_tokens == 20 and one.calls[0].output_tokens == 30
    assert one.calls[1].inherit == Inherit("c0", 1000)
    assert [(part.kind, part.tokens) for part in one.calls[1].fresh] == [("answer", 10), ("user", 15)]


def test_a_shorter_prompt_keeps_what_was_read_from_the_cache(tmp_path: Path) -> None:
    (one,), reading = load(
        tmp_path, round_("a", 0, 1000, 20, [(0, "user")], 4), round_("a", 1, 300, 9, [(60, "user")], 62, cached=100)
    )
    assert one.calls[1].inherit == Inherit("c0", 100)
    assert reading.report.inferred == {"prompts shorter than the one before, for no reason the trace tells": 1}


def _parent(tool: str = "Task", end: float = 40) -> list[Row]:
    return [
        round_("p", 0, 1000, 20, [(0, "user")], 4, ("t", tool, 4, end)),
        round_("p", 1, 1100, 9, [(end, "t")], end + 5),
    ]


def _child(name: str = "k", start: float = 5, end: float = 35, **fields: Any) -> list[Row]:
    return [
        round_(name, 0, 600, 10, [(start, "user")], start + 3, ("v" + name, "Bash", start + 3, start + 5), **fields),
        round_(name, 1, 650, 9, [(start + 5, "v" + name)], end, **fields),
    ]


def test_a_subagent_is_found_by_when_it_ran(tmp_path: Path) -> None:
    (session,), reading = load(tmp_path, *_child(), *_parent())
    calls = {call.id: call for call in session.calls}
    assert session.id == "p" and list(calls) == ["c0", "a1.0", "a1.1", "c1"]
    assert calls["a1.0"].agent == "subagent:1" and calls["a1.0"].inherit is None
    assert after(calls["a1.0"]) == [("c0", 1.0, "spawn")]
    assert after(calls["c1"]) == [("c0", 5.0, "tool"), ("a1.1", 5.0, "orchestration")], "what is left behind its end"
    assert [(part.kind, part.from_call, part.seconds) for part in calls["c1"].fresh] == [("report", "a1.1", None)]
    assert reading.report.inferred["subagents recognised by when they ran"] == 1


def test_reports_of_subagents_side_by_side_are_each_ones_own(tmp_path: Path) -> None:
    parent = [
        round_("p", 0, 1000, 20, [(0, "user")], 4, ("t", "Task", 4, 40), ("u", "Task", 4, 50)),
        round_("p", 1, 1100, 9, [(40, "t"), (50, "u")], 55),
    ]
    (session,), _ = load(tmp_path, *parent, *_child("k", 5, 35), *_child("l", 6, 45))
    calls = {call.id: call for call in session.calls}
    assert [(part.kind, part.from_call) for part in calls["c1"].fresh] == [("report", "a1.1"), ("report", "a2.1")]


def test_a_subagents_subagent(tmp_path: Path) -> None:
    child = [
        round_("k", 0, 600, 10, [(5, "user")], 6, ("w", "Agent", 6, 30)),
        round_("k", 1, 650, 9, [(30, "w")], 35),
    ]
    (session,), _ = load(tmp_path, *_parent(), *child, *_child("g", 7, 28))
    agents = {call.id: call.agent for call in session.calls}
    assert list(agents) == ["c0", "a1.0", "a2.0", "a2.1", "a1.1", "c1"]
    assert set(agents.values()) == {"main", "subagent:1", "subagent:2"}


@pytest.mark.parametrize(
    "rows",
    [
        [*_parent(), *_child(end=41)],
        [*_parent("Bash"), *_child()],
        [*_parent(end=13.9), *_child(start=5, end=13)],
        [*_parent(), *_child(user="another")],
        [*_parent(), *_child(project="another")],
    ],
    ids=["ends later", "no agent's tool", "the call is under 10 s", "another user", "another project"],
)
def test_what_is_no_subagent(tmp_path: Path, rows: list[Row]) -> None:
    sessions, _ = load(tmp_path, *rows)
    assert sorted(session.id for session in sessions) == ["k", "p"]


def test_of_several_calls_the_shortest_ran_it(tmp_path: Path) -> None:
    other = [
        round_("q", 0, 1000, 20, [(0, "user")], 3, ("z", "Agent", 3, 90)),
        round_("q", 1, 1100, 9, [(90, "z")], 95),
    ]
    sessions, reading = load(tmp_path, *other, *_parent(), *_child())
    assert {session.id: len(session.calls) for session in sessions} == {"q": 2, "p": 4}
    assert reading.report.inferred["subagents that lie in several tool calls, given to the shortest"] == 1


def test_sessions_in_a_circle_are_all_read(tmp_path: Path) -> None:
    def both(name: str) -> Row:
        return round_(name, 0, 100, 5, [], None, ("t" + name, "Agent", 0, 20))

    sessions, _ = load(tmp_path, both("a"), both("b"))
    assert sum(len(session.calls) for session in sessions) == 2


def test_rows_that_repeat_and_rows_without_times(tmp_path: Path) -> None:
    first = round_("a", 0, 1000, 20, [(0, "user")], 4, trace_key="x")
    sessions, reading = load(tmp_path, first, first, round_("a", 1, 1030, 9, [], None), round_("b", 0, 10, 1, [], None))
    assert [len(session.calls) for session in sessions] == [2, 1]
    assert after(sessions[0].calls[1]) == [("c0", 0.0, "orchestration")]
    assert sessions[1].start_s is None
    assert reading.report.dropped == {"rows that repeat an earlier one (equal trace_key)": 1}
    assert reading.report.inferred["rows without the instant of an input, sent when they first answered"] == 2


def test_the_sample_also_compressed(tmp_path: Path) -> None:
    made = files(lambda field: f"T {field}", lambda field: f"N-{field}")
    packed = {name + ".gz": gzip.compress(content) for name, content in made.items()}
    plain = list(open_trace(str(save(tmp_path / "plain", made))))
    assert [session.calls for session in plain] == [
        session.calls for session in open_trace(str(save(tmp_path / "packed", packed)))
    ]
    for session in plain:
        check(session)
    assert [(session.id, len(session.calls), session.user) for session in plain] == [
        ("T claude 1", 4, "T user"), ("T codex 1", 2, "T user"),
    ]  # fmt: skip


BAD = {
    "no JSON": (b"{", "line 2", "JSON", ""),
    "no session": (b'{"round_index": 0}', "line 2, session_id", "required", "only round_index"),
    "negative": (json.dumps(round_("a", 0, -5, 1, [], None)).encode(), "input_tokens_total", ">= 0", "-5"),
    "an event without a zone": (
        json.dumps(round_("a", 0, 5, 1, [(0, "user")], 1)).replace("00.000Z", "00.000").encode(),
        "timing_events[0].timestamp", "timezone", "2026",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    line, field, expected, found = BAD[name]
    path = tmp_path / "t.jsonl"
    good = json.dumps(round_("a", 0, 1000, 20, [(0, "user")], 4)).encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good[:30])
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and str(path) in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert [len(session.calls) for session in reading] == [1]
    assert len(reading.report.skipped) == 1 and reading.report.dropped == {"half-written last line": 1}
