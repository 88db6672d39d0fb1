"""The workflow of sessions as a bounded pattern: ``planner -> explorer{3,4} -> engineer{3,6} -> reviewer``.

    calls      p   e1 e1  e2 e2 e2  e3   n   n   r          one session, by agent
    segments   p | e1 e1 | e2 e2 e2 | e3 | n n | r          an agent's calls until it waits for another agent
    levels     1 | 2       2          2  | 3   | 4          one more than the highest level that a segment waits for
    stages     planner 1, explorer 6, engineer 2, reviewer 1

Segments of one level run side by side, so those of one role are one stage; so are neighbours of one role. A stage
counts its calls and its agents. Blocks of stages that repeat are folded: ``(main -> Explore){2} -> main``. Sessions
whose stages then read alike follow one pattern; its bounds are p10 and p90 of their counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, floor
from typing import NamedTuple

from msgspec import Struct

from workloom.model.facts import SessionFacts

LONGEST = 9
"""Stages of a pattern that is still read, and of a block that is looked for. Longer ones are drawn together."""
LOW, HIGH = 0.1, 0.9


class Bounds(Struct, frozen=True):
    """p10 and p90 of a count over the sessions that follow a pattern; values that occur."""

    low: int
    high: int

    def __str__(self) -> str:
        if self.low != self.high:
            return f"{{{self.low},{self.high}}}"
        return "" if self.low == 1 else f"{{{self.low}}}"


class Stage(Struct, frozen=True):
    """A role's turn. `role` names several, as ``Explore|Plan``, where a long pattern was drawn together."""

    role: str
    calls: Bounds
    agents: Bounds
    """How many instances of the role share the calls."""

    def __str__(self) -> str:
        return f"{self.role}{self.calls}"


class Block(Struct, frozen=True):
    """Stages that follow each other, together `repeats` times."""

    stages: tuple[Stage, ...]
    repeats: Bounds

    def __str__(self) -> str:
        text = " -> ".join(map(str, self.stages))
        return f"({text}){self.repeats}" if self.repeats.high > 1 else text


class Workflow(Struct, frozen=True):
    """A pattern and the sessions that follow it. Numbers in `text` are calls."""

    text: str
    blocks: tuple[Block, ...]
    sessions: int
    share: float
    """Of all sessions."""


class Turn(NamedTuple):
    """A stage of one session."""

    role: str
    calls: int
    agents: int


class Fold(NamedTuple):
    """Neighbouring turns of one session: `repeats` times a block of `size`, one after another."""

    turns: tuple[Turn, ...]
    size: int

    @property
    def repeats(self) -> int:
        return len(self.turns) // self.size

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(turn.role for turn in self.turns[: self.size])


class _Segment:
    """Calls of one agent that wait for no other agent, but for the first."""

    def __init__(self, role: str, agent: str, level: int, start_s: float) -> None:
        self.role = role
        self.agent = agent
        self.level = level
        self.start_s = start_s
        self.calls = 0


def segments(facts: SessionFacts) -> list[_Segment]:
    """The segments of a session, in order of their first calls in the list."""
    out: list[_Segment] = []
    of: list[_Segment] = []
    last: dict[str, _Segment] = {}
    for c in facts.calls:
        agent = c.call.agent
        segment = last.get(agent)
        if segment is None or any(of[parent].agent != agent for parent in c.parents):
            level = 1 + max((of[parent].level for parent in c.parents), default=0)
            segment = last[agent] = _Segment(c.role, agent, level, c.start_s)
            out.append(segment)
        segment.calls += 1
        of.append(segment)
    return out


def turns(facts: SessionFacts) -> list[Turn]:
    """The stages of a session: by level, in a level by when a role first starts; no two neighbours of one role."""
    every = segments(facts)
    first: dict[tuple[int, str], float] = {}
    for segment in every:
        key = segment.level, segment.role
        first[key] = min(first.get(key, segment.start_s), segment.start_s)
    every.sort(key=lambda one: (one.level, first[one.level, one.role], one.role))
    out: list[Turn] = []
    agents: set[str] = set()
    for segment in every:
        if out and out[-1].role == segment.role:
            agents.add(segment.agent)
            out[-1] = Turn(segment.role, out[-1].calls + segment.calls, len(agents))
        else:
            agents = {segment.agent}
            out.append(Turn(segment.role, segment.calls, 1))
    return out


