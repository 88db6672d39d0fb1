"""The workflow of a trace: from role to role as a probabilistic automaton, and as a pattern to read.

A session is a path from START to END only where it is a chain; where it branches, every edge of its graph is a
transition of its own.
"""

from __future__ import annotations

from msgspec import Struct

from workloom.model.facts import SessionFacts
from workloom.model.links import links
from workloom.model.pattern import Workflow, Workflows

START, END = "START", "END"
PRUNED = 0.05
"""Transitions less likely than this are left out."""


class Transition(Struct, frozen=True):
    """From a call of one role to a call of another that waits for it, or of the same."""

    source: str
    target: str
    count: int
    probability: float
    """Of all that leave `source`, pruned ones included."""


class Automaton(Struct, frozen=True):
    """Roles and how they follow each other, and the sessions' workflow as a bounded pattern.

    START leads to the calls that wait for nothing; calls that nobody waits for lead to END.
    """

    sessions: int
    states: dict[str, int]
    """Calls of every role, in order of first appearance."""
    transitions: tuple[Transition, ...]
    """Those with a probability of PRUNED or more, by source in the order of states, the likeliest first."""
    transitions_all: int
    """All transitions counted, pruned ones included."""
    pruned_share: float | None
    """Share of them that was pruned."""
    workflow: Workflow | None
    """The pattern that most sessions follow."""
    alternatives: tuple[Workflow, ...]
    """The next patterns, two at most."""
    patterns: int
    """Different patterns in all."""


class AutomatonSection:
    """Counts transitions and patterns; memory: a few numbers a stage of each session."""

    def __init__(self) -> None:
        self._sessions = 0
        self._states: dict[str, int] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._workflows = Workflows()

    def add(self, facts: SessionFacts) -> None:
        self._sessions += 1
        children = links(facts).children
        for c in facts.calls:
            self._states[c.role] = self._states.get(c.role, 0) + 1
            if not c.parents:
                self._count(START, c.role)
            for child in children[c.place]:
                self._count(c.role, facts.calls[child].role)
            if not children[c.place]:
                self._count(c.role, END)
        self._workflows.add(facts)

    def _count(self, source: str, target: str) -> None:
        self._counts[source, target] = self._counts.get((source, target), 0) + 1

    def result(self) -> Automaton:
        every = sum(self._counts.values())
        kept = transitions(self._counts, [START, *self._states])
        ranked = self._workflows.ranked()
        return Automaton(
            sessions=self._sessions,
            states=dict(self._states),
            transitions=kept,
            transitions_all=every,
            pruned_share=1 - sum(one.count for one in kept) / every if every else None,
            workflow=ranked[0] if ranked else None,
            alternatives=tuple(ranked[1:3]),
            patterns=len(ranked),
        )


def transitions(counts: dict[tuple[str, str], int], order: list[str]) -> tuple[Transition, ...]:
    """The transitions that are not pruned, by source in the given order, the likeliest first."""
    leaving = dict.fromkeys(order, 0)
    for (source, _), count in counts.items():
        leaving[source] += count
    rank = {source: index for index, source in enumerate(order)}
    kept = [
        Transition(source, target, count, count / leaving[source])
        for (source, target), count in counts.items()
        if count >= PRUNED * leaving[source]
    ]
    return tuple(sorted(kept, key=lambda one: (rank[one.source], -one.count, one.target)))
