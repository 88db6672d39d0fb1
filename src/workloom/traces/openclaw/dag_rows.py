"""The published dag.json as far as it is used."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from workloom.traces.openclaw.rows import Count


class Usage(Struct):
    """Tokens of a call: the prompt is input + cache_read + cache_write."""

    input: Count
    output: Count
    cache_read: Count = 0
    cache_write: Count = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write


class New(Struct):
    """The document's own estimate of what is new in a prompt; its total counts the previous answer too."""

    from_tool_results: Count = 0
    from_user_input: Count = 0
    from_previous_assistant: Count = 0
    from_injected: Count = 0
    other: Count = 0


class Node(Struct):
    id: str
    timestamp_dispatched: datetime
    timestamp_responded: datetime
    usage: Usage
    session_id: str = ""
    model: str | None = None
    trigger: str | None = None
    stop_reason: str | None = None
    new_tokens: New = field(default_factory=New)


class Link(Struct):
    source: str = field(name="from")
    to: str
    type: str = "sequential"
    is_history_parent: bool = False


class Listed(Struct):
    """A session as the document lists it; nodes say the same and more."""


class Document(Struct):
    nodes: list[Node]
    edges: list[Link] = []
    sessions: dict[str, Listed] = {}
