"""How a run begins and ends: warm-up, the measured window, caps on idle time, giving up, a hand on the brake."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from planned import plan_of
from test_driver import Log, S, Scripted

from workloom.clock import VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import Control, End, Options, Progress, Share, drive
from workloom.errors import BackendError, PlanError
from workloom.metrics import frame
from workloom.metrics.calls import count
from workloom.plan import Closed, Limits, Open, Plan, Start, Waits, Warmup
from workloom.records import CallRecord, ChunkRun, Outcome
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session, Span


def chain(length: int, wait_s: float = 10.0, name: str = "s") -> Session:
    """Calls of 1 s with a wait between them, as recorded: call i starts at i * (wait + 1)."""
    calls = []
    for i in range(length):
        start = i * (wait_s + 1)
        calls.append(
            Call(
                f"c{i}",
                4,
                after=(Edge(f"c{i - 1}", wait_s),) if i else (),
                fresh=(Part("user", 10),),
                inherit=Inherit(f"c{i - 1}") if i else None,
                recorded=Recorded(start_s=start, end_s=start + 1),
            )
        )
    return Session(name, tuple(calls))


def changed(plan: Plan, **fields: object) -> Plan:
    return Plan(replace(plan.recipe, **fields), plan.source)


class Asked(Scripted):
    """Keeps what it was asked for."""

    def __init__(self, clock: VirtualClock, script: dict[str, float | BackendError]) -> None:
        super().__init__(clock, script)
        self.requests: list[Request] = []

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        self.requests.append(request)
        return await super().call(request, on_chunk)


class Played:
    def __init__(self, plan: Plan, script: dict[str, float | BackendError] | None = None, **options: object) -> None:
        self.log, self.progress, self.control = Log(), Progress(), Control()
        self.at: dict[float, Callable[[], None]] = options.pop("at", {})  # type: ignore[assignment]
        share = options.pop("share", None)

        async def main(clock: VirtualClock) -> End:
            self.backend = Asked(clock, script or {})
            for seconds, act in self.at.items():
                clock.call_at(round(seconds * S), act, self)
            return await drive(
                plan,
                self.backend,
                clock,
                self.log,
                Options(**options),  # type: ignore[arg-type]
                self.progress,
                control=self.control,
                share=share,  # type: ignore[arg-type]
            )

        self.end = run_virtual(main)

    def rows(self, phase: str = "run") -> dict[str, CallRecord]:
        return {f"{r.instance}/{r.call}": r for r in self.log.calls if r.phase == phase}


# -- warm-up


def test_a_session_in_its_middle_is_prefilled_and_then_goes_on_after_the_rest_of_its_wait() -> None:
    """Half of 23 s is 11.5: c0 (0-1) is over, c1 (11-12) in flight counts as over, c2 is due at 22, 10.5 s later."""
    plan = changed(
        plan_of([chain(3)], Closed(1), Limits(sessions=1)), start=Start(0.5, 0.5), warmup=Warmup(pause_s=5.0)
    )
    played = Played(plan)
    warm, rows = played.rows("warmup"), played.rows()
    assert list(warm) == ["0/c1"] and list(rows) == ["0/c2"]
    assert (warm["0/c1"].due_ns, warm["0/c1"].done_ns) == (0, S)
    assert played.backend.requests[0].output_tokens == 1 and played.backend.requests[0].phase == "warmup"
    assert warm["0/c1"].sent_prompt_tokens == 10 + 4 + 10
    assert played.end.window_start_ns == 6 * S, "1 s of prefill and 5 s of quiet"
    assert rows["0/c2"].due_ns == 16.5 * S
    assert rows["0/c2"].sent_prompt_tokens == rows["0/c2"].planned_prompt_tokens == 38, "answers as long as recorded"
    assert rows["0/c2"].ideal_cached_tokens == 24, "the prefill holds the prompt, not the answer that never came"
    session = played.log.sessions[0]
    assert (session.calls, session.calls_before, session.calls_ok) == (1, 2, 1)


def test_one_token_calls_advance_the_session_without_waiting() -> None:
    plan = changed(plan_of([chain(6)], Closed(1), Limits(sessions=1)), warmup=Warmup(calls_per_slot=3))
    played = Played(plan)
    assert [(k, r.due_ns // S) for k, r in played.rows("warmup").items()] == [("0/c0", 0), ("0/c1", 1), ("0/c2", 2)]
    rows = played.rows()
    assert list(rows) == ["0/c3", "0/c4", "0/c5"]
    assert rows["0/c3"].due_ns == 3 * S + 10 * S, "its wait begins when the window does"
    assert rows["0/c3"].sent_prompt_tokens == 10 + 3 * 14


def test_a_warm_up_leaves_one_call_to_be_measured() -> None:
    plan = changed(plan_of([chain(2)], Closed(1), Limits(sessions=1)), warmup=Warmup(calls_per_slot=9))
    played = Played(plan)
    assert list(played.rows("warmup")) == ["0/c0"] and list(played.rows()) == ["0/c1"]


def test_only_the_first_session_of_a_slot_begins_in_its_middle() -> None:
    sessions = [chain(4, 1.0, f"s{i}") for i in range(5)]
    plan = changed(plan_of(sessions, Closed(2), Limits(sessions=5)), start=Start(0.4, 0.6))
    assert [i.start is None for i in plan.instances()] == [False, False, True, True, True]
    assert all(0.4 <= (i.start or 0.5) <= 0.6 for i in plan.instances())
    played = Played(plan)
    begun = {s.instance: s.calls_before for s in played.log.sessions}
    assert all(begun[k] > 0 for k in (0, 1)) and all(begun[k] == 0 for k in (2, 3, 4))


def test_warm_up_calls_belong_to_no_window_and_the_duration_begins_after_it() -> None:
    plan = plan_of([chain(40, 1.0)], Closed(2), Limits(duration_s=20.0))
    plan = changed(plan, start=Start(0.2, 0.8), warmup=Warmup(pause_s=3.0))
    played = Played(plan)
    assert played.end.window_start_ns == 4 * S
    assert played.end.window_end_ns == 24 * S
    window = frame.Window(played.end.window_start_ns, played.end.window_end_ns)
    due = [r for r in played.log.calls if window.holds(frame.calls([r]).due_ns).all()]
    assert due and all(r.phase == "run" for r in due)
    assert count(frame.calls(played.log.calls), window).due == len(due)


def test_a_slot_that_could_not_be_warmed_up_takes_the_next_session() -> None:
    sessions = [chain(3, 1.0, f"s{i}") for i in range(12)]
    plan = changed(plan_of(sessions, Closed(4), Limits(sessions=8)), warmup=Warmup(calls_per_slot=1, max_failed=1.0))
    played = Played(plan, {"c0": BackendError("http_status", "503", status=503)})
    assert [r.status for r in played.log.calls[:12] if r.call == "c0"] == ["error"] * 4
    assert [r.status for r in played.log.calls if r.phase == "warmup" and r.call != "c0"] == ["cancelled"] * 8
    assert {s.instance: s.status for s in played.log.sessions} == dict.fromkeys(range(8), "failed")


def test_too_many_failures_in_the_warm_up_end_the_run() -> None:
    plan = changed(plan_of([chain(3, 1.0)], Closed(4), Limits(sessions=8)), warmup=Warmup(calls_per_slot=1))
    played = Played(plan, {"c0": BackendError("http_status", "503", status=503)})
    assert played.end.reason == "hopeless"
    assert played.end.fault is not None and "warm-up of 4 of 4 slots failed" in played.end.fault
    assert played.end.window_start_ns == played.end.window_end_ns, "nothing was measured"
    assert not played.rows()


def test_a_warm_up_has_an_end() -> None:
    plan = changed(plan_of([chain(3)], Closed(1), Limits(sessions=1)), warmup=Warmup(calls_per_slot=1, max_s=7.0))
    played = Played(plan, {"c0": 1e6})
    assert played.end.reason == "hopeless"
    assert [(r.status, r.done_ns) for r in played.log.calls] == [("censored", 7 * S)]


def test_a_run_can_settle_under_load_before_it_is_measured() -> None:
    plan = plan_of([chain(3, 1.0, f"s{i}") for i in range(3)], Closed(1), Limits(duration_s=10.0))
    played = Played(changed(plan, warmup=Warmup(settle_s=6.0)))
    assert (played.end.window_start_ns, played.end.window_end_ns) == (6 * S, 16 * S)
    assert min(r.due_ns for r in played.log.calls) == 0


def test_only_closed_loops_have_slots_to_warm_up() -> None:
    from workloom.plan import make

    plan = plan_of([chain(2)], Open(1.0))
    with pytest.raises(PlanError, match="--start, --warmup-calls: only a closed loop"):
        make(replace(plan.recipe, start=Start(0.1, 0.2), warmup=Warmup(calls_per_slot=1)))


# -- the window


def test_a_finite_run_s_window_closes_when_the_first_free_slot_finds_nothing_left() -> None:
    """Four sessions of 3 s, 3 s, 3 s and 31 s on two slots; the last is alone from 6 s on."""

    def session(name: str) -> Session:
        first = Call(f"{name}-a", 4, fresh=(Part("user", 9),))
        return Session(name, (first, Call(f"{name}-b", 4, after=(Edge(first.id, 1.0),), fresh=(Part("user", 9),))))

    sessions = [session(f"s{i}") for i in range(4)]
    plan = plan_of(sessions, Closed(2))
    last = plan.instance(3).session.id
    played = Played(plan, {f"{last}-b": 29.0})
    assert played.end.window_end_ns == 6 * S + 1
    assert played.end.loaded_until_ns == 6 * S
    assert max(r.done_ns or 0 for r in played.log.calls) == 34 * S, "what was due in it is waited for"


def test_a_run_whose_slots_were_never_used_again_is_measured_whole() -> None:
    played = Played(plan_of([chain(2, 1.0, "a"), chain(5, 1.0, "b")], Closed(8)))
    assert played.end.window_end_ns == 9 * S + 1
    assert played.end.loaded_until_ns == 3 * S


# -- idle time


def test_an_idle_session_moves_up_and_says_by_how_much() -> None:
    plan = plan_of([chain(3, 100.0)], Closed(1))
    played = Played(changed(plan, waits=Waits(None, tree_idle_s=30.0)))
    assert [r.due_ns // S for r in played.log.calls] == [0, 31, 62]
    assert played.progress.skipped_tree_ns == 140 * S
    assert played.progress.skipped_wait_ns == 0


def fan(wait_x_s: float, wait_y_s: float) -> Session:
    def call(name: str, *after: Edge) -> Call:
        return Call(name, 4, after=after, fresh=(Part("user", 10),))

    return Session(
        "fan",
        (
            call("a"),
            call("x", Edge("a", wait_x_s)),
            call("y", Edge("a", wait_y_s)),
            call("z", Edge("x", 1.0), Edge("y", 1.0), Edge("a", 500.0)),
        ),
    )


def test_moving_up_keeps_the_gaps_between_timers_and_the_gates_of_joins() -> None:
    """x is due at 101 and y at 111; both move up by 70, and so does what z still waits for since a."""
    plan = changed(plan_of([fan(100.0, 110.0)], Closed(1)), waits=Waits(None, tree_idle_s=30.0))
    played = Played(plan)
    due = {r.call: r.due_ns / S for r in played.log.calls}
    assert (due["a"], due["x"], due["y"]) == (0, 31, 41)
    assert due["z"] == 42 + 30, "501 - 70 = 431, then idle after y: at most 30 s more"


def test_an_idle_system_moves_everything_up() -> None:
    plan = plan_of([chain(2, 100.0, "a"), chain(2, 130.0, "b")], Closed(2))
    played = Played(changed(plan, waits=Waits(None, system_idle_s=10.0)))
    due = sorted(r.due_ns // S for r in played.log.calls)
    assert due == [0, 0, 11, 22], "a's second call 10 s after both slept; b's, 30 later by its wait, 10 s after a's end"
    assert played.progress.skipped_system_ns == (90 + 19) * S


def test_a_busy_system_is_not_idle() -> None:
    plan = plan_of([chain(2, 100.0, "a"), chain(2, 130.0, "b")], Closed(2))
    played = Played(changed(plan, waits=Waits(None, system_idle_s=10.0)), {"c0": 1.0, "c1": 300.0})
    assert sorted(r.due_ns // S for r in played.log.calls) == [0, 0, 11, 41]


# -- giving up, and a hand on the brake


def test_a_run_that_fails_more_often_than_allowed_ends_and_keeps_what_it_has() -> None:
    sessions = [
        Session(f"s{i}", (Call("bad" if i % 4 == 0 else "good", 4, fresh=(Part("user", 9),)),)) for i in range(400)
    ]
    script: dict[str, float | BackendError] = {"bad": BackendError("truncated", "half an answer")}
    patient = Played(plan_of(sessions, Closed(1)), dict(script))
    assert patient.end.reason == "sessions" and len(patient.log.calls) == 400
    strict = Played(plan_of(sessions, Closed(1)), dict(script), max_failed=0.2)
    assert strict.end.reason == "hopeless" and 100 <= len(strict.log.calls) < 400
    assert strict.end.fault is not None and "half an answer" in strict.end.fault
    assert strict.end.window_end_ns == max(r.done_ns or 0 for r in strict.log.calls) + 1


def test_the_first_interrupt_lets_calls_in_flight_end_and_starts_no_more() -> None:
    plan = plan_of([chain(9, 1.0, "a"), chain(9, 1.0, "b")], Closed(2))
    played = Played(plan, {"c1": 5.0}, at={4.0: lambda self: self.control.drain()})
    assert played.end.reason == "interrupted"
    assert [(r.call, r.status) for r in played.log.calls] == [("c0", "ok"), ("c0", "ok"), ("c1", "ok"), ("c1", "ok")]
    assert played.end.window_end_ns == 4 * S + 1
    assert [s.status for s in played.log.sessions] == ["censored"] * 2


def test_the_second_interrupt_ends_the_run_at_once() -> None:
    plan = plan_of([chain(9, 1.0, "a"), chain(9, 1.0, "b")], Closed(2))
    acts = {4.0: lambda self: self.control.drain(), 5.0: lambda self: self.control.stop()}
    played = Played(plan, {"c1": 50.0}, at=acts)
    assert [r.status for r in played.log.calls] == ["ok", "ok", "censored", "censored"]
    assert all(r.done_ns == 5 * S for r in played.log.calls if r.status == "censored")


def test_an_interrupt_in_the_drain_says_so_and_the_window_is_whole() -> None:
    plan = plan_of([chain(9, 1.0, "a")], Closed(1), Limits(duration_s=4.0))
    played = Played(plan, {"c1": 5.0}, at={5.0: lambda self: self.control.drain()}, drain_s=60.0)
    assert played.end.reason == "interrupted", "whoever makes several runs has to stop"
    assert (played.end.window_end_ns, played.end.loaded_until_ns) == (4 * S, 4 * S)
    assert [(r.call, r.status) for r in played.log.calls] == [("c0", "ok"), ("c1", "ok")]


def test_an_interrupted_warm_up_ends_too() -> None:
    plan = changed(plan_of([chain(3)], Closed(2), Limits(sessions=2)), warmup=Warmup(calls_per_slot=1))
    played = Played(plan, {"c0": 50.0}, at={4.0: lambda self: self.control.stop()})
    assert [r.status for r in played.log.calls] == ["censored"] * 2


# -- several workers


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_together_make_the_calls_of_one(workers: int) -> None:
    sessions = [chain(2 + i % 3, 1.0, f"s{i}") for i in range(11)]
    plan = plan_of(sessions, Closed(4), Limits(sessions=23))
    alone = Played(plan)
    parts = [Played(plan, share=Share(w, workers)) for w in range(workers)]
    together = sorted((r.instance, r.call) for part in parts for r in part.log.calls)
    assert together == sorted((r.instance, r.call) for r in alone.log.calls)
    assert [plan.slots(w, workers) for w in range(workers)] == [len(range(w, 4, workers)) for w in range(workers)]


def test_arrivals_of_workers_are_those_of_one() -> None:
    plan = plan_of([chain(1, 1.0, f"s{i}") for i in range(5)], Open(3.0), Limits(sessions=17))
    alone = Played(plan)
    parts = [Played(plan, share=Share(w, 3)) for w in range(3)]
    due = sorted((r.instance, r.due_ns) for part in parts for r in part.log.calls)
    assert due == sorted((r.instance, r.due_ns) for r in alone.log.calls)


# -- what histories repeat, and what follows a failed call


def test_a_recorded_history_has_planned_lengths_and_its_answers_are_in_no_cache() -> None:
    class Short(Asked):
        async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
            outcome = await super().call(request, on_chunk)
            outcome.output_tokens, outcome.answer = 1, "x"
            return outcome

    plan, sent = plan_of([chain(3, 1.0)], Closed(1)), {}
    for history in ("live", "recorded"):
        log = Log()

        async def main(clock: VirtualClock, history: str = history, log: Log = log) -> None:
            await drive(plan, Short(clock, {}), clock, log, Options(history=history))  # type: ignore[arg-type]

        run_virtual(main)
        sent[history] = [(r.sent_prompt_tokens, r.ideal_cached_tokens) for r in log.calls]
    assert sent["live"] == [(10, 0), (21, 11), (32, 22)]
    assert sent["recorded"] == [(10, 0), (24, 10), (38, 24)]


def test_a_session_can_go_on_behind_a_failed_call_but_not_behind_one_that_is_too_long() -> None:
    script: dict[str, float | BackendError] = {"c1": BackendError("http_status", "500", status=500)}
    played = Played(plan_of([chain(4, 1.0)], Closed(1)), script, after_error="advance")
    assert [r.status for r in played.log.calls] == ["ok", "error", "ok", "ok"]
    assert played.log.calls[2].sent_prompt_tokens == 38, "as if an answer of 4 tokens had come"
    script = {"c1": BackendError("context_overflow", "too long", status=400)}
    played = Played(plan_of([chain(4, 1.0)], Closed(1)), script, after_error="advance")
    assert [r.status for r in played.log.calls] == ["ok", "error", "cancelled", "cancelled"]


def test_ideal_hits_are_kept_by_served_model() -> None:
    """b is another model's: it knows nothing of a's prompt, and c, a's again, knows that but not b's answer."""
    calls = (
        Call("a", 4, fresh=(Part("user", 10),)),
        Call("b", 4, after=(Edge("a"),), inherit=Inherit("a"), agent="other", fresh=(Part("user", 10),)),
        Call("c", 4, after=(Edge("b"),), inherit=Inherit("b"), fresh=(Part("user", 10),)),
        Call("d", 4, after=(Edge("c"),), inherit=Inherit("b"), agent="other", fresh=(Part("user", 10),)),
    )
    log = Log()

    async def main(clock: VirtualClock) -> None:
        plan = plan_of([Session("s", calls)], Closed(1))
        await drive(plan, Scripted(clock, {}), clock, log, served=lambda agent, model, instance: agent)

    run_virtual(main)
    outputs = {r.call: r.ideal_cached_tokens for r in log.calls}
    assert outputs == {"a": 0, "b": 0, "c": 10 + 4, "d": 24 + 4}


def test_the_edges_of_the_window_are_told_once_they_are_known() -> None:
    def edges(plan: Plan) -> list[tuple[int, int | None]]:
        told: list[tuple[int, int | None]] = []

        async def main(clock: VirtualClock) -> None:
            await drive(plan, Scripted(clock, {}), clock, Log(), opened=lambda start, end: told.append((start, end)))

        run_virtual(main)
        return told

    sessions = [chain(2, 1.0, f"s{i}") for i in range(4)]
    assert edges(plan_of(sessions, Closed(2))) == [(0, None), (0, 6 * S)]
    assert edges(plan_of(sessions, Closed(2), Limits(duration_s=5.0))) == [(0, 5 * S)]
    assert edges(plan_of(sessions, Open(1.0, "constant"), Limits(sessions=3))) == [(0, None), (0, 2 * S)]


def test_a_model_has_no_more_of_another_s_prompt_than_it_was_sent() -> None:
    """small is sent 300 tokens of the system prompt behind big, then all of it: 300 were there, in any session."""
    calls = (
        Call("m", 4, agent="big", spans=(Span("system", 1000, "trace"),), fresh=(Part("user", 10),)),
        Call("s", 4, after=(Edge("m"),), inherit=Inherit("m", 300), agent="small", fresh=(Part("user", 10),)),
        Call("t", 4, after=(Edge("s"),), spans=(Span("system", 1000, "trace"),), agent="small"),
    )
    log = Log()

    async def main(clock: VirtualClock) -> None:
        plan = plan_of([Session("s", calls)], Closed(1), Limits(sessions=2))
        await drive(plan, Scripted(clock, {}), clock, log, served=lambda agent, model, instance: agent)

    run_virtual(main)
    told = {(r.instance, r.call): r.ideal_cached_tokens for r in log.calls}
    assert told == {(0, "m"): 0, (0, "s"): 0, (0, "t"): 300, (1, "m"): 1000, (1, "s"): 300, (1, "t"): 1000}


def test_a_subagent_whose_prefill_fails_does_not_end_its_session() -> None:
    """Both contexts are needed: main's and sub's. That of sub is refused: it is cold, and goes on."""

    def at(start: float) -> Recorded:
        return Recorded(start_s=start, end_s=start + 1)

    calls = (
        Call("m", 4, fresh=(Part("user", 10),), recorded=at(0)),
        Call("x", 4, after=(Edge("m"),), agent="sub", fresh=(Part("user", 10),), recorded=at(1)),
        Call("y", 4, after=(Edge("x", 9.0),), agent="sub", inherit=Inherit("x"), recorded=at(11)),
        Call("n", 4, after=(Edge("y"),), inherit=Inherit("m"), fresh=(Part("report", 5),), recorded=at(12)),
    )
    plan = changed(plan_of([Session("s", calls)], Closed(1), Limits(sessions=1)), start=Start(0.5, 0.5))
    played = Played(plan, {"x": BackendError("http_status", "503", status=503)})
    assert {r.call: r.status for r in played.log.calls} == {"m": "ok", "x": "error", "y": "ok", "n": "ok"}
    assert played.end.reason == "sessions"


def test_an_interrupt_in_the_pause_ends_the_run_at_once_and_one_in_the_warm_up_after_its_calls() -> None:
    plan = changed(
        plan_of([chain(9, 1.0)], Closed(2), Limits(sessions=2)), warmup=Warmup(calls_per_slot=3, pause_s=100.0)
    )
    played = Played(plan, at={50.0: lambda self: self.control.drain()})
    assert played.end.reason == "interrupted" and len(played.log.calls) == 6
    assert max(s.end_ns for s in played.log.sessions) == 50 * S
    played = Played(plan, at={1.5: lambda self: self.control.drain()})
    assert [r.done_ns for r in played.log.calls] == [S, S, 2 * S, 2 * S], "no third call"
    assert max(s.end_ns for s in played.log.sessions) == 2 * S


def test_an_interrupt_bounds_what_a_limit_on_calls_left_in_flight() -> None:
    plan = plan_of([chain(9, 1.0)], Closed(1), Limits(calls=1))
    played = Played(plan, {"c0": 1000.0}, at={5.0: lambda self: self.control.drain()}, drain_s=10.0)
    assert [(r.status, r.done_ns) for r in played.log.calls] == [("censored", 15 * S)]
