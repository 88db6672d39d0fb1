"""The backend that is one server or several: HTTP, streamed, on our own asyncio protocol.

Per call it costs the fresh text, one request of kept fragments and one timestamp per read. Everything that can go wrong
outside becomes a BackendError; a cancelled call closes its connection, which stops the work on the other side.

    call --> lane (a server: its connections, its header lines) --> exchange --> answer --> outcome
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.clock import RealClock, to_ns
from workloom.drive.backend import Ended, Request
from workloom.drive.exchange import HttpCall
from workloom.drive.http1 import Endpoint, Pool, Traffic
from workloom.drive.preflight import Preflight, ask, both
from workloom.drive.render import Renderer
from workloom.drive.sse import Answer
from workloom.drive.targets import HttpOptions, Tail, body_start, header_lines, request_path
from workloom.drive.turns import Turns
from workloom.records import ChunkRun, Outcome

if TYPE_CHECKING:
    from workloom.drive.debug import Exchange, Tape
    from workloom.drive.styles import Style

__all__ = ["HttpBackend", "HttpOptions", "Preflight"]


class Lane:
    """One server: its connections, and how a request to it begins."""

    def __init__(self, url: str, endpoint: Endpoint, options: HttpOptions, pool: Pool) -> None:
        api = options.speaks()
        self.url = url
        self.target = url if len(options.urls) > 1 else ""
        self.pool = pool
        common = header_lines(options, api, endpoint)
        self.models = b"GET %s HTTP/1.1\r\n%s\r\n" % (request_path(endpoint, "/models"), common)
        self.start = b"POST %s HTTP/1.1\r\n" % request_path(endpoint, api.path)
        self.start += common + b"Content-Type: application/json\r\n"


class Sending(Struct, eq=False, gc=False):
    """The bytes of one call, ready to be handed over, and what they ask for."""

    lines: list[bytes]
    """The head and the start of the body, the prompt's fragments, its end."""
    size: int
    model: str
    asked: int | None
    tokens: int


class HttpBackend:
    """Calls over HTTP. `style` makes the texts; `debug` is told of every call, with all that was read of it."""

    def __init__(
        self,
        options: HttpOptions,
        *,
        clock: RealClock,
        style: Style,
        debug: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.options = options
        self.resent = 0
        """Calls sent again because a kept connection turned out to be closed."""
        self.retried = 0
        """Calls sent again because they had failed, each as often as it was."""
        self.traffic = Traffic()
        self.clock = clock
        self.turns = Turns(clock.loop, clock.raw)
        self.debug = debug
        api = options.speaks()
        self.answers = api.answers
        self._frame = api.frame
        self._lanes = [
            Lane(url, end, options, Pool(end, clock.raw, self.traffic, options.connect_timeout_s))
            for url, end in zip(options.urls, options.endpoints(), strict=True)
        ]
        self._renderers = {
            model: Renderer(style, api.frame, correct=options.correct, tools=options.tools)
            for model in options.served_models
        }
        """One for each served model: what a turn costs beyond its words is its template's."""
        self._opens = {model: body_start(options, api, model) for model in options.served_models}
        self._tail = Tail(options, api)
        self._keep = options.reasoning == "keep"
        wait_s = options.first_byte_timeout_s
        self.patience_ns = None if wait_s is None else to_ns(wait_s)

    # --- calls

    def begin(self, request: Request, on_chunk: Callable[[ChunkRun], None], on_end: Ended) -> HttpCall:
        """Begin a call; see :data:`workloom.drive.backend.Begin`."""
        lane = self._lanes[request.instance % len(self._lanes)]
        exchange = HttpCall(self, request, lane, self._sending(request, lane), on_chunk, on_end)
        exchange.start()
        return exchange

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        done: asyncio.Future[Outcome | BaseException] = asyncio.get_running_loop().create_future()

        def on_end(end: Outcome | BaseException) -> None:
            if not done.done():
                done.set_result(end)

        exchange = self.begin(request, on_chunk, on_end)
        try:
            end = await done
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        if isinstance(end, BaseException):
            raise end
        return end

    def outcome(self, call: HttpCall, answer: Answer, done_ns: int) -> Outcome:
        """What became of a call whose answer has come to its end."""
        request, sending, sent_ns = call.request, call.sending, call.sent_ns
        assert sent_ns is not None
        counts = answer.counts()
        output_tokens = counts.output_tokens
        if output_tokens is None and answer.finish == "hangup":
            output_tokens = answer.chunks
        if counts.prompt_tokens is not None:
            self._renderers[sending.model].counted(request.prompt, counts.prompt_tokens)
        if answer.thoughts and not self._keep and output_tokens is not None:
            request.prompt.answer_text_tokens = output_tokens - _thought(answer, counts.reasoning_tokens, output_tokens)
        return Outcome(
            done_ns,
            sent_ns,
            sending.tokens,
            sending.asked,
            counts.prompt_tokens,
            output_tokens,
            counts.reasoning_tokens,
            counts.cached_tokens,
            answer.finish,
            answer.text(self._keep),
            sending.model,
            call.lane.target,
            call.reused,
            call.resent,
            call.retries,
            sending.size,
            call.received,
            call.connect_ns,
        )

    def _sending(self, request: Request, lane: Lane) -> Sending:
        options = self.options
        model = options.model if not options.models else options.served(request.agent, request.model)
        rendered = self._renderers[model].render(request.prompt)
        tail, asked = self._tail.of(request.output_tokens, request.phase == "warmup", rendered.tokens)
        tail = self._frame.close(rendered.last_role) + tail
        start = self._opens[model]
        length = len(start) + rendered.size + len(tail)
        affinity = options.affinity(request.session_key) if options.affinity_headers else b""
        head = b"%s%sContent-Length: %d\r\n\r\n%s" % (lane.start, affinity, length, start)
        size = len(head) + rendered.size + len(tail)
        return Sending([head, *rendered.fragments, tail], size, model, asked, rendered.tokens)

    def tape(self, request: Request, lane: Lane, sending: Sending, answer: Answer) -> Tape:
        """What the debug trace keeps of an attempt."""
        from workloom.drive.debug import Tape

        assert self.debug is not None
        return Tape(request, lane.url, sending.lines, answer, self.clock.origin, self.debug)

    # --- the whole

    async def probe(self, timeout_s: float = 10.0) -> Preflight:
        """Ask every server for its models before a run: a BackendError when one is not there, a warning for less."""
        found: Preflight | None = None
        for lane in self._lanes:
            said = await ask(lane.pool, lane.models, lane.url, self.options.served_models, timeout_s)
            found = said if found is None else both(found, said)
        assert found is not None
        return found

    @property
    def handling_ns(self) -> int:
        """Time spent so far on what was read, from its arrival to the end of its handling."""
        return self.traffic.handling_ns

    @property
    def connects(self) -> int:
        """Connections made so far."""
        return sum(lane.pool.connects for lane in self._lanes)

    def close(self) -> None:
        """Close the idle connections."""
        for lane in self._lanes:
            lane.pool.close()


def _thought(answer: Answer, counted: int | None, output_tokens: int) -> int:
    """How many of an answer's tokens were reasoning: by the server's count, else by the share of its pieces."""
    if counted is not None:
        return min(counted, output_tokens)
    return round(output_tokens * len(answer.thoughts) / (len(answer.thoughts) + len(answer.texts)))
