"""Who started whom: subagents and the calls that spawned them, compactions and the contexts that they ended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from workloom.traces.claude_code.log import Log
from workloom.traces.claude_code.nodes import Agent, Call, Use
from workloom.traces.reading import Report

COMPACT = "compact"


class Family:
    """The agents of a session. `spawner`: the call each begins behind, where there is one; `labels`: their names.

    `again`: for the first call of each later assignment of a subagent the call that gave it.
    """

    def __init__(self, log: Log, report: Report) -> None:
        self.main = log.main if log.main.calls else _first(log)
        self.spawner: dict[Agent, Call] = {}
        self.labels: dict[Agent, str] = {}
        self.again: dict[Call, Call] = {}
        self._by_time = sorted(self.main.calls, key=_first_s)
        self._number = 0
        self._log = log
        self._report = report
        self._link()
        self._agents = [agent for agent in log.agents if agent.calls and agent is not self.main]
        for agent in self._agents:
            spawner = self._spawner(agent)
            if spawner is not None and spawner.agent is not agent:
                self.spawner[agent] = spawner
                if agent.special is not None and agent.calls[0].previous is None:
                    agent.calls[0].previous = spawner
        self._compactions()

    def calls(self) -> Iterator[Call]:
        """All calls, those of a subagent behind the call that spawned it or sent it to work again."""
        spawned: dict[Call, list[Agent]] = {}
        for agent, spawner in self.spawner.items():
            spawned.setdefault(spawner, []).append(agent)
        runs = {agent: _Runs(agent) for agent in (self.main, *self._agents)}
        for root in (self.main, *self._agents):
            if root in self.labels:
                continue
            if root is not self.main:
                self.spawner.pop(root, None)
                self._report.infer("subagents without a call that could have started them")
            self._name(root)
            stack = [_assigned(runs[root])]
            while stack:
                call = next(stack[-1], None)
                if call is None:
                    stack.pop()
                    continue
                yield call
                begun = [agent for agent in spawned.get(call, []) if agent not in self.labels]
                for agent in begun:
                    self._name(agent)
                resumed = [self._again(runs[use.agent], use) for use in call.uses if use.agent in runs]
                stack += reversed([*(_assigned(runs[agent]) for agent in begun), *resumed])
        for left in runs.values():
            while left.remain:
                yield from _assigned(left)

    def _again(self, runs: _Runs, use: Use) -> Iterator[Call]:
        """The calls that a tool call sent a subagent to make once more, if it is the next to do so."""
        if runs.remain and runs.by is use:
            self.again[runs.first] = use.call
            yield from _assigned(runs)

    def _name(self, agent: Agent) -> None:
        spawner = self.spawner.get(agent)
        if agent is self.main:
            self.labels[agent] = "main"
        elif agent.special == COMPACT and spawner is not None:
            self.labels[agent] = self.labels[spawner.agent]
        else:
            kind = agent.special or (agent.use.type if agent.use is not None else None) or "agent"
            self._number += 1
            self.labels[agent] = f"{kind}:{self._number}"

    def _link(self) -> None:
        """Tool calls and subagents, as results tell them; else by the prompt that one gave and the other got."""
        asked: dict[bytes, list[Use]] = {}
        unread = 0
        for use in self._log.uses.values():
            if not use.spawns:
                continue
            agent = self._log.agent_of(use.result.agent_id) if use.result is not None else None
            if agent is not None:
                use.agent = agent
                if agent.use is None:
                    agent.use = use
                else:
                    agent.again.append(use)
                self._report.async_subagents += use.result is not None and use.result.launched
            elif use.prompt is not None:
                asked.setdefault(use.prompt, []).append(use)
                unread += use.result is not None
        linked = 0
        for agent in self._log.agents:
            uses = asked.get(agent.prompt or b"")
            if agent.use is None and uses and agent.calls:
                agent.use = uses.pop(0)
                agent.use.agent = agent
                linked += 1
                unread -= agent.use.result is not None
        self._report.infer("subagents found by the prompt that they were given", linked)
        self._report.drop("subagents whose calls are in no file: they count as tools", unread)

    def _spawner(self, agent: Agent) -> Call | None:
        """The call an agent begins behind."""
        if agent.use is not None:
            return agent.use.call
        previous = agent.calls[0].previous
        if previous is not None and previous.agent is not agent:
            return previous
        start_s = agent.start_s if agent.start_s is not None else agent.calls[0].first_s
        at = bisect_right(self._by_time, start_s, key=_first_s)
        if at:
            self._report.infer("subagents put behind the call that went before them")
        return self._by_time[at - 1] if at else None

    def _compactions(self) -> None:
        """Give every boundary the call that wrote its summary: the last to begin before it."""
        writers = sorted((agent for agent in self._agents if agent.special == COMPACT), key=_begin)
        for boundary in sorted(self._log.boundaries, key=lambda boundary: boundary.at_s):
            begun = [agent for agent in writers if _begin(agent) <= boundary.at_s]
            if begun:
                boundary.by = begun[-1]
                writers = writers[len(begun) :]
            else:
                self._report.infer("compactions whose own call is in no file")
        self._report.infer("compactions", len(self._log.boundaries))


class _Runs:
    """The calls of an agent by assignment: one begins with the first call behind the tool call that gave it.

    `by`: what gave the next one, None for the first.
    """

    def __init__(self, agent: Agent) -> None:
        self._calls = agent.calls
        self._starts: list[tuple[int, Use | None]] = [(0, None)]
        for use in sorted(agent.again, key=lambda use: use.at_s):
            before = self._starts[-1][0]
            at = next((i for i in range(before + 1, len(self._calls)) if self._calls[i].first_s >= use.at_s), None)
            if at is None:
                break
            self._starts.append((at, use))
        self._next = 0

    @property
    def remain(self) -> bool:
        return self._next < len(self._starts)

    @property
    def by(self) -> Use | None:
        return self._starts[self._next][1]

    @property
    def first(self) -> Call:
        return self._calls[self._starts[self._next][0]]

    def take(self) -> list[Call]:
        """The calls of the next assignment, which is none of those to come any more."""
        start = self._starts[self._next][0]
        self._next += 1
        return self._calls[start : self._starts[self._next][0] if self.remain else len(self._calls)]


def _assigned(runs: _Runs) -> Iterator[Call]:
    """The calls of the next assignment, taken when the first of them is asked for."""
    if runs.remain:
        yield from runs.take()


def _begin(agent: Agent) -> float:
    return agent.calls[0].first_s if agent.start_s is None else agent.start_s


def _first_s(call: Call) -> float:
    return call.first_s


def _first(log: Log) -> Agent:
    """The agent that stands for the session where the main one has no calls."""
    return next((agent for agent in log.agents if agent.calls), log.main)
