"""The points of a sweep, run: live ones one after the other, simulated ones side by side.

Each is a process of its own, so that one that dies takes nothing with it, and none measures what another left in
memory. Live points come first, alone: simulated ones would take the CPU from the load generator.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from msgspec import Struct

from workloom.clock import host

INTERRUPTED = 130
"""Exit status of a run that was ended by Ctrl-C."""
LEAST_BYTES = 300 << 20
"""Memory that the first point of a sweep is taken to need."""


class Job(Struct, frozen=True):
    """A point to run. `argv` are the words behind `workloom`; `path` its run directory."""

    name: str
    path: Path
    argv: tuple[str, ...]
    log: Path
    live: bool


class Ended(Struct, frozen=True):
    """What a job came to."""

    code: int
    error: str
    began: str
    wall_s: float
    peak_bytes: int | None = None


class Processes:
    """Runs jobs in processes; `run` is called from several threads, `interrupt` and `kill` from any."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def run(self, job: Job) -> Ended:
        """Run one and wait for its end."""
        with self._changed:
            while self._running and not job.live and not _room() and not self._stopped:
                self._changed.wait(1.0)
            began, at_s = host.stamp(), host.monotonic()
            if self._stopped:
                return Ended(INTERRUPTED, "interrupted before it began", began, 0.0)
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("wb") as log:
                # A group of its own: Ctrl-C on the terminal reaches it once, through `interrupt`.
                process = subprocess.Popen(
                    [sys.executable, "-m", "workloom.cli", *job.argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
            self._running[job.name] = process
        try:
            code = process.wait()
        finally:
            with self._changed:
                del self._running[job.name]
                self._changed.notify_all()
        if code == -signal.SIGINT and self._is_stopped():  # it had not come so far as to end by itself
            return Ended(INTERRUPTED, "interrupted before it began", began, host.monotonic() - at_s, _peak_bytes())
        said = job.log.read_text("utf-8", errors="replace")
        return Ended(code, "" if code == 0 else fault_of(said, code), began, host.monotonic() - at_s, _peak_bytes())

    def _is_stopped(self) -> bool:
        with self._changed:
            return self._stopped

    def interrupt(self) -> None:
        """Ctrl-C for all that run; nothing new begins."""
        with self._changed:
            self._stopped = True
            for process in self._running.values():
                process.send_signal(signal.SIGINT)
            self._changed.notify_all()


def _peak_bytes() -> int:
    """The most memory that any process of ours held."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _room() -> bool:
    """Whether memory is left for one more process like the largest there was. Where nobody can say: yes."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return True
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return free is None or free > max(LEAST_BYTES, _peak_bytes())


def fault_of(said: str, code: int) -> str:
    """The error a run ended with, from what it said: its last `error:` and what follows, else its last words."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    lines = said.rstrip().splitlines()
    at = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if at is None:
        return lines[-1].strip() if lines else f"exit status {code}"
    return "\n".join([lines[at].removeprefix("error: "), *lines[at + 1 :]])


def carry(
    jobs: Sequence[Job],
    at_once: int,
    run: Callable[[Job], Ended],
    ended: Callable[[Job, Ended], None],
    interrupt: Callable[[], None],
) -> bool:
    """Run all; `ended` is told of each as it ends, in the thread of the caller. False: it was interrupted.

    The first Ctrl-C asks the running ones to end, which keep what they have; a further one asks again.
    """
    for group, workers in (([job for job in jobs if job.live], 1), ([job for job in jobs if not job.live], at_once)):
        if not group:
            continue
        with ThreadPoolExecutor(workers) as pool:
            waiting: dict[Future[Ended], Job] = {pool.submit(run, job): job for job in group}
            if not _gathered(waiting, ended, interrupt):
                return False
    return True


def _gathered(
    waiting: dict[Future[Ended], Job], ended: Callable[[Job, Ended], None], interrupt: Callable[[], None]
) -> bool:
    going_on = True
    while waiting:
        try:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                job = waiting.pop(future)
                if not future.cancelled():
                    ended(job, future.result())
        except KeyboardInterrupt:
            going_on = False
            interrupt()
            for future in list(waiting):
                future.cancel()
        except BaseException:
            interrupt()
            for future in list(waiting):
                future.cancel()
            raise
    return going_on
