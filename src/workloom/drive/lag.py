"""How late a real event loop comes to its timers: what a chunk may have to wait for us."""

from __future__ import annotations

from workloom.clock import NS, RealClock, Timer

EVERY_NS = NS // 20
BIN_NS = 10_000
"""Lags are counted in bins of 10 us, so that a run of any length costs the same."""


class LoopLag:
    """A heartbeat. Timers are good to tens of microseconds (clock._RealTimer): more lag than that is a busy loop."""

    def __init__(self, clock: RealClock) -> None:
        self._clock = clock
        self._bins: dict[int, int] = {}
        self._timer: Timer = self._arm()

    def _arm(self) -> Timer:
        due = self._clock.now() + EVERY_NS
        return self._clock.call_at(due, self._beat, due)

    def _beat(self, due_ns: int) -> None:
        place = (self._clock.now() - due_ns) // BIN_NS
        self._bins[place] = self._bins.get(place, 0) + 1
        self._timer = self._arm()

    def stop(self) -> float | None:
        """End the heartbeat; the 99th percentile of lag in seconds, None when there was no beat."""
        self._timer.cancel()
        left = sum(self._bins.values()) // 100
        for place in sorted(self._bins, reverse=True):
            left -= self._bins[place]
            if left < 0:
                return (place + 1) * BIN_NS / NS
        return None
