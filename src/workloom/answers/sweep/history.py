"""What became of the points: points.jsonl, a line an attempt, synced before the next begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from workloom.answers.sweep.definition import ASIDE, HISTORY
from workloom.errors import StoreError, WorkloomError
from workloom.store import open_run
from workloom.store.run import MANIFEST

Became = Literal["finished", "failed", "interrupted"]


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One run of a point. `code`: its exit status; `peak_bytes`: the most memory of any point's process so far."""

    point: str
    became: Became
    began: str
    """Wall clock in UTC, ISO 8601."""
    wall_s: float
    code: int
    error: str = ""
    peak_bytes: int | None = None


def append(path: Path, attempt: Attempt) -> None:
    """Add a line, behind one that a kill has torn on a line of its own."""
    try:
        with (path / HISTORY).open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(msgspec.json.encode(attempt) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        raise StoreError("the history cannot be written", where=str(path / HISTORY), found=fault.strerror) from fault


def attempts(path: Path) -> list[Attempt]:
    """All lines in order. One that was torn by a kill is left out: its point's directory says what it came to."""
    if not (path / HISTORY).exists():
        return []
    found = []
    for line in (path / HISTORY).read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Attempt))
        except msgspec.DecodeError:
            continue
    return found


def last(path: Path) -> dict[str, Attempt]:
    """The latest attempt at each point."""
    return {attempt.point: attempt for attempt in attempts(path)}


def finished(path: Path, name: str, latest: Attempt | None) -> bool:
    """Whether a point need not be run again: its run came to its planned end, and nothing was wrong with it.

    Raises StoreError when its run still goes, in a process that a killed sweep has left behind.
    """
    if not (path / name / MANIFEST).is_file():
        return False
    try:
        run = open_run(path / name)
    except WorkloomError:
        return False
    if run.live:
        raise StoreError(
            "a point is being run by another process",
            where=str(path / name),
            hint="wait for its end, or end that process; then give the same command again",
        )
    return run.manifest.status == "finished" and (latest is None or latest.became != "failed")


def put_aside(path: Path, name: str) -> None:
    """Make room for a new attempt at a point; what the last one left is kept."""
    if not (path / name).exists():
        return
    aside = path / ASIDE
    aside.mkdir(exist_ok=True)
    number = 1
    while (aside / f"{name}-{number}").exists():
        number += 1
    (path / name).rename(aside / f"{name}-{number}")
