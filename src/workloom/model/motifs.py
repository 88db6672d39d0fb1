"""Motifs: shapes that return in the graphs of agents, each counted by a rule of its own.

A rule is a pure function from a session to how often it shows the motif; MOTIFS names them all. To add one, write
the rule and name it there.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from msgspec import Struct

from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts
from workloom.model.links import Links, links

Rule = Callable[[SessionFacts, Links], int]


class Motif(Struct, frozen=True):
    """How often one motif is seen; None where the trace does not tell what the rule asks for."""

    count: int | None
    sessions: int | None
    """Sessions that show it at least once."""
    share: float | None
    """Of all sessions."""
    per_session: Distribution
    """How often the sessions that show it do."""


class Motifs(Struct, frozen=True):
    """Of each motif how many sessions show it and how often; the rules are told in :data:`MOTIFS`."""

    sessions: int
    motifs: dict[str, Motif]
    """By name, in the order of MOTIFS."""
    rules: dict[str, str]
    """What each counts, in a sentence, by the same names."""


def single_call(facts: SessionFacts, linked: Links) -> int:
    """A session of one call."""
    return int(len(facts.calls) == 1)


def chains(facts: SessionFacts, linked: Links) -> int:
    """Longest runs of two calls or more, each the only one that waits for the one before it, and for nothing else."""
    follows = [_follows(facts, linked, place) for place in range(len(facts.calls))]
    return sum(
        not follows[place] and len(children) == 1 and follows[children[0]]
        for place, children in enumerate(linked.children)
    )


def _follows(facts: SessionFacts, linked: Links, place: int) -> bool:
    parents = facts.calls[place].parents
    return len(parents) == 1 and len(linked.children[parents[0]]) == 1


def fan_out_fan_in(facts: SessionFacts, linked: Links) -> int:
    """Calls with two children or more whose branches, run side by side, meet again in one call.

    A call that waits for a subagent and, needlessly, for the call that spawned it joins nothing. Where branches of
    several such calls cross, they count as one, at the last call that all paths to the join go through.
    """
    return len({fork for fork in forks(facts) if fork is not None})


def nested(facts: SessionFacts, linked: Links) -> int:
    """Subagents that spawn subagents."""
    spawning = {facts.calls[place].call.agent for place in linked.spawner.values()}
    return len(spawning & linked.spawner.keys())


def retry_loops(facts: SessionFacts, linked: Links) -> int:
    """Calls whose prompt the same agent sends again, once or more.

    What that is, is told by :func:`workloom.model.links.sends_again`.
    """
    return sum(first is not None and linked.again[first] is None for first in set(linked.again))


def subagents_joined(facts: SessionFacts, linked: Links) -> int:
    """Subagents that a call of another agent waits for, or whose report it carries."""
    return len(linked.joined)


def subagents_not_joined(facts: SessionFacts, linked: Links) -> int:
    """Fire and forget: subagents that no call of another agent waits for, or has a report of."""
    return len(linked.spawner) - len(linked.joined)


def agent_loops(facts: SessionFacts, linked: Links) -> int:
    """Longest runs of two consecutive calls or more of one agent that all answer tools (by their gap)."""
    count = 0
    for mine in linked.agents.values():
        run = 0
        for place in mine:
            run = run + 1 if facts.calls[place].gap == "tool" else 0
            count += run == 2
    return count


MOTIFS: dict[str, Rule] = {
    "single_call": single_call,
    "chain": chains,
    "fan_out_fan_in": fan_out_fan_in,
    "nested_subagent": nested,
    "retry_loop": retry_loops,
    "subagent_joined": subagents_joined,
    "subagent_fire_and_forget": subagents_not_joined,
    "agent_loop": agent_loops,
}


class MotifsSection:
    """Counts motifs; memory: a number a motif and session that shows it."""

    def __init__(self) -> None:
        self._sessions = 0
        self._edges = self._gaps = False
        self._counts: dict[str, array[int]] = {name: array("q") for name in MOTIFS}

    def add(self, facts: SessionFacts) -> None:
        linked = links(facts)
        self._sessions += 1
        self._edges = self._edges or any(c.parents for c in facts.calls)
        self._gaps = self._gaps or any(edge.gap != "none" for c in facts.calls for edge in c.call.after)
        for name, rule in MOTIFS.items():
            count = rule(facts, linked)
            if count:
                self._counts[name].append(count)

    def result(self) -> Motifs:
        return Motifs(
            sessions=self._sessions,
            motifs={name: self._motif(name, counts) for name, counts in self._counts.items()},
            rules={name: (rule.__doc__ or "").split("\n\n")[0] for name, rule in MOTIFS.items()},
        )

    def _motif(self, name: str, counts: array[int]) -> Motif:
        if name in ASKS_GAPS and self._edges and not self._gaps:
            return Motif(None, None, None, distribution(()))
        share = len(counts) / self._sessions if self._sessions else None
        return Motif(sum(counts), len(counts), share, distribution(counts))


ASKS_GAPS = frozenset({"nested_subagent", "subagent_joined", "subagent_fire_and_forget", "agent_loop"})
"""Motifs whose rules ask what an edge stands for: not known where every edge of a trace has the gap `none`."""


def forks(facts: SessionFacts) -> list[int | None]:
    """For every call the one whose branches meet in it, or None if it joins no branches of one call.

    That is its immediate dominator: the last call that all paths to it go through. An edge from the dominator itself
    says nothing that another does not, so it is left out before the dominator is asked for again. (Cooper, Harvey and
    Kennedy, A Simple, Fast Dominance Algorithm, 2001; one pass is enough without cycles.)
    """
    out: list[int | None] = []
    dominator: list[int] = []  # -1: the beginning of the session
    level: list[int] = []
    for c in facts.calls:
        parents = list(c.parents)
        first = at = _meet(parents, dominator, level)
        while at in parents:
            parents.remove(at)
            if len(parents) < 2:
                break
            at = _meet(parents, dominator, level)
        out.append(at if len(parents) > 1 and at >= 0 else None)
        dominator.append(first)
        level.append(level[first] + 1 if first >= 0 else 0)
    return out


def _meet(parents: list[int], dominator: list[int], level: list[int]) -> int:
    """The last call that the paths to all of them go through, or one of them; -1 if there is none."""
    if not parents:
        return -1
    at = parents[0]
    for other in parents[1:]:
        while at != other and at >= 0 and other >= 0:
            if level[at] > level[other]:
                at = dominator[at]
            elif level[at] < level[other]:
                other = dominator[other]
            else:
                at, other = dominator[at], dominator[other]
        if at < 0 or other < 0:
            return -1
    return at
