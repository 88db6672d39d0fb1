"""One call over HTTP, from its first byte to what became of it, by callbacks: a task for each would cost 10 us.

start --> idle connection, else a new one --> send --> answer ends, or is lost --> `on_end`, a turn later
                         ^                                      |
                         +--- a kept connection was closed, ----+
                              or it failed before its first chunk and retries are left
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.clock import Timer, to_ns
from workloom.drive.backend import Ended, Request, Sent
from workloom.drive.http1 import Connection, Stale
from workloom.drive.sse import NEVER, Answer
from workloom.errors import BackendError
from workloom.records import ChunkRun, Outcome

if TYPE_CHECKING:
    from workloom.drive.debug import Tape
    from workloom.drive.http import HttpBackend, Lane, Sending

_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 60.0
"""The first wait before a retry, doubled each time; and the longest, also of what a server asks for."""


class HttpCall(Struct, eq=False):
    """A call under way. `on_end` hears once, on a turn of the loop of its own, what became of it."""

    by: HttpBackend
    request: Request
    lane: Lane
    sending: Sending
    on_chunk: Callable[[ChunkRun], None]
    on_end: Ended
    over: bool = False
    resent: bool = False
    retries: int = 0
    sent_ns: int | None = None
    answer: Answer | None = None
    connection: Connection | None = None
    reused: bool = False
    received: int = 0
    """Bytes of the answer, once it is whole."""
    connecting: asyncio.Task[Connection] | None = None
    connect_ns: int = 0
    """Time that connections took to be made."""
    tape: Tape | None = None
    timer: Timer | None = None
    """Until when a retry waits, or the first byte may take."""

    def start(self) -> None:
        """Send it, at once where a connection is free."""
        connection = self.lane.pool.idle()
        if connection is None:
            self._connect()
        else:
            self._send(connection)

    def cancel(self) -> None:
        """Give it up, and the connection with it: that stops the work on the other side."""
        if not self.over:
            if self.connecting is not None:
                self.connecting.cancel()
            if self.connection is not None:
                self.connection.abort()
            self._settle(asyncio.CancelledError())

    def sent(self) -> Sent:
        """What was sent, as far as it was."""
        sending = self.sending
        return Sent(self.lane.target, sending.model, sending.tokens, sending.asked, sending.size, self.retries)

    # --- on the way

    def _connect(self) -> None:
        self.connect_ns -= self.by.clock.now()
        self.connecting = asyncio.create_task(self.lane.pool.connect(), name=self.request.name)
        self.connecting.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[Connection]) -> None:
        self.connecting = None
        self.connect_ns += self.by.clock.now()
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        if fault is not None:
            self._failed(fault)
        elif self.over:
            task.result().abort()
        else:
            self._send(task.result())

    def _send(self, connection: Connection) -> None:
        by = self.by
        self.connection = connection
        stop_after = self.request.stop_after
        answer = self.answer = by.answers(
            self._ended, self.on_chunk, by.clock.origin, NEVER if stop_after is None else stop_after
        )
        if by.debug is not None:
            self.tape = by.tape(self.request, self.lane, self.sending, answer)
        if by.patience_ns is not None:
            self.timer = by.clock.call_at(by.clock.now() + by.patience_ns, self._impatient)
        self.sent_ns = connection.send(self.sending.lines, self.tape or answer) - by.clock.origin
        by.traffic.sent += self.sending.size

    def _impatient(self) -> None:
        """Give it up when its first byte has not come."""
        connection, answer = self.connection, self.answer
        if connection is not None and answer is not None and not connection.received:
            connection.abort()
            wait_s = self.by.options.first_byte_timeout_s
            answer.lost(BackendError("timeout", f"the server sent no byte within {wait_s:g} s"))

    # --- how it ends

    def _ended(self, at_ns: int, fault: Exception | None) -> None:
        """The answer has come to its end (by the raw counter), or there will be none."""
        if self.over:
            return
        if fault is not None:
            self._failed(fault)
        else:
            self._succeed(at_ns - self.by.clock.origin)

    def _succeed(self, done_ns: int) -> None:
        """Within the handling of a read: others wait to be read, so the rest comes later."""
        connection = self.connection
        assert connection is not None
        self.over = True
        self.reused, self.received = connection.used > 1, connection.received  # it may be another call's in a moment
        self.connection = None
        if self.timer is not None:
            self.timer.cancel()
        self.by.turns.add(self._tell, done_ns)

    def _tell(self, done_ns: int) -> None:
        answer = self.answer
        assert answer is not None
        try:
            end: Outcome | BaseException = self.by.outcome(self, answer, done_ns)
        except Exception as fault:
            end = fault
        self._let_go()
        self.on_end(end)

    def _failed(self, fault: BaseException) -> None:
        """Once more on a new connection, or after a while, where that may be; else this is the end of it."""
        if self.over:
            return
        by, came = self.by, self.answer is not None and self.answer.chunks > 0
        if isinstance(fault, Stale):
            by.resent += 1
            self.resent = True
            self._let_go()
            self._connect()
            return
        if isinstance(fault, BackendError):
            if fault.kind == "empty" and self.request.phase == "warmup":  # a warm-up's token may have no text
                self._succeed(by.clock.now())
                return
            fault.sent_ns, fault.retries = self.sent_ns, self.retries
            if self.retries < by.options.retries and not came and _passing(fault):
                self._again(fault)
                return
        self._settle(fault)

    def _again(self, fault: BackendError) -> None:
        wait_s = _BACKOFF_S * 2**self.retries if fault.retry_after_s is None else fault.retry_after_s
        self.retries += 1
        self.by.retried += 1
        self._let_go()
        clock = self.by.clock
        self.timer = clock.call_at(clock.now() + to_ns(min(wait_s, _LONGEST_BACKOFF_S)), self.start)

    def _let_go(self) -> None:
        """What one attempt held is let go."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.tape is not None:
            self.tape.over(self.sent_ns or 0)
            self.tape = None
        self.connection = self.answer = self.sent_ns = None

    def _settle(self, end: Outcome | BaseException) -> None:
        self.over = True
        self._let_go()
        self.by.turns.add(self.on_end, end)


def _passing(fault: BackendError) -> bool:
    """May it be better the next time? Connections that failed, too many requests, a server's own errors."""
    if fault.kind in ("connect", "disconnect"):
        return True
    return fault.kind == "http_status" and fault.status is not None and (fault.status == 429 or fault.status >= 500)
