"""Motifs: each with a session that shows it and one that only nearly does; joins against brute force."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import call, one, session, thread
from hypothesis import given, settings
from strategies import sessions

from workloom.model.facts import SessionFacts, facts
from workloom.model.links import links
from workloom.model.motifs import ASKS_GAPS, MOTIFS, Motifs, MotifsSection, forks
from workloom.session import Call, Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"


def sub(name: str, after: str, agent: str) -> Call:
    return call(name, f"{after}:spawn", agent=agent)


SPAWN = [call("m1"), sub("a1", "m1", "Explore:a")]
"""A subagent, and nothing that waits for it."""

SHOWS = {
    "one call": ("single_call", 1, [call("a")]),
    "two calls": ("single_call", 0, [call("a"), call("b", "a")]),
    "a chain of three": ("chain", 1, thread("a b c")),
    "a chain on either side of a fork": (
        "chain",
        3,
        [*thread("a b"), *thread("c d", first="b"), *thread("e f", first="b")],
    ),
    "no chain: a fork of single calls": ("chain", 0, [call("a"), call("b", "a"), call("c", "a")]),
    "branches that meet": ("fan_out_fan_in", 1, [call("a"), call("b", "a"), call("c", "a"), call("d", "b c")]),
    "branches that do not meet": ("fan_out_fan_in", 0, [call("a"), call("b", "a"), call("c", "a"), call("d", "b")]),
    "two beginnings that meet": ("fan_out_fan_in", 0, [call("a"), call("b"), call("c", "a b")]),
    "two subagents side by side": (
        "fan_out_fan_in",
        1,
        [*SPAWN, sub("b1", "m1", "Explore:b"), call("m2", "m1 a1 b1", inherit="m1")],
    ),
    "one subagent that is waited for is no fan": ("fan_out_fan_in", 0, [*SPAWN, call("m2", "m1 a1", inherit="m1")]),
    "one subagent beside its spawner": (
        "fan_out_fan_in",
        1,
        [*SPAWN, call("m2", "m1", inherit="m1"), call("m3", "m2 a1", inherit="m2")],
    ),
    "a subagent that spawns": ("nested_subagent", 1, [*SPAWN, sub("b1", "a1", "Explore:b")]),
    "a main agent that spawns twice": ("nested_subagent", 0, [*SPAWN, sub("b1", "m1", "Explore:b")]),
    "a prompt sent again and again": (
        "retry_loop",
        1,
        [call("a"), call("b", "a", inherit="a"), call("c", "b", inherit="a"), call("d", "c", inherit="a")],
    ),
    "a prompt inherited whole, with nothing added": (
        "retry_loop",
        1,
        [call("a", fresh=50), call("b", "a:human", inherit=("a", 50), fresh=0)],
    ),
    "an answer that is inherited is no retry": (
        "retry_loop",
        0,
        [call("a", fresh=50), call("b", "a", inherit="a", fresh=0)],
    ),
    "a prompt of another size is no retry": (
        "retry_loop",
        0,
        [call("a"), call("b", "a", inherit="a"), call("c", "b", inherit="a", fresh=11)],
    ),
    "nearly the same prompt after an error": (
        "retry_loop",
        1,
        [call("a", fresh=2000), call("b", "a", inherit="a", status="error"), call("c", "b", inherit="a", fresh=11)],
    ),
    "another prompt after an error": (
        "retry_loop",
        0,
        [call("a", fresh=2000), call("b", "a", inherit="a", status="error"), call("c", "b", inherit="a", fresh=99)],
    ),
    "a human message after an error": (
        "retry_loop",
        0,
        [
            call("a", fresh=2000),
            call("b", "a", inherit="a", status="error"),
            call("c", "b:human", inherit="a", fresh=11),
        ],
    ),
    "siblings of one size run side by side": (
        "retry_loop",
        0,
        [call("a"), call("b", "a", inherit="a"), call("c", "a", inherit="a")],
    ),
    "a sibling of that size begun when the first was done": (
        "retry_loop",
        1,
        [
            call("a", at=(0, 1)),
            call("b", "a", inherit="a", at=(2, 3)),
            call("c", "a", inherit="a", at=(3, 4)),
        ],
    ),
    "another agent's like prompt": (
        "retry_loop",
        0,
        [call("a"), call("b", "a", inherit="a"), call("c", "b", inherit="a", agent="x")],
    ),
    "a subagent that is waited for": ("subagent_joined", 1, [*SPAWN, call("m2", "m1 a1", inherit="m1")]),
    "a subagent whose report is carried": (
        "subagent_joined",
        1,
        [*SPAWN, call("m2", "m1 a1:orchestration", inherit="m1", fresh="report:20")],
    ),
    "a subagent that only spawns is not waited for": ("subagent_joined", 0, [*SPAWN, sub("b1", "a1", "Explore:b")]),
    "a subagent nobody waits for": ("subagent_fire_and_forget", 1, [*SPAWN, call("m2", "m1", inherit="m1")]),
    "a subagent that was waited for": ("subagent_fire_and_forget", 0, [*SPAWN, call("m2", "m1 a1", inherit="m1")]),
    "an agent that acts twice": ("agent_loop", 1, thread("a b c")),
    "an agent that acts, is told, and acts twice": (
        "agent_loop",
        1,
        [*thread("a b"), call("c", "b:human", inherit="b"), call("d", "c", inherit="c"), call("e", "d", inherit="d")],
    ),
    "an agent that acts once at a time": (
        "agent_loop",
        0,
        [*thread("a b"), call("c", "b:human", inherit="b"), call("d", "c", inherit="c")],
    ),
}


@pytest.mark.parametrize("label", SHOWS)
def test_a_session_shows_it_or_only_nearly(label: str) -> None:
    motif, count, calls = SHOWS[label]
    told = one(*calls)
    assert MOTIFS[motif](told, links(told)) == count


def test_every_motif_has_a_session_that_shows_it_and_a_near_miss() -> None:
    shown = {motif for motif, count, _ in SHOWS.values() if count}
    missed = {motif for motif, count, _ in SHOWS.values() if not count}
    assert shown == missed == set(MOTIFS)


def motifs(*told: Session) -> Motifs:
    section = MotifsSection()
    for one_session in facts(told):
        section.add(one_session)
    return section.result()


def test_sessions_are_counted_beside_occurrences() -> None:
    got = motifs(
        session(*SPAWN, sub("b1", "m1", "Explore:b"), name="two"),
        session(*SPAWN, name="one"),
        session(*thread("a b"), name="none"),
        session(call("a"), name="single"),
    )
    forget = got.motifs["subagent_fire_and_forget"]
    assert (forget.count, forget.sessions, forget.share) == (3, 2, 0.5)
    assert (forget.per_session.n, forget.per_session.max) == (2, 2)
    assert (got.motifs["single_call"].count, got.motifs["agent_loop"].count) == (1, 0)
    assert got.sessions == 4


def test_every_motif_says_what_it_counts_in_a_sentence() -> None:
    rules = motifs(session(call("a"))).rules
    assert list(rules) == list(MOTIFS)
    assert all(rule.endswith(".") and ":func:" not in rule and "\n" not in rule for rule in rules.values())


def test_what_edges_stand_for_is_not_known_where_none_is_told() -> None:
    bare = session(call("a"), call("b", "a:none"), call("c", "a:none"), call("d", "b:none c:none"))
    got = motifs(bare).motifs
    assert {name for name, motif in got.items() if motif.count is None} == ASKS_GAPS
    assert got["fan_out_fan_in"].count == 1
    lone = motifs(session(call("a"))).motifs
    assert lone["agent_loop"].count == 0, "without edges there is none"


@settings(max_examples=40, deadline=None)
@given(sessions(max_calls=9))
def test_forks_are_what_removing_calls_one_by_one_finds(made: Session) -> None:
    (told,) = facts([made])
    assert forks(told) == [brute_fork(told, place) for place in range(len(told.calls))]


@settings(max_examples=30, deadline=None)
@given(sessions(max_calls=9))
def test_from_a_fork_two_branches_lead_to_the_join_that_share_no_call(made: Session) -> None:
    (told,) = facts([made])
    for join, fork in enumerate(forks(told)):
        if fork is not None:
            inner = [frozenset(path[1:-1]) for path in paths(told, fork, join) if len(path) > 2]
            assert any(not a & b for a in inner for b in inner if a is not b)


def paths(told: SessionFacts, start: int, end: int) -> list[list[int]]:
    if start == end:
        return [[end]]
    return [[*path, end] for parent in told.calls[end].parents for path in paths(told, start, parent)]


def brute_fork(told: SessionFacts, place: int) -> int | None:
    """The nearest call without which no parent can be reached, direct edges from such calls left out."""
    parents = list(told.calls[place].parents)
    while len(parents) > 1:
        needed = [d for d in range(place) if all(d == p or not reached(told, p, d) for p in parents)]
        if not needed:
            return None
        if max(needed) not in parents:
            return max(needed)
        parents.remove(max(needed))
    return None


def reached(told: SessionFacts, place: int, without: int) -> bool:
    """Whether a call can be reached from a beginning of the session if one call is taken out."""
    if place == without:
        return False
    parents = told.calls[place].parents
    return not parents or any(reached(told, parent, without) for parent in parents)


@pytest.mark.skipif(not DATA.exists(), reason="no real traces at ../shared/data")
def test_weka_traces_hold_synchronous_and_asynchronous_subagents() -> None:
    got = motifs(*open_trace([str(DATA / "weka")])).motifs
    counts = {name: (motif.count, motif.sessions) for name, motif in got.items()}
    assert counts["subagent_joined"] == (20, 8)
    assert counts["subagent_fire_and_forget"] == (4, 1), "the four async_launched markers of trace_0295"
    assert counts["nested_subagent"] == counts["retry_loop"] == counts["single_call"] == (0, 0)
    assert counts["fan_out_fan_in"] == (4, 4)
