"""The workflow of a trace: planted workflows come out as planted, loops are folded, transitions add up."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from handmade import call, session, thread
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import workload

from workloom.model.automaton import END, PRUNED, START, Automaton, AutomatonSection
from workloom.model.facts import facts
from workloom.model.pattern import LONGEST, Bounds, Turn, fold, turns
from workloom.session import Call, Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"


def automaton(sessions: Iterable[Session]) -> Automaton:
    section = AutomatonSection()
    for one_session in facts(sessions):
        section.add(one_session)
    return section.result()


def text(sessions: Iterable[Session]) -> str:
    found = automaton(sessions).workflow
    assert found is not None
    return found.text


def pipeline(name: str, stages: list[tuple[str, int]]) -> Session:
    """Each stage is so many agents side by side, of one call each; the next stage waits for all of them."""
    calls: list[Call] = []
    before = ""
    for role, agents in stages:
        made = [call(f"{role}{n}", before, agent=f"{role}-{n}") for n in range(agents)]
        before = " ".join(f"{one.id}:orchestration" for one in made)
        calls += made
    return session(*calls, name=name)


def delegating(name: str, rounds: list[tuple[int, list[int]]], tail: int, role: str = "Explore") -> Session:
    """Rounds of so many calls of main and then subagents side by side, of so many calls; at last some of main."""
    calls: list[Call] = []
    waits = ""
    for number, (mine, subagents) in enumerate(rounds):
        calls += thread(" ".join(f"m{number}.{n}" for n in range(mine)), first=waits)
        last = calls[-1].id
        waits = last
        for sub, length in enumerate(subagents):
            names = " ".join(f"s{number}.{sub}.{n}" for n in range(length))
            calls += thread(names, agent=f"{role}:{number}.{sub}", first=f"{last}:spawn")
            waits += f" {calls[-1].id}"
    calls += thread(" ".join(f"end.{n}" for n in range(tail)), first=waits)
    return session(*calls, name=name)


def test_a_planted_pipeline_comes_out_as_planted() -> None:
    random = Random(7)
    sessions = [
        pipeline(
            f"s{n}",
            [
                ("planner", 1),
                ("explorer", random.randint(3, 4)),
                ("engineer", random.randint(3, 6)),
                ("reviewer", 1),
            ],
        )
        for n in range(80)
    ]
    got = automaton(sessions)
    assert got.workflow is not None
    assert got.workflow.text == "planner -> explorer{3,4} -> engineer{3,6} -> reviewer"
    assert (got.workflow.sessions, got.workflow.share, got.alternatives, got.patterns) == (80, 1.0, (), 1)
    stages = [stage for block in got.workflow.blocks for stage in block.stages]
    assert [stage.role for stage in stages] == ["planner", "explorer", "engineer", "reviewer"]
    assert stages[2].agents == stages[2].calls == Bounds(3, 6)


def test_calls_and_agents_of_a_stage_are_two_counts() -> None:
    got = automaton([delegating("s", [(2, [5, 3])], 4)]).workflow
    assert got is not None
    assert got.text == "main{2} -> Explore{8} -> main{4}"
    assert [stage.agents for block in got.blocks for stage in block.stages] == [
        Bounds(1, 1),
        Bounds(2, 2),
        Bounds(1, 1),
    ]


def test_a_loop_is_folded_with_bounds_of_its_own() -> None:
    twice = delegating("x", [(2, [3]), (5, [4, 4])], 6)
    thrice = delegating("y", [(9, [12]), (2, [3]), (4, [5])], 7)
    assert text([twice]) == "(main{2,5} -> Explore{3,8}){2} -> main{6}"
    assert text([twice, thrice]) == "(main{2,9} -> Explore{3,12}){2,3} -> main{6,7}"


def test_a_session_that_goes_round_once_follows_the_loop_of_the_others() -> None:
    once = delegating("x", [(3, [4])], 6)
    twice = delegating("y", [(2, [3]), (5, [4])], 6)
    got = automaton([once, twice])
    assert got.workflow is not None
    assert got.workflow.text == "(main{2,5} -> Explore{3,4}){1,2} -> main{6}"
    assert (got.workflow.sessions, got.patterns) == (2, 1)
    assert text([once]) == "main{3} -> Explore{4} -> main{6}", "alone it has no loop"


def test_subagents_that_overlap_in_time_are_one_stage() -> None:
    interleaved = session(
        call("m", at=(0, 1)),
        call("a1", "m:spawn", agent="Explore:a", at=(2, 3)),
        call("b1", "m:spawn", agent="Plan:b", at=(2.5, 3)),
        call("c1", "m:spawn", agent="Explore:c", at=(4, 5)),
        call("b2", "b1", agent="Plan:b", at=(5, 6)),
        call("a2", "a1", agent="Explore:a", at=(6, 7)),
        call("end", "m a2 b2 c1", at=(8, 9)),
    )
    assert text([interleaved]) == "main -> Explore{3} -> Plan{2} -> main"


def test_a_main_agent_that_goes_on_meanwhile_stays_one_stage_until_it_waits() -> None:
    calls = [
        call("m1"),
        call("a1", "m1:spawn", agent="Explore:a"),
        call("m2", "m1"),
        call("a2", "a1", agent="Explore:a"),
        call("m3", "m2"),
        call("m4", "m3 a2"),
    ]
    assert text([session(*calls)]) == "main{3} -> Explore{2} -> main"


def test_a_regular_workflow_of_many_stages_is_kept_as_it_is() -> None:
    stages = [("main", 1), ("explorer", 3), ("main", 1), ("engineer", 4), ("main", 1), ("reviewer", 1), ("main", 1)]
    calls: list[Call] = []
    before = ""
    for number, (role, agents) in enumerate(stages):
        names = ["main"] if role == "main" else [f"{role}-{n}" for n in range(agents)]
        made = [call(f"{number}.{name}", before, agent=name) for name in names]
        before = " ".join(one.id for one in made)
        calls += made
    want = "main -> explorer{3} -> main -> engineer{4} -> main -> reviewer -> main"
    assert text([session(*calls)]) == want


def test_a_long_irregular_workflow_is_drawn_together_around_the_role_that_returns() -> None:
    calls = [call("m0")]
    for number, role in enumerate(["Explore", "Plan", "Review", "Explore", "Review", "Plan", "Plan", "Explore"], 1):
        calls.append(call(f"s{number}", f"m{number - 1}:spawn", agent=f"{role}:{number}"))
        calls.append(call(f"m{number}", f"m{number - 1} s{number}"))
    made = session(*calls)
    (told,) = facts([made])
    assert len(turns(told)) == 17
    assert text([made]) == "(main -> Explore|Plan|Review){8} -> main"


def test_the_pattern_of_most_sessions_comes_first_and_two_others_are_told() -> None:
    chains = [session(*thread("a b c d"), name=f"c{n}") for n in range(5)]
    loops = [delegating(f"d{n}", [(2, [3])], 1) for n in range(3)]
    plans = [delegating(f"p{n}", [(2, [3])], 1, "Plan") for n in range(2)]
    other = [pipeline("o", [("planner", 1), ("coder", 2)])]
    got = automaton([*other, *plans, *loops, *chains])
    assert got.workflow is not None
    assert (got.workflow.text, got.workflow.share) == ("main{4}", 5 / 11)
    assert [one.text for one in got.alternatives] == [
        "main{2} -> Explore{3} -> main",
        "main{2} -> Plan{3} -> main",
    ]
    assert [one.share for one in got.alternatives] == [3 / 11, 2 / 11]
    assert got.patterns == 4


def test_transitions_of_a_session_that_delegates() -> None:
    got = automaton([delegating("s", [(2, [3, 1])], 2)])
    told = {(one.source, one.target): (one.count, one.probability) for one in got.transitions}
    assert told == {
        (START, "main"): (1, 1.0),
        ("main", "main"): (3, 3 / 6),
        ("main", "Explore"): (2, 2 / 6),
        ("main", END): (1, 1 / 6),
        ("Explore", "Explore"): (2, 0.5),
        ("Explore", "main"): (2, 0.5),
    }
    assert got.states == {"main": 4, "Explore": 4}
    assert (got.transitions_all, got.pruned_share) == (11, 0.0)
    assert [one.source for one in got.transitions][:2] == [START, "main"]


def test_rare_transitions_are_pruned_and_their_share_is_told() -> None:
    got = automaton([session(*thread(" ".join(f"c{n}" for n in range(40))))])
    assert {(one.source, one.target) for one in got.transitions} == {(START, "main"), ("main", "main")}
    assert got.transitions_all == 41
    assert got.pruned_share == pytest.approx(1 / 41)
    assert got.transitions[1].probability == 39 / 40, "of all that leave it"


def test_nothing_at_all() -> None:
    got = automaton([])
    assert (got.workflow, got.pruned_share, got.transitions, got.patterns) == (None, None, (), 0)


@settings(max_examples=60, deadline=None)
@given(workload())
def test_what_adds_up(sessions: list[Session]) -> None:
    got = automaton(sessions)
    edges = sum(len({edge.call for edge in c.after}) for s in sessions for c in s.calls)
    beginnings = sum(not c.after for s in sessions for c in s.calls)
    waited = {(s.id, edge.call) for s in sessions for c in s.calls for edge in c.after}
    ends = sum((s.id, c.id) not in waited for s in sessions for c in s.calls)
    assert got.transitions_all == edges + beginnings + ends
    kept = sum(one.count for one in got.transitions)
    assert got.pruned_share == pytest.approx(1 - kept / got.transitions_all)
    assert all(one.probability >= PRUNED for one in got.transitions)
    assert sum(got.states.values()) == sum(len(s.calls) for s in sessions)
    for told in facts(sessions):
        stages = turns(told)
        assert sum(turn.calls for turn in stages) == len(told.calls)
        assert all(a.role != b.role for a, b in pairwise(stages))


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_folding_keeps_every_turn_in_order(roles: list[str]) -> None:
    sequence = [Turn(role, n, 1) for n, role in enumerate(roles) if not n or roles[n - 1] != role]
    folds = fold(sequence)
    assert [turn for one in folds for turn in one.turns] == sequence
    for one in folds:
        assert len(one.turns) == one.size * one.repeats
        assert [turn.role for turn in one.turns] == list(one.roles) * one.repeats
        assert one.size <= LONGEST


@pytest.mark.skipif(not DATA.exists(), reason="no real traces at ../shared/data")
def test_weka_traces_are_agent_loops_some_of_which_explore() -> None:
    got = automaton(open_trace([str(DATA / "weka")]))
    assert got.workflow is not None
    assert (got.workflow.text, got.workflow.sessions) == ("main{7,151}", 43)
    assert got.alternatives[0].text.startswith("(main{")
    assert {one.role for block in got.alternatives[0].blocks for one in block.stages} == {"main", "Explore"}
    assert got.states == {"main": 4359, "Explore": 229, "general-purpose": 37, "Plan": 27}
