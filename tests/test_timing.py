"""Where session time goes and the critical path: by hand, against every path of the DAG, and on real traces."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import sessions

from workloom.model.critical import critical_path, legs
from workloom.model.facts import Pace, SessionFacts, facts
from workloom.model.timing import Timing, TimingSection, spent, task_seconds
from workloom.session import Call, Edge, Part, Recorded, Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real traces in ../shared/data are absent")


def of(session: Session, pace: Pace | None = None) -> SessionFacts:
    return next(facts([session], pace))


def timing(rows: Iterable[SessionFacts]) -> Timing:
    section = TimingSection()
    for row in rows:
        section.add(row)
    return section.result()


def on(timing: Timing) -> dict[str, float]:
    """Seconds on the critical path of the kinds that there are."""
    return {spent.kind: spent.on_s for spent in timing.spent if spent.on_s}


def off(timing: Timing) -> dict[str, float]:
    return {spent.kind: spent.off_s for spent in timing.spent if spent.off_s}


def call(name: str, start_s: float, end_s: float, *after: Edge, agent: str = "main", **more: object) -> Call:
    recorded = Recorded(start_s, more.pop("first_s", None), end_s)  # type: ignore[arg-type]
    return Call(name, 1, after, agent=agent, recorded=recorded, **more)  # type: ignore[arg-type]


def test_a_chain_spends_every_second_once() -> None:
    tools = (Part("tool", 5, seconds=2.0), Part("tool", 5, seconds=1.0))
    told = timing(
        [
            of(
                Session(
                    "s",
                    (
                        call("a", 0, 10, first_s=4.0),
                        call("b", 13, 20, Edge("a", 3.0, "tool"), fresh=tools, first_s=14.0),
                        call("c", 51, 55, Edge("b", 30.0, "human")),
                        call("d", 60, 61, Edge("c", 5.0)),
                    ),
                )
            )
        ]
    )
    assert on(told) == {"inference": 22, "tool": 2, "orchestration": 1, "human": 30, "unnamed": 5, "idle": 1}
    assert off(told) == {}
    assert (told.total_s, told.calls, told.path_calls, told.timed_share, told.parallelism) == (61, 4, 4, 1.0, 1.0)
    assert (told.split, told.prefill_on_s, told.decode_on_s, told.prefill_off_s) == (2, 5, 12, 0)
    shares = {s.kind: (s.share, s.share_without_human) for s in told.spent}
    assert shares["human"] == (30 / 61, None)
    assert shares["inference"] == (22 / 61, 22 / 31)
    assert (told.tasks, told.task_s.max, told.task_s.mean) == (2, 20, 15)


def test_tools_that_do_not_all_say_how_long_they_ran_fill_their_wait() -> None:
    def waits(*tools: Part) -> dict[str, float]:
        second = call("b", 5, 6, Edge("a", 4.0, "tool"), fresh=tools)
        return {kind: seconds for kind, seconds in legs(of(Session("s", (call("a", 0, 1), second))))[1].waits()}

    assert waits() == {"tool": 4}
    assert waits(Part("tool", 1, seconds=1.0), Part("tool", 1)) == {"tool": 4}
    assert waits(Part("tool", 1, seconds=1.0), Part("user", 1)) == {"tool": 1, "orchestration": 3}
    assert waits(Part("tool", 1, seconds=9.0)) == {"tool": 4, "orchestration": 0}


def fan_out() -> Session:
    """main spawns two agents and goes on when both are back; the second is the slower."""
    return Session(
        "s",
        (
            call("main/1", 0, 2),
            call("x/1", 3, 7, Edge("main/1", 1.0, "spawn"), agent="x"),
            call("y/1", 3, 9, Edge("main/1", 1.0, "spawn"), agent="y"),
            call("y/2", 11, 12, Edge("y/1", 2.0, "tool"), agent="y"),
            call("main/2", 12.5, 20, Edge("x/1", 0.5, "spawn"), Edge("y/2", 0.5, "orchestration")),
        ),
    )


def test_a_join_waits_for_its_slowest_agent() -> None:
    row = of(fan_out())
    path = critical_path(row, legs(row))
    assert [leg.call.call.id for leg in path] == ["main/1", "y/1", "y/2", "main/2"]
    told = timing([row])
    assert on(told) == {"inference": 2 + 6 + 1 + 7.5, "spawn": 1, "tool": 2, "orchestration": 0.5}
    assert off(told) == {"inference": 4}, "both agents were spawned at once: one wait"
    assert told.parallelism == 20.5 / 16.5
    assert (told.path_calls, told.tasks, told.task_s.max) == (4, 1, 20)


def test_what_overlaps_is_cut_from_the_wait_and_then_from_the_parent() -> None:
    row = of(
        Session(
            "s",
            (
                call("a", 0, 10),
                call("b", 12, 20, Edge("a", 5.0, "tool")),
                call("c", 17, 30, Edge("b", 1.0, "tool")),
            ),
        )
    )
    path = critical_path(row, legs(row))
    assert [(leg.wait_s, leg.idle_s, leg.inference_s) for leg in path] == [(0, 0, 10), (2, 0, 5), (0, 0, 13)]
    told = timing([row])
    assert on(told) == {"inference": 28, "tool": 2}
    assert off(told) == {"inference": 3}


def test_a_call_that_nothing_binds_was_idle_until_it_started() -> None:
    told = timing([of(Session("s", (call("a", 0, 1), call("b", 5, 9))))])
    assert on(told) == {"inference": 4, "idle": 5}
    assert off(told) == {"inference": 1}


def test_one_wait_before_two_calls_is_one_wait() -> None:
    session = Session(
        "s",
        (
            call("a", 0, 1),
            call("b", 101, 103, Edge("a", 100.0, "human"), agent="b"),
            call("c", 101, 110, Edge("a", 100.0, "human"), agent="c"),
            call("d", 51, 60, Edge("a", 50.0, "tool"), agent="d"),
        ),
    )
    told = timing([of(session)])
    assert on(told) == {"inference": 10, "human": 100}
    assert off(told) == {"inference": 11, "tool": 50}


def test_instants_that_the_trace_does_not_tell_are_the_paces() -> None:
    told_of = Call("a", 10, fresh=(Part("user", 40),), recorded=Recorded(0.0, end_s=3.0))
    assumed = Call("b", 10, (Edge("a", 2.0, "tool"),), fresh=(Part("tool", 100),))
    row = of(Session("s", (told_of, assumed)), Pace(prefill_tokens_per_s=100, decode_tokens_per_s=5))
    told = timing([row])
    assert on(told) == {"inference": 3 + 1 + 2, "tool": 2}
    assert (told.timed, told.calls, told.timed_share, told.split) == (1, 2, 0.5, 0)


def test_sessions_are_added_up_and_shares_are_theirs() -> None:
    short = Session("s", (call("a", 0, 1), call("b", 2, 3, Edge("a", 1.0, "tool"))))
    long = Session("t", (call("a", 0, 90), call("b", 100, 101, Edge("a", 10.0, "tool"))))
    told = timing(facts([short, long]))
    assert told.makespan_s.max == 101 and told.total_s == 104
    inference, tool = (s for s in told.spent if s.on_s)
    assert (inference.kind, inference.share, tool.share) == ("inference", 93 / 104, 11 / 104)
    assert inference.per_session.n == 2
    assert inference.per_session.mean == pytest.approx((2 / 3 + 91 / 101) / 2)


def test_no_sessions() -> None:
    told = timing([])
    assert (told.calls, told.timed_share, told.parallelism, told.makespan_s.n) == (0, None, None, 0)
    assert {s.share for s in told.spent} == {None}


# ------------------------------------------------------------------------------------------------- any session

eighths = st.integers(0, 800).map(lambda n: n / 8)  # exact in binary, so sums are too


@st.composite
def any_instants(draw: st.DrawFn) -> SessionFacts:
    """A session whose calls start and end at any time, before and after the calls they wait for."""
    session = draw(sessions(max_calls=10))
    calls = []
    for call in session.calls:
        start_s = draw(eighths)
        stamps = Recorded(start_s, start_s + draw(eighths), start_s + draw(eighths))
        after = tuple(replace(edge, wait_s=draw(eighths)) for edge in call.after)
        fresh = tuple(replace(part, seconds=draw(st.none() | eighths)) for part in call.fresh)
        calls.append(replace(call, recorded=stamps, after=after, fresh=fresh))
    return of(replace(session, calls=tuple(calls)))


@settings(max_examples=40, deadline=None)
@given(any_instants())
def test_seconds_on_the_path_add_up_to_the_makespan_exactly(row: SessionFacts) -> None:
    every = legs(row)
    path = critical_path(row, every)
    places = {c.call.id: c.place for c in row.calls}
    assert sum(spent(path).values()) == row.makespan_s
    assert all(min(leg.wait_s, leg.idle_s, leg.inference_s) >= 0 for leg in (*path, *every))
    assert path[0].parent is None and path[-1].call.end_s == max(c.end_s for c in row.calls)
    for before, leg in pairwise(path):
        due = {edge.call: row.calls[places[edge.call]].end_s + edge.wait_s for edge in leg.call.call.after}
        assert leg.parent == before.call.place
        assert due[before.call.call.id] == max(due.values())


@settings(max_examples=40, deadline=None)
@given(any_instants())
def test_on_and_off_the_path_are_all_there_is(row: SessionFacts) -> None:
    told = timing([row])
    inference = next(s for s in told.spent if s.kind == "inference")
    assert inference.on_s + inference.off_s == sum(c.seconds for c in row.calls)
    assert min(s.off_s for s in told.spent) >= 0
    split = told.prefill_on_s + told.decode_on_s
    assert split <= inference.on_s and told.prefill_off_s + told.decode_off_s <= inference.off_s
    assert task_seconds(row) == [
        max(c.end_s for c in row.calls if c.task == task) - min(c.start_s for c in row.calls if c.task == task)
        for task in range(row.tasks)
    ]


@settings(max_examples=25, deadline=None)
@given(sessions(max_calls=8))
def test_the_path_is_the_longest_of_all_paths(session: Session) -> None:
    """Where nothing is recorded, a session takes as long as the longest chain of calls and waits."""
    row = of(session)
    places = {c.call.id: c.place for c in row.calls}

    def chains(place: int) -> list[float]:
        c = row.calls[place]
        ways = [up + edge.wait_s for edge in c.call.after for up in chains(places[edge.call])]
        return [way + c.seconds for way in ways or [0.0]]

    longest = max(max(chains(c.place)) for c in row.calls)
    kinds = spent(critical_path(row, legs(row)))
    assert row.makespan_s == pytest.approx(longest, abs=1e-6)
    assert sum(kinds.values()) == pytest.approx(longest, abs=1e-6)
    assert kinds["idle"] == 0


# ------------------------------------------------------------------------------------------------ the real files


@real
def test_real_sessions_add_up() -> None:
    told = timing(facts(open_trace([str(DATA / "weka")])))
    assert (told.calls, told.timed) == (4652, 4455)
    assert sum(s.on_s for s in told.spent) == pytest.approx(told.total_s)
    assert {s.kind for s in told.spent if s.on_s > 1} == {"inference", "tool", "human", "spawn", "idle"}
    assert told.split == 328
    assert 1.0 < (told.parallelism or 0) < 1.1, "WEKA sessions are nearly chains"


@real
def test_a_session_that_branches_has_many_calls_off_its_path() -> None:
    told = timing(facts(open_trace([str(DATA / "openclaw/branching-dag.json")])))
    assert (told.calls, told.path_calls) == (575, 36)
    assert told.total_s == pytest.approx(279.916, abs=0.001)
    assert told.parallelism == pytest.approx(10.457, abs=0.001)
    assert set(on(told)) == {"inference", "tool", "spawn"}
