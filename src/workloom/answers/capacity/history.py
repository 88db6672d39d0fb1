"""A search on disk: what was asked, and a line for every run. Asked again, it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.answers.capacity.probe import Probe
from workloom.answers.capacity.search import Want
from workloom.errors import StoreError
from workloom.store.run import write_whole

ASKED, HISTORY, PROPOSED = "capacity.json", "history.jsonl", "proposed"
"""Names in the directory; a search on a simulator that proposes where to look has a directory in it."""


class Question(Struct, frozen=True):
    """What makes runs of two searches comparable: equal questions may share a directory."""

    workload: str
    """Hash of the plan with its load and seed left out."""
    target: str
    """Hash of the engine, or of the servers and how they are asked."""
    over: str
    slos: list[str]
    seed: int
    start: float
    length: str
    """How long runs are: as chosen, or `automatic`."""
    batch: int
    beside: int


class History:
    """The directory of a search. Raises StoreError where another search's runs lie."""

    def __init__(self, path: Path, question: Question) -> None:
        self.path = path
        self._made: dict[int, Probe] = {}
        self._used: set[int] = set()
        path.mkdir(parents=True, exist_ok=True)
        asked = path / ASKED
        if asked.exists():
            self._refuse_other(asked, question)
            self._made = {probe.number: probe for probe in _read(path / HISTORY)}
        elif any(child.name != PROPOSED for child in path.iterdir()):
            raise StoreError("the directory holds something else", where=str(path), hint="choose another with -o")
        else:
            write_whole(asked, msgspec.json.format(msgspec.json.encode(question), indent=1) + b"\n")

    def _refuse_other(self, asked: Path, question: Question) -> None:
        try:
            there = msgspec.json.decode(asked.read_bytes(), type=Question)
        except msgspec.DecodeError as fault:
            raise StoreError("what was asked there cannot be read", where=str(asked), found=fault) from fault
        other = [name for name in Question.__struct_fields__ if getattr(there, name) != getattr(question, name)]
        if other:
            raise StoreError(
                "the directory holds a search of another question",
                where=str(asked),
                expected="; ".join(f"{name}: {getattr(there, name)}" for name in other),
                found="; ".join(f"{name}: {getattr(question, name)}" for name in other),
                hint="choose another directory with -o",
            )

    @property
    def unused(self) -> int:
        """Runs that lie here and were not asked for."""
        return len(set(self._made) - self._used)

    def __len__(self) -> int:
        return len(self._made)

    def measure(self, wants: list[Want], make: Callable[[list[Want]], Iterable[Probe]]) -> Iterable[Probe]:
        """The runs wanted: those that were made before, then the rest, each written down when it is done."""
        missing = []
        for want in wants:
            made = self._made.get(want.number)
            if made is not None and (made.load, made.stretch, made.purpose) == (want.load, want.stretch, want.purpose):
                self._used.add(want.number)
                yield made
            else:
                missing.append(want)
        if not missing:
            return
        with (self.path / HISTORY).open("ab") as lines:
            for probe in make(missing):
                lines.write(msgspec.json.encode(probe) + b"\n")
                lines.flush()
                os.fsync(lines.fileno())
                self._made[probe.number] = probe
                self._used.add(probe.number)
                yield probe

    def room(self, number: int) -> Path:
        """A directory for a live run that is not there yet: an attempt that was cut short keeps its own."""
        path, again = self.path / f"probe-{number:03}", 1
        while path.exists():
            again += 1
            path = self.path / f"probe-{number:03}-{again}"
        return path


def _read(path: Path) -> Iterable[Probe]:
    """All whole lines; the last may be cut off where the search was killed."""
    if not path.exists():
        return
    kept = path.read_bytes()
    lines = kept.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield msgspec.json.decode(line, type=Probe)
        except msgspec.DecodeError as fault:
            if number < len(lines):
                raise StoreError(
                    "a line of the history cannot be read", where=f"{path}, line {number}", found=fault
                ) from fault
            path.write_bytes(kept[: len(kept) - len(line)])
