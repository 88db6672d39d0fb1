"""What is to be done on turns of the loop of its own, a little at a time.

When a hundred calls end at once, a hundred others are to begin: 10 ms of work, in which no chunk would be read.
So after a fraction of a millisecond the rest waits for the next turn, and sockets are served between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

SLICE_NS = 300_000


class Turns:
    """Calls back in the order of `add`, soon, never from within `add`. `raw` is a counter of nanoseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, raw: Callable[[], int]) -> None:
        self._loop = loop
        self._raw = raw
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._armed = False

    def add(self, callback: Callable[[Any], None], what: object) -> None:
        self._waiting.append((callback, what))
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        waiting, end_ns = self._waiting, self._raw() + SLICE_NS
        try:
            while waiting:
                callback, what = waiting.popleft()
                callback(what)
                if self._raw() > end_ns:
                    break
        finally:
            self._armed = bool(waiting)
            if waiting:
                self._loop.call_soon(self._run)