def fold(sequence: Sequence[Turn]) -> list[Fold]:
    """Draw blocks that repeat together, from the left: the block that covers most, and of these the shortest."""
    out: list[Fold] = []
    at = 0
    while at < len(sequence):
        size, repeats = 1, 1
        for length in range(2, min(LONGEST, (len(sequence) - at) // 2) + 1):
            times = _times(sequence, at, length)
            if times > 1 and times * length > size * repeats:
                size, repeats = length, times
        out.append(Fold(tuple(sequence[at : at + size * repeats]), size))
        at += size * repeats
    return out


def _times(sequence: Sequence[Turn], at: int, length: int) -> int:
    """How often the `length` turns at a place follow each other."""
    end = at + length
    while end < len(sequence) and sequence[end].role == sequence[end - length].role:
        end += 1
    return (end - at) // length


def folded(facts: SessionFacts) -> list[Fold]:
    """The folded stages of a session.

    If more than LONGEST are left, all between two turns of the role that returns most often (three times at least) are
    drawn together to one stage, ``Explore|Plan``, and folded again.
    """
    sequence = turns(facts)
    out = fold(sequence)
    if sum(one.size for one in out) <= LONGEST:
        return out
    roles = [turn.role for turn in sequence]
    hub = max(dict.fromkeys(roles), key=roles.count)
    if roles.count(hub) < 3:
        return out
    return fold(_around(sequence, hub))


def _around(sequence: Sequence[Turn], hub: str) -> list[Turn]:
    """The turns with all between two of `hub` made one; agents are those of the stages, added up."""
    others = "|".join(sorted({turn.role for turn in sequence} - {hub}))
    out: list[Turn] = []
    for turn in sequence:
        if turn.role == hub:
            out.append(turn)
        elif out and out[-1].role != hub:
            out[-1] = Turn(others, out[-1].calls + turn.calls, out[-1].agents + turn.agents)
        else:
            out.append(Turn(others, turn.calls, turn.agents))
    return out


Form = tuple[tuple[tuple[str, ...], bool], ...]
"""Per fold its roles, and whether they repeat."""


class _Tally:
    """Counts of the sessions of one form, by stage and by fold; a stage that repeats counts every time."""

    def __init__(self, form: Form) -> None:
        self.sessions = 0
        stages = len(_stages(form))
        self.calls = [array("q") for _ in range(stages)]
        self.agents = [array("q") for _ in range(stages)]
        self.repeats = [array("q") for _ in form]

    def add(self, folds: Sequence[Fold]) -> None:
        self.sessions += 1
        first = 0
        for one, repeats in zip(folds, self.repeats, strict=True):
            repeats.append(one.repeats)
            for place, turn in enumerate(one.turns):
                self.calls[first + place % one.size].append(turn.calls)
                self.agents[first + place % one.size].append(turn.agents)
            first += one.size

    def merge(self, other: _Tally) -> None:
        """Take over the sessions of a form with the same stages: of the same folds, or of none."""
        self.sessions += other.sessions
        for mine, theirs in zip((*self.calls, *self.agents), (*other.calls, *other.agents), strict=True):
            mine.extend(theirs)
        alike = len(self.repeats) == len(other.repeats)
        for index, mine in enumerate(self.repeats):
            mine.extend(other.repeats[index] if alike else [1] * other.sessions)

    def workflow(self, form: Form, sessions: int) -> Workflow:
        stages = [
            Stage(role, bounds(calls), bounds(agents))
            for role, calls, agents in zip(_stages(form), self.calls, self.agents, strict=True)
        ]
        blocks: list[Block] = []
        for (roles, _), repeats in zip(form, self.repeats, strict=True):
            blocks.append(Block(tuple(stages[: len(roles)]), bounds(repeats)))
            del stages[: len(roles)]
        return Workflow(" -> ".join(map(str, blocks)), tuple(blocks), self.sessions, self.sessions / sessions)


class Workflows:
    """The patterns of all sessions; memory: two numbers a stage of each, but for what is folded away."""

    def __init__(self) -> None:
        self._sessions = 0
        self._tallies: dict[Form, _Tally] = {}

    def add(self, facts: SessionFacts) -> None:
        self._sessions += 1
        folds = folded(facts)
        form = tuple((one.roles, one.repeats > 1) for one in folds)
        self._tallies.setdefault(form, _Tally(form)).add(folds)

    def ranked(self) -> list[Workflow]:
        """All patterns, the one that most sessions follow first.

        Sessions without repeats follow the commonest pattern with repeats that has the same stages, if there is one.
        """
        loops: dict[tuple[str, ...], Form] = {}
        for form in sorted(self._tallies, key=lambda form: (-self._tallies[form].sessions, form)):
            if any(repeated for _, repeated in form):
                loops.setdefault(_stages(form), form)
        joined: dict[Form, _Tally] = {}
        for form, tally in self._tallies.items():
            plain = not any(repeated for _, repeated in form)
            goal = loops.get(_stages(form), form) if plain else form
            joined.setdefault(goal, _Tally(goal)).merge(tally)
        out = [tally.workflow(form, self._sessions) for form, tally in joined.items()]
        return sorted(out, key=lambda one: (-one.sessions, len(one.text), one.text))


def bounds(counts: array[int]) -> Bounds:
    """p10 and p90, each the value next to it on the outer side."""
    ordered = sorted(counts)
    last = len(ordered) - 1
    return Bounds(ordered[floor(LOW * last)], ordered[ceil(HIGH * last)])


def _stages(form: Form) -> tuple[str, ...]:
    return tuple(role for roles, _ in form for role in roles)
