"""The least a Python client can do: an asyncio.Protocol on uvloop that takes events apart and stamps every read.

This is what the benchmarks hold workloom against. It knows one server, one shape of answer and no faults: no typed
errors, no records, no prompts (one body, encoded again for every request, as any client must for a real one).

    python benchmarks/bare_loop.py PORT [--requests 1000] [--concurrency 128] [--tokens 8]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from functools import partial
from typing import Any

import msgspec
import uvloop

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
encode, decode, clock = msgspec.json.encode, msgspec.json.decode, time.perf_counter_ns


class Run:
    """A closed loop of `requests` calls, and what came of it."""

    def __init__(self, requests: int, tokens: int, words: int) -> None:
        self.left = requests
        self.body: dict[str, Any] = {
            "model": "null",
            "messages": [{"role": "user", "content": " ".join(["word"] * words)}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
        }
        self.stamps: list[list[int]] = []
        """For each call: when it was sent, then every token's read."""
        self.usage: list[dict[str, Any] | None] = []


class Bare(asyncio.Protocol):
    def __init__(self, run: Run, done: asyncio.Future[None]) -> None:
        self.run, self.done = run, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.next()

    def next(self) -> None:
        run = self.run
        if not run.left:
            self.transport.close()
            self.done.set_result(None)
            return
        run.left -= 1
        body = encode(run.body)
        self.in_head, self.carry, self.events = True, b"", b""
        self.usage: dict[str, Any] | None = None
        self.stamps = [clock()]
        self.transport.write(HEAD % len(body) + body)

    def data_received(self, data: bytes) -> None:
        now = clock()
        carry = self.carry + data if self.carry else data
        at = 0
        if self.in_head:
            at = carry.find(b"\r\n\r\n") + 4
            if at < 4:
                self.carry = carry
                return
            self.in_head = False
        parts = []
        ended = False
        while (end := carry.find(b"\r\n", at)) >= 0:
            size = int(carry[at:end], 16)
            if len(carry) < end + 4 + size:
                break
            at = end + 4 + size
            if not size:
                ended = True
                break
            parts.append(carry[end + 2 : end + 2 + size])
        self.carry = carry[at:]
        *events, self.events = (self.events + b"".join(parts)).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                continue
            parsed = decode(event[6:])
            choices = parsed["choices"]
            if choices and choices[0]["delta"].get("content"):
                self.stamps.append(now)
            elif parsed.get("usage"):
                self.usage = parsed["usage"]
        if ended:
            self.run.stamps.append(self.stamps)
            self.run.usage.append(self.usage)
            self.next()


async def drive(port: int, requests: int, concurrency: int, tokens: int, words: int = 64) -> Run:
    """Keep `concurrency` calls in flight until `requests` are done."""
    loop = asyncio.get_running_loop()
    run = Run(requests, tokens, words)
    ends = []
    for _ in range(min(concurrency, requests)):
        done = loop.create_future()
        ends.append(done)
        await loop.create_connection(partial(Bare, run, done), "127.0.0.1", port)
    await asyncio.gather(*ends)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="the bare client loop")
    parser.add_argument("port", type=int)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=8)
    args = parser.parse_args()
    before = time.process_time()
    run = uvloop.run(drive(args.port, args.requests, args.concurrency, args.tokens))
    cpu_s = time.process_time() - before
    print(f"{len(run.stamps)} calls, {1e6 * cpu_s / args.requests:.1f} us CPU a call")


if __name__ == "__main__":
    main()
