"""What the graphs of sessions look like: how long, how deep, how wide, how they branch and how much they inherit."""

from __future__ import annotations

from array import array

from msgspec import Struct

from workloom.model.describe import extent
from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts
from workloom.model.links import Links, links, whole_tokens


class Shapes(Struct, frozen=True):
    """The graphs of all sessions; an edge leads from a call to one that waits for it.

    Motifs, such as chains and retry loops, are counted by :mod:`workloom.model.motifs`.
    """

    sessions: int
    calls: int
    tasks: int
    agents: int
    """Agents of all sessions, main ones and subagents."""
    subagents: int
    """Agents that another agent's call spawned (by a spawn edge into their first call)."""
    calls_per_session: Distribution
    calls_per_task: Distribution
    """Request expansion: calls that one human message (or the start of a session) leads to, subagents included."""
    tasks_per_session: Distribution
    depth: Distribution
    """Per session: calls on the longest path, what cannot be done in parallel by any server."""
    width: Distribution
    """Per session: the most calls at one depth, a bound on its parallel calls. 1 for a chain."""
    fan_out: Distribution
    """Per call: calls that wait for it. 0 for the last."""
    fan_in: Distribution
    """Per call: calls that it waits for. 0 for the first."""
    fan_out_max: Distribution
    """Per session: the largest fan-out of its calls."""
    fan_in_max: Distribution
    """Per session: the largest fan-in of its calls."""
    branching_share: float | None
    """Share of sessions in which some call has two or more children or parents; the others are chains side by side."""
    subagents_per_session: Distribution
    nesting: Distribution
    """Per subagent: agents above it, 1 for one that a main agent spawned."""
    calls_per_subagent: Distribution
    """Length of child sessions."""
    histories: int
    """Calls with a history: they inherit, or their agent had a call before."""
    inherited_ratio: Distribution
    """Per call with a history and a prompt: inherited tokens / prompt tokens."""
    inherits_prompt_share: float | None
    """Share of the calls with a history that keep all of the prompt they go on from."""
    inherits_all_share: float | None
    """Share of the calls with a history that keep all of that prompt and its answer."""


class ShapesSection:
    """Tells what graphs look like; memory: three numbers a call and ten a session."""

    def __init__(self) -> None:
        self._branching = self._agents = self._whole = self._prompt = 0
        self._calls, self._per_task, self._tasks = array("q"), array("q"), array("q")
        self._depth, self._width = array("q"), array("q")
        self._out, self._in, self._out_max, self._in_max = array("q"), array("q"), array("q"), array("q")
        self._subagents, self._nesting, self._lengths = array("q"), array("q"), array("q")
        self._histories = 0
        self._inherited = array("d")

    def add(self, facts: SessionFacts) -> None:
        linked = links(facts)
        depth, width = extent(facts.session)
        self._calls.append(len(facts.calls))
        self._tasks.append(facts.tasks)
        self._per_task.extend(task_calls(facts))
        self._depth.append(depth)
        self._width.append(width)
        self._fans(facts, linked)
        self._agents += len(linked.agents)
        self._subagents.append(len(linked.spawner))
        self._nesting.extend(nesting(facts, linked).values())
        self._lengths.extend(len(linked.agents[agent]) for agent in linked.spawner)
        self._history(facts)

    def _fans(self, facts: SessionFacts, linked: Links) -> None:
        outs = [len(children) for children in linked.children]
        ins = [len(c.parents) for c in facts.calls]
        self._out.extend(outs)
        self._in.extend(ins)
        self._out_max.append(max(outs))
        self._in_max.append(max(ins))
        self._branching += max(max(outs), max(ins)) > 1

    def _history(self, facts: SessionFacts) -> None:
        for c in facts.calls:
            if c.before is None:
                continue
            before = facts.calls[c.before]
            self._histories += 1
            self._prompt += c.inherited_tokens >= before.prompt_tokens
            self._whole += c.inherited_tokens >= whole_tokens(before)
            if c.prompt_tokens:
                self._inherited.append(c.inherited_tokens / c.prompt_tokens)

    def result(self) -> Shapes:
        sessions, histories = len(self._calls), self._histories
        return Shapes(
            sessions=sessions,
            calls=len(self._out),
            tasks=len(self._per_task),
            agents=self._agents,
            subagents=len(self._nesting),
            calls_per_session=distribution(self._calls),
            calls_per_task=distribution(self._per_task),
            tasks_per_session=distribution(self._tasks),
            depth=distribution(self._depth),
            width=distribution(self._width),
            fan_out=distribution(self._out),
            fan_in=distribution(self._in),
            fan_out_max=distribution(self._out_max),
            fan_in_max=distribution(self._in_max),
            branching_share=self._branching / sessions if sessions else None,
            subagents_per_session=distribution(self._subagents),
            nesting=distribution(self._nesting),
            calls_per_subagent=distribution(self._lengths),
            histories=histories,
            inherited_ratio=distribution(self._inherited),
            inherits_prompt_share=self._prompt / histories if histories else None,
            inherits_all_share=self._whole / histories if histories else None,
        )


def task_calls(facts: SessionFacts) -> list[int]:
    """Calls of each task of a session, in the order of their numbers."""
    counts = [0] * facts.tasks
    for c in facts.calls:
        counts[c.task] += 1
    return counts


def nesting(facts: SessionFacts, linked: Links) -> dict[str, int]:
    """For every subagent the number of agents above it: one more than its spawner's."""
    above: dict[str, int] = {}
    for agent, spawner in linked.spawner.items():  # in order of their first calls, so spawners come first
        above[agent] = 1 + above.get(facts.calls[spawner].call.agent, 0)
    return above
