"""One message of a prompt: from JSON in the words of any API to pieces, sizes and digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b

import msgspec
from msgspec import Struct

from workloom.session import PartKind
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.turns import estimate

MEDIA_CHARS = 4_000
"""What a picture, a sound or a file counts for: 1,000 tokens."""
MEDIA = "pictures, sounds and files in messages count as 1,000 tokens each"
REDACTED = "redacted-by-litellm"
"""Stands for every text where LiteLLM is told not to log messages."""
_CACHE_MARK = "cache_control"
_CONTENT_DEPTH = 4
"""A choice holds a message, that parts, a result of a tool parts of its own."""

_KINDS: dict[str, PartKind] = {
    "system": "definition", "developer": "definition", "assistant": "answer", "model": "answer", "ai": "answer",
    "tool": "tool", "function": "tool",
}  # fmt: skip
_TEXT = {"text", "input_text", "output_text", "refusal"}
_THOUGHT = {"reasoning", "thinking", "redacted_thinking"}
_CALL = {"tool_call", "tool_use", "function_call", "server_tool_use", "custom_tool_call"}
_RESULT = {"tool_call_response", "tool_result", "function_call_output", "custom_tool_call_output"}
_MEDIA = {"image", "image_url", "input_image", "input_audio", "audio", "video", "blob", "uri", "file", "input_file",
          "document"}  # fmt: skip


class Piece(Struct, frozen=True):
    """One text of a message. `tool_id`: of the tool call it is the result of; `text`: only if asked for."""

    kind: PartKind
    chars: int
    tool_id: str | None = None
    name: str | None = None
    text: str | None = None

    @property
    def tokens(self) -> int:
        return estimate(self.chars)


class Message(Struct, frozen=True, dict=True):
    """One message of a prompt, or an answer.

    `digest`: equal for equal messages. `said`: a digest of what is visible in it. `calls`: (id, name) of the tools it
    calls. `thinks`: it shows reasoning. `scaffold`: which part of the scaffold it is, if it stands at the beginning.
    """

    digest: bytes
    pieces: tuple[Piece, ...]
    said: bytes = b""
    calls: tuple[tuple[str, str], ...] = ()
    thinks: bool = False
    scaffold: str | None = None
    redacted: bool = False
    media: bool = False

    @cached_property
    def chars(self) -> int:
        return sum(piece.chars for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """Its size as a function of its text alone."""
        return estimate(self.chars)

    @property
    def kind(self) -> PartKind:
        return self.pieces[-1].kind if self.pieces else "user"

    def answers(self, other: Message) -> bool:
        """Whether this message of a prompt is the answer `other`: by tool calls if there are any, else by text."""
        if self.calls and other.calls:
            return [call for call, _ in self.calls] == [call for call, _ in other.calls]
        return self.said == other.said


def parse(data: bytes, role: str | None, *, keep_text: bool = False) -> Message:
    """A message; `role`: what it is if it does not say: `tools`, `system`, `answer`, or None for the user's."""
    return _Parsing(keep_text).message(data, role)


