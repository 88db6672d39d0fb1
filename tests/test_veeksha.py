"""Veeksha: sessions with branches and joins in and out, the published workloads, prompts checked against the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from strategies import sessions, workload

from workloom.errors import TraceError
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, children, prompt_tokens, ready
from workloom.traces import Report, open_trace, sniff
from workloom.traces.losses import losses
from workloom.traces.veeksha.write import write

REAL = Path("../shared/data/h100-vllm")
WEKA = Path("../shared/data/weka")
Row = dict[str, Any]


def row(
    node: int, parents: list[int] | None = None, past: int | None = None, wait: float = 0.0, **fields: object
) -> Row:
    """A call of session 0: 500 tokens of its own in, 300 out."""
    context = {"node_id": node, "parent_nodes": parents or [], "history_parent": past, "wait_after_ready": wait}
    fixed = {"session_id": 0, "new_input_length": 500, "output_length": 300, "session_context": context}
    return {**fixed, **fields}


def save(folder: Path, *rows: Row, name: str = "v.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


# ---------------------------------------------------------------------------------------------------------- reading


def test_a_fan_out_and_its_join(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        row(0, input_length=500),
        row(1, [0], 0, 1.5, input_length=1300),
        row(2, [0], None, input_length=500),
        row(3, [1, 2], 1, 0.25, input_length=2100, node_id=3),
    )
    reading = open_trace([path])
    (session,) = reading
    calls = session.calls
    assert session.id == "0" and session.origin == "veeksha:v.jsonl"
    assert [call.id for call in calls] == ["c0", "c1", "c2", "c3"]
    assert [edges(call) for call in calls] == [
        [],
        [("c0", 1.5, "tool")],
        [("c0", 0.0, "none")],
        [("c1", 0.25, "tool"), ("c2", 0.25, "tool")],
    ]
    assert ready(calls[3], {"c0": 1.0, "c1": 5.0, "c2": 9.0}) == 9.25, "after all parents"
    assert [call.inherit for call in calls] == [None, Inherit("c0"), None, Inherit("c1")]
    assert [call.fresh for call in calls] == [(Part("user", 500),)] + [(Part("tool", 500),)] * 3
    assert list(prompt_tokens(session).values()) == [500, 1300, 500, 2100]
    assert (reading.format, reading.header.source) == ("veeksha", "veeksha")
    assert reading.report.assumptions == ["waits are for tools (the format does not tell)"]
    assert (reading.report.inferred, reading.report.dropped) == ({}, {})


def test_rows_of_sessions_mixed_and_children_before_parents(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        row(7, [3], 3),
        row(0, session_id="b", new_input_length=0),
        row(3, wait=4.0),
        row(1, [0], 0, session_id="b"),
    )
    reading = open_trace([path])
    first, second = reading
    assert (first.id, second.id) == ("0", "b")
    assert [(call.id, edges(call)) for call in first.calls] == [("c0", []), ("c1", [("c0", 0.0, "none")])]
    assert list(prompt_tokens(first).values()) == [500, 1300]
    assert list(prompt_tokens(second).values()) == [0, 800]
    assert reading.report.inferred == {"sessions whose rows were put in order: parents first": 1}
    assert reading.report.dropped == {"waits before the first calls of a session": 1}


def test_older_rows_without_contexts_are_chains(tmp_path: Path) -> None:
    plain = {"session_id": 5, "new_input_length": 10, "output_length": 5}
    rows = [{**plain, "turn_idx": turn, "wait_after_previous_response_s": turn / 2} for turn in (2, 0, 1)]
    (session,) = open_trace([save(tmp_path, *rows)])
    assert [edges(call) for call in session.calls] == [[], [("c0", 0.5, "tool")], [("c1", 1.0, "tool")]]
    assert list(prompt_tokens(session).values()) == [10, 25, 40]
    (session,) = open_trace([save(tmp_path, plain, {**plain, "new_input_length": 20})])
    assert list(prompt_tokens(session).values()) == [10, 35], "in the order of the rows"


def test_equal_ids_in_two_files_are_two_sessions(tmp_path: Path) -> None:
    paths = [save(tmp_path, row(0), name=f"{name}.jsonl") for name in "ab"]
    assert [session.id for session in open_trace(paths)] == ["0", "0#2"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the published workloads of ../shared/data are not here")
def test_the_published_workloads() -> None:
    """Prompt tokens over all calls: history of history_parent + new_input_length.

    Both have 150 calls of 500 fresh tokens in and 300 out; prompts of 500 to 3,700; means 2,100 and 2,526.7.
    """
    prompts: dict[str, list[int]] = {}
    for name, count in (("workload_a_linear", 30), ("workload_b_dag", 10)):
        path = REAL / f"{name}.jsonl"
        reading = open_trace([path])
        sessions = list(reading)
        assert (reading.format, len(sessions)) == ("veeksha", count)
        prompts[name] = [tokens for session in sessions for tokens in prompt_tokens(session).values()]
        assert prompts[name] == [json.loads(line)["input_length"] for line in path.read_text().splitlines()]
        assert {(call.fresh_tokens, call.output_tokens) for s in sessions for call in s.calls} == {(500, 300)}
        assert (min(prompts[name]), max(prompts[name])) == (500, 3700)
        assert (len(reading.report.duplicates), reading.report.inferred, reading.report.dropped) == (count - 1, {}, {})
    assert sum(prompts["workload_a_linear"]) / 150 == 2100
    assert round(sum(prompts["workload_b_dag"]) / 150, 1) == 2526.7
    widest = max(len(each) for each in children(sessions[0]).values())
    assert (len(sessions[0].calls), widest, len(sessions[0].calls[14].after)) == (15, 4, 4)
    assert sessions[0].calls[14].inherit == Inherit("c13")


CONTEXT = "session_context"
BAD: dict[str, tuple[Row, str, str, str]] = {
    "another length": (row(1, [0], 0, input_length=1299), "input_length", "1300 (history 800", "1299"),
    "a length without history": (row(1, [0], None, input_length=1300), "input_length", "500 (history 0", "1300"),
    "a node twice": (row(0), "session_context.node_id", "unique", "0"),
    "two node ids": (row(1, [0], 0, node_id=2), "node_id", "1, as in session_context", "2"),
    "no such parent": (row(1, [9]), "session_context.parent_nodes", "node ids of the session", "9"),
    "a parent twice": (row(1, [0, 0]), "session_context.parent_nodes", "each parent once", "[0, 0]"),
    "its own parent": (row(1, [1]), "session_context.parent_nodes", "no call that waits for itself", "1"),
    "history of no parent": (row(1, [], 0), "session_context.history_parent", "null or one of []", "0"),
    "a negative wait": (row(1, [0], 0, -1.0), "session_context.wait_after_ready", "`float` >= 0.0", "-1.0"),
    "a wait of years": (row(1, [0], 0, 1e12), "session_context.wait_after_ready", "`float` <= ", "1000000000000.0"),
    "a negative count": (row(1, [0], 0, new_input_length=-1), "new_input_length", "`int` >= 0", "-1"),
    "a huge count": (row(1, [0], 0, output_length=10**18), "output_length", "`int` <= ", "1000000000000000000"),
    "no count": (row(1, [0], 0, output_length=None), "output_length", "`int`", "None"),
    "no context": (row(1, session_context=None), "session_context", "in every row, or in none", "none"),
    "no session": (row(1, session_id=None), "session_id", "`int | str`", "None"),
    "parents": (row(1, session_context={"node_id": 1, "parent_nodes": 0}), "parent_nodes", "`array | null`", "0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    bad, field, expected, found = BAD[name]
    path = save(tmp_path, row(0), bad, row(0, session_id=1))
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 2, " in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert [session.id for session in reading][-1] == "1"
    assert len(reading.report.skipped) == 1


def test_calls_in_a_circle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="in a circle") as caught:
        list(open_trace([save(tmp_path, row(0), row(1, [0, 3], 3), row(2, [1], 1), row(3, [2], 2))]))
    assert "line 2, session_context.parent_nodes" in str(caught.value.where)


def test_a_session_with_a_bad_line_is_left_out_whole(tmp_path: Path) -> None:
    path = save(tmp_path, row(0), row(1, [0], 0, output_length=-1), row(2, [1], 1), row(0, session_id=1))
    reading = open_trace([path], skip_bad=True)
    assert [session.id for session in reading] == ["1"]
    assert len(reading.report.skipped) == 1, "and no error for the call that needs it"
    assert reading.report.dropped == {"sessions with a bad line": 1}


def test_a_half_written_last_line_is_normal(tmp_path: Path) -> None:
    path = save(tmp_path, row(0), row(1, [0], 0))
    path.write_text(path.read_text()[:-30])
    reading = open_trace([path])
    assert [len(session.calls) for session in reading] == [1]
    assert reading.report.dropped == {"half-written last line": 1}


def test_other_rows_are_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"type": "user", "message": json.dumps(row(0))}) + "\n")
    assert sniff(path) != "veeksha"
    assert sniff(save(tmp_path, row(0))) == "veeksha"


# ---------------------------------------------------------------------------------------------------------- writing


def written(folder: Path, *given: Session) -> tuple[list[Session], Report]:
    """The sessions read back, and what the writer told."""
    report = Report()
    path = folder / "out.jsonl"
    assert write(path, Header(), given, report) == [], "it holds every session"
    return list(open_trace([path], format="veeksha")), report


def plain(session: Session, number: int) -> Session:
    """The session with what Veeksha has words for only, and full histories: this it must hold exactly."""
    calls = []
    for call in session.calls:
        after = tuple({edge.call: edge for edge in call.after}.values())
        wait_s = max((edge.wait_s for edge in after), default=0.0)
        past = call.inherit.call if call.inherit is not None else None
        fresh = call.span_tokens + call.fresh_tokens
        calls.append(
            Call(
                call.id,
                call.output_tokens,
                after=tuple(Edge(edge.call, wait_s, "tool" if wait_s else "none") for edge in after),
                inherit=Inherit(past) if past in {edge.call for edge in after} and past is not None else None,
                fresh=(Part("tool" if after else "user", fresh),) if fresh else (),
            )
        )
    return Session(str(number), tuple(calls), origin="veeksha:out.jsonl")


@settings(max_examples=60, deadline=None)
@given(workload())
def test_what_veeksha_has_words_for_survives(tmp_path_factory: pytest.TempPathFactory, given: list[Session]) -> None:
    before = [plain(session, number) for number, session in enumerate(given)]
    after, report = written(tmp_path_factory.mktemp("veeksha"), *before)
    assert after == before
    assert (report.dropped, report.inferred) == ({}, {})


@settings(max_examples=60, deadline=None)
@given(sessions(stop_after=True, recorded=True))
def test_sizes_of_any_session_survive_and_due_times_nearly(
    tmp_path_factory: pytest.TempPathFactory, session: Session
) -> None:
    (after,), report = written(tmp_path_factory.mktemp("veeksha"), session)
    assert list(prompt_tokens(after).values()) == list(prompt_tokens(session).values())
    assert [call.output_tokens for call in after.calls] == [call.answer_tokens for call in session.calls]
    ends = {call.id: call.recorded.end_s for call in session.calls if call.recorded}
    done = {name: end for name, end in ends.items() if end is not None}
    for call, copy in zip(session.calls, after.calls, strict=True):
        due, then = ready(call, done), ready(copy, done)
        assert due is not None and then == pytest.approx(due, abs=1e-5)
        if {edge.call for edge in call.after} != {edge.call for edge in copy.after}:
            assert {edge.call for edge in call.after} < {edge.call for edge in copy.after}
            assert any("they wait for it too" in told for told in report.inferred)


FIRST = Call("c0", 50, fresh=(Part("user", 100),))
SECOND = Call("c1", 40, (Edge("c0", 1.0, "tool"),), inherit=Inherit("c0"), fresh=(Part("tool", 10),))
MORE = "prompts that repeat most of an earlier prompt and answer: written as repeating all of it"
LESS = "prompts that repeat a part of an earlier prompt and answer: written as repeating less, the rest as new text"
NOTHING = "prompts that repeat a part of an earlier prompt and answer: written as new text"
TOO = "calls that go on from an earlier call than those they wait for: they wait for it too"
PARTS = {
    "all, said in tokens": (Inherit("c1", 200), 3, Inherit("c1"), 3, []),
    "the prompt without its answer": (Inherit("c1", 160), 3, Inherit("c0"), 13, [LESS, TOO]),
    "the prompt without its answer, but long": (Inherit("c1", 180), 30, Inherit("c1"), 10, [MORE]),
    "just the first prompt and answer": (Inherit("c1", 150), 3, Inherit("c0"), 3, [TOO]),
    "less than any": (Inherit("c1", 120), 3, None, 123, [NOTHING]),
    "nothing": (Inherit("c1", 0), 3, None, 3, []),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_history_becomes_the_nearest_whole_one(tmp_path: Path, name: str) -> None:
    inherit, fresh, expected, left, told = PARTS[name]
    third = Call("c2", 7, (Edge("c1", 1.0, "tool"),), inherit=inherit, fresh=(Part("tool", fresh),))
    (session,), report = written(tmp_path, Session("s", (FIRST, SECOND, third)))
    assert (session.calls[2].inherit, session.calls[2].fresh_tokens) == (expected, left)
    assert list(report.inferred) == told


def test_waits_that_differ_become_one(tmp_path: Path) -> None:
    def join(*ends: float | None) -> list[tuple[str, float, str]]:
        parents = [
            Call(f"c{i}", 5, fresh=(Part("user", 9),), recorded=Recorded(end_s=end)) for i, end in enumerate(ends)
        ]
        last = Call("c2", 5, (Edge("c0", 9.0, "tool"), Edge("c1", 1.0, "tool")), fresh=(Part("tool", 4),))
        (session,), report = written(tmp_path, Session("s", (*parents, last)))
        assert sum(report.inferred.values()) == 1
        return edges(session.calls[2])

    assert join(10.0, 12.5) == [("c0", 6.5, "tool"), ("c1", 6.5, "tool")], "due at 19 as recorded"
    assert join(10.0, 30.0) == [("c0", 1.0, "tool"), ("c1", 1.0, "tool")]
    assert join(10.0, None) == [("c0", 9.0, "tool"), ("c1", 9.0, "tool")], "never too early"


@pytest.mark.skipif(not WEKA.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")
def test_real_sessions_through_veeksha(tmp_path: Path) -> None:
    """Every prompt of the 52 WEKA sessions keeps its size (the `in` of all requests: 583,453,329 tokens).

    Where a prompt repeats a part of an earlier one, some of it is new text now: 18 % more new text in all.
    """
    given = list(open_trace(str(WEKA)))
    after, _ = written(tmp_path, *given)
    fresh, total = [0, 0], 0
    for one, other in zip(given, after, strict=True):
        prompts = list(prompt_tokens(one).values())
        assert list(prompt_tokens(other).values()) == prompts
        total += sum(prompts)
        for index, session in enumerate((one, other)):
            fresh[index] += sum(call.fresh_tokens for call in session.calls)
        joins = any(len(call.after) > 1 for call in one.calls)
        assert joins or "calls with other waits" not in set(losses(one, other)), "one wait for all parents of a call"
    assert round(100 * (fresh[1] / fresh[0] - 1)) == 18
    assert total == 583_453_329
