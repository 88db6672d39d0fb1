"""Prompts as lists of messages, told apart by digests: what telemetry with recorded content says of shared prefixes.

Messages come in the words of several APIs: OpenAI chat and responses, Anthropic, Gemini, and the parts of the
OpenTelemetry conventions. Of each message its digest is kept, the pieces it is made of with their sizes in characters,
and the ids of the tools it calls or answers; no text unless asked for.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.telemetry.message import Message, parse

Json = bytes | Raw


class Messages:
    """Parses the messages of a session: one that comes again in every prompt is looked at once."""

    def __init__(self, *, keep_text: bool = False) -> None:
        self._keep_text = keep_text
        self._known: dict[bytes, Message] = {}

    def prompt(self, messages: Json, *, system: Json = b"", tools: Json = b"") -> tuple[Message, ...]:
        """A prompt in the order it is sent: tool definitions, system prompt, messages. Nothing if it is redacted.

        Each is JSON, or a string that holds JSON; an object stands for the list below its `messages` (or the like),
        and for the tools beside them.
        """
        inner = _unwrapped(messages)
        found = [
            self._parse(data, name)
            for given, name in ((bytes(tools) or inner.tools, "tools"), (bytes(system) or inner.system, "system"))
            for data in (_opened(given),)
            if data not in (b"", b"null", b"[]", b'""')
        ]
        found += _merged([self._parse(item, None) for item in _items(inner.messages)])
        if any(message.redacted for message in found) or not any(message.chars for message in found):
            return ()
        return tuple(found)

    def answer(self, data: Json) -> Message | None:
        """An answer: a message, a list of them, a text, or a whole response. None if there is nothing in it."""
        inner = _unwrapped(data)
        items = [self._parse(item, "answer") for item in _items(inner.messages)]
        items = _merged([item for item in items if item.kind == "answer"])
        return items[0] if items and not items[0].redacted and (items[0].chars or items[0].calls) else None

    def text(self, data: Json) -> str | None:
        """A tool's result as text; None if there is none."""
        inner = _unwrapped(data).messages
        return None if not inner or inner == b"null" else _as_string(inner)

    def _parse(self, data: bytes, role: str | None) -> Message:
        key = blake2b(data, digest_size=16, person=(role or "").encode()).digest()
        message = self._known.get(key)
        if message is None:
            message = self._known[key] = parse(data, role, keep_text=self._keep_text)
        return message


class _Wrapper(Struct):
    """What prompts and responses are wrapped in, by the names that APIs and tracers use."""

    messages: Raw = Raw()
    input: Raw = Raw()
    contents: Raw = Raw()
    prompt: Raw = Raw()
    choices: Raw = Raw()
    output: Raw = Raw()
    message: Raw = Raw()
    candidates: Raw = Raw()
    kwargs: Raw = Raw()
    tools: Raw = Raw()
    system: Raw = Raw()
    instructions: Raw = Raw()
    role: Raw = Raw()
    type: Raw = Raw()


class _Inner(Struct):
    messages: bytes
    tools: bytes = b""
    system: bytes = b""


_wrapper = msgspec.json.Decoder(_Wrapper)
_ITEMS = (b'"message"', b'"function_call"', b'"function_call_output"', b'"reasoning"')
_items_of = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)


def _unwrapped(data: Json) -> _Inner:
    """What is inside of strings that hold JSON and of objects that hold a list of messages, a few levels deep."""
    inner, tools, system = bytes(data).strip(), b"", b""
    for _ in range(4):
        if inner.startswith(b'"'):
            if (opened := _opened(inner)) == inner:
                break
            inner = opened
        elif inner.startswith(b"{"):
            try:
                wrapper = _wrapper.decode(inner)
            except DECODER_ERRORS:
                break
            if wrapper.role or bytes(wrapper.type) in _ITEMS:
                break
            held = (wrapper.messages, wrapper.input, wrapper.contents, wrapper.prompt, wrapper.choices, wrapper.output,
                    wrapper.message, wrapper.candidates, wrapper.kwargs)  # fmt: skip
            found = next((raw for raw in held if bytes(raw) not in (b"", b"null")), None)
            tools, system = tools or bytes(wrapper.tools), system or bytes(wrapper.system or wrapper.instructions)
            if found is None:
                break
            inner = bytes(found)
        else:
            break
    return _Inner(inner, tools, system)


def _opened(data: bytes) -> bytes:
    """The list or object that a string holds as JSON; other data as it is."""
    if not data.startswith(b'"'):
        return data
    text = _as_string(data).strip().encode()
    return text if text.startswith((b"[", b"{")) and _is_json(text) else data


def _as_string(data: bytes) -> str:
    try:
        return _string.decode(data)
    except DECODER_ERRORS:
        return data.decode("utf-8", "replace")


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except DECODER_ERRORS:
        return False
    return True


def _items(data: bytes) -> list[bytes]:
    """The members of a list, or the one thing there is; nothing of null and of nothing."""
    if not data or data == b"null":
        return []
    if data.startswith(b"["):
        try:
            return [bytes(item) for item in _items_of.decode(data)]
        except DECODER_ERRORS:
            return [data]
    return [data]


def _merged(messages: list[Message]) -> list[Message]:
    """With answers that stand in a row (reasoning, text and calls, each an item of its own) as one."""
    out: list[Message] = []
    for message in messages:
        if out and message.kind == out[-1].kind == "answer":
            before = out[-1]
            out[-1] = Message(
                blake2b(before.digest + message.digest, digest_size=12).digest(),
                before.pieces + message.pieces,
                blake2b(before.said + message.said, digest_size=12).digest() if before.said else message.said,
                before.calls + message.calls,
                before.thinks or message.thinks,
                redacted=before.redacted or message.redacted,
                media=before.media or message.media,
            )
        else:
            out.append(message)
    return out
