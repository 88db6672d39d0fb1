"""A server that streams nothing in particular, as fast as Python can, and keeps its own record of what it sent.

    python -m workloom.drive.null_server [--port 0] [--ttft-ms 0] [--gap-ms 0] [--batch 1] [--stamps]

Answers POST with `max_tokens` events of one token each, usage last. Without delays streams are served in turn,
`--batch` tokens a write; with a gap token i is due at (request read + TTFT + i * gap); with a TTFT alone all tokens are
due then. A request can ask otherwise: header `X-Null: ttft_ms=50, gap_ms=10, batch=8`, or the same as a query.

`usage.prompt_tokens` is the number of the request in the record, so that a client's view of a call can be put beside
the server's. GET /record gives and clears it: for each request [read_ns, first_ns, last_ns], readings of the host's
monotonic counter before the write; with `--stamps` a fourth item lists the instant of every write. It prints its port,
and ends when its standard input does; where that is nothing to wait for (/dev/null, a file), when it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import os
import re
import sys
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from workloom.clock import NS, RealClock, run_real

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-null","object":"chat.completion.chunk","created":1700000000,"model":"null","choices":'
    b'[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-null","object":"chat.completion.chunk","created":1700000000,"model":"null","choices":[],'
    b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
WATCH_NS = 1_200_000
"""A loop's timers are good to a millisecond: from this long before a token is due the loop turns without sleeping."""
MANY = 100
"""With so many tokens to come it looks at the clock once a millisecond instead, and writes all that are due: engines
write by steps as well, and the core may be wanted."""
AT_ONCE = 64
"""Tokens written between two looks at the sockets."""


def chunk(data: bytes) -> bytes:
    """A piece of a body with its length before it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


TOKEN = chunk(EVENT % (b'"content":" word"', b"null"))
ROLE = chunk(EVENT % (b'"role":"assistant","content":""', b"null"))
FINISH = chunk(EVENT % (b"", b'"length"'))
DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LIMIT = re.compile(rb'"max(?:_completion)?_tokens": *(\d+)')
_ASKED = re.compile(rb"(ttft_ms|gap_ms|batch)=([\d.]+)")


class Pace(NamedTuple):
    """How a stream is timed."""

    ttft_ns: int
    gap_ns: int
    batch: int


class Server:
    """What all connections share: the timing, the record, and the tokens that are due."""

    def __init__(self, clock: RealClock, pace: Pace, stamps: bool) -> None:
        self.raw = clock.raw
        self.loop = asyncio.get_running_loop()
        self.pace = pace
        self.stamps = stamps
        self.record: list[list[Any]] = []
        self._due: list[tuple[int, int, Stream]] = []
        self._count = 0
        self._handle: asyncio.Handle | None = None

    def push(self, due_ns: int, stream: Stream) -> None:
        """A token of a stream is due at an instant."""
        self._count += 1
        first = not self._due or due_ns < self._due[0][0]
        heapq.heappush(self._due, (due_ns, self._count, stream))
        if first:
            if self._handle is not None:
                self._handle.cancel()
            self._arm()

    def _arm(self) -> None:
        wait_ns = self._due[0][0] - self.raw()
        if wait_ns > 0 and len(self._due) > MANY:
            self._handle = self.loop.call_later(max(wait_ns / NS, 0.001), self._turn)
        elif wait_ns <= WATCH_NS:
            self._handle = self.loop.call_soon(self._turn)
        else:
            self._handle = self.loop.call_later((wait_ns - WATCH_NS) / NS, self._turn)

    def _turn(self) -> None:
        due = self._due
        now_ns = self.raw()
        for _ in range(min(AT_ONCE, len(due))):
            if not due or due[0][0] > now_ns:
                break
            at_ns, _, stream = due[0]
            next_ns = stream.tick(at_ns)
            if next_ns is None:
                heapq.heappop(due)
            else:
                self._count += 1
                heapq.heapreplace(due, (next_ns, self._count, stream))
        self._handle = None
        if due:
            self._arm()


class Stream(asyncio.Protocol):
    """One connection; a stream of tokens at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.fd: int = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        at_ns = self.server.raw()
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        found = _LENGTH.search(buffer, 0, end) if end >= 0 else None
        length = int(found[1]) if found else 0
        if end < 0 or len(buffer) < end + 4 + length:
            self.buffer = buffer
            return
        self.buffer = b""
        if buffer.startswith(b"GET"):
            self.tell(b"/record" in buffer.split(b"\r\n", 1)[0])
        else:
            self.answer(buffer, end, at_ns)

    def tell(self, record: bool) -> None:
        body = msgspec.json.encode(self.server.record if record else {"object": "list", "data": [{"id": "null"}]})
        if record:
            self.server.record.clear()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def answer(self, request: bytes, end: int, at_ns: int) -> None:
        server = self.server
        limit = _LIMIT.search(request, max(end, len(request) - 200)) or _LIMIT.search(request, end)
        self.total = self.left = int(limit[1]) if limit else 16
        self.pace = asked(request[:end], server.pace)
        self.number = len(server.record)
        self.entry: list[Any] = [at_ns, 0, 0, []] if server.stamps else [at_ns, 0, 0]
        server.record.append(self.entry)
        pace = self.pace
        if pace.ttft_ns or pace.gap_ns:
            self.write(HEAD + ROLE)
            server.push(at_ns + pace.ttft_ns, self)
        elif self.total <= pace.batch:
            self.emit(self.total, HEAD + ROLE)
        else:
            self.write(HEAD + ROLE)
            server.loop.call_soon(self.turn)

    def turn(self) -> None:
        """A turn of a stream without delays."""
        self.emit(min(self.pace.batch, self.left))
        if self.left and not self.transport.is_closing():
            self.server.loop.call_soon(self.turn)

    def tick(self, due_ns: int) -> int | None:
        """Write what is due; when the next is due, None at the end."""
        if self.transport.is_closing():
            return None
        gap_ns = self.pace.gap_ns
        self.emit(1 if gap_ns else self.left)
        return due_ns + gap_ns if self.left else None

    def emit(self, count: int, before: bytes = b"") -> None:
        self.left -= count
        data = before + TOKEN * count
        if not self.left:
            data += FINISH + chunk(USAGE % (self.number, self.total, self.total)) + DONE
        entry = self.entry
        entry[2] = at_ns = self.server.raw()
        if not entry[1]:
            entry[1] = at_ns
        if self.server.stamps:
            entry[3].append(at_ns)
        self.write(data)

    def write(self, data: bytes) -> None:
        """Write now: a transport would wait for the end of the loop's turn."""
        if self.transport.get_write_buffer_size():
            self.transport.write(data)
            return
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.transport.abort()
            return
        if sent < len(data):
            self.transport.write(data[sent:])


