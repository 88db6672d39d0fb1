"""Live progress of a run: a line on stderr, drawn by a thread of its own so that no loop waits for a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from workloom.clock import host
from workloom.drive.driver import Progress
from workloom.plan import Plan

EVERY_S = 0.5


class Watch:
    """While the context lasts, a terminal shows how far the run is; a pipe or file gets nothing."""

    def __init__(self, progress: Progress, plan: Plan) -> None:
        self._progress, self._plan = progress, plan
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = host.monotonic()

    def __enter__(self) -> Watch:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        while not self._over.wait(EVERY_S):
            print(f"\r\x1b[2K{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state of the run in one line; it names the phase where that is not the run itself."""
        now, plan = self._progress, self._plan
        sessions = f"{now.sessions_done}" + (f"/{plan.sessions}" if plan.sessions else "")
        failed = f", {now.calls_failed} failed" if now.calls_failed else ""
        phase = "" if now.phase == "run" else f"{now.phase}  "
        return (
            f"{host.monotonic() - self._began:5.0f} s  {phase}sessions {sessions} done, {now.sessions_live} live;  "
            f"calls {now.calls_done} done{failed}, {now.calls_live} in flight;  {now.output_tokens:,} tokens out"
        )
