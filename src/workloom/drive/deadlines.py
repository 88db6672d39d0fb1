"""Time-outs of calls: all are as long, so the call that began first is the first whose time is over.

One timer serves them all; a timer for each call would cost more than the call's own bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from workloom.clock import Clock, Timer

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Tells `over` of everything that was begun, and not ended, `timeout_ns` before (None: never)."""

    def __init__(self, clock: Clock, timeout_ns: int | None, over: Callable[[T], None]) -> None:
        self._clock = clock
        self._timeout_ns = timeout_ns
        self._over = over
        self._due_ns: dict[T, int] = {}
        """In the order in which they come."""
        self._timer: Timer | None = None

    def begin(self, what: T, now_ns: int) -> None:
        if self._timeout_ns is None:
            return
        self._due_ns[what] = due_ns = now_ns + self._timeout_ns
        if self._timer is None:
            self._timer = self._clock.call_at(due_ns, self._look)

    def end(self, what: T) -> None:
        self._due_ns.pop(what, None)

    def close(self) -> None:
        """No time-out comes any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now_ns = self._clock.now()
        for what, due_ns in list(self._due_ns.items()):
            if due_ns > now_ns:
                self._timer = self._clock.call_at(due_ns, self._look)
                return
            del self._due_ns[what]
            self._over(what)
