"""TraceLab (uw-syfi): one row a model call of Claude Code or Codex, sizes and instants without texts.

A subagent has a session id of its own and nothing says whose it is. A session that lies, from its first instant to its
last, within a call of an Agent or Task tool of 10 seconds or more, made by the same user in the same project, is taken
to be what that call ran; of several such calls the shortest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from workloom.session import Call, Header, Part, Session
from workloom.traces.agents import Input, Joined, Made, Sizes, Writer, clock, ordered
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import HALF_WRITTEN, Groups, bad_line, half_written
from workloom.traces.reading import Intake
from workloom.traces.tracelab.rows import INPUTS, OUTPUTS, Extent, Row, Window, placed
from workloom.traces.turns import Done, estimate, exact

_KEYS = [
    re.compile(rb'"%s"\s*:' % key) for key in (b"session_id", b"input_tokens_total", b"prefix_tokens", b"output_tokens")
]
_EITHER = re.compile(rb'"(newly_append_tokens|timing_events|round_index)"\s*:')
_decoder = msgspec.json.Decoder(Row)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a TraceLab file."""
    first = head.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and all(key.search(first) for key in _KEYS) and bool(_EITHER.search(first))


def header(path: Path) -> Header:
    """Instants are of one clock."""
    return Header(source="tracelab", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """Sessions in the order they first came. Memory: an index (20 bytes a row, 200 a session), a session at a time."""
    trace = _Trace(paths, intake)
    try:
        yield from trace.sessions()
    finally:
        trace.groups.close()


class _Asked(NamedTuple):
    """Which call asked for a tool, when, and the tool's name."""

    call: int
    at_s: float | None
    name: str | None


class _Agent(NamedTuple):
    """A session of the file as an agent."""

    calls: list[Made]
    asked: dict[str, _Asked]
    """By the id of a tool call who made it."""
    got: dict[str, tuple[int, int]]
    """By the id of a tool call which call got its result, as which of its inputs."""
    hidden: bool


class _Trace:
    """All files: where rows are, when sessions were, whose subagents they are."""

    def __init__(self, paths: Sequence[Path], intake: Intake) -> None:
        self._intake = intake
        self._extents: dict[str, Extent] = {}
        self._windows: list[Window] = []
        self.groups = Groups(paths, intake, self._key)
        self._above, several = placed(self._extents, self._windows)
        intake.report.infer("subagents that lie in several tool calls, given to the shortest", several)
        self._below: dict[str, list[str]] = {}
        for name, window in self._above.items():
            self._below.setdefault(window.session, []).append(name)
        self._alone: list[str] = []
        self._seen: set[str] = set()

    def _key(self, path: Path, number: int, line: bytes) -> str | None:
        try:
            row = _decoder.decode(line)
        except DECODER_ERRORS as error:
            if half_written(line, error):
                self._intake.report.drop(HALF_WRITTEN)
            else:
                self._intake.on_bad(bad_line(path, number, line, error))
            return None
        extent = self._extents.get(row.session_id)
        if extent is None:
            extent = self._extents[row.session_id] = Extent((row.user, row.project))
        self._windows += extent.take(row)
        return row.session_id

    def sessions(self) -> Iterator[Session]:
        """Sessions with their subagents; then those whose subagents they are in a circle."""
        for name in [*(name for name in self._extents if name not in self._above), *self._extents]:
            todo = [name]
            while todo:
                top = todo.pop()
                if top not in self._seen:
                    yield self._session(top)
                    todo, self._alone = [*todo, *self._alone], []

    def _session(self, top: str) -> Session:
        """One session and all below it, breadth first: a parent's calls are known before its subagents are placed."""
        report = self._intake.report
        report.assume("what a first prompt holds beside the messages counted is hidden scaffold (system prompt, tools)")
        report.assume("a request leaves when the last of its inputs came and ends with the last thing the model made")
        first, file = self._agent(top)
        self._seen.add(top)
        clock(first.calls, report)
        zero_s = first.calls[0].start_s
        agents, names = [first], [top]
        writers = [Writer(report, zero_s)]
        spawns: list[Done | None] = [None]
        for number, agent in enumerate(agents):
            for name in self._below.get(names[number], ()):
                if name in self._seen:
                    continue
                child, _ = self._agent(name)
                spawn = self._place(child, self._above[name], agent, writers[number], len(agents))
                if spawn is None:
                    self._alone.append(name)
                    continue
                self._seen.add(name)
                agents.append(child)
                names.append(name)
                spawns.append(spawn)
                writers.append(Writer(report, zero_s, prefix=f"a{len(writers)}.", agent=f"subagent:{len(writers)}"))
        report.infer("subagents recognised by when they ran", len(agents) - 1)
        made: list[tuple[float, Call]] = []
        for agent, writer, spawn in zip(agents, writers, spawns, strict=True):
            calls = writer.calls(agent.calls, hidden=agent.hidden, spawn=spawn)
            made += [(one.start_s, call) for one, call in zip(agent.calls, calls, strict=True)]
        extent = self._extents[top]
        start_s = zero_s if extent.start_s <= extent.end_s else None
        return Session(top, ordered(made), start_s, user=extent.owner[0], origin=f"tracelab:{file.name}")

    def _place(self, child: _Agent, window: Window, parent: _Agent, writer: Writer, number: int) -> Done | None:
        """Make a subagent wait for the call that ran it, and the call that got its result for the subagent."""
        asked = parent.asked.get(window.tool or "")
        earlier = (i for i, one in enumerate(parent.calls) if one.start_s <= window.start_s)
        spawner = max(earlier, default=None) if asked is None else asked.call
        if spawner is None:
            return None
        spawned = parent.calls[spawner]
        clock(child.calls, self._intake.report, spawned.done_s)
        done_s = child.calls[-1].done_s
        joiner, place = parent.got.get(window.tool or "", (0, 0))
        if joiner > spawner and parent.calls[joiner].start_s >= done_s:
            joined = parent.calls[joiner]
            last = f"a{number}.{len(child.calls) - 1}"
            joined.inputs[place] = joined.inputs[place]._replace(waits=True, by=last)
            joined.joins.append(Joined(last, done_s))
        else:
            self._intake.report.infer("subagents nothing waits for")
        return Done(writer.name(spawner), spawned.done_s, child.calls[0].start_s, "spawn")

    def _agent(self, name: str) -> tuple[_Agent, Path]:
        """The rows of a session as calls, in the order they were sent, and the file the first of them is in."""
        lines = self.groups.of(name)
        rows, keys = [], set[str]()
        for _, line in lines:
            row = _decoder.decode(line)
            if row.trace_key is not None and row.trace_key in keys:
                self._intake.report.drop("rows that repeat an earlier one (equal trace_key)")
                continue
            keys.add(row.trace_key or "")
            rows.append(row)
        agent = _Agent([], {}, {}, rows[0].provider == "codex")
        for row in _in_order(rows):
            agent.calls.append(self._made(row, agent))
        return agent, lines[0][0].path

    def _made(self, row: Row, agent: _Agent) -> Made:
        index, appended = len(agent.calls), row.newly_append_tokens
        if appended is not None and row.prefix_tokens + appended != row.input_tokens_total:
            self._intake.report.infer("rows whose input is not prefix and appended tokens; their total was taken")
        made = Made(model=row.model or "")
        made.sizes = Sizes(
            row.input_tokens_total, row.output_tokens, row.prefix_tokens, row.reasoning_output_tokens or 0
        )
        for event in row.timing_events:
            at_s = None if event.timestamp is None else event.timestamp.timestamp()
            if event.event_type == "user_message" and at_s is not None:
                made.asked_s = at_s if made.asked_s is None else max(at_s, made.asked_s)
                made.inputs.append(Input(at_s, Part("user", estimate(event.content_chars or 0))))
            elif event.event_type == "tool_result" and at_s is not None:
                call, emitted_s, name = agent.asked.get(event.tool_call_id or "", (None, None, None))
                seconds = None if emitted_s is None else exact(max(0.0, at_s - emitted_s))
                part = Part("tool", estimate(event.result_chars or 0), name or event.tool_name, seconds)
                agent.got[event.tool_call_id or ""] = index, len(made.inputs)
                made.inputs.append(Input(at_s, part, call))
        outputs = row.stamps(OUTPUTS)
        made.end_s = max(outputs, default=None)
        if not row.stamps(INPUTS):
            made.sent_s = min(outputs, default=None)
            self._intake.report.infer("rows without the instant of an input, sent when they first answered")
        for tool in row.tools:
            if tool.tool_call_id is not None:
                emitted_s = None if tool.emitted_at is None else tool.emitted_at.timestamp()
                agent.asked[tool.tool_call_id] = _Asked(index, emitted_s, tool.tool_name)
        return made


def _in_order(rows: list[Row]) -> list[Row]:
    """By when they were sent; a row that does not say stands behind the one before it by round_index."""
    rows.sort(key=lambda row: row.round_index or 0)
    sent: list[tuple[float, Row]] = []
    before_s = float("-inf")
    for row in rows:
        at = row.stamps(INPUTS)
        before_s = max(at) if at else min(row.stamps(OUTPUTS), default=before_s)
        sent.append((before_s, row))
    return [row for _, row in sorted(sent, key=lambda one: one[0])]
