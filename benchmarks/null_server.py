"""A server that streams nothing in particular, as cheaply as Python can, and keeps its own record of what it sent.

    python benchmarks/null_server.py [--port 0] [--ttft-ms 0] [--gap-ms 0] [--batch 1]

Answers POST with `max_tokens` events of one token each, usage last. Without delays the streams are served in turn,
`--batch` tokens a write; with them token i is due at (request read + TTFT + i * gap). `usage.prompt_tokens` is the
number of the request in the record, so that a client's view of a call can be put beside the server's. GET /record
gives and clears it: for each request [read_ns, first_ns, last_ns], readings of the host's monotonic counter.
It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-null","object":"chat.completion.chunk","created":1700000000,"model":"null","choices":'
    b'[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-null","object":"chat.completion.chunk","created":1700000000,"model":"null","choices":[],'
    b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


TOKEN = chunk(EVENT % (b'"content":" word"', b"null"))
ROLE = chunk(EVENT % (b'"role":"assistant","content":""', b"null"))
FINISH = chunk(EVENT % (b"", b'"length"'))
DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Server:
    """What all connections share: the timing and the record."""

    def __init__(self, ttft_s: float, gap_s: float, batch: int) -> None:
        self.ttft_s, self.gap_s, self.batch = ttft_s, gap_s, batch
        self.record: list[list[int]] = []


class Stream(asyncio.Protocol):
    """One connection; a stream of tokens at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        at_ns = time.perf_counter_ns()
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = buffer
            return
        head = buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(buffer) < end + 4 + length:
            self.buffer = buffer
            return
        self.buffer = b""
        if head.startswith(b"get"):
            self.tell(b"record" in head.split(b"\r\n", 1)[0])
        else:
            self.answer(buffer[end + 4 :], at_ns)

    def tell(self, record: bool) -> None:
        body = json.dumps(self.server.record if record else {"data": [{"id": "null"}]}).encode()
        if record:
            self.server.record.clear()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def answer(self, body: bytes, at_ns: int) -> None:
        at = body.rfind(b'"max_tokens":') + 13
        self.total = self.left = int(body[at : at + 12].split(b",")[0].split(b"}")[0])
        self.entry = [at_ns, 0, 0]
        self.number = len(self.server.record)
        self.server.record.append(self.entry)
        self.start_ns = at_ns
        self.transport.write(HEAD + ROLE)
        if self.server.ttft_s or self.server.gap_s:
            self.wait()
        else:
            self.loop.call_soon(self.turn)

    def turn(self) -> None:
        """A turn of a stream without delays."""
        count = min(self.server.batch, self.left)
        self.emit(count)
        if self.left:
            self.loop.call_soon(self.turn)

    def wait(self) -> None:
        """Arm for the next token. A loop's timers are rounded to a millisecond: the record says when it really went."""
        sent = self.total - self.left
        due_ns = self.start_ns + round((self.server.ttft_s + sent * self.server.gap_s) * 1e9)
        self.loop.call_later(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9), self.tick)

    def tick(self) -> None:
        if not self.transport.is_closing():
            self.emit(1)
            if self.left:
                self.wait()

    def emit(self, count: int) -> None:
        self.left -= count
        data = TOKEN * count
        if not self.left:
            data += FINISH + chunk(USAGE % (self.number, self.total, self.total)) + DONE
        entry = self.entry
        entry[2] = time.perf_counter_ns()
        if not entry[1]:
            entry[1] = entry[2]
        self.transport.write(data)


async def serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = Server(args.ttft_ms / 1e3, args.gap_ms / 1e3, args.batch)
    listener = await loop.create_server(lambda: Stream(server), "127.0.0.1", args.port, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if sys.stdin.read(1) else ended.set())
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="a streaming null server with its own record")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1, help="tokens a write when there are no delays")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
