"""How late a real event loop comes to what is ready, and how much of the time it has to spare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from workloom.clock import NS, RealClock

EVERY_NS = NS // 20
"""Between two looks, on average."""
LOOK_NS = 1_500_000
"""A look lasts at least so long: about 3 % of the time is looked at."""
BIN_NS = 10_000
"""Lags are counted in bins of 10 us, so that a run of any length costs the same."""
IDLE_TURN_NS = 10_000
"""A turn of the loop that serves nothing takes 1 to 5 us, one that reads a socket more than 10 us."""
_GOLDEN = 0.6180339887498949


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> asyncio.Handle: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.Handle: ...


class LoopLag:
    """Looks into the event loop now and then, each time for a millisecond or two.

    A look wakes shortly before an instant and then counts turns of the loop until the instant has passed. How late
    that is noticed is the *lag*: what a chunk that comes at that instant would have to wait for us. The share of the
    looked-at time that went into turns longer than an empty one is the *busy share*. CPU time cannot tell that: timers
    of a live run watch the clock (clock._RealTimer), so a loop with nothing to do can use a whole core; and a loop
    that the machine keeps from running is busy without using any.

    Looks are unevenly spaced (by the golden ratio), so that they cannot fall in step with a paced server.
    """

    def __init__(self, clock: RealClock, loop: Loop | None = None) -> None:
        self._now = clock.now
        self._loop: Loop = loop or asyncio.get_running_loop()
        self._bins: dict[int, int] = {}
        self.looks = 0
        self.most_ns = 0
        self.seen_ns = 0
        """Time that was looked at."""
        self.busy_ns = 0
        """Of it, in turns that served something."""
        self._phase = 0.0
        self._due_ns = self._last_ns = 0
        self._handle: asyncio.Handle = self._arm()

    def restart(self) -> None:
        """Forget what was seen so far."""
        self._bins.clear()
        self.looks = self.most_ns = self.seen_ns = self.busy_ns = 0

    def stop(self) -> float | None:
        """End the looks; the 99th percentile of lag in seconds, None when there was none."""
        self._handle.cancel()
        return self.quantile_s(0.99)

    def quantile_s(self, level: float) -> float | None:
        """A quantile of the lags so far, in seconds, up to the next 10 us; None before the first look."""
        left = self.looks - int(self.looks * level)
        for place in sorted(self._bins, reverse=True):
            left -= self._bins[place]
            if left <= 0:
                return (place + 1) * BIN_NS / NS
        return None

    def _arm(self) -> asyncio.Handle:
        self._phase = (self._phase + _GOLDEN) % 1.0
        wait_ns = round(EVERY_NS * (0.5 + self._phase))
        self._due_ns = self._now() + wait_ns
        return self._loop.call_later((wait_ns - LOOK_NS) / NS, self._begin)

    def _begin(self) -> None:
        self._last_ns = self._now()
        self._look(self._last_ns)

    def _turn(self) -> None:
        now_ns = self._now()
        took_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        self.seen_ns += took_ns
        if took_ns > IDLE_TURN_NS:
            self.busy_ns += took_ns
        self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        if now_ns < self._due_ns:
            self._handle = self._loop.call_soon(self._turn)
            return
        lag_ns = now_ns - self._due_ns
        place = lag_ns // BIN_NS
        self._bins[place] = self._bins.get(place, 0) + 1
        self.looks += 1
        self.most_ns = max(self.most_ns, lag_ns)
        self._handle = self._arm()
