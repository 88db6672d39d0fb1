"""Lines of Claude Code session files, as far as they are used.

Every line is an object with a `type`; `user` and `assistant` lines carry a message of the API, the others say what the
program did meanwhile. What only some types have, or what may be anything, is decoded when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import rows
from workloom.traces.reading import Intake

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Stamp = Annotated[datetime, Meta(tz=True)]
T = TypeVar("T")
_NONE = Raw(b"")


class Line(Struct, rename="camel"):
    """What any line may say. `parent_uuid`: the line it follows in the conversation, not in the file."""

    type: str
    uuid: str | None = None
    parent_uuid: str | None = None
    logical_parent_uuid: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    request_id: str | None = None
    timestamp: Stamp | None = None
    subtype: str | None = None
    is_sidechain: bool | None = None
    is_meta: bool | None = None
    is_compact_summary: bool | None = None
    is_api_error_message: bool | None = None
    message: Raw = _NONE
    tool_use_result: Raw = _NONE
    attachment: Raw = _NONE
    compact_metadata: Raw = _NONE


class Usage(Struct):
    """Tokens of a call; `input_tokens` holds only what was neither read from a cache nor written to it."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class Inner(Struct):
    """A piece of a tool's result."""

    type: str = ""
    text: str | None = None


class Block(Struct):
    """A block of a message: text, thinking, tool_use, tool_result, image."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = _NONE
    tool_use_id: str | None = None
    content: str | list[Inner | str] | dict[str, Raw] | None = None


class Message(Struct):
    """A message of the API, of either role."""

    content: str | list[Block] | None = None
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class Task(Struct):
    """What a tool call says that starts a subagent or asks for its report."""

    prompt: str | None = None
    subagent_type: str | None = None
    task_id: str | None = None
    agent_id: str | None = msgspec.field(default=None, name="agentId")


class Outcome(Struct, rename="camel"):
    """What the program noted of a subagent's result."""

    agent_id: str | None = None
    status: str | None = None
    is_async: bool | None = None


class Attachment(Struct):
    """Something put into the prompt beside what the user wrote."""

    type: str = ""
    prompt: str | list[Inner | str] | None = None


class Compaction(Struct):
    """How a compaction came about: `manual` or `auto`."""

    trigger: str | None = None


class Row(NamedTuple):
    """A decoded line; `message` for user and assistant lines only."""

    line: Line
    message: Message | None


_line_decoder = msgspec.json.Decoder(Line)
_message_decoder = msgspec.json.Decoder(Message)
_task_decoder = msgspec.json.Decoder(Task)
_outcome_decoder = msgspec.json.Decoder(Outcome)
_attachment_decoder = msgspec.json.Decoder(Attachment)
_compaction_decoder = msgspec.json.Decoder(Compaction)


def read(path: Path, intake: Intake) -> Iterator[Row]:
    """The rows of a file; a bad line is one TraceError to `intake.on_bad`."""
    for number, line in rows(path, _line_decoder, intake):
        if line.type != "user" and line.type != "assistant":
            yield Row(line, None)
            continue
        where = f"{path}, line {number}"
        if line.timestamp is None:
            what = "a field is not what the format promises"
            expected = "a time as 2026-01-31T12:00:00.000Z"
            intake.on_bad(TraceError(what, where=f"{where}, timestamp", expected=expected, found="nothing"))
            continue
        try:
            message = _message_decoder.decode(line.message)
        except DECODER_ERRORS as error:
            said = bytes(line.message)
            intake.on_bad(misfit(f"{where}, message", said, error, what="a message is missing or no object"))
            continue
        yield Row(line, message)


def task(block: Block) -> Task:
    """The arguments of a tool call, as far as they are known."""
    return _known(_task_decoder, block.input) or Task()


def outcome(line: Line) -> Outcome | None:
    """What is noted of a subagent in a result line; None where it tells of none."""
    return _known(_outcome_decoder, line.tool_use_result) if b'"agentId"' in bytes(line.tool_use_result) else None


def attachment(line: Line) -> Attachment | None:
    """The attachment of a line, if it is one whose shape is known."""
    return _known(_attachment_decoder, line.attachment)


def manual(line: Line) -> bool:
    """Whether the user asked for the compaction that a boundary line marks."""
    said = _known(_compaction_decoder, line.compact_metadata)
    return said is not None and said.trigger == "manual"


def _known(decoder: msgspec.json.Decoder[T], raw: Raw) -> T | None:
    """What is decoded where its shape is known: such fields are the program's notes and have had many shapes."""
    try:
        return decoder.decode(raw)
    except DECODER_ERRORS:
        return None
