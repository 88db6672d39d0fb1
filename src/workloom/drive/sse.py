"""What an OpenAI-compatible server streams: server-sent events, each a piece of the answer.

Real servers differ: usage comes in an event without choices or with the finish reason; the first event may hold a role
only; the stream may end without ``[DONE]``, carry an error with status 200, or be one JSON object although a stream
was asked for. All of that is taken here. Tokens are counted by `usage`, never by events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from workloom.drive.events import Choice, Event, ToolCall, Usage, decode
from workloom.errors import BackendError
from workloom.records import ChunkRun

_NEVER = 1 << 62
_LONGEST = 1 << 23
"""Bytes without an end of an event that are taken for nonsense."""
_LONGEST_WHOLE = 1 << 26
"""Bytes of an answer that is no stream; more is not kept."""
_NOT_OPENAI = "is this an OpenAI-compatible endpoint?"


class Answer:
    """The sink of one call: counts what arrives and keeps the text. Instants are raw counter readings."""

    __slots__ = (
        "_carry",
        "_closed",
        "_on_chunk",
        "_origin",
        "_streams",
        "_thinking",
        "_whole",
        "chunks",
        "done",
        "finish",
        "status",
        "stop_after",
        "texts",
        "usage",
    )

    def __init__(
        self, done: asyncio.Future[int], on_chunk: Callable[[ChunkRun], None], origin: int, stop_after: int | None
    ) -> None:
        self.done = done
        """Resolves to the reading of the read that ended the answer."""
        self.status = 0
        self.stop_after = _NEVER if stop_after is None else stop_after
        self.chunks = 0
        """Events so far that carried content, reasoning or a tool call."""
        self.texts: list[str] = []
        self.usage: Usage | None = None
        self.finish: str | None = None
        self._on_chunk = on_chunk
        self._origin = origin
        self._carry = b""
        """The beginning of an event whose end has not come."""
        self._streams = False
        """True once the body is known to be events."""
        self._whole = bytearray()
        """The body of an answer that is no stream."""
        self._closed = False
        """True once ``[DONE]`` came."""
        self._thinking = False

    # --- the connection calls these

    def feed(self, body: bytes, at_ns: int) -> bool:
        if not self._streams and not self._begin(body):
            return False
        text = self._carry + body if self._carry else body
        if b"\r" in text:
            text = _plain_lines(text)
        events = text.split(b"\n\n")
        self._carry = events.pop()
        if not events:
            if len(self._carry) > _LONGEST:
                raise _nonsense(self._carry, None)
            return False
        before = self.chunks
        try:
            enough = self._take(events)
        finally:  # also what came before a fault
            count = self.chunks - before
            if count:
                self._on_chunk(ChunkRun(at_ns - self._origin, 0, 0, count, 1))
        if enough:
            self.finish = "hangup"
            self._resolve(at_ns)
        return enough

    def end(self, at_ns: int) -> None:
        if self.status != 200:
            raise _refused(self.status, bytes(self._whole))
        if self._whole:
            self._take_whole(bytes(self._whole), at_ns)
        elif not self._streams:
            raise BackendError("protocol", "the server sent an empty answer", status=200, hint=_NOT_OPENAI)
        elif self._carry.strip() and self.feed(b"\n\n", at_ns):  # the last event lacked its empty line
            return
        if self.finish is None and not self._closed:
            raise BackendError("closed", "the stream ended in the middle of the answer", status=200)
        self._resolve(at_ns)

    def lost(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    # --- what came

    def text(self) -> str:
        return "".join(self.texts)

    def _resolve(self, at_ns: int) -> None:
        if not self.done.done():
            self.done.set_result(at_ns)

    def _begin(self, body: bytes) -> bool:
        """True when the body is a stream of events, which its first byte tells better than its content type."""
        if self._whole or self.status != 200 or body.lstrip()[:1] in (b"{", b"[", b"<"):
            self._whole += body
            if len(self._whole) > _LONGEST_WHOLE:
                raise BackendError(
                    "protocol",
                    f"the answer is no stream of events and longer than {_LONGEST_WHOLE:,} bytes",
                    status=self.status,
                    hint=_NOT_OPENAI,
                )
            return False
        self._streams = bool(body.strip()) or self._streams
        return True

    def _take(self, events: list[bytes]) -> bool:
        """Take events in; True when it was enough and the rest is not wanted."""
        for data in events:
            try:
                event = decode(data[6:]) if data.startswith(b"data: {") else self._other(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                event = self._other(data)
            if event is None:
                continue
            if event.choices:
                for choice in event.choices:
                    if self._said(choice):
                        self.chunks += 1
            elif event.error is not None or event.message is not None:
                raise _reported(event)
            if event.usage is not None:
                self.usage = event.usage
            if self.chunks >= self.stop_after:
                return True
        return False

    def _said(self, choice: Choice) -> bool:
        """Keep what one choice says; False when that is nothing."""
        if choice.finish_reason is not None:
            self.finish = choice.finish_reason
        delta = choice.delta or choice.message
        if delta is None:
            if choice.text:
                self.texts.append(choice.text)
                return True
            return False
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            self.texts.append(thought)
            self._thinking = True
        text = delta.content or delta.refusal
        if not text and delta.tool_calls:
            text = _called(delta.tool_calls)
        elif not text:
            return bool(thought)
        if self._thinking:
            self._thinking = False
            self.texts.append(" ")
        self.texts.append(text)
        return True

    def _other(self, data: bytes) -> Event | None:
        """An event that is not one line of `data: {`; None when it has nothing to say."""
        lines = [line[5:].removeprefix(b" ") for line in data.split(b"\n") if line.startswith(b"data:")]
        payload = b"\n".join(lines).strip()
        if payload == b"[DONE]":
            self._closed = True
            return None
        if not payload:
            if all(line[:1] in (b"", b":") or line.split(b":")[0] in _FIELDS for line in data.split(b"\n")):
                return None
            raise _nonsense(data, None)
        try:
            return decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _nonsense(payload, error) from None

    def _take_whole(self, body: bytes, at_ns: int) -> None:
        """All of the answer at once, from a server that does not stream: one chunk."""
        try:
            event = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _nonsense(body, error) from None
        if event.error is not None or (event.message is not None and not event.choices):
            raise _reported(event)
        if not event.choices:
            raise _nonsense(body, None)
        self._closed = True
        self.usage = event.usage
        if self._said(event.choices[0]):
            self.chunks = 1
            self._on_chunk(ChunkRun(at_ns - self._origin, 0, 0, 1, 1))


_FIELDS = (b"event", b"id", b"retry", b"data")


def _called(calls: list[ToolCall]) -> str:
    """The text of tool calls: what of their names and arguments has come."""
    functions = [call.function for call in calls if call.function is not None]
    return "".join(f"{function.name or ''}{function.arguments or ''}" for function in functions)


def _plain_lines(text: bytes) -> bytes:
    """With line feeds alone; a carriage return at the end waits for what follows."""
    if text.endswith(b"\r"):
        return text[:-1].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\r"
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _nonsense(payload: bytes, error: Exception | None) -> BackendError:
    shown = payload[:80].decode("utf-8", "replace")
    why = f" ({error})" if error is not None else ""
    return BackendError(
        "protocol", f"the server sent what is no event of an answer: {shown!r}{why}", status=200, hint=_NOT_OPENAI
    )


def _reported(event: Event) -> BackendError:
    """The server's own words for what went wrong after it had said 200."""
    text, status = event.message, 200
    if isinstance(event.error, dict):
        text = event.error.get("message") or event.error
        if isinstance(event.error.get("code"), int):
            status = event.error["code"]
    elif event.error is not None:
        text = event.error
    return BackendError("status", f"the server reports an error: {str(text)[:500]}", status=status)


def _refused(status: int, body: bytes) -> BackendError:
    """The message of an answer whose status is not 200; servers put it in several places."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = body.decode("utf-8", "replace").strip()
    if isinstance(found, dict):
        inner = found.get("error") or found
        found = inner.get("message") or inner.get("detail") or inner if isinstance(inner, dict) else inner
    text = f": {str(found)[:500]}" if found else ""
    return BackendError(
        "status", f"the server answered with status {status}{text}", status=status, hint=_HINTS.get(status)
    )


_HINTS = {
    401: "set the API key in the environment",
    403: "set the API key in the environment",
    404: "is the URL's path right (it often ends in /v1), and the model's name?",
    422: "the server may not know an extra body field: turn exact output lengths off",
    429: "the server limits the rate of requests",
}
