"""The lines of a pi session file (format 3 and older): entries of a tree, as far as they are used.

Every line is decoded into one struct, since unknown types of entries, roles and content must not be errors.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Millis = Annotated[float, Meta(ge=0, le=1e14)]

IMAGE_TOKENS = 1200
"""What pi itself counts for an image."""
NO_MODEL = frozenset({"delivery-mirror", "gateway-injected"})
"""Names that OpenClaw gives as the model of assistant messages which no model wrote."""

_EVENT = "task completion event"
_NAMES = re.compile(r"^[ \t]*session_(?:key|id):[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_CHILD = re.compile(r'"childSessionKey"\s*:\s*"([^"\\]+)"')


class Usage(Struct, rename="camel"):
    """Tokens of a call: the prompt is input + cache_read + cache_write, `reasoning` a part of output."""

    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0
    reasoning: Count | None = None


class Block(Struct):
    """A piece of content: text, an image, thinking or a tool call."""

    type: str = ""
    text: str | None = None
    name: str | None = None
    arguments: Raw = Raw()


Content = str | list[Block] | None


class Message(Struct, rename="camel"):
    """A message of any role; `timestamp` is when a call was sent, or a result or message was there."""

    role: str
    content: Content = None
    timestamp: Millis | None = None
    model: str | None = None
    usage: Usage | None = None
    stop_reason: str | None = None
    tool_name: str | None = None
    details: Raw = Raw()
    summary: str | None = None
    command: str | None = None
    output: str | None = None
    exclude_from_context: bool | None = None


class Entry(Struct, rename="camel"):
    """A line; `timestamp` is when it was written, which for a call is when its answer was there."""

    type: str
    id: str | None = None
    parent_id: str | UnsetType | None = UNSET
    timestamp: datetime | None = None
    message: Message | None = None
    parent_session: str | None = None
    model_id: str | None = None
    summary: str | None = None
    content: Content = None


class _Details(Struct, rename="camel"):
    duration_ms: Millis | None = None
    child_session_key: str | None = None


decoder = msgspec.json.Decoder(Entry)
_details = msgspec.json.Decoder(_Details)


def epoch_s(stamp: datetime | None) -> float | None:
    """Seconds since 1970; a stamp without a zone is UTC."""
    if stamp is None:
        return None
    return (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)).timestamp()


def text_of(content: Content) -> str:
    """All text of a message."""
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content or () if block.text)


def answer_of(content: Content) -> str:
    """What an answer says and which tools it calls, without its thinking."""
    if isinstance(content, str):
        return content
    out = []
    for block in content or ():
        if block.type == "toolCall":
            out.append(f"{block.name or ''}({bytes(block.arguments).decode('utf-8', 'replace')})")
        elif block.text:
            out.append(block.text)
    return "\n".join(out)


def thinks(content: Content) -> bool:
    """Whether an answer has reasoning in it."""
    return not isinstance(content, str) and any(block.type == "thinking" for block in content or ())


def characters(content: Content, per_token: int) -> int:
    """Characters of a message, an image counted as so many that its tokens come out."""
    if isinstance(content, str):
        return len(content)
    total = 0
    for block in content or ():
        if block.text:
            total += len(block.text)
        elif block.type == "image":
            total += IMAGE_TOKENS * per_token
    return total


def completed(text: str) -> tuple[str, ...] | None:
    """The keys and ids of the sessions whose result a message brings; None if it is no such message."""
    if _EVENT not in text:
        return None
    return tuple(name for name in _NAMES.findall(text) if name != "unknown")


def result_details(message: Message) -> tuple[float | None, str | None]:
    """(seconds that a tool ran, key of the session that it spawned), each None if its result does not say so.

    `details` is whatever a tool likes to note, so that other shapes of it are no faults.
    """
    seconds: float | None = None
    key: str | None = None
    if message.details:
        try:
            details = _details.decode(message.details)
        except DECODER_ERRORS:
            pass
        else:
            seconds = None if details.duration_ms is None else details.duration_ms / 1000
            key = details.child_session_key
    if key is None and message.tool_name == "sessions_spawn" and (said := _CHILD.search(text_of(message.content))):
        key = said[1]
    return seconds, key


def missing(path: Path, line: int, field: str) -> TraceError:
    """The error for a line without a field it must have."""
    where = f"{path}, line {line}, {field}"
    what = "a field is not what the format promises"
    return TraceError(what, where=where, expected="the field is required", found="nothing")
