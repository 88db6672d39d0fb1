"""A process that looks at a live run: it reads the run's journal, so the run itself waits for nothing.

    run                                    referee (a process of its own, at a lower priority)
        -- window, sessions (a line) --->  reads the journals, computes the figures
        <-- Check (a line) --------------
        closes its input                   ends

Threads would not do: numbers take seconds of CPU, and a thread that computes holds the event loop up for milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from binascii import hexlify, unhexlify
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from workloom.errors import WorkloomError
from workloom.execute.goals import Goal, goals
from workloom.execute.until import Check, Pace, look, recorded
from workloom.metrics.frame import Window

NICE = 10


class Asked(NamedTuple):
    """A look that is wanted: of the window from `start_ns` to `at_ns`, when so many sessions had ended."""

    start_ns: int
    at_ns: int
    sessions: int


class Referee:
    """The process, from this side. `poll` never waits."""

    def __init__(self, path: Path, asked: Sequence[Goal]) -> None:
        self.pace = Pace(asked)
        self.fault: str | None = None
        self._busy = False
        self._over = False
        self._heard = b""
        argv = [sys.executable, "-m", "workloom.execute.referee", str(path), *(goal.say() for goal in asked)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def __enter__(self) -> Referee:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()

    def fileno(self) -> int:
        """What becomes readable when it has something to say."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ended(self, sessions: int, start_ns: int | None, now_ns: int) -> None:
        """So many sessions have ended by now: ask for a look if it is time for one and none is under way."""
        if self._busy or self._over or start_ns is None or start_ns >= now_ns or sessions < self.pace.next:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(Asked(start_ns, now_ns, sessions)) + b"\n")
            self._process.stdin.flush()
            self._busy = True
        except OSError:
            self._gone()

    def poll(self) -> int | None:
        """Hear what it says, if it does. When the window is to end: the instant of the look that decided it."""
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        if said == b"":
            self._gone()
            return None
        self._heard += said or b""
        line, newline, rest = self._heard.partition(b"\n")
        if not newline:
            return None
        self._heard, self._busy = rest, False
        check = msgspec.msgpack.decode(unhexlify(line), type=Check)
        if self.pace.heard(check):
            self._over = True
            return check.at_ns
        return None

    @property
    def over(self) -> bool:
        """Nothing more will be asked of it."""
        return self._over

    def _gone(self) -> None:
        if not self._over:
            self._over = True
            self._process.kill()
            assert self._process.stderr is not None
            words = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            self.fault = f"the process that looks at the figures ended: {words[-1] if words else 'it said nothing'}"


def main(path: str, *asked: str) -> None:
    """The process: a line in, a line out."""
    os.nice(NICE)
    wanted = goals(asked)
    for line in sys.stdin.buffer:
        start_ns, at_ns, sessions = msgspec.json.decode(line, type=Asked)
        check = look(recorded(Path(path), Window(start_ns, at_ns)), wanted, sessions)
        sys.stdout.buffer.write(hexlify(msgspec.msgpack.encode(check)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except WorkloomError as fault:
        sys.exit(" ".join(str(fault).splitlines()))
