"""A server of chat completions and completions that misbehaves on purpose: every fault a named option, seeded.

    with FaultyServer(Faults(drip=0.1, die=0.02), seed=7) as server:
        ... server.url ...
        server.log

Which fault request number n gets is a function of (seed, n). What is not struck is answered properly: exactly
`max_tokens` words, usage, `[DONE]`. `cached_tokens` of the usage is a receipt: the number of the request, so a row can
be laid beside the server's own log. It runs on a thread with a loop of its own, on 127.0.0.1 only, or as a process:

    python tests/faulty_server.py --port 8123 --seed 7 --gap 0.02 stall_body=0.05 die=0.01
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct, structs

from workloom import seeds


class Faults(Struct, frozen=True, kw_only=True):
    """The probability of every fault; together at most 1. What is left is answered properly."""

    # the way to the server
    refuse: float = 0.0
    """Answers, then nobody listens for `away_s`."""
    die: float = 0.0
    """All connections are reset and nobody listens for `away_s`; then the server is back."""
    slow_accept: float = 0.0
    """Answers, then takes no connection for `accept_s`."""
    disconnect: float = 0.0
    """Closes without one byte of an answer."""
    reset: float = 0.0
    """Resets without one byte of an answer."""
    early: float = 0.0
    """Answers before it has read the body of the request."""

    # the head
    stall_head: float = 0.0
    """Never says anything."""
    reset_head: float = 0.0
    """Resets in the middle of the headers."""
    reset_body: float = 0.0
    """Resets behind the headers."""
    rate_limit: float = 0.0
    """429 with Retry-After."""
    broken_json: float = 0.0
    """500 with a JSON body."""
    broken_html: float = 0.0
    """500 with an HTML page."""
    overflow: float = 0.0
    """400: the prompt is longer than the context."""
    html: float = 0.0
    """200 with an HTML page."""
    no_content: float = 0.0
    """204."""
    redirect: float = 0.0
    """302."""
    no_http: float = 0.0
    """A greeting of another protocol."""
    go_on: float = 0.0
    """100 Continue before the answer."""
    gzip: float = 0.0
    """Says that the body is compressed, which it is not."""

    # the stream
    stall_body: float = 0.0
    """Stops for ever between two events."""
    reset_chunk: float = 0.0
    """Resets in the middle of a chunk."""
    close_chunk: float = 0.0
    """Closes in the middle of a chunk."""
    cut: float = 0.0
    """Ends the body in good form in the middle of the answer."""
    wrong_json: float = 0.0
    """An event that is no JSON."""
    wrong_chunk: float = 0.0
    """A chunk size that is no number."""
    error_event: float = 0.0
    """200, some of the answer, then an event that reports an error."""
    long_line: float = 0.0
    """An event of 10 MB without an end."""
    length_long: float = 0.0
    """A content length that is too long; then it closes."""
    length_short: float = 0.0
    """A content length that ends in the middle of the answer."""
    empty: float = 0.0
    """Finish reason, usage and `[DONE]`, and nothing said."""
    empty_body: float = 0.0
    """200 and no body at all."""
    role_only: float = 0.0
    """One event with a role and no content, then the end."""

    # harmless
    drip: float = 0.0
    """One byte at a time."""
    split: float = 0.0
    """A chunk for every byte of the stream."""
    together: float = 0.0
    """The whole answer in one segment."""
    crlf: float = 0.0
    """Lines that end with CR LF."""
    comments: float = 0.0
    """Comments between events."""
    fields: float = 0.0
    """`event:`, `id:` and `retry:` beside the data."""
    no_done: float = 0.0
    """A finish reason, but no `[DONE]`."""
    double_usage: float = 0.0
    """The usage twice."""
    no_usage: float = 0.0
    """No usage."""
    close: float = 0.0
    """`Connection: close`, and does."""
    until_close: float = 0.0
    """A body without a length, that ends with the connection."""
    half_close: float = 0.0
    """Sends no more after the answer, but would still listen."""
    stale: float = 0.0
    """Closes the kept connection a moment after the answer."""
    trailing: float = 0.0
    """Garbage behind the end of the answer."""


NAMES = Faults.__struct_fields__
HARMLESS = (*NAMES[NAMES.index("drip") :], "none", "refuse", "slow_accept", "early", "go_on", "gzip")
"""Faults whose own request is answered all the same."""


class Pace(Struct, frozen=True, kw_only=True):
    """How long things take, in seconds."""

    gap_s: float = 0.0
    """Between two events of an answer."""
    away_s: float = 0.2
    accept_s: float = 0.05


class Asked(Struct):
    """One request, as the server saw it."""

    number: int
    connection: int
    place: int
    """Which request of its connection it was, from 0."""
    path: str
    fault: str
    asked_tokens: int = 0
    prompt_tokens: int = 0
    """Words of all messages."""


def draw(faults: Faults, seed: int, number: int) -> str:
    """The fault of request `number`, or `none`."""
    place = seeds.number(seed, "fault", number) / 2**64
    for name in NAMES:
        place -= getattr(faults, name)
        if place < 0:
            return name
    return "none"


class Gone(Exception):
    """The client has closed, or the connection is to end here."""


class Wire:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, number: int) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.loop, self.number = sock, loop, number
        self.requests = 0
        self._read = b""

    async def head(self) -> bytes:
        while b"\r\n\r\n" not in self._read:
            await self._more()
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        return head

    async def body(self, length: int) -> bytes:
        while len(self._read) < length:
            await self._more()
        body, self._read = self._read[:length], self._read[length:]
        return body

    async def _more(self) -> None:
        data = await self.loop.sock_recv(self.sock, 1 << 18)
        if not data:
            raise Gone
        self._read += data

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own, as far as the kernel lets us."""
        for piece in pieces:
            await self.loop.sock_sendall(self.sock, piece)

    def reset(self) -> None:
        """Close with a reset: what the kernel still holds is thrown away."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def response(status: str, body: bytes, *more: str) -> bytes:
    """A whole answer that is no stream."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