def asked(head: bytes, pace: Pace) -> Pace:
    """The pace a request asks for in its query or its header; else the server's."""
    if b"ttft_ms=" not in head and b"gap_ms=" not in head and b"batch=" not in head:
        return pace
    told = {name.decode(): float(value) for name, value in _ASKED.findall(head)}
    return Pace(
        round(told["ttft_ms"] * 1e6) if "ttft_ms" in told else pace.ttft_ns,
        round(told["gap_ms"] * 1e6) if "gap_ms" in told else pace.gap_ns,
        max(1, int(told.get("batch", pace.batch))),
    )


def watch_input(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Set `ended` when standard input ends. Of /dev/null and files a loop cannot be told when: then never."""
    if sys.stdin is None:
        return
    with suppress(PermissionError):
        loop.add_reader(sys.stdin.fileno(), lambda: None if sys.stdin.read(1) else ended.set())


async def serve(clock: RealClock, args: argparse.Namespace) -> None:
    """Listen and print the port; return when standard input has ended."""
    loop = asyncio.get_running_loop()
    pace = Pace(round(args.ttft_ms * 1e6), round(args.gap_ms * 1e6), max(1, args.batch))
    server = Server(clock, pace, args.stamps)
    listener = await loop.create_server(lambda: Stream(server), "127.0.0.1", args.port, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    watch_input(loop, ended)
    gc.collect()
    gc.disable()
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="a streaming null server with its own record")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1, help="tokens a write when there are no delays")
    parser.add_argument("--stamps", action="store_true", help="record the instant of every write")
    args = parser.parse_args()
    run_real(lambda clock: serve(clock, args))


if __name__ == "__main__":
    main()
