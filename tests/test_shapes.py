"""The graphs of sessions: hand-made ones to the number, any by what must add up, a published one as published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from handmade import call, one, session, thread
from hypothesis import given, settings
from strategies import workload

from workloom.model.distribution import distribution
from workloom.model.facts import facts
from workloom.model.links import links
from workloom.model.shapes import Shapes, ShapesSection
from workloom.session import Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"


def shapes(sessions: Iterable[Session]) -> Shapes:
    section = ShapesSection()
    for one_session in facts(sessions):
        section.add(one_session)
    return section.result()


def delegating() -> Session:
    """main spawns two Explores, one of which spawns a third; the user asks once more."""
    return session(
        call("m1", fresh="user:100", out=10),
        call("m2", "m1", inherit="m1", fresh=90, out=20),
        call("a1", "m2:spawn", agent="Explore:a", fresh=50),
        call("b1", "m2:spawn", agent="Explore:b", fresh=50),
        call("c1", "a1:spawn", agent="Explore:c", fresh=50),
        call("a2", "a1 c1", agent="Explore:a", inherit="a1"),
        call("m3", "m2 a2 b1", inherit=("m2", 200), fresh=50),
        call("m4", "m3:human", inherit=("m3", 125), fresh=125),
    )


def test_a_session_that_delegates() -> None:
    got = shapes([delegating()])
    assert (got.sessions, got.calls, got.tasks, got.agents, got.subagents) == (1, 8, 2, 4, 3)
    assert got.calls_per_session == distribution([8])
    assert got.calls_per_task == distribution([7, 1]), "subagents belong to the task of their spawner"
    assert got.tasks_per_session == distribution([2])
    assert got.depth == distribution([7]), "m1 m2 a1 c1 a2 m3 m4"
    assert got.width == distribution([2])
    assert got.fan_out == distribution([1, 3, 2, 1, 1, 1, 1, 0])
    assert got.fan_in == distribution([0, 1, 1, 1, 1, 2, 3, 1])
    assert (got.fan_out_max, got.fan_in_max) == (distribution([3]), distribution([3]))
    assert got.branching_share == 1.0
    assert got.subagents_per_session == distribution([3])
    assert got.nesting == distribution([1, 1, 2]), "the third has an agent above it that is a subagent itself"
    assert got.calls_per_subagent == distribution([2, 1, 1])


def test_what_is_inherited() -> None:
    got = shapes([delegating()])
    assert got.histories == 4, "m2, a2, m3 and m4; the first calls of agents have none"
    assert got.inherited_ratio == distribution([110 / 200, 55 / 65, 200 / 250, 125 / 250])
    assert got.inherits_prompt_share == 3 / 4, "m3 drops the answer of m2, m4 half of m3"
    assert got.inherits_all_share == 2 / 4


def test_a_call_that_begins_anew_has_a_history_and_inherits_nothing() -> None:
    got = shapes([session(call("m1"), call("m2", "m1", fresh=30))])
    assert (got.histories, got.inherited_ratio) == (1, distribution([0.0]))
    assert (got.inherits_prompt_share, got.inherits_all_share) == (0.0, 0.0)


def test_chains_do_not_branch() -> None:
    got = shapes([session(*thread("a b c"), name="x"), session(call("a"), name="y"), delegating()])
    assert got.branching_share == 1 / 3
    assert got.calls_per_session == distribution([3, 1, 8])
    assert got.subagents_per_session == distribution([0, 0, 3])


def test_another_agent_that_was_not_spawned_is_no_subagent() -> None:
    pipeline = session(call("p", agent="planner"), call("e", "p:orchestration", agent="engineer"))
    got = shapes([pipeline])
    assert (got.agents, got.subagents, got.nesting.n) == (2, 0, 0)


def test_nothing_at_all() -> None:
    got = shapes([])
    assert (got.sessions, got.branching_share, got.inherits_all_share, got.depth.n) == (0, None, None, 0)


@settings(max_examples=30, deadline=None)
@given(workload())
def test_what_adds_up(sessions: list[Session]) -> None:
    got = shapes(sessions)
    calls = sum(len(s.calls) for s in sessions)
    edges = sum(len({edge.call for edge in c.after}) for s in sessions for c in s.calls)
    assert got.calls == calls == got.fan_out.n == got.fan_in.n
    assert total(got.fan_out.mean, calls) == total(got.fan_in.mean, calls) == edges
    assert total(got.calls_per_session.mean, len(sessions)) == calls
    assert total(got.calls_per_task.mean, got.tasks) == calls
    assert total(got.subagents_per_session.mean, len(sessions)) == got.subagents == got.calls_per_subagent.n
    for s in facts(sessions):
        linked = links(s)
        assert sorted(place for mine in linked.agents.values() for place in mine) == list(range(len(s.calls)))
        for c, previous in zip(s.calls, linked.previous, strict=True):
            assert previous is None or (previous < c.place and s.calls[previous].call.agent == c.call.agent)


def total(mean: float | None, count: int) -> int:
    return round((mean or 0.0) * count)


def test_links_of_a_session_that_delegates() -> None:
    (told,) = facts([delegating()])
    linked = links(told)
    assert linked.children[1] == (2, 3, 6)
    assert linked.previous == (None, 0, None, None, None, 2, 1, 6)
    assert linked.spawner == {"Explore:a": 1, "Explore:b": 1, "Explore:c": 2}
    assert linked.joined == {"Explore:a": 6, "Explore:b": 6, "Explore:c": 5}
    assert linked.used == (110, 200, 55, 0, 0, 0, 125, 0)
    assert linked.again == (None,) * 8


def test_a_broken_call_is_passed_over_unless_it_is_inherited() -> None:
    told = one(
        call("a", fresh=100),
        call("b", "a", inherit="a", status="error", out=0),
        call("c", "b:human", inherit="a", fresh=70),
        call("d", "c", inherit="c", status="aborted", out=3),
        call("e", "d:human", inherit="d"),
    )
    assert links(told).previous == (None, 0, 0, 2, 3)


@pytest.mark.skipif(not DATA.exists(), reason="no real traces at ../shared/data")
def test_the_published_branching_dag() -> None:
    got = shapes(open_trace([str(DATA / "openclaw/branching-dag.json")]))
    assert (got.calls, got.depth.max, got.width.max) == (575, 44, 25)
    assert (got.fan_out.max, got.fan_in.max) == (2, 2)
    assert (got.agents, got.subagents, got.nesting.max) == (34, 33, 2)
