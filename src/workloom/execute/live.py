"""One worker of a live run: backend, meter and driver on a real event loop. A run has one of them, or several."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workloom.clock import RealClock
from workloom.drive.cost import WorkerCost
from workloom.drive.driver import Control, End, Options, Progress, Share, drive
from workloom.execute.target import Live
from workloom.plan import Plan
from workloom.records import SessionRecord
from workloom.store.writer import Log

if TYPE_CHECKING:
    from workloom.drive.debug import DebugTrace
    from workloom.execute.referee import Referee

DEBUG = "debug.jsonl"
"""Every exchange in full, where that was asked for."""


async def work(
    plan: Plan,
    target: Live,
    path: Path,
    time: RealClock,
    log: Log | Counted,
    options: Options,
    progress: Progress,
    control: Control,
    share: Share,
    *,
    ready: Callable[[], int | None] = lambda: None,
    ended: Callable[[], None] = lambda: None,
) -> tuple[End, WorkerCost]:
    """Carry out a share of a plan.

    `ready` says when the run's time begins (by the raw counter; None: now); `ended` is called when the window ends.
    """
    from workloom.drive.http import HttpBackend
    from workloom.drive.meter import Meter
    from workloom.quiet import quiet

    trace = _trace(target, path)
    backend = HttpBackend(target.http, clock=time, style=target.style(), debug=trace)
    meter = Meter(
        time,
        worker=share.worker,
        handling_ns=lambda: backend.traffic.handling_ns,
        bytes_sent=lambda: backend.traffic.sent,
        bytes_received=lambda: backend.traffic.received,
        stalled_s=lambda: log.stalled_s,
    )

    told = False

    def window(start_ns: int, end_ns: int | None) -> None:
        nonlocal told
        if not told:
            time.call_at(start_ns, meter.restart)
        told = True
        if end_ns is not None:
            time.call_at(end_ns, ended)

    try:
        with quiet():
            origin = ready()
            time.restart(origin)
            if origin is not None:
                await time.sleep_until(0)
            meter.start()
            end = await drive(
                plan,
                backend,
                time,
                log,
                options,
                progress,
                control=control,
                share=share,
                served=target.cache_of,
                opened=window,
            )
            return end, meter.stop()
    finally:
        backend.close()
        if trace is not None:
            trace.close()


def _trace(target: Live, path: Path) -> DebugTrace | None:
    """The debug trace, where one was asked for: without what no disk may hold."""
    if not target.debug_trace:
        return None
    from workloom.drive.debug import DebugTrace
    from workloom.execute.secrets import Blot

    return DebugTrace(path / DEBUG, Blot(target.http))


class Counted:
    """A log that tells a referee how many sessions have ended."""

    def __init__(self, log: Log, referee: Referee, control: Control, time: RealClock) -> None:
        self.call = log.call
        self._log, self._referee, self._control, self._time = log, referee, control, time
        self._sessions = 0

    @property
    def stalled_s(self) -> float:
        return self._log.stalled_s

    def session(self, record: SessionRecord) -> None:
        self._log.session(record)
        self._sessions += 1
        self._referee.ended(self._sessions, self._control.window_start_ns, self._time.now())


@contextmanager
def watched(log: Log, referee: Referee | None, control: Control, time: RealClock) -> Iterator[Log | Counted]:
    """The log of a run whose window ends when its referee says so; without one the log itself."""
    if referee is None:
        yield log
        return
    loop = asyncio.get_running_loop()

    def hear() -> None:
        at_ns = referee.poll()
        if at_ns is not None:
            control.close(at_ns)
        if referee.over:
            loop.remove_reader(referee.fileno())

    loop.add_reader(referee.fileno(), hear)
    try:
        yield Counted(log, referee, control, time)
    finally:
        loop.remove_reader(referee.fileno())


SCRAPE_S = 0.3
"""Of quiet between a warm-up and its window, at the least: the servers are asked for their figures in it, so that what
the warm-up did is not in the window's growth."""


def quiet_s(plan: Plan, scraped: bool) -> float:
    """Seconds between the warm-up and the window."""
    warmup = plan.recipe.warmup
    return max(warmup.pause_s, SCRAPE_S) if scraped and plan.recipe.warms_up else warmup.pause_s


def interrupted(progress: Progress) -> str:
    """What a first Ctrl-C leads to."""
    many = progress.calls_live
    if not many:
        return "interrupted: nothing is in flight"
    return f"interrupted: waiting for {many} call{'s' * (many > 1)} in flight; Ctrl-C again to end now"


@contextmanager
def two_stage_interrupt(control: Control, progress: Progress) -> Iterator[None]:
    """Ctrl-C once: what is in flight may end. Twice: the run ends now. Either way the rows are kept."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = 0

    def interrupt() -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            print(f"\n{interrupted(progress)}", file=sys.stderr, flush=True)
            control.drain()
        else:
            control.stop()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
