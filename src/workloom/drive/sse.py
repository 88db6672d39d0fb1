"""What a server streams: server-sent events, each a piece of the answer.

Real servers differ: usage comes in an event without choices or with the finish reason; the first event may hold a role
only; the stream may end without a last word, carry an error with status 200, or be one JSON object although a stream
was asked for. All of that is taken here; what an event says is for the API's own subclass (:mod:`workloom.drive.api`).
Tokens are counted by the server's usage, never by events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from workloom.drive.faults import refused
from workloom.errors import BackendError
from workloom.records import ChunkRun

NEVER = 1 << 62
"""Tokens that no answer has: nobody hangs up."""
_LONGEST = 1 << 23
"""Bytes without an end of an event that are taken for nonsense."""
_LONGEST_WHOLE = 1 << 26
"""Bytes of an answer that is no stream; more is not kept."""
_NOT_OPENAI = "does the server speak the API that was asked for?"


class Counts(Struct, gc=False):
    """Tokens by the server's own count; None where it does not say. Output includes reasoning, prompt the cached."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Answer(Struct, eq=False):
    """The sink of one call: counts what arrives and keeps the text. Instants are raw counter readings.

    A subclass is one API: `decoder` makes an event of JSON, `_hear` takes one in, `_hear_whole` a whole answer.
    """

    decoder: ClassVar[msgspec.json.Decoder[Any]]

    on_end: Callable[[int, Exception | None], None]
    """Hears once the reading of the read that ended the answer, or the fault that did."""
    on_chunk: Callable[[ChunkRun], None]
    origin: int
    stop_after: int = NEVER
    status: int = 0
    head: bytes = b""
    """The headers, of an answer whose status is no success."""
    over: bool = False
    fault: Exception | None = None
    chunks: int = 0
    """Events so far that carried content, reasoning or a tool call."""
    texts: list[str] = []
    """What an agent sees: content and tool calls."""
    thoughts: list[str] = []
    """Reasoning."""
    usage: Any = None
    """What the server counted, as its API has it."""
    finish: str | None = None
    _carry: bytes = b""
    """The beginning of an event whose end has not come."""
    _streams: bool = False
    """True once the body is known to be events."""
    _whole: bytearray = bytearray()
    """The body of an answer that is no stream."""
    _closed: bool = False
    """True once the API's last word came (``[DONE]`` and the like)."""
    closed_ns: int = 0
    """The reading of the read that brought it; 0: not yet."""

    # --- the connection calls these

    def feed(self, body: bytes, at_ns: int) -> bool:
        if not self._streams:
            if body[:6] == b"data: " and self.status < 300 and not self._whole:
                self._streams = True
            elif not self._begin(body):
                return False
        text = self._carry + body if self._carry else body
        if b"\r" in text:
            text = _plain_lines(text)
        events = text.split(b"\n\n")
        self._carry = events.pop()
        if not events:
            if len(self._carry) > _LONGEST:
                raise nonsense(self._carry, None)
            return False
        before = self.chunks
        try:
            enough = self._take(events)
        finally:  # also what came before a fault
            count = self.chunks - before
            if count:
                self.on_chunk(ChunkRun(at_ns - self.origin, 0, 0, count, 1))
        if self._closed and not self.closed_ns:
            self.closed_ns = at_ns
        if enough:
            self.finish = "hangup"
            self._resolve(at_ns)
        return enough

    def end(self, at_ns: int) -> None:
        if self.status >= 300:
            raise refused(self.status, bytes(self._whole), self.head)
        if self._whole:
            self._take_whole(bytes(self._whole), at_ns)
        elif self._carry.strip() and self._last_event(at_ns):
            return
        if self._streams and self.finish is None and not self._closed:
            raise _truncated()
        if not self.chunks:
            raise self._empty()
        self._resolve(at_ns)

    def lost(self, error: Exception) -> None:
        if not self.over:
            self.over, self.fault = True, error
            self.on_end(0, error)

    # --- what came

    def text(self, reasoning: bool = True) -> str:
        """The answer, with its reasoning before it or without."""
        said = "".join(self.texts)
        if not reasoning or not self.thoughts:
            return said
        thought = "".join(self.thoughts)
        return f"{thought} {said}" if said else thought

    def counts(self) -> Counts:
        """The server's usage."""
        raise NotImplementedError

    def _hear(self, event: Any) -> int:
        """Keep what one event says; how many pieces of the answer that was."""
        raise NotImplementedError

    def _hear_whole(self, event: Any) -> int | None:
        """Keep an answer that came whole; None when it is none."""
        raise NotImplementedError

    # ---

    def _resolve(self, at_ns: int) -> None:
        if not self.over:
            self.over = True
            self.on_end(at_ns, None)

    def _begin(self, body: bytes) -> bool:
        """True when the body is a stream of events, which its first byte tells better than its content type."""
        if self._whole or self.status >= 300 or body.lstrip()[:1] in (b"{", b"[", b"<"):
            self._whole += body
            if len(self._whole) > _LONGEST_WHOLE:
                raise BackendError(
                    "malformed",
                    f"the answer is no stream of events and longer than {_LONGEST_WHOLE:,} bytes",
                    status=self.status,
                    hint=_NOT_OPENAI,
                )
            return False
        self._streams = bool(body.strip()) or self._streams
        return True

    def _take(self, events: list[bytes]) -> bool:
        """Take events in; True when it was enough and the rest is not wanted."""
        decode, hear, enough = self.decoder.decode, self._hear, self.stop_after
        for data in events:
            if self._closed:  # what comes behind the last word is none of the answer
                return False
            try:
                event = decode(data[6:]) if data[:7] == b"data: {" else self._other(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                event = self._other(data)
            if event is not None:
                self.chunks += hear(event)
                if self.chunks >= enough:
                    return True
        return False

    def _other(self, data: bytes) -> Any:
        """An event that is not one line of `data: {`; None when it has nothing to say."""
        if data == b"data: [DONE]":
            self._closed = True
            return None
        at = data.find(b"\ndata: {")
        if at > 0 and data.startswith(b"event:") and data.count(b"\n") == 1:
            try:
                return self.decoder.decode(data[at + 7 :])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise nonsense(data[at + 7 :], error) from None
        lines = [line[5:].removeprefix(b" ") for line in data.split(b"\n") if line.startswith(b"data:")]
        payload = b"\n".join(lines).strip()
        if payload == b"[DONE]":
            self._closed = True
            return None
        if not payload:
            if all(line[:1] in (b"", b":") or line.split(b":")[0] in _FIELDS for line in data.split(b"\n")):
                return None
            raise nonsense(data, None)
        try:
            return self.decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise nonsense(payload, error) from None

    def _take_whole(self, body: bytes, at_ns: int) -> None:
        """All of the answer at once, from a server that does not stream: one chunk."""
        try:
            count = self._hear_whole(self.decoder.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise nonsense(body, error) from None
        if count is None:
            raise nonsense(body, None)
        self._closed = True
        if count:
            self.chunks = 1
            self.on_chunk(ChunkRun(at_ns - self.origin, 0, 0, 1, 1))

    def _last_event(self, at_ns: int) -> bool:
        """Take in an event that lacks its empty line; True when it was enough. It may lack more."""
        begun = self._carry.lstrip()
        try:
            return self.feed(b"\n\n", at_ns)
        except BackendError as fault:
            if fault.kind == "malformed" and begun.startswith(_FIELDS):
                raise _truncated() from None
            raise

    def _empty(self) -> BackendError:
        """The answer came to its end and there was nothing in it."""
        finish = f", finish reason {self.finish}" if self.finish else ""
        counts = self.counts()
        counted = [f"{name} {value:,}" for name, value in msgspec.structs.asdict(counts).items() if value is not None]
        usage = f"; the server counts {', '.join(counted)}" if counted else ""
        return BackendError("empty", f"the answer holds nothing{finish}{usage}", status=200)


_FIELDS = (b"event", b"id", b"retry", b"data")


def _truncated() -> BackendError:
    return BackendError("truncated", "the stream ended in the middle of the answer", status=200)


def _plain_lines(text: bytes) -> bytes:
    """With line feeds alone; a carriage return at the end waits for what follows."""
    if text.endswith(b"\r"):
        return text[:-1].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\r"
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def nonsense(payload: bytes, error: Exception | None) -> BackendError:
    """Something that is no event of an answer."""
    shown = payload[:80].decode("utf-8", "replace")
    why = f" ({error})" if error is not None else ""
    return BackendError(
        "malformed", f"the server sent what is no event of an answer: {shown!r}{why}", status=200, hint=_NOT_OPENAI
    )
