"""Anthropic messages: ``POST /messages``. Usage comes in two parts: the prompt's first, the output's at the end."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from workloom.drive.api.base import Api
from workloom.drive.events import Count
from workloom.drive.faults import reported
from workloom.drive.frame import MessagesFrame
from workloom.drive.sse import Answer, Counts


class OutputDetails(Struct, gc=False):
    thinking_tokens: Count | None = None


class Usage(Struct, gc=False):
    """`input_tokens` are those that were neither read from the cache nor written to it."""

    input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_details: OutputDetails | None = None


class Block(Struct, gc=False):
    """A block of the answer, or what is new of one."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    partial_json: str | None = None
    input: Any = None
    stop_reason: str | None = None


class Message(Struct, gc=False):
    usage: Usage | None = None


class Event(Struct, gc=False):
    """One event, or the whole message of a server that does not stream."""

    type: str | None = None
    delta: Block | None = None
    content_block: Block | None = None
    message: Message | str | None = None
    """The beginning of the answer; or what a server says of an error."""
    usage: Usage | None = None
    error: Any = None
    content: list[Block] | None = None
    stop_reason: str | None = None


class MessagesAnswer(Answer):
    """An answer of the messages API."""

    decoder = msgspec.json.Decoder(Event)

    def counts(self) -> Counts:
        usage: Usage | None = self.usage
        if usage is None:
            return Counts()
        parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
        known = [part for part in parts if part is not None]
        details = usage.output_tokens_details
        return Counts(
            sum(known) if known else None,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            None if details is None else details.thinking_tokens,
        )

    def _hear(self, event: Event) -> int:
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            return self._said(event.delta)
        if kind == "content_block_start" and event.content_block is not None:
            return self._said(event.content_block)
        if kind == "message_start":
            self._count(event.message.usage if isinstance(event.message, Message) else None)
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason is not None:
                self.finish = event.delta.stop_reason
        elif kind == "message_stop":
            self._closed = True
        elif kind == "error" or event.error is not None:
            raise reported(event.error or event.message or "no reason given")
        return 0

    def _hear_whole(self, event: Event) -> int | None:
        if event.error is not None or (event.message is not None and event.content is None):
            raise reported(event.error or {"message": event.message})
        if event.content is None:
            return None
        self._count(event.usage)
        self.finish = event.stop_reason
        for block in event.content:
            self._said(block)
            if block.input:
                self.texts.append(msgspec.json.encode(block.input).decode())
        return 1 if self.texts or self.thoughts else 0

    def _said(self, block: Block) -> int:
        """Keep what a block begins with or goes on with."""
        if block.thinking:
            self.thoughts.append(block.thinking)
            return 1
        said = block.text or block.partial_json or block.name
        if not said:
            return 0
        self.texts.append(said)
        return 1

    def _count(self, usage: Usage | None) -> None:
        """Later counts replace earlier ones; what the later leave out stays."""
        if usage is None:
            return
        if self.usage is None:
            self.usage = usage
            return
        for name in usage.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self.usage, name, value)


MESSAGES = Api(
    name="messages",
    path="/messages",
    frame=MessagesFrame(),
    answers=MessagesAnswer,
    prompt_fields=("messages", "system", "tools"),
    limit_field="max_tokens",
    key_header=("x-api-key", ""),
    stream_fields={"stream": True},
    headers={"anthropic-version": "2023-06-01"},
    needs_limit=True,
)
