"""Codex CLI rollouts (`~/.codex/sessions/YYYY/MM/DD/rollout-*.jsonl`): one JSON Lines file a session or subagent.

A subagent's file names its parent. If that file was named too, the subagent's calls stand in the parent's session: they
wait for the call that spawned them, and the parent's call that was told of their end waits for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from workloom.errors import TraceError
from workloom.session import Call, Header, Session
from workloom.traces.agents import Joined, Made, Writer, clock, ordered, told_start
from workloom.traces.codex.log import Log
from workloom.traces.codex.rows import SessionMeta, first_meta, read_rows
from workloom.traces.lines import BOM, head
from workloom.traces.reading import Intake
from workloom.traces.turns import Done

META_BYTES = 1 << 20
"""How far a first line is read to find out whose subagent a file is."""
DEEPEST = 50
"""Subagents of subagents so deep are a session of their own."""
_FIRST = re.compile(rb'"type"\s*:\s*"(session_meta|response_item|event_msg|turn_context|compacted)"')
_ENVELOPE = re.compile(rb'"timestamp"\s*:\s*".*"payload"\s*:\s*\{', re.DOTALL)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a Codex rollout."""
    first = head.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and bool(_FIRST.search(first)) and bool(_ENVELOPE.search(first))


def header(path: Path) -> Header:
    """Instants are of one clock."""
    return Header(source="codex", common_clock=True)


class _Agent(NamedTuple):
    """One rollout, read."""

    path: Path
    log: Log
    children: list[_Agent]


class _Link(NamedTuple):
    """A subagent of a call: `spawner` and `joiner` are indices of the parent's calls."""

    child: _Agent
    spawner: int
    joiner: int | None
    number: int


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session of each rollout that is no subagent of another. Memory: a session with its subagents at a time."""
    below: dict[Path, list[Path]] = {path: [] for path in paths}
    tops: list[Path] = []
    named: dict[str, Path] = {}
    parents: dict[Path, str] = {}
    for path in paths:
        meta = _first_meta(path)
        if meta is None:
            continue
        named.setdefault(meta.id, path)
        if meta.spawn is not None and meta.spawn.parent_thread_id is not None:
            parents[path] = meta.spawn.parent_thread_id
    for path in paths:
        parent = named.get(parents.get(path, ""))
        if parent is None or parent == path:
            tops.append(path)
        else:
            below[parent].append(path)
    seen: set[Path] = set()
    for path in (*tops, *paths):  # the second time for files that are each other's parents, or very deep
        if path not in seen:
            yield from _sessions(_agent(path, below, seen, intake), intake)


def _first_meta(path: Path) -> SessionMeta | None:
    try:
        return first_meta(head(path, META_BYTES).removeprefix(BOM))
    except TraceError:
        return None  # reading it says why


def _agent(path: Path, below: dict[Path, list[Path]], seen: set[Path], intake: Intake, depth: int = 0) -> _Agent:
    """A rollout and its subagents, whole."""
    seen.add(path)
    log = Log(intake.report, text=intake.text)
    for row in read_rows(path, intake):
        log.feed(row)
    log.finish()
    children = below[path] if depth < DEEPEST else ()
    return _Agent(path, log, [_agent(one, below, seen, intake, depth + 1) for one in children if one not in seen])


def _sessions(agent: _Agent, intake: Intake) -> Iterator[Session]:
    """The session of an agent and its subagents, and one for each subagent that cannot be placed."""
    report = intake.report
    alone: list[_Agent] = []
    if not agent.log.calls:
        report.drop("rollouts with no call of their own")
        alone = agent.children
    else:
        yield _Family(agent, intake, alone).session()
    for child in alone:
        yield from _sessions(child, intake)


class _Family:
    """An agent and its subagents as one session."""

    def __init__(self, agent: _Agent, intake: Intake, alone: list[_Agent]) -> None:
        """Subagents that began before any call of their parent go to `alone`."""
        self._agent = agent
        self._report = intake.report
        self._alone = alone
        self._made: list[tuple[float, Call]] = []
        self._numbers = 0
        self._zero_s = 0.0

    def session(self) -> Session:
        log, report = self._agent.log, self._report
        clock(log.calls, report)
        self._zero_s = log.calls[0].start_s
        if log.meta is None:
            report.infer("rollouts without a session_meta line, called by their file's name")
        elif log.meta.subagent:
            report.infer("subagents whose parent's rollout is not among the files, sessions of their own")
        report.assume("what a first prompt holds beside the messages shown is hidden scaffold (tool definitions)")
        report.assume("reasoning stays in the prompts of one request of the user and leaves with the next")
        links = self._link(self._agent)
        self._write(self._agent, Writer(report, self._zero_s), links, None)
        name = self._agent.path.stem if log.meta is None else log.meta.id
        return Session(name, ordered(self._made), self._zero_s, origin=f"codex:{self._agent.path.name}")

    def _link(self, agent: _Agent) -> list[_Link]:
        """Where the subagents of an agent begin and are waited for, in the order they began."""
        calls, links = agent.log.calls, list[_Link]()
        for child in agent.children:
            theirs = child.log.calls
            spawner = _spawner(calls, theirs) if theirs else None
            if spawner is None:
                self._alone.append(child)
                continue
            clock(theirs, self._report, calls[spawner].done_s)
            done_s = theirs[-1].done_s
            after = range(spawner + 1, len(calls))
            joiner = next((i for i in after if any(o.waits and o.at_s >= done_s for o in calls[i].inputs)), None)
            self._numbers += 1
            if joiner is not None:
                calls[joiner].joins.append(Joined(f"a{self._numbers}.{len(theirs) - 1}", done_s))
            links.append(_Link(child, spawner, joiner, self._numbers))
        self._report.infer("subagents nothing waits for", sum(link.joiner is None for link in links))
        return links

    def _write(self, agent: _Agent, writer: Writer, links: list[_Link], spawn: tuple[Done, Writer, int] | None) -> None:
        log = agent.log
        fork = spawn[1].turns[spawn[2]] if spawn is not None and log.forked else None
        system = "" if log.meta is None else log.meta.system
        calls = writer.calls(
            log.calls, hidden=True, system=system, spawn=None if spawn is None else spawn[0], fork=fork
        )
        self._made += [(made.start_s, call) for made, call in zip(log.calls, calls, strict=True)]
        for link in links:
            parent, theirs = log.calls[link.spawner], link.child.log
            kind = theirs.meta.spawn if theirs.meta is not None else None
            role = (kind.agent_role or kind.agent_type if kind is not None else None) or "subagent"
            below = Writer(self._report, self._zero_s, prefix=f"a{link.number}.", agent=f"{role}:{link.number}")
            done = Done(writer.name(link.spawner), parent.done_s, theirs.calls[0].start_s, "spawn")
            self._write(link.child, below, self._link(link.child), (done, writer, link.spawner))


def _spawner(calls: list[Made], theirs: list[Made]) -> int | None:
    """The parent's call that started a subagent: the last before it that spawns, or else the last before it."""
    first = theirs[0]
    start_s = told_start(first)
    start_s = first.end_s if start_s is None else start_s
    if start_s is None:
        return None
    spawned = [i for i, made in enumerate(calls) if made.spawned_s is not None and made.spawned_s <= start_s]
    before = spawned or [i for i, made in enumerate(calls) if made.done_s <= start_s]
    return before[-1] if before else None
