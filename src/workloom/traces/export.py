"""Traces in the formats of other tools, and what of them those formats cannot hold.

What is lost is not promised but measured: the result is written beside its goal, read back with the format's own
reader and compared call by call; only then it takes its name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct, field

from workloom.errors import TraceError, UsageError, nearest
from workloom.session import Header, Session
from workloom.traces import csv_table, mooncake_write, open_trace, trie
from workloom.traces.aiperf_dag import write as aiperf_dag
from workloom.traces.losses import compare
from workloom.traces.reading import Reading, Report
from workloom.traces.veeksha import write as veeksha
from workloom.traces.weka import write as weka

Write = Callable[[Path, Header, Iterable[Session], Report], Sequence[int]]
"""Writes sessions, in order, to a file (or folder) that is not there yet.

What it leaves out or changes it tells the report; the places of sessions left out altogether are returned.
"""

WRITERS: dict[str, Write] = {
    "weka": weka.write,
    "mooncake": mooncake_write.write,
    "trie": trie.write,
    "veeksha": veeksha.write,
    "aiperf-dag": aiperf_dag.write,
    "csv": csv_table.write,
}


class Export(Struct):
    """What was written, and what was not.

    `left_out`, `changed`: what the writer says of sessions and calls, by sentence; `assumptions` likewise. `lost`:
    what is not as it was when the result is read back.
    """

    format: str
    sessions: int = 0
    calls: int = 0
    sessions_back: int = 0
    calls_back: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def writer(format: str) -> Write:
    """The writer of a format. Raises UsageError."""
    if format not in WRITERS:
        close = None if format == "native" else nearest(format, list(WRITERS))
        raise UsageError(
            "there is no writer for this format",
            where="--format",
            expected=" | ".join(WRITERS),
            found=format,
            hint=f"did you mean {close}?" if close else "workloom's own format is written by `workloom import`",
        )
    return WRITERS[format]


class Prepared:
    """An export that is written and read back, beside its goal; `keep` gives it its name. Close it in any case."""

    def __init__(self, reading: Reading, format: str, goal: Path) -> None:
        write = writer(format)
        if goal.exists():
            raise UsageError("the goal is there already", where=str(goal), hint="choose another name with -o")
        self._goal = goal
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{goal.name}.", dir=goal.parent))
        except OSError as error:
            expected = "a folder one can write to"
            what = "a trace cannot be written there"
            raise TraceError(what, where=str(goal), expected=expected, found=error.strerror) from error
        self._scratch = self._folder / goal.name
        self.told = Export(format)
        try:
            self._write(reading, write)
            self._compare(reading)
        except BaseException:
            self.close()
            raise

    def _write(self, reading: Reading, write: Write) -> None:
        told, report = self.told, Report()
        self._out = set(write(self._scratch, reading.header, self._counted(reading), report))
        told.left_out, told.changed, told.assumptions = report.dropped, report.inferred, report.assumptions
        if told.sessions == len(self._out):
            raise TraceError(
                "the format can hold none of the sessions",
                where=f"--format {told.format}",
                expected="sessions of a shape it knows",
                found="; ".join(f"{count} x {what}" for what, count in report.dropped.items()) or "no session",
            )

    def _counted(self, sessions: Iterable[Session]) -> Iterator[Session]:
        for session in sessions:
            self.told.sessions += 1
            self.told.calls += len(session.calls)
            yield session

    def _compare(self, reading: Reading) -> None:
        told = self.told
        back = open_trace([self._scratch], format=told.format, text=True)
        for session in back:
            told.sessions_back += 1
            told.calls_back += len(session.calls)
        if told.sessions_back == told.sessions - len(self._out):
            kept = (session for place, session in enumerate(reading) if place not in self._out)
            told.lost = compare(kept, back)
        else:
            told.lost = {"sessions: the format does not tell which calls belong together": told.sessions_back}

    def keep(self) -> None:
        """Put the result in its place."""
        self._scratch.rename(self._goal)
        self.close()

    def close(self) -> None:
        """Remove what is not kept."""
        shutil.rmtree(self._folder, ignore_errors=True)
