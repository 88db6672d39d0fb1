"""One exchange with a server, whatever comes of it: nothing here raises but a cancellation."""

from __future__ import annotations

import asyncio
import re
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from workloom.clock import NS, RealClock
from workloom.drive.http1 import Connection, Endpoint, Pool, Stale
from workloom.drive.targets import request_path
from workloom.errors import BackendError

Ending = Literal["complete", "hung up", "lost", "timeout", "no connection"]

_LONGEST = 1 << 24
"""Bytes of an answer that are read."""


_LAST_WORD = re.compile(rb'\ndata: ?\[DONE\]|"type": ?"(?:message_stop|response\.(?:completed|incomplete))"')
"""The last event of a stream, of all APIs. Texts have no such thing: their line ends and quotes are escaped."""
_LONGEST_WORD = 64
_GRACE_S = 0.5
"""So long after its last word a body may stay open; then it has ended all the same."""


class Reply(Struct):
    """What came back. `reads` are (nanoseconds since sending, body bytes) of each read."""

    status: int
    """0: not even the headers came."""
    reads: list[tuple[int, bytes]]
    ending: Ending
    error: str | None = None
    hint: str | None = None
    """What to do about the error."""
    took_ns: int = 0
    reused: bool = False
    """The connection had carried another exchange."""

    @property
    def body(self) -> bytes:
        return b"".join(body for _, body in self.reads)


class _Reads:
    """A sink that keeps every read with its instant; it hangs up at the one that makes `stop_after` reads."""

    def __init__(self, stop_after: int | None) -> None:
        self.status = 0
        self.head = b""
        self.reads: list[tuple[int, bytes]] = []
        self.done: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.end_ns = 0
        self._stop_after = stop_after
        self._bytes = 0
        self._tail = b"\n"
        self._closed = False
        """The stream's last word came."""
        self._grace: asyncio.TimerHandle | None = None

    def feed(self, body: bytes, at_ns: int) -> bool:
        self.reads.append((at_ns, body))
        self._bytes += len(body)
        enough = self._bytes > _LONGEST or (self._stop_after is not None and len(self.reads) >= self._stop_after)
        if enough:
            self._settle("hung up", at_ns)
        else:
            self._wait_for_the_end(body, at_ns)
        return enough

    def _wait_for_the_end(self, body: bytes, at_ns: int) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._tail += body.replace(b"\r", b"")
        self._closed = self._closed or _LAST_WORD.search(self._tail) is not None
        self._tail = self._tail[-_LONGEST_WORD:]
        if self._closed:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(_GRACE_S, self._settle, "hung up", at_ns)

    def end(self, at_ns: int) -> None:
        self._settle("complete", at_ns)

    def lost(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _settle(self, ending: Ending, at_ns: int) -> None:
        if not self.done.done():
            self.end_ns = at_ns
            self.done.set_result(ending)


class Wire:
    """Exchanges with one server. `headers` are the header lines of requests that come with none of their own."""

    def __init__(self, endpoint: Endpoint, headers: bytes, clock: RealClock, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._endpoint = replace(endpoint, path="")
        self._clock = clock
        self._pool = Pool(endpoint, clock.raw)
        self._headers = headers

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: bytes | None = None,
        stop_after: int | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """Send one request to an absolute `path` and read the answer, or its first `stop_after` reads."""
        request = self._request(method, path, body, headers or self._headers)
        limit_s = timeout_s or self.timeout_s
        idle = self._pool.idle()
        reply = await self._exchange(idle, request, stop_after, limit_s)
        return reply if reply is not None else await self._exchange(None, request, stop_after, limit_s) or _LOST

    async def _exchange(
        self, connection: Connection | None, request: bytes, stop_after: int | None, limit_s: float
    ) -> Reply | None:
        """None: a kept connection turned out to be closed, and the request was not heard."""
        sink = _Reads(stop_after)
        reused, ending, error, hint = connection is not None, None, None, None
        began_ns = sent_ns = self._clock.raw()
        try:
            async with asyncio.timeout(limit_s):
                connection = connection or await self._pool.connect()
                sent_ns = connection.send([request], sink)
                ending = await sink.done
        except Stale:
            return None
        except TimeoutError:
            ending, error = "timeout", f"no end of the answer within {limit_s:g} s"
        except BackendError as fault:
            ending, error = ("no connection" if connection is None else "lost"), fault.what
            hint = fault.hint
        finally:
            if ending in (None, "timeout", "hung up") and connection is not None:
                connection.abort()
        reads = [(at_ns - sent_ns, body) for at_ns, body in sink.reads]
        took_ns = (sink.end_ns or self._clock.raw()) - began_ns
        return Reply(sink.status, reads, ending, error, hint, took_ns, reused)

    def _request(self, method: str, path: str, body: bytes | None, headers: bytes) -> bytes:
        head = b"%s %s HTTP/1.1\r\n%s" % (method.encode(), request_path(self._endpoint, path), headers)
        if body is None:
            return head + b"\r\n"
        return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def pause(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.now() + round(seconds * NS))

    def now_s(self) -> float:
        return self._clock.now() / NS

    def close(self) -> None:
        """Close the idle connections; the next exchange opens one."""
        self._pool.close()


_LOST = Reply(0, [], "lost", "the server closed the connection without an answer")