PAGE = b"<!DOCTYPE html><html><body>Welcome to the gateway</body></html>"
OVERFLOW = problem(
    "This model's maximum context length is 16 tokens. However, you requested 99 tokens (90 in the messages, 9 in the "
    "completion). Please reduce the length of the messages or completion.",
    type="BadRequestError",
    code="context_length_exceeded",
)
MODELS = response("200 OK", b'{"object":"list","data":[{"id":"m"}]}')
WHOLE: dict[str, bytes] = {
    "rate_limit": response("429 Too Many Requests", problem("slow down"), "Retry-After: 0"),
    "broken_json": response("500 Internal Server Error", problem("out of memory", type="InternalServerError")),
    "broken_html": response("500 Internal Server Error", PAGE, "Content-Type: text/html"),
    "overflow": response("400 Bad Request", OVERFLOW),
    "html": response("200 OK", PAGE, "Content-Type: text/html"),
    "no_content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "redirect": response("302 Found", b"", "Location: /elsewhere"),
    "empty_body": response("200 OK", b"", "Content-Type: text/event-stream"),
}
"""Faults that are one and the same answer whatever is asked."""


class Answer:
    """The events of a proper answer."""

    def __init__(self, chat: bool, tokens: int, prompt_tokens: int, number: int) -> None:
        self.chat = chat
        details = {"cached_tokens": number}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "prompt_tokens_details": details}
        self.role = [self._event({"role": "assistant", "content": ""})] if chat else []
        self.said = [self._event({"content": " sun" if i else "sun"}) for i in range(tokens)]
        self.finish = self._event({}, "length")
        self.usage = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"

    def _event(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        what: dict[str, Any] = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **what, "finish_reason": finish}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    def events(self) -> list[bytes]:
        return [*self.role, *self.said, self.finish, self.usage, DONE]

    def half(self) -> list[bytes]:
        """The beginning of the answer: at least one token, and no finish reason."""
        return [*self.role, *self.said[: (len(self.said) + 1) // 2]]


class FaultyServer:
    """See the module. `log` has one entry for every request whose headers came."""

    def __init__(
        self,
        faults: Faults | None = None,
        seed: int = 0,
        pace: Pace | None = None,
        port: int = 0,
        script: Sequence[str] = (),
    ) -> None:
        self.faults, self.seed, self.pace, self.script = faults or Faults(), seed, pace or Pace(), script
        """`script`: the faults of the first requests, by name; chance has the rest."""
        total = sum(structs.astuple(self.faults))
        assert total <= 1 + 1e-9, f"the probabilities of the faults add up to {total}"
        self.log: list[Asked] = []
        self.connections = 0
        self._wires: dict[asyncio.Task[None], Wire] = {}
        # Bound and not listening: the port stays ours while nobody listens, and is refused.
        self._holder = self._bound(port)
        self.port: int = self._holder.getsockname()[1]
        self._listener: socket.socket | None = None
        self._deaf = 0
        self._accept_at = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty server", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def say(self) -> str:
        """Seed and options: all that is needed to have the same faults again."""
        chances = structs.asdict(self.faults).items()
        options = [*self.script, *(f"{name}={chance:g}" for name, chance in chances if chance)]
        return f"faulty server: seed {self.seed}; {' '.join(options) or 'no faults'}; {self.pace}"

    def __enter__(self) -> FaultyServer:
        print(self.say())
        started = threading.Event()
        self._loop.call_soon(self._listen)
        self._loop.call_soon(started.set)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the faulty server does not end"
        self._loop.close()
        self._holder.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._go_deaf()
        await self._reset_all()

    # --- connections

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return sock

    def _listen(self) -> None:
        self._listener = self._bound(self.port)
        self._listener.listen(128)
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take the next connection, unless connections are taken slowly just now."""
        wait_s = self._accept_at - self._loop.time()
        if wait_s > 0:
            self._loop.remove_reader(listener)
            self._timers.append(self._loop.call_later(wait_s, self._listen_on, listener))
            return
        with suppress(BlockingIOError, ConnectionError):
            wire = Wire(listener.accept()[0], self._loop, self.connections)
            self.connections += 1
            task = self._loop.create_task(self._talk(wire), name=f"connection {wire.number}")
            self._wires[task] = wire
            task.add_done_callback(self._ended)

    def _listen_on(self, listener: socket.socket) -> None:
        if listener is self._listener:
            self._loop.add_reader(listener, self._accept, listener)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._wires.pop(task).sock.close()
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": "faulty server", "exception": task.exception()})

    def _go_deaf(self) -> None:
        """Listen no more; what waited to be accepted is reset by the kernel."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _away(self) -> None:
        """Nobody listens for `away_s`."""
        self._deaf += 1
        self._go_deaf()
        self._timers.append(self._loop.call_later(self.pace.away_s, self._back))

    def _back(self) -> None:
        self._deaf -= 1
        if not self._deaf:
            self._listen()

    async def _reset_all(self) -> None:
        """Reset every connection but that of the caller."""
        others = [task for task in self._wires if task is not asyncio.current_task()]
        for task in others:
            wire = self._wires[task]
            task.cancel()
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.gather(*others, return_exceptions=True)

    async def _talk(self, wire: Wire) -> None:
        with suppress(Gone, ConnectionError):
            while True:
                await self._request(wire)

    # --- requests

    async def _request(self, wire: Wire) -> None:
        head = await wire.head()
        method, path = head.decode("latin-1").split(" ", 2)[:2]
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        length = int(found[1]) if found else 0
        if method == "GET":
            listed = path.endswith("/models")
            await wire.send(MODELS if listed else response("404 Not Found", problem("there is nothing here")))
            return
        number = len(self.log)
        scripted = number < len(self.script)
        fault = self.script[number] if scripted else draw(self.faults, self.seed, number)
        asked = Asked(number, wire.number, wire.requests, path, fault)
        self.log.append(asked)
        wire.requests += 1
        if asked.fault == "early":
            await wire.send(CHUNKED, chunk(b": thinking\n\n"))
        body = json.loads(await wire.body(length))
        chat = path.endswith("/chat/completions")
        texts = [each["content"] or "" for each in body["messages"]] if chat else [body["prompt"]]
        asked.prompt_tokens = sum(len(text.split()) for text in texts)
        asked.asked_tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        answer = Answer(chat, asked.asked_tokens, asked.prompt_tokens, number)
        await self._strike(wire, asked, answer)

    async def _strike(self, wire: Wire, asked: Asked, answer: Answer) -> None:
        if asked.fault in WHOLE:
            await wire.send(WHOLE[asked.fault])
        else:
            await STRIKES.get(asked.fault, _proper)(self, wire, answer)


Strike = Callable[[FaultyServer, Wire, Answer], Awaitable[None]]
STRIKES: dict[str, Strike] = {}


def strike(play: Strike) -> Strike:
    """The function that plays the fault of its own name."""
    assert play.__name__.strip("_") in NAMES
    STRIKES[play.__name__.strip("_")] = play
    return play


async def _stream(server: FaultyServer, wire: Wire, events: list[bytes]) -> None:
    """Events as chunks, each in a segment of its own, `gap_s` apart; without the last chunk."""
    await wire.send(CHUNKED)
    for event in events:
        await wire.send(chunk(event))
        if server.pace.gap_s:
            await asyncio.sleep(server.pace.gap_s)


async def _proper(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.events())
    await wire.send(END)


async def _of(server: FaultyServer, wire: Wire, events: list[bytes]) -> None:
    await _stream(server, wire, events)
    await wire.send(END)


# the way to the server


@strike
async def refuse(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    server._away()
    await wire.send(HEAD + b"Connection: close\r\n\r\n", *answer.events())
    raise Gone


@strike
async def die(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    server._away()
    wire.reset()
    await server._reset_all()
    raise Gone


@strike
async def slow_accept(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    server._accept_at = server._loop.time() + server.pace.accept_s
    await wire.send(HEAD + b"Connection: close\r\n\r\n", *answer.events())
    raise Gone


@strike
async def disconnect(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    raise Gone


@strike
async def reset(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    wire.reset()
    raise Gone


# the head


@strike
async def stall_head(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire._more()  # until the client goes


@strike
async def reset_head(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(CHUNKED[:30])
    await asyncio.sleep(0.02)  # a reset overtakes what has not been read
    wire.reset()
    raise Gone


@strike
async def reset_body(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(CHUNKED)
    await asyncio.sleep(0.02)
    wire.reset()
    raise Gone


@strike
async def no_http(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(b"SSH-2.0-OpenSSH_9.6\r\n")


@strike
async def go_on(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await _proper(server, wire, answer)


@strike
async def early(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(*map(chunk, answer.events()), END)  # its head has left already


@strike
async def gzip(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    body = b"".join(answer.events())
    await wire.send(response("200 OK", body, "Content-Type: text/event-stream", "Content-Encoding: gzip"))


# the stream


@strike
async def stall_body(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.half())
    await wire._more()


@strike
async def reset_chunk(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.half())
    await wire.send(chunk(answer.finish)[:20])
    await asyncio.sleep(0.02)
    wire.reset()
    raise Gone


@strike
async def close_chunk(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.half())
    await wire.send(chunk(answer.finish)[:20])
    raise Gone


@strike
async def cut(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, answer.half())


@strike
async def wrong_json(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [*answer.half(), b'data: {"choices":[{"delta":{"content":"su\n\n', answer.finish, DONE])


@strike
async def wrong_chunk(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.half())
    await wire.send(b"zz\r\n" + answer.finish)


@strike
async def error_event(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [*answer.half(), b"data: " + problem("the engine has died", code=500) + b"\n\n", DONE])


@strike
async def long_line(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, [b'data: {"choices":[{"delta":{"content":"'])
    await wire.send(b"%x\r\n" % 10_000_000)
    for _ in range(10):
        await wire.send(b"x" * 1_000_000)
    await wire.send(b"\r\n")
    await wire._more()


@strike
async def length_long(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    body = b"".join(answer.half())
    await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + 50), body)
    raise Gone


@strike
async def length_short(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    body = b"".join(answer.events())
    shown = len(b"".join(answer.half())) + 20
    await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % shown + body)


@strike
async def empty(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [answer.finish, answer.usage, DONE])


@strike
async def role_only(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [*answer.role, answer.finish, DONE])


# harmless


@strike
async def drip(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    whole = CHUNKED + b"".join(map(chunk, answer.events())) + END
    for i in range(len(whole)):
        await wire.send(whole[i : i + 1])
        if i % 16 == 0:
            await asyncio.sleep(0)


@strike
async def split(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    stream = b"".join(answer.events())
    await wire.send(CHUNKED + b"".join(chunk(stream[i : i + 1]) for i in range(len(stream))) + END)


@strike
async def together(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(CHUNKED + chunk(b"".join(answer.events())) + END)


@strike
async def crlf(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [event.replace(b"\n", b"\r\n") for event in answer.events()])


@strike
async def comments(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [b": keep-alive\n\n" + b":\n" + event for event in answer.events()])


@strike
async def fields(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [b"event: message\nid: %d\nretry: 5\n%s" % pair for pair in enumerate(answer.events())])


@strike
async def no_done(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, answer.events()[:-1])


@strike
async def double_usage(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [*answer.events()[:-1], answer.usage, DONE])


@strike
async def no_usage(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _of(server, wire, [event for event in answer.events() if event is not answer.usage])


@strike
async def close(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await wire.send(*map(chunk, answer.events()), END)
    raise Gone


@strike
async def until_close(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await wire.send(HEAD + b"\r\n", *answer.events())
    raise Gone


@strike
async def half_close(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _proper(server, wire, answer)
    wire.sock.shutdown(socket.SHUT_WR)
    await wire._more()


@strike
async def stale(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _proper(server, wire, answer)
    await asyncio.sleep(0.002)
    raise Gone


@strike
async def trailing(server: FaultyServer, wire: Wire, answer: Answer) -> None:
    await _stream(server, wire, answer.events())
    await wire.send(END + b"\r\n\x00garbage\r\n\r\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between events")
    parser.add_argument("faults", nargs="*", help="NAME=PROBABILITY: " + ", ".join(NAMES))
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background processes ignore it
    faults = Faults(**{name: float(chance) for name, _, chance in (each.partition("=") for each in given.faults)})
    with FaultyServer(faults, given.seed, Pace(gap_s=given.gap), given.port) as server, suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        threading.Event().wait()
    print(f"{len(server.log)} requests on {server.connections} connections")


if __name__ == "__main__":
    main()
