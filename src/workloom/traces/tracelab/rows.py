"""The rows of TraceLab as structs, one a model call ("round"), and what an index keeps of a session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Stamp = Annotated[datetime, Meta(tz=True)]

INPUTS = ("user_message", "tool_result")
OUTPUTS = ("text", "reasoning", "tool_call")
SPAWNING = ("Agent", "Task")
"""Tools that run a subagent and return when it is done."""
SHORTEST_S = 10.0
"""A call of such a tool that was faster ran no subagent: it failed, or came back at once."""


class Event(Struct):
    event_type: str
    timestamp: Stamp | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    content_chars: Count | None = None
    result_chars: Count | None = None


class Tool(Struct):
    tool_name: str | None = None
    tool_call_id: str | None = None
    emitted_at: Stamp | None = None
    result_at: Stamp | None = None


class Row(Struct):
    session_id: str
    input_tokens_total: Count
    prefix_tokens: Count
    output_tokens: Count
    newly_append_tokens: Count | None = None
    reasoning_output_tokens: Count | None = None
    round_index: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None
    provider: str | None = None
    model: str | None = None
    user: str | None = None
    project: str | None = None
    trace_key: str | None = None
    timing_events: list[Event] = msgspec.field(default_factory=list)
    tools: list[Tool] = msgspec.field(default_factory=list)

    def stamps(self, kinds: Iterable[str]) -> list[float]:
        """When its events of these kinds were, in epoch seconds."""
        return [e.timestamp.timestamp() for e in self.timing_events if e.event_type in kinds and e.timestamp]


class Window(NamedTuple):
    """A call of a tool that may have run a subagent."""

    start_s: float
    end_s: float
    session: str
    tool: str | None
    """The id of that call."""


class Extent(Struct):
    """From when to when a session was, and whose it was."""

    owner: tuple[str | None, str | None]
    start_s: float = float("inf")
    end_s: float = float("-inf")

    def take(self, row: Row) -> Iterator[Window]:
        """Count a row in, and give the calls of its tools that may have run subagents."""
        at = [event.timestamp.timestamp() for event in row.timing_events if event.timestamp]
        for tool in row.tools:
            start = None if tool.emitted_at is None else tool.emitted_at.timestamp()
            end = None if tool.result_at is None else tool.result_at.timestamp()
            at += [instant for instant in (start, end) if instant is not None]
            if tool.tool_name in SPAWNING and start is not None and end is not None and end - start >= SHORTEST_S:
                yield Window(start, end, row.session_id, tool.tool_call_id)
        if at:
            self.start_s, self.end_s = min(self.start_s, *at), max(self.end_s, *at)


def placed(extents: dict[str, Extent], windows: list[Window]) -> tuple[dict[str, Window], int]:
    """For every session that lies within a tool call of another of the same owner the shortest such call.

    Also how many lay in several.
    """
    by_owner: dict[tuple[str | None, str | None], list[Window]] = {}
    for window in sorted(windows):
        by_owner.setdefault(extents[window.session].owner, []).append(window)
    found: dict[str, Window] = {}
    several = 0
    following: dict[tuple[str | None, str | None], int] = {}
    going: dict[tuple[str | None, str | None], list[Window]] = {}
    for name, extent in sorted(extents.items(), key=lambda item: item[1].start_s):
        of_owner = by_owner.get(extent.owner)
        if of_owner is None or extent.end_s < extent.start_s:
            continue
        index, active = following.get(extent.owner, 0), going.setdefault(extent.owner, [])
        while index < len(of_owner) and of_owner[index].start_s <= extent.start_s:
            active.append(of_owner[index])
            index += 1
        following[extent.owner] = index
        active[:] = [window for window in active if window.end_s >= extent.start_s]
        holding = [window for window in active if window.end_s >= extent.end_s and window.session != name]
        if holding:
            found[name] = min(
                holding, key=lambda window: (window.end_s - window.start_s, window.start_s, window.session)
            )
            several += len(holding) > 1
    return found, several
