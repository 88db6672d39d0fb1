"""The driver as stories in virtual time, with a backend whose every answer is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from workloom.clock import NS, VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import End, Options, Progress, _Drive, drive
from workloom.errors import BackendError
from workloom.metrics import frame
from workloom.metrics.calls import count
from workloom.plan import Closed, Limits, Open, Plan, Recipe, Replay, TraceRef, Waits, make
from workloom.records import CallRecord, ChunkRun, Outcome, SessionRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces import native

S = NS


class Scripted:
    """Answers after a given number of seconds (by call id, else 1); an exception is raised then instead."""

    def __init__(self, clock: VirtualClock, script: dict[str, float | BackendError]) -> None:
        self.clock, self.script = clock, script
        self.live = self.live_max = 0

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        sent = self.clock.now()
        what = self.script.get(request.name.partition("/")[2], 1.0)
        self.live += 1
        self.live_max = max(self.live, self.live_max)
        try:
            if isinstance(what, BackendError):
                await self.clock.sleep_until(sent + S // 2)
                raise what
            first = sent + round(what * S) // 2
            await self.clock.sleep_until(first)
            on_chunk(ChunkRun(first, 0, 0, 1, 1))
            await self.clock.sleep_until(sent + round(what * S))
        finally:
            self.live -= 1
        done = self.clock.now()
        on_chunk(ChunkRun(done, 0, 0, 1, 1))
        return Outcome(
            done_ns=done, sent_ns=sent, prompt_tokens=request.prompt.tokens, output_tokens=request.output_tokens
        )


class Log:
    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.sessions: list[SessionRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)

    def times(self) -> dict[str, tuple[float, float]]:
        """(due, done) by call id, seconds."""
        return {r.call: (r.due_ns / S, (r.done_ns or 0) / S) for r in self.calls}


def call(name: str, *after: Edge, tokens: int = 10, output: int = 2, inherit: Inherit | None = None) -> Call:
    return Call(name, output, after=after, fresh=(Part("user", tokens),), inherit=inherit)


def plan_of(tmp_path: Path, sessions: list[Session], recipe: Recipe, *, common_clock: bool = False) -> Plan:
    path = tmp_path / "trace.jsonl"
    native.write(path, Header(source="test", common_clock=common_clock), sessions)
    return make(Recipe(TraceRef((str(path),)), recipe.load, recipe.limits, recipe.waits, seed=recipe.seed))


def play(
    plan: Plan, script: dict[str, float | BackendError] | None = None, options: Options | None = None
) -> tuple[Log, End, Scripted, Progress]:
    log, progress = Log(), Progress()
    backends: list[Scripted] = []

    async def main(clock: VirtualClock) -> End:
        backends.append(Scripted(clock, script or {}))
        return await drive(plan, backends[0], clock, log, options, progress)

    return log, run_virtual(main), backends[0], progress


def diamond() -> Session:
    """a spawns b and c; d joins them, each edge with a wait of its own."""
    return Session(
        "diamond",
        (
            call("a"),
            call("b", Edge("a", 1.0, "spawn")),
            call("c", Edge("a", 2.0, "spawn")),
            call("d", Edge("a"), Edge("b", 5.0, "tool"), Edge("c", 0.5, "tool"), inherit=Inherit("a")),
        ),
    )


ONE = Recipe(TraceRef(()), Closed(1))


def test_a_call_is_due_at_the_latest_of_done_plus_wait_over_its_edges(tmp_path: Path) -> None:
    log, end, _, _ = play(plan_of(tmp_path, [diamond()], ONE), {"b": 3.0, "c": 10.0})
    assert log.times() == {"a": (0, 1), "b": (2, 5), "c": (3, 13), "d": (13.5, 14.5)}
    assert end.window_end_ns == 14.5 * S + 1, "half-open: what is due at the last instant counts"
    assert [s.status for s in log.sessions] == ["ok"]


def test_a_faster_server_moves_the_join_to_its_other_edge(tmp_path: Path) -> None:
    log, *_ = play(plan_of(tmp_path, [diamond()], ONE), {"b": 3.0, "c": 1.0})
    assert log.times()["d"] == (10, 11), "b is done at 5 and its own edge waits 5"


def test_a_failed_call_ends_its_dependants_with_the_cause_and_nobody_else(tmp_path: Path) -> None:
    broken = BackendError("status", "500: out of order", status=500)
    log, *_ = play(plan_of(tmp_path, [diamond()], ONE), {"b": broken})
    rows = {r.call: r for r in log.calls}
    assert {name: row.status for name, row in rows.items()} == {
        "a": "ok",
        "b": "error",
        "c": "ok",
        "d": "cancelled",
    }
    assert rows["d"].cause == "b"
    assert rows["d"].sent_ns is None
    assert rows["b"].error_kind == "status"
    assert log.sessions[0].status == "failed"


def test_a_time_out_is_a_row_with_the_chunks_that_came(tmp_path: Path) -> None:
    log, *_ = play(plan_of(tmp_path, [diamond()], ONE), {"a": 10.0}, Options(timeout_s=7))
    rows = {r.call: r for r in log.calls}
    assert rows["a"].status == "timeout"
    assert rows["a"].done_ns == 7 * S
    assert rows["a"].first_ns == 5 * S
    assert [rows[name].status for name in "bcd"] == ["cancelled"] * 3


def test_a_slot_is_held_until_the_whole_tree_has_drained(tmp_path: Path) -> None:
    tree = Session("tree", (call("a"), call("b", Edge("a")), call("orphan", Edge("a"))))
    log, _, _, _ = play(plan_of(tmp_path, [tree, replace_id(tree, "two")], ONE), {"orphan": 30.0})
    first, second = sorted(log.sessions, key=lambda s: s.start_ns)
    assert second.start_ns == first.end_ns == 31 * S


def replace_id(session: Session, name: str) -> Session:
    return Session(name, session.calls)


def test_so_many_sessions_at_once_and_never_more(tmp_path: Path) -> None:
    sessions = [Session(f"s{i}", (call("a"), call("b", Edge("a", 1.0)))) for i in range(10)]
    _, _, backend, progress = play(plan_of(tmp_path, sessions, Recipe(TraceRef(()), Closed(3))))
    assert backend.live_max == 3
    assert progress.sessions_done == 10


def test_waits_are_capped_and_what_was_skipped_is_counted(tmp_path: Path) -> None:
    session = Session("s", (call("a"), call("b", Edge("a", 500.0, "human"))))
    recipe = Recipe(TraceRef(()), Closed(1), waits=Waits(60.0))
    log, _, _, progress = play(plan_of(tmp_path, [session], recipe))
    assert log.times()["b"][0] == 61
    assert progress.skipped_wait_ns == 440 * S


def test_sessions_come_again_when_a_duration_outlasts_the_trace_but_their_text_does_not(tmp_path: Path) -> None:
    session = Session("s", (call("a"), call("b", Edge("a"), inherit=Inherit("a"))))
    recipe = Recipe(TraceRef(()), Closed(1), Limits(duration_s=9.0))
    log, end, _, _ = play(plan_of(tmp_path, [session], recipe))
    assert {r.instance for r in log.calls} == {0, 1, 2, 3, 4}
    assert [r.ideal_cached_tokens for r in log.calls if r.call == "a"] == [0] * 5, "a recycled session is a stranger"
    assert [r.ideal_cached_tokens for r in log.calls if r.call == "b" and r.status == "ok"] == [12] * 4
    assert end.reason == "duration"
    assert end.window_end_ns == 9 * S


def test_calls_due_in_the_window_are_waited_for_under_load_and_the_rest_is_censored(tmp_path: Path) -> None:
    sessions = [Session("slow", (call("slow"),)), Session("quick", tuple(chain(40)))]
    recipe = Recipe(TraceRef(()), Closed(2), Limits(duration_s=5.0))
    log, _, _, _ = play(plan_of(tmp_path, sessions, recipe), {"slow": 12.5})
    rows = {r.call: r for r in log.calls if r.instance in (0, 1)}
    assert rows["slow"].status == "ok", "due in the window, so it is waited for"
    late = [r for r in log.calls if r.due_ns >= 5 * S]
    assert late, "load goes on while it is waited for"
    assert [r.status for r in log.calls if r.status != "ok"] == ["censored"]


def chain(length: int) -> list[Call]:
    return [call(f"c{i}", *([Edge(f"c{i - 1}")] if i else [])) for i in range(length)]


def test_the_drain_has_an_end(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Closed(1), Limits(duration_s=5.0))
    log, _, _, _ = play(plan_of(tmp_path, [Session("s", (call("a"),))], recipe), {"a": 1e6}, Options(drain_s=3))
    assert [(r.status, r.done_ns) for r in log.calls] == [("censored", 8 * S)]
    assert log.sessions[0].status == "censored"


def test_a_limit_on_calls_is_exact(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Closed(3), Limits(calls=17))
    sessions = [Session(f"s{i}", tuple(chain(5))) for i in range(3)]
    log, end, _, _ = play(plan_of(tmp_path, sessions, recipe))
    assert len(log.calls) == 17
    assert end.reason == "calls"


def test_open_loops_start_sessions_when_they_are_due_whatever_the_server_does(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Open(2.0, "constant"), Limits(sessions=5))
    sessions = [Session(f"s{i}", (call("a"),)) for i in range(5)]
    log, *_ = play(plan_of(tmp_path, sessions, recipe), {"a": 100.0})
    assert [s.start_ns / S for s in log.sessions] == [0, 0.5, 1.0, 1.5, 2.0]


def test_replay_starts_sessions_as_recorded(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Replay(10.0), waits=Waits(None, 10.0))
    sessions = [
        Session("late", (call("a"), call("b", Edge("a", 20.0))), start_s=130.0),
        Session("early", (call("a"),), start_s=100.0),
    ]
    log, *_ = play(plan_of(tmp_path, sessions, recipe, common_clock=True))
    starts = {s.session: s.start_ns / S for s in log.sessions}
    assert starts == {"early": 0, "late": 3}
    assert log.times()["b"][0] == 6, "started at 3, done at 4, 20 s at ten times the speed"


def test_an_interrupted_run_leaves_a_row_for_every_call_in_flight(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [diamond(), replace_id(diamond(), "other")], Recipe(TraceRef(()), Closed(2)))
    log = Log()

    async def main(clock: VirtualClock) -> None:
        task = asyncio.create_task(drive(plan, Scripted(clock, {"a": 50.0}), clock, log))
        await clock.sleep_until(30 * S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main)
    assert [(r.call, r.status, r.done_ns) for r in log.calls] == [("a", "censored", 30 * S)] * 2
    assert {s.status for s in log.sessions} == {"censored"}


@pytest.mark.parametrize("load", [Closed(1), Open(1.0)])
def test_a_fault_of_our_own_is_not_swallowed(tmp_path: Path, load: Closed | Open) -> None:
    class Broken:
        async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
            raise ZeroDivisionError("a bug")

    plan = plan_of(tmp_path, [diamond()], Recipe(TraceRef(()), load, Limits(duration_s=1000.0)))

    async def main(clock: VirtualClock) -> None:
        await drive(plan, Broken(), clock, Log())

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_virtual(main)


def test_every_call_of_a_finished_run_has_exactly_one_row(tmp_path: Path) -> None:
    sessions = [replace_id(diamond(), f"d{i}") for i in range(6)]
    log, *_ = play(plan_of(tmp_path, sessions, Recipe(TraceRef(()), Closed(4))))
    rows = [(r.instance, r.call) for r in log.calls]
    assert len(rows) == len(set(rows)) == 24


def test_calls_that_run_out_after_the_window_do_not_stretch_it(tmp_path: Path) -> None:
    sessions = [Session("slow", (call("slow"),)), Session("quick", tuple(chain(60)))]
    recipe = Recipe(TraceRef(()), Closed(2), Limits(duration_s=2.0, calls=20))
    _, end, _, _ = play(plan_of(tmp_path, sessions, recipe), {"slow": 40.0})
    assert (end.window_end_ns, end.reason) == (2 * S, "duration"), "the drain is no part of the window"


def test_an_open_loop_out_of_calls_does_not_wait_for_the_next_arrival(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Open(0.001, "constant"), Limits(calls=3))
    _, end, _, _ = play(plan_of(tmp_path, [Session("s", (call("a"),))], recipe))
    assert end.window_end_ns == 2000 * S + 1, "when the last call began, the load was over"
    assert end.reason == "calls"


def test_what_is_due_when_the_window_ends_is_not_in_it(tmp_path: Path) -> None:
    recipe = Recipe(TraceRef(()), Open(1.0, "constant"), Limits(duration_s=3.0))
    log, end, _, _ = play(plan_of(tmp_path, [Session("s", (call("a"),))], recipe), {"a": 1.5})
    told = count(frame.calls(log.calls), frame.Window(0, end.window_end_ns))
    assert (told.due, told.ok, told.censored) == (3, 3, 0)


def test_an_endless_run_against_a_target_that_refuses_everything_ends_with_its_words(tmp_path: Path) -> None:
    class Wall:
        async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
            raise BackendError("refused", "no such luck")

    plan = plan_of(tmp_path, [diamond()], Recipe(TraceRef(()), Closed(2), Limits(duration_s=1e6)))
    log = Log()

    async def main(clock: VirtualClock) -> End:
        return await drive(plan, Wall(), clock, log)

    end = run_virtual(main)
    assert end.reason == "hopeless" and end.fault is not None and "no such luck" in end.fault
    assert 2000 <= sum(r.status == "error" for r in log.calls) <= 2002


def test_the_plan_s_own_counts_stand_beside_what_was_sent(tmp_path: Path) -> None:
    class Short(Scripted):
        async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
            outcome = await super().call(request, on_chunk)
            outcome.output_tokens = 1
            return outcome

    session = Session("s", (call("a", output=8), call("b", Edge("a"), tokens=5, inherit=Inherit("a"))))
    plan, log = plan_of(tmp_path, [session], ONE), Log()

    async def main(clock: VirtualClock) -> None:
        await drive(plan, Short(clock, {}), clock, log)

    run_virtual(main)
    assert [(r.planned_prompt_tokens, r.sent_prompt_tokens) for r in log.calls] == [(10, 10), (23, 16)]


def test_two_edges_from_one_call_are_both_kept(tmp_path: Path) -> None:
    session = Session("s", (call("a"), call("b", Edge("a", 1.0), Edge("a", 4.0))))
    log, *_ = play(plan_of(tmp_path, [session], ONE))
    assert log.times() == {"a": (0, 1), "b": (5, 6)}


def test_an_ancestor_s_answer_may_be_shorter_than_what_is_inherited(tmp_path: Path) -> None:
    class Short(Scripted):
        async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
            outcome = await super().call(request, on_chunk)
            outcome.output_tokens = 1
            return outcome

    session = Session("s", (call("a", output=8), call("b", Edge("a"), tokens=5, inherit=Inherit("a", 16))))
    plan, log = plan_of(tmp_path, [session], ONE), Log()

    async def main(clock: VirtualClock) -> None:
        await drive(plan, Short(clock, {}), clock, log)

    run_virtual(main)
    assert [r.sent_prompt_tokens for r in log.calls] == [10, 11 + 5]


def test_what_the_ideal_cache_knows_of_a_session_goes_with_it(tmp_path: Path) -> None:
    """Also of calls that begin anew behind a scaffold all sessions share."""
    scaffold = (Span("tools", 50, "trace"),)
    first = Call("a", 2, spans=scaffold, fresh=(Part("user", 9),))
    compacted = Call("b", 2, after=(Edge("a"),), inherit=Inherit("a", 50), fresh=(Part("summary", 9),))
    recipe = Recipe(TraceRef(()), Closed(2), Limits(sessions=300))
    plan = plan_of(tmp_path, [Session("s", (first, compacted))], recipe)
    drives: list[_Drive] = []

    async def main(clock: VirtualClock) -> None:
        drives.append(_Drive(plan, Scripted(clock, {}), clock, Log(), Options(), Progress()))
        await drives[0].run()

    run_virtual(main)
    nodes, left = 0, [drives[0].leads[""]._root]
    while left:
        node = left.pop()
        nodes += 1
        left.extend(node.branches.values())
    assert nodes == 2, "the root and the scaffold"
