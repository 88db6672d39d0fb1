"""The JSON of OpenAI-compatible answers, as much of it as matters; unknown fields are passed over."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=2**40)]
"""Tokens, as a server counts them. More than this is no count, and sums of it would not fit a record."""


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    function: Function | None = None


class Delta(Struct, gc=False):
    """New text of an answer (or, as `message`, all of it)."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class PromptDetails(Struct, gc=False):
    cached_tokens: Count | None = None


class Usage(Struct, gc=False):
    """The server's own count of tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class Event(Struct, gc=False):
    """One event, or the whole answer of a server that does not stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    message: Any = None
    """Some servers report an error so, without `error`."""


decode = msgspec.json.Decoder(Event).decode
"""One event from its JSON; raises msgspec.DecodeError."""
