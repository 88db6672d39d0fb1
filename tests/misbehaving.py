"""A scripted HTTP server on the loopback: tests say what each request is answered with, byte by byte."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from workloom.clock import RealClock, run_real
from workloom.drive.backend import Request
from workloom.drive.http import HttpBackend, HttpOptions
from workloom.drive.text import Texts
from workloom.prompt import Piece, Prompt
from workloom.records import ChunkRun, Outcome

CLOSE = "close"
"""In a script: close the connection here."""
HOLD = "hold"
"""In a script: say no more, until the client goes."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, usage: Any = None, **more: Any) -> bytes:
    """One event of a chat answer; without a delta and a finish reason its choices are empty."""
    choices = [] if delta is None and finish is None else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "x", "choices": choices, "usage": usage, **more}).encode() + b"\n\n"


def said(*words: str) -> list[bytes]:
    return [event({"content": word}) for word in words]


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
EVENTS = [
    event({"role": "assistant", "content": ""}),
    *said("a", " b", " c"),
    event({}, "length"),
    event(usage=USAGE),
    DONE,
]


def stream(*events: bytes) -> bytes:
    """A whole chunked answer of these events."""
    return HEAD + b"".join(chunk(e) for e in events) + END


GOOD = stream(*EVENTS)


def plain(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


class Server:
    """`scripts` are used one a request, the last one again and again; `heard` is what came, one body a request."""

    def __init__(self, scripts: list[list[bytes | str]]) -> None:
        self.scripts = scripts
        self.heard: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """Set when a client has closed while it was being answered or waited for."""
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
            self.heads.append(head)
            self.heard.append(await reader.readexactly(length))
            script = self.scripts[min(len(self.heard), len(self.scripts)) - 1]
            for step in script:
                if step == CLOSE:
                    return
                if step == HOLD:
                    await reader.read()
                    self.gone.set()
                    return
                assert isinstance(step, bytes)
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)


@asynccontextmanager
async def serving(*scripts: list[bytes | str], tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(list(scripts))
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls, limit=1 << 24)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def prompt(words: int = 5, number: int = 1 << 24) -> Prompt:
    return Prompt(None, 0, False, (Piece(number, words, "user"),), number | 1)


def request(output_tokens: int = 3, stop_after: int | None = None, words: int = 5, **more: Any) -> Request:
    """A call of instance 0 (or what `more` says) with a prompt of so many words."""
    given = {"name": "0/a", "instance": 0, "session_key": "0", "agent": "main", "model": "m", "prompt": prompt(words)}
    return Request(output_tokens=output_tokens, stop_after=stop_after, **(given | more))


def connect(
    ports: int | list[int], clock: RealClock, debug: Any = None, style: Any = None, **options: Any
) -> HttpBackend:
    """The live backend for servers on these ports of the loopback; it asks for model `m` with texts of salt 1."""
    scheme = options.pop("scheme", "http")
    urls = tuple(f"{scheme}://127.0.0.1:{port}/v1" for port in ([ports] if isinstance(ports, int) else ports))
    given = {"urls": urls, "model": "m", "salt": 1} | options
    return HttpBackend(HttpOptions(**given), clock=clock, style=style or Texts(1), debug=debug)


def talk(*scripts: list[bytes | str], calls: int = 1, ask: Request | None = None, **options: Any) -> Talk:
    """Make calls one after the other to a server with these scripts; what came of the last, and the server."""
    result = Talk()

    async def main(clock: RealClock) -> None:
        async with serving(*scripts) as server:
            backend = connect(server.port, clock, **options)
            result.server, result.backend = server, backend
            for _ in range(calls):
                result.chunks = []
                result.outcome = await backend.call(ask or request(), result.chunks.append)
            backend.close()

    run_real(main)
    return result


class Talk:
    server: Server
    backend: HttpBackend
    outcome: Outcome
    chunks: list[ChunkRun]


def live(main: Callable[[RealClock], Any]) -> Any:
    """Run a coroutine function on a real loop, but not for ever."""

    async def bounded(clock: RealClock) -> Any:
        async with asyncio.timeout(20):
            return await main(clock)

    return run_real(bounded)
