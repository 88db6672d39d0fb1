"""The lines of a Codex rollout as structs: only what a reader needs, the payload decoded by its own type.

{"timestamp": "...", "type": "response_item", "payload": {"type": "function_call", ...}}
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import rows
from workloom.traces.reading import Intake

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Stamp = Annotated[datetime, Meta(tz=True)]


class Line(Struct):
    timestamp: Stamp
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _Kind(Struct):
    type: str | None = None


class _Spawn(Struct):
    parent_thread_id: str | None = None
    agent_role: str | None = None
    agent_type: str | None = None


class _Subagent(Struct):
    thread_spawn: _Spawn | None = None


class _Source(Struct):
    subagent: _Subagent | str | None = None


class _Text(Struct):
    text: str | None = None


class SessionMeta(Struct):
    id: str
    source: _Source | str | None = None
    forked_from_id: str | None = None
    base_instructions: _Text | str | None = None
    instructions: str | None = None

    @property
    def spawn(self) -> _Spawn | None:
        """Who started it, if an agent did and the file says which."""
        source = self.source
        if isinstance(source, _Source) and isinstance(source.subagent, _Subagent):
            return source.subagent.thread_spawn
        return None

    @property
    def subagent(self) -> bool:
        return isinstance(self.source, _Source) and self.source.subagent is not None

    @property
    def system(self) -> str:
        """The system prompt."""
        base = self.base_instructions.text if isinstance(self.base_instructions, _Text) else self.base_instructions
        return base or self.instructions or ""


class Context(Struct):
    """turn_context, task_started."""

    turn_id: str | None = None
    model: str | None = None


class Message(Struct):
    role: str = ""
    content: list[_Text] | str | None = None


class Reasoning(Struct):
    summary: list[_Text] | None = None
    content: list[_Text] | None = None


class Tool(Struct):
    """Any call of a tool: function_call, custom_tool_call, local_shell_call, web_search_call, tool_search_call ..."""

    type: str
    name: str | None = None
    call_id: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    action: msgspec.Raw = msgspec.Raw()

    @property
    def asked(self) -> bytes:
        """What the model wrote to the tool, as JSON."""
        return bytes(self.arguments) or bytes(self.input) or bytes(self.action)


class _Body(Struct):
    content: str | list[_Text] | None = None


class ToolOutput(Struct):
    call_id: str | None = None
    output: str | list[_Text] | _Body | None = None


class Usage(Struct, frozen=True):
    input_tokens: Count
    output_tokens: Count
    cached_input_tokens: Count = 0
    reasoning_output_tokens: Count = 0
    total_tokens: Count = 0


class _Info(Struct):
    total_token_usage: Usage
    last_token_usage: Usage


class TokenCount(Struct):
    info: _Info | None = None


class Compacted(Struct):
    message: str | None = None
    replacement_history: list[Message] | None = None


class Plain(Struct):
    """An event of which only the instant matters."""


class Row(NamedTuple):
    """A line that says something: its instant in epoch seconds, what it is, its payload."""

    at_s: float
    kind: str
    payload: Any


def _decoders(**structs: type) -> dict[str, msgspec.json.Decoder[Any]]:
    return {name: msgspec.json.Decoder(struct) for name, struct in structs.items()}


_line = msgspec.json.Decoder(Line)
_kind = msgspec.json.Decoder(_Kind)
_whole = _decoders(session_meta=SessionMeta, turn_context=Context, compacted=Compacted)
_items = _decoders(message=Message, reasoning=Reasoning)
_events = _decoders(
    token_count=TokenCount,
    task_started=Context,
    turn_started=Context,
    user_message=Plain,
    task_complete=Plain,
    turn_complete=Plain,
    turn_aborted=Plain,
    error=Plain,
    stream_error=Plain,
    context_compacted=Plain,
    thread_rolled_back=Plain,
)
_tool = msgspec.json.Decoder(Tool)
_tool_output = msgspec.json.Decoder(ToolOutput)


def read_rows(path: Path, intake: Intake) -> Iterator[Row]:
    """The lines that say something, in file order; bad ones go to `intake.on_bad`."""
    for number, line in rows(path, _line, intake):
        payload = line.payload
        try:
            found = _payload(line.type, payload)
        except DECODER_ERRORS as error:
            intake.on_bad(
                misfit(f"{path}, line {number}, payload", bytes(payload), error, what="a payload is not JSON")
            )
            continue
        if found is not None:
            yield Row(line.timestamp.timestamp(), *found)


def _payload(type: str, payload: msgspec.Raw) -> tuple[str, Any] | None:
    """(kind, decoded payload), or None for a line of no interest."""
    if type == "response_item":
        kind = _kind.decode(payload).type
        if kind is None:
            return None
        if kind.endswith("_call"):
            return "tool", _tool.decode(payload)
        if kind.endswith("_output"):
            return "tool_output", _tool_output.decode(payload)
        decoder = _items.get(kind)
        return None if decoder is None else (kind, decoder.decode(payload))
    if type == "event_msg":
        kind = _kind.decode(payload).type
        decoder = _events.get(kind) if kind is not None else None
        return None if decoder is None or kind is None else (kind, decoder.decode(payload))
    decoder = _whole.get(type)
    return None if decoder is None else (type, decoder.decode(payload))


def first_meta(beginning: bytes) -> SessionMeta | None:
    """The session_meta line that content begins with, if it does and it is whole."""
    try:
        line = _line.decode(beginning.split(b"\n", 1)[0])
        return _whole["session_meta"].decode(line.payload) if line.type == "session_meta" else None
    except DECODER_ERRORS:
        return None  # the pass over all lines names the fault


def text_of(content: list[_Text] | str | _Body | None) -> str:
    """What blocks of content say."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, _Body):
        return text_of(content.content)
    if len(content) == 1:
        return content[0].text or ""
    return "\n".join(block.text for block in content if block.text)
