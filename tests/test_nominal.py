"""The nominal backend: every call takes its recorded time, and the order in which calls are sent is the plan's own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan_of
from strategies import workload

from workloom.clock import VirtualClock, run_virtual
from workloom.drive.driver import End, Options, drive
from workloom.drive.nominal import NominalBackend, call_order, watch
from workloom.model.facts import Pace
from workloom.model.paths import Access
from workloom.plan import Closed, Limits, Open, Plan
from workloom.prefix import common
from workloom.prompt import planned
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session

PACE = Pace(prefill_tokens_per_s=100.0, decode_tokens_per_s=10.0)


class Log:
    """What the driver records and what the observer is told, as one list of events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.accesses: list[Access] = []
        self.calls: list[CallRecord] = []

    def add(self, access: Access) -> None:
        self.events.append(("sent", f"{access.instance}/{access.call}"))
        self.accesses.append(access)

    def forget(self, instance: int) -> None:
        self.events.append(("over", str(instance)))

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        pass


def play(plan: Plan, pace: Pace = PACE) -> Log:
    log = Log()

    async def main(clock: VirtualClock) -> End:
        return await drive(plan, NominalBackend(clock, log, pace), clock, log, Options(timeout_s=None))

    run_virtual(main)
    return log


def recorded(call: str, seconds: float, after: tuple[Edge, ...] = ()) -> Call:
    return Call(call, 4, after, fresh=(Part("user", 50),), recorded=Recorded(7.0, end_s=7.0 + seconds))


def test_a_call_takes_its_recorded_time_whatever_its_size() -> None:
    session = Session("s", (recorded("a", 2.5), recorded("b", 0.25, (Edge("a", 1.0),))))
    first, then = call_order(plan_of([session], Closed(1)))
    assert (first.call, first.sent_ns, first.done_ns) == ("a", 0, 2_500_000_000)
    assert (then.call, then.sent_ns, then.done_ns) == ("b", 3_500_000_000, 3_750_000_000)


def test_without_one_it_takes_the_pace_and_inherited_tokens_cost_nothing() -> None:
    calls = (
        Call("a", 20, fresh=(Part("user", 100),)),
        Call("b", 5, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 50),)),
        Call("c", 50, (Edge("b"),), inherit=Inherit("b"), fresh=(Part("tool", 100),), stop_after=10),
        # These say nothing of how long they took: one did not end, one took no time.
        Call("d", 10, (Edge("c"),), fresh=(Part("user", 10),), recorded=Recorded(3.0)),
        Call("e", 10, (Edge("d"),), fresh=(Part("user", 10),), recorded=Recorded(3.0, end_s=3.0)),
    )
    order = call_order(plan_of([Session("s", calls)], Closed(1)), PACE)
    assert [(access.done_ns - access.sent_ns) / 1e9 for access in order] == [3.0, 1.0, 2.0, 1.1, 1.1]
    assert [access.answer_tokens for access in order] == [20, 5, 10, 10, 10]
    assert [(access.base, access.base_tokens) for access in order] == [
        (None, 0),
        (0, 120),
        (1, 175),
        (None, 0),
        (None, 0),
    ]


def test_records_are_complete() -> None:
    calls = (
        Call("a", 5, fresh=(Part("user", 100),)),
        Call("b", 9, (Edge("a"),), fresh=(Part("user", 100),), stop_after=1),
        Call("c", 5, (Edge("b"),), fresh=(Part("user", 100),), recorded=Recorded(0.0, end_s=0.5)),
    )
    a, b, c = play(plan_of([Session("s", calls)], Closed(1))).calls
    assert (a.status, a.sent_ns, a.first_ns, a.last_ns, a.done_ns) == ("ok", 0, 10**9, 1_500_000_000, 1_500_000_000)
    assert (a.prompt_tokens, a.output_tokens, a.finish) == (100, 5, "length")
    assert [run.at(i) for run in a.chunks for i in range(run.count)] == [10**9 + i * 125_000_000 for i in range(5)]
    assert (b.output_tokens, b.finish, b.first_ns, b.last_ns) == (1, "hangup", 2_500_000_000, 2_500_000_000)
    assert b.done_ns == 2_600_000_000
    assert c.sent_ns is not None and c.done_ns is not None and c.first_ns == c.last_ns == c.done_ns
    assert c.done_ns - c.sent_ns == 500_000_000, "the first token cannot come after the last"


def test_the_call_order_of_a_closed_loop_and_when_sessions_are_over() -> None:
    """Two slots, three sessions: the third begins when the first is over."""
    sessions = [Session(name, (recorded("a", 1.0), recorded("b", 1.0, (Edge("a", 0.5),)))) for name in "xyz"]
    plan = plan_of(sessions, Closed(2))
    watched = Log()
    watch(plan, watched, PACE)
    assert watched.events == [
        ("sent", "0/a"),
        ("sent", "1/a"),
        ("sent", "0/b"),
        ("sent", "1/b"),
        ("over", "0"),
        ("sent", "2/a"),
        ("over", "1"),
        ("sent", "2/b"),
        ("over", "2"),
    ]
    assert [access.sent_ns / 1e9 for access in watched.accesses] == [0.0, 0.0, 1.5, 1.5, 2.5, 4.0]
    assert watched.accesses == call_order(plan, PACE)


def test_a_plan_that_would_go_on_for_ever_ends_with_its_duration() -> None:
    session = Session("s", (recorded("a", 0.0),))
    order = call_order(plan_of([session], Closed(1), Limits(duration_s=60.0)))
    assert len(order) == 60 / (50 / 10_000 + 4 / 50) // 1 + 1, "a call that took no time would be sent without end"
    rate = call_order(plan_of([session], Open(2.0, "constant"), Limits(duration_s=60.0)))
    assert [access.sent_ns for access in rate[:3]] == [0, 500_000_000, 1_000_000_000]


@settings(max_examples=20, deadline=None)
@given(workload(max_tokens=60), st.integers(1, 3))
def test_every_call_comes_once_in_the_order_sent_with_the_prompt_the_plan_has(
    sessions: list[Session], concurrency: int
) -> None:
    plan = plan_of(sessions, Closed(concurrency))
    order = call_order(plan, PACE)
    assert [access.sent_ns for access in order] == sorted(access.sent_ns for access in order)
    prompts = {
        (k, call.id): (call, prompt.key)
        for k in range(len(sessions))
        for call, prompt in planned(plan.instance(k).session, k)
    }
    assert sorted((access.instance, access.call) for access in order) == sorted(prompts)
    done: dict[tuple[int, str], int] = {}
    for access in order:
        call, key = prompts[access.instance, access.call]
        assert (access.prompt, access.agent, access.model) == (key, call.agent, call.model)
        assert all(access.sent_ns >= done[access.instance, edge.call] for edge in call.after)
        done[access.instance, access.call] = access.done_ns
        if access.base is not None:
            base = order[access.base]
            whole = base.prompt.plus(base.answer, base.answer_tokens)
            assert call.inherit is not None and base.call == call.inherit.call
            assert common(whole, access.prompt) >= access.base_tokens
        else:
            assert call.inherit is None
    assert call_order(plan, PACE) == order
