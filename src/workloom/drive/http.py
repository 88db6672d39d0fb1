"""The backend that is one server or several: HTTP, streamed, on our own asyncio protocol.

Per call it costs the fresh text, one request of kept fragments and one timestamp per read. Everything that can go wrong
outside becomes a BackendError; a cancelled call closes its connection, which stops the work on the other side.

    call --> lane (a server: its connections, its header lines) --> answer --> outcome
                                    ^                                  |
                                    +-- once more: a kept connection --+
                                        was closed; or it failed before its first chunk and retries were asked for
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from workloom.clock import RealClock, Timer, to_ns
from workloom.drive.backend import Request
from workloom.drive.http1 import Connection, Endpoint, Pool, Stale, Traffic
from workloom.drive.preflight import Preflight, ask, both
from workloom.drive.render import Renderer
from workloom.drive.sse import Answer
from workloom.drive.targets import HttpOptions, Tail, body_start, header_lines, request_path
from workloom.errors import BackendError
from workloom.records import ChunkRun, Outcome

if TYPE_CHECKING:
    from workloom.drive.debug import Exchange
    from workloom.drive.styles import Style

__all__ = ["HttpBackend", "HttpOptions", "Preflight"]

_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 60.0
"""The first wait before a retry, doubled each time; and the longest, also of what a server asks for."""


class _Lane:
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


class _Sending:
    """The bytes of one call, ready to be handed over, and what they ask for."""

    __slots__ = ("asked", "lines", "model", "size", "tokens")

    def __init__(self, lines: list[bytes], size: int, model: str, asked: int | None, tokens: int) -> None:
        self.lines = lines
        """The head and the start of the body, the prompt's fragments, its end."""
        self.size = size
        self.model = model
        self.asked = asked
        self.tokens = tokens


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
        self._clock = clock
        self._debug = debug
        api = options.speaks()
        self._answers = api.answers
        self._retries = options.retries
        self._frame = api.frame
        self._lanes = [
            _Lane(url, end, options, Pool(end, clock.raw, self.traffic, options.connect_timeout_s))
            for url, end in zip(options.urls, options.endpoints(), strict=True)
        ]
        self._renderer = Renderer(style, api.frame, correct=options.correct, tools=options.tools)
        self._opens = {model: body_start(options, api, model) for model in options.served_models}
        self._tail = Tail(options, api)
        self._keep = options.reasoning == "keep"
        wait_s = options.first_byte_timeout_s
        self._patience_ns = None if wait_s is None else to_ns(wait_s)

    # --- calls

    def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Coroutine[Any, Any, Outcome]:
        """The coroutine of what there is to do: one less to go through at every wake-up."""
        lane = self._lanes[request.instance % len(self._lanes)]
        sending = self._sending(request, lane)
        if self._retries:
            return self._persist(lane, sending, request, on_chunk)
        return self._once(lane, sending, request, on_chunk)

    async def _persist(
        self, lane: _Lane, sending: _Sending, request: Request, on_chunk: Callable[[ChunkRun], None]
    ) -> Outcome:
        """Send a call again that failed before its first chunk, as often as was asked for."""
        came = False

        def on_chunks(run: ChunkRun) -> None:
            nonlocal came
            came = True
            on_chunk(run)

        retries = 0
        while True:
            try:
                outcome = await self._once(lane, sending, request, on_chunks)
            except BackendError as fault:
                fault.retries = retries
                if came or retries == self._retries or not _passing(fault):
                    raise
                wait_s = _BACKOFF_S * 2**retries if fault.retry_after_s is None else fault.retry_after_s
                retries += 1
                self.retried += 1
            else:
                outcome.retries = retries
                return outcome
            await self._clock.sleep_until(self._clock.now() + to_ns(min(wait_s, _LONGEST_BACKOFF_S)))

    async def _once(
        self, lane: _Lane, sending: _Sending, request: Request, on_chunk: Callable[[ChunkRun], None]
    ) -> Outcome:
        """One call; on a new connection once more, when the server turns out to have closed the kept one."""
        origin, resent = self._clock.origin, False
        connection = lane.pool.idle() or await lane.pool.connect()
        while True:
            answer = self._answers(asyncio.get_running_loop().create_future(), on_chunk, origin, request.stop_after)
            tape = None if self._debug is None else self._tape(request, lane, sending, answer)
            sent_ns = connection.send(sending.lines, tape or answer) - origin
            self.traffic.sent += sending.size
            timer = None if self._patience_ns is None else self._watch(connection, answer)
            try:
                done_ns = await answer.done - origin
                break
            except Stale:
                self.resent += 1
                resent = True
            except asyncio.CancelledError:
                connection.abort()
                if answer.done.done() and not answer.done.cancelled():
                    answer.done.exception()  # both at once: nobody is left to hear of it
                raise
            except BackendError as error:
                error.sent_ns = sent_ns
                if error.kind != "empty" or request.phase != "warmup":  # a warm-up's token may have no text
                    raise
                done_ns = self._clock.now()
                break
            finally:
                if timer is not None:
                    timer.cancel()
                if tape is not None:
                    tape.over(sent_ns)
            connection = await lane.pool.connect()
        outcome = self._outcome(connection, lane, sending, request, answer, sent_ns, done_ns)
        outcome.resent = resent
        return outcome

    def _outcome(
        self,
        connection: Connection,
        lane: _Lane,
        sending: _Sending,
        request: Request,
        answer: Answer,
        sent_ns: int,
        done_ns: int,
    ) -> Outcome:
        counts = answer.counts()
        output_tokens = counts.output_tokens
        if output_tokens is None and answer.finish == "hangup":
            output_tokens = answer.chunks
        if counts.prompt_tokens is not None:
            self._renderer.counted(request.prompt, counts.prompt_tokens)
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
            lane.target,
            connection.used > 1,
            bytes_sent=sending.size,
            bytes_received=connection.received,
        )

    def _sending(self, request: Request, lane: _Lane) -> _Sending:
        options = self.options
        rendered = self._renderer.render(request.prompt)
        model = options.model if not options.models else options.served(request.agent, request.model)
        tail, asked = self._tail.of(request.output_tokens, request.phase == "warmup", rendered.tokens)
        tail = self._frame.close(rendered.last_role) + tail
        start = self._opens[model]
        length = len(start) + rendered.size + len(tail)
        affinity = options.affinity(request.session_key) if options.affinity_headers else b""
        head = b"%s%sContent-Length: %d\r\n\r\n%s" % (lane.start, affinity, length, start)
        size = len(head) + rendered.size + len(tail)
        return _Sending([head, *rendered.fragments, tail], size, model, asked, rendered.tokens)

    def _watch(self, connection: Connection, answer: Answer) -> Timer:
        """Give a call up whose first byte does not come in time."""
        assert self._patience_ns is not None

        def give_up() -> None:
            if not connection.received and not answer.done.done():
                connection.abort()
                wait_s = self.options.first_byte_timeout_s
                answer.lost(BackendError("timeout", f"the server sent no byte within {wait_s:g} s"))

        return self._clock.call_at(self._clock.now() + self._patience_ns, give_up)

    def _tape(self, request: Request, lane: _Lane, sending: _Sending, answer: Answer) -> Any:
        from workloom.drive.debug import Tape

        assert self._debug is not None
        return Tape(request, lane.url, sending.lines, answer, self._clock.origin, self._debug)

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


def _passing(fault: BackendError) -> bool:
    """May it be better the next time? Connections that failed, too many requests, a server's own errors."""
    if fault.kind in ("connect", "disconnect"):
        return True
    return fault.kind == "http_status" and fault.status is not None and (fault.status == 429 or fault.status >= 500)
