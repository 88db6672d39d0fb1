"""The debug trace: the whole of every call, to see what really was said. Off by default: it costs time and disk.

One JSON line a call: the request's body, every read with its instant, the answer with its reasoning apart, token ids
where the server gives them. No header is written, so no secret is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.drive.backend import Request
from workloom.drive.sse import Answer


class Exchange(Struct, omit_defaults=True):
    """One exchange with a server, failed or not. Instants are nanoseconds since the start of the run."""

    call: str
    url: str
    request: msgspec.Raw
    """The body that was sent: JSON."""
    sent_ns: int
    reads: list[tuple[int, str]]
    """The instant of each read, and what it held of the answer's body."""
    status: int = 0
    answer: str = ""
    reasoning: str = ""
    finish: str | None = None
    error: str | None = None
    prompt_token_ids: list[int] = []
    token_ids: list[int] = []


class Tape:
    """A sink that keeps what passes it on the way to an answer."""

    def __init__(
        self,
        request: Request,
        url: str,
        lines: list[bytes],
        answer: Answer,
        origin: int,
        tell: Callable[[Exchange], None],
    ) -> None:
        self._name, self._url, self._lines = request.name, url, lines
        self._answer = answer
        self._origin = origin
        self._tell = tell
        self._reads: list[tuple[int, bytes]] = []

    @property
    def status(self) -> int:
        return self._answer.status

    @status.setter
    def status(self, status: int) -> None:
        self._answer.status = status

    @property
    def head(self) -> bytes:
        return self._answer.head

    @head.setter
    def head(self, head: bytes) -> None:
        self._answer.head = head

    @property
    def closed_ns(self) -> int:
        return self._answer.closed_ns

    def feed(self, body: bytes, at_ns: int) -> bool:
        self._reads.append((at_ns - self._origin, body))
        return self._answer.feed(body, at_ns)

    def end(self, at_ns: int) -> None:
        self._answer.end(at_ns)

    def lost(self, error: Exception) -> None:
        self._answer.lost(error)

    def over(self, sent_ns: int) -> None:
        """Tell of it all."""
        answer = self._answer
        body = b"".join(self._lines).split(b"\r\n\r\n", 1)[1]
        fault: object = answer.fault if answer.over else "cancelled"
        exchange = Exchange(
            self._name,
            self._url,
            msgspec.Raw(body),
            sent_ns,
            [(at_ns, data.decode("utf-8", "replace")) for at_ns, data in self._reads],
            answer.status,
            "".join(answer.texts),
            "".join(answer.thoughts),
            answer.finish,
            None if fault is None else str(fault) or type(fault).__name__,
        )
        exchange.prompt_token_ids, exchange.token_ids = token_ids(b"".join(data for _, data in self._reads))
        self._tell(exchange)


class DebugTrace:
    """Writes exchanges to a file, one JSON line each."""

    def __init__(self, path: Path, cleaned: Callable[[Exchange], Exchange] = lambda exchange: exchange) -> None:
        self._file = path.open("ab")
        self._cleaned = cleaned
        """Takes out what no disk may hold."""

    def __call__(self, exchange: Exchange) -> None:
        self._file.write(msgspec.json.encode(self._cleaned(exchange)) + b"\n")

    def close(self) -> None:
        self._file.close()


def token_ids(body: bytes) -> tuple[list[int], list[int]]:
    """The token ids of prompt and answer, where a stream tells them (vLLM: return_token_ids)."""
    prompt: list[int] = []
    answer: list[int] = []
    if b"token_ids" not in body:
        return prompt, answer
    for line in body.splitlines():
        try:
            event = msgspec.json.decode(line.removeprefix(b"data:").strip(), type=_Event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        prompt += event.prompt_token_ids or []
        for choice in event.choices or []:
            prompt += choice.prompt_token_ids or []
            answer += choice.token_ids or []
    return prompt, answer


class _Choice(Struct):
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Event(Struct):
    choices: list[_Choice] | None = None
    prompt_token_ids: list[int] | None = None
