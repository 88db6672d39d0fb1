"""What a worker process of a live run costs while it measures: CPU, memory, event loop, bytes, clock, disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import get_clock_info

from workloom.clock import NS, RealClock, Timer, host
from workloom.drive.cost import WorkerCost
from workloom.drive.lag import LoopLag

SLICE_NS = NS
"""Shares of CPU are taken second by second: a run that was saturated for a while is seen, however long it is."""
LEAST_SLICE = 0.5
"""The last slice counts when it is at least so much of a whole one, or the only one."""


class Meter:
    """Watches this process from `start` (or from `restart`, the end of a warm-up) to `stop`.

    The callables are counters that only grow: nanoseconds spent handling chunks, bytes sent and received by the
    backend, seconds the journal made the run wait. None: not known.
    """

    def __init__(
        self,
        clock: RealClock,
        *,
        worker: int = 0,
        handling_ns: Callable[[], int] | None = None,
        bytes_sent: Callable[[], int] | None = None,
        bytes_received: Callable[[], int] | None = None,
        stalled_s: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._worker = worker
        self._counters = (handling_ns, bytes_sent, bytes_received, stalled_s)
        self._lag: LoopLag | None = None
        self._timer: Timer | None = None
        self._slices: list[tuple[float, float, float | None]] = []
        """Of each slice: seconds, share of CPU, share of the loop's time that was busy (None: never looked)."""

    def start(self) -> None:
        """Begin to watch. Call it on the running loop."""
        self._lag = LoopLag(self._clock)
        self._begin()

    def restart(self) -> None:
        """The measured window begins now: what came before is forgotten."""
        assert self._lag is not None and self._timer is not None
        self._timer.cancel()
        self._lag.restart()
        self._begin()

    def stop(self) -> WorkerCost:
        """End watching; what it cost since the window began."""
        lag = self._lag
        assert lag is not None and self._timer is not None
        self._timer.cancel()
        p99_s = lag.stop()
        self._cut(last=True)
        wall_s, cpu_s = (self._clock.now() - self._began_ns) / NS, host.cpu() - self._began_cpu_s
        handling_ns, sent, received, stalled_s = (
            None if now is None or then is None else now - then
            for now, then in zip(self._read(), self._before, strict=True)
        )
        resolution_s, source = clock_source(self._clock.raw)
        rss_bytes, rss_max_bytes = memory()
        return WorkerCost(
            worker=self._worker,
            pid=os.getpid(),
            wall_s=wall_s,
            cpu_s=cpu_s,
            cpu_share_p95=p95([cpu for _, cpu, _ in self._slices]),
            busy_share=lag.busy_ns / lag.seen_ns if lag.seen_ns else None,
            busy_share_p95=p95([busy for _, _, busy in self._slices if busy is not None]),
            rss_bytes=rss_bytes,
            rss_max_bytes=rss_max_bytes,
            loop_looks=lag.looks,
            loop_lag_p50_s=lag.quantile_s(0.5),
            loop_lag_p90_s=lag.quantile_s(0.9),
            loop_lag_p99_s=p99_s,
            loop_lag_max_s=lag.most_ns / NS if lag.looks else None,
            handling_s=None if handling_ns is None else handling_ns / NS,
            bytes_sent=None if sent is None else int(sent),
            bytes_received=None if received is None else int(received),
            stalled_s=stalled_s or 0.0,
            clock_source=source,
            clock_resolution_s=resolution_s,
        )

    def _begin(self) -> None:
        self._slices.clear()
        self._before = self._read()
        self._began_ns, self._began_cpu_s = self._clock.now(), host.cpu()
        self._open()
        self._arm()

    def _read(self) -> list[float | None]:
        return [None if counter is None else counter() for counter in self._counters]

    def _open(self) -> None:
        assert self._lag is not None
        self._slice = (self._clock.now(), host.cpu(), self._lag.seen_ns, self._lag.busy_ns)

    def _arm(self) -> None:
        self._timer = self._clock.call_at(self._slice[0] + SLICE_NS, self._tick)

    def _tick(self) -> None:
        self._cut()
        self._open()
        self._arm()

    def _cut(self, last: bool = False) -> None:
        assert self._lag is not None
        began_ns, cpu_s, seen_ns, busy_ns = self._slice
        seconds = (self._clock.now() - began_ns) / NS
        if seconds <= 0 or (last and self._slices and seconds < LEAST_SLICE * SLICE_NS / NS):
            return
        seen_ns = self._lag.seen_ns - seen_ns
        busy = (self._lag.busy_ns - busy_ns) / seen_ns if seen_ns else None
        self._slices.append((seconds, (host.cpu() - cpu_s) / seconds, busy))


def p95(shares: list[float]) -> float | None:
    """The 95th percentile, the higher of two neighbours: of fewer than 20 slices that is the largest."""
    return sorted(shares)[int(len(shares) * 0.95)] if shares else None


def memory() -> tuple[int | None, int]:
    """Resident bytes now (None where the system does not tell), and at their peak."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None, peak
    now = pages * resource.getpagesize()
    return now, max(now, peak)


def clock_source(raw: Callable[[], int]) -> tuple[float, str]:
    """The steps in which the clock of a run moves, in seconds, and what it is read from.

    The larger of what Python says and of the smallest step seen: a clock may say 1 ns and tick in microseconds.
    """
    told = get_clock_info("perf_counter")
    steps: list[int] = []
    last = raw()
    while len(steps) < 20:
        now = raw()
        if now != last:
            steps.append(now - last)
            last = now
    try:
        kernel = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        kernel = ""
    return max(told.resolution, min(steps) / NS), told.implementation + (f", {kernel}" if kernel else "")
