"""Traces in the formats of other tools, and what of them those formats cannot hold.

What is lost is not promised but measured: the result is written beside its goal, read back with the format's own
reader and compared call by call; only then it takes its name.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field

from workloom.errors import TraceError, UsageError, nearest
from workloom.session import Header, Session
from workloom.traces import csv_table, open_trace, trie
from workloom.traces.aiperf_dag import write as aiperf_dag
from workloom.traces.losses import compare, pooled
from workloom.traces.mooncake import write as mooncake
from workloom.traces.reading import Reading, Report
from workloom.traces.veeksha import write as veeksha
from workloom.traces.weka import write as weka

Write = Callable[[Path, Header, Iterable[Session], Report], Sequence[int]]
"""Writes sessions, in order, to a file (or folder) that is not there yet.

What it leaves out or changes it tells the report; the places of sessions left out altogether are returned.
"""

WRITERS: dict[str, Write] = {
    "weka": weka.write,
    "mooncake": mooncake.write,
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
        self._starts_s, self._starts_back_s = array("d"), array("d")
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
            self._starts_s.append(_start(session))
            self.told.sessions += 1
            self.told.calls += len(session.calls)
            yield session

    def _compare(self, reading: Reading) -> None:
        told = self.told
        back = open_trace([self._scratch], format=told.format, text=True)
        for session in back:
            if session.start_s is not None:
                self._starts_back_s.append(_start(session))
            told.sessions_back += 1
            told.calls_back += len(session.calls)
        kept = (session for place, session in enumerate(reading) if place not in self._out)
        if told.sessions_back == told.sessions - len(self._out):
            told.lost = compare(_by_start(kept) if self._sorted() else kept, back)
        else:
            told.lost = {
                "sessions, since the format does not tell which calls belong together": told.sessions - len(self._out),
                **pooled(kept, back),
            }

    def _sorted(self) -> bool:
        """Whether the format has put sessions in the order of their starts, which they were not in."""
        before = [start for place, start in enumerate(self._starts_s) if place not in self._out]
        after = list(self._starts_back_s)
        return len(after) == len(before) and sorted(after) == after and sorted(before) != before

    def keep(self) -> None:
        """Put the result in its place."""
        self._scratch.rename(self._goal)
        self.close()

    def close(self) -> None:
        """Remove what is not kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _start(session: Session) -> float:
    """When the first call of a session began, in seconds on the clock of the trace."""
    recorded = session.calls[0].recorded
    return (session.start_s or 0.0) + ((recorded.start_s or 0.0) if recorded is not None else 0.0)


def _by_start(sessions: Iterable[Session]) -> Iterator[Session]:
    """The sessions in the order of their starts, those of one time as they come; put aside in a file for that."""
    starts_s, offsets = array("d"), array("Q", [0])
    decode = msgspec.json.Decoder(Session).decode
    with tempfile.TemporaryFile(prefix="workloom-") as aside:
        for session in sessions:
            starts_s.append(_start(session))
            offsets.append(offsets[-1] + aside.write(msgspec.json.encode(session)))
        for place in sorted(range(len(starts_s)), key=starts_s.__getitem__):
            aside.seek(offsets[place])
            yield decode(aside.read(offsets[place + 1] - offsets[place]))