class _Parsing:
    """One message on its way from JSON."""

    def __init__(self, keep_text: bool) -> None:
        self._keep_text = keep_text
        self._pieces: list[Piece] = []
        self._calls: list[tuple[str, str]] = []
        self._said = blake2b(digest_size=12)
        self._speaks = self._thinks = self._media = self._redacted = False

    def message(self, data: bytes, role: str | None) -> Message:
        try:
            value: object = msgspec.json.decode(data)
            if _CACHE_MARK.encode() in data:
                value = _unmarked(value)
            if role in ("tools", "system"):
                self._scaffold(value, role)
                identity = msgspec.json.encode(value, order="sorted")
            else:
                self._spoken(value, "answer" if role == "answer" else "user")
                identity = data if not isinstance(value, dict) else msgspec.json.encode(_essence(value), order="sorted")
        except DECODER_ERRORS:
            text = data.decode("utf-8", "replace")
            self._pieces = [self._piece("user", text)]
            identity = data
        kind = self._pieces[-1].kind if self._pieces else "user"
        scaffold = role if role in ("tools", "system") else ("system" if kind == "definition" else None)
        digest = blake2b(identity, digest_size=12, person=kind.encode()).digest()
        said = self._said.digest() if self._speaks else b""
        return Message(
            digest, tuple(self._pieces), said, tuple(self._calls), self._thinks, scaffold, self._redacted, self._media
        )

    def _piece(self, kind: PartKind, text: str, tool_id: str | None = None, name: str | None = None) -> Piece:
        self._redacted = self._redacted or text == REDACTED
        return Piece(kind, len(text), tool_id, name, text if self._keep_text else None)

    def _scaffold(self, value: object, role: str) -> None:
        text = "\n".join(_texts(value)) if role == "system" else _compact(value)
        self._pieces.append(self._piece("definition", text, name=role))

    def _spoken(self, value: object, kind: PartKind) -> None:
        if isinstance(value, dict):
            self._turn(value, kind)
        else:
            self._content(value, kind)

    def _turn(self, value: dict[str, object], kind: PartKind) -> None:
        """A message as an object, or a choice of a response that holds one."""
        inner = value.get("message")
        value = inner if isinstance(inner, dict) else value
        role = value.get("role")
        if not isinstance(role, str):
            self._content(value, kind)
            return
        kind = _KINDS.get(role, "user")
        content = value.get("content", value.get("parts"))
        if kind == "tool" and not any(_type(part) in _RESULT for part in _list(content)):
            tool_id, name = _text_of(value, "tool_call_id", "id"), _text_of(value, "name")
            self._pieces.append(self._piece("tool", "\n".join(_texts(content)), tool_id, name))
            return
        thought = _text_of(value, "reasoning_content")
        if thought:
            self._thought(thought)
        self._content(content, kind)
        for call in (*_list(value.get("tool_calls")), value.get("function_call")):
            self._call(call)

    def _content(self, content: object, kind: PartKind) -> None:
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                self._say(part, kind)
            elif isinstance(part, dict):
                self._part(part, kind)
            elif part is not None:
                self._say(_compact(part), kind)

    def _part(self, part: dict[str, object], kind: PartKind) -> None:
        type_ = _type(part)
        if type_ in _TEXT or (type_ is None and isinstance(part.get("text"), str)):
            self._say("\n".join(_texts(part.get("text", part.get("content", part.get("refusal"))))), kind)
        elif type_ in _THOUGHT:
            self._thought("\n".join(_texts(_first(part, "content", "thinking", "text", "summary", "data"))))
        elif type_ in _CALL or isinstance(part.get("functionCall"), dict):
            self._call(part.get("functionCall") or part)
        elif type_ in _RESULT or isinstance(part.get("functionResponse"), dict):
            result = part.get("functionResponse") or part
            if isinstance(result, dict):
                text = "\n".join(_texts(_first(result, "content", "result", "response", "output")))
                tool_id = _text_of(result, "tool_use_id", "call_id", "id")
                self._pieces.append(self._piece("tool", text, tool_id, _text_of(result, "name")))
        elif type_ in _MEDIA:
            self._media = True
            self._pieces.append(Piece(kind, MEDIA_CHARS))
        elif type_ == "message":
            self._spoken(part, kind)
        else:
            self._say(_compact(part), kind)

    def _say(self, text: str, kind: PartKind) -> None:
        self._pieces.append(self._piece(kind, text))
        if text.strip():
            self._speaks = True
            self._said.update(text.strip().encode("utf-8", "surrogatepass"))

    def _thought(self, text: str) -> None:
        self._thinks = True
        self._pieces.append(self._piece("answer", text))

    def _call(self, call: object) -> None:
        if not isinstance(call, dict):
            return
        function = call.get("function")
        inner = function if isinstance(function, dict) else call
        name = _text_of(inner, "name") or ""
        arguments = _first(inner, "arguments", "input", "args")
        text = name + (arguments if isinstance(arguments, str) else _compact(arguments))
        self._calls.append((_text_of(call, "call_id", "id") or text, name))
        self._pieces.append(self._piece("answer", text))


def _essence(message: dict[str, object]) -> dict[str, object]:
    """A message without fields that are empty: tracers leave them out or put null. One text is a string."""
    out = {key: value for key, value in message.items() if value not in (None, [], {}) and key != "finish_reason"}
    match out.get("content"):
        case [{"type": "text", "text": str(text), **rest}] if not rest:
            out["content"] = text
    return out


def _unmarked(value: object, depth: int = 0) -> object:
    """A message, or a list of them, without marks of what a provider is to cache: they move on from call to call."""
    if isinstance(value, list):
        return [_unmarked(item, depth) for item in value]
    if not isinstance(value, dict) or depth > _CONTENT_DEPTH:
        return value
    return {
        key: _unmarked(inner, depth + 1) if key in ("content", "message") else inner
        for key, inner in value.items()
        if key != _CACHE_MARK
    }


def _texts(value: object) -> Iterator[str]:
    """The texts in the content of a message: a string, parts with text, or anything else as JSON."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            text = part.get("text", part.get("content"))
            yield text if isinstance(text, str) else _compact(part)
        elif part is not None:
            yield _compact(part)


def _compact(value: object) -> str:
    return "" if value is None else msgspec.json.encode(value).decode("utf-8", "replace")


def _type(part: object) -> str | None:
    found = part.get("type") if isinstance(part, dict) else None
    return found if isinstance(found, str) else None


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _first(value: dict[str, object], *keys: str) -> object:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _text_of(value: object, *keys: str) -> str | None:
    found = _first(value, *keys) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None
