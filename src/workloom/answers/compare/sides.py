"""One side of a comparison: a run, or several of a kind (other seeds, repeats)."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloom.errors import StoreError, UsageError
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import Figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured
from workloom.metrics.uncertainty.ratio import Begun, begun
from workloom.store import open_run
from workloom.store.run import MANIFEST

if TYPE_CHECKING:
    from workloom.store.manifest import Manifest

APART = float(1 << 40)
"""Instances of one run are below; those of the next begin here."""


@dataclass(frozen=True)
class Side:
    """`name`: what it was called by. Of a run in memory there is no path."""

    name: str
    runs: tuple[Measured, ...]
    paths: tuple[Path | None, ...] = ()

    @property
    def manifests(self) -> list[Manifest]:
        """Of those runs that have one."""
        return [run.manifest for run in self.runs if run.manifest is not None]

    def path(self, i: int) -> Path | None:
        return self.paths[i] if i < len(self.paths) else None

    def observe(self, figure: Figure) -> list[Sample | Totals | None]:
        """The metric of each run. Raises UsageError where a run has no calls of the kind that is asked for."""
        return [figure.observe(run) for run in self.runs]


def open_side(text: str) -> Side:
    """A run directory, several with commas between them, or a pattern. Raises UsageError, StoreError."""
    paths = list(_expand(text))
    return Side(text, tuple(measured(open_run(path)) for path in paths), tuple(paths))


def _expand(text: str) -> Iterator[Path]:
    for word in (word.strip() for word in text.split(",")):
        if not word:
            raise UsageError("a run's name is empty", found=text, expected="RUN or RUN1,RUN2")
        if Path(word).exists() or not glob.has_magic(word):
            yield Path(word)
            continue
        found = sorted(path for path in map(Path, glob.glob(word)) if (path / MANIFEST).is_file())
        if not found:
            raise StoreError("no run is like this", where=word, expected="run directories", found="none")
        yield from found


def pooled(observed: Sequence[Sample | Totals | None], windows: Sequence[Window]) -> Sample | Totals | None:
    """What several runs observed as if it were one run of all their sessions, their windows end to end as in `began`;
    None if one of them cannot say."""
    if len(observed) == 1:
        return observed[0]
    there: list[Any] = [each for each in observed if each is not None]
    if len(there) < len(observed):
        return None
    session = np.concatenate([each.session + i * APART for i, each in enumerate(there)])
    at_ns = None
    if all(each.at_ns is not None for each in there):
        upto = np.cumsum([0, *(window.end_ns - window.start_ns for window in windows)])
        shifts = [upto[i] - window.start_ns for i, window in enumerate(windows)]
        at_ns = np.concatenate([each.at_ns + shift for each, shift in zip(there, shifts, strict=True)])
    if isinstance(there[0], Totals):
        part = np.concatenate([each.part for each in there])
        if isinstance(there[0].whole, np.ndarray):
            return Totals(part, np.concatenate([each.whole for each in there]), session, at_ns)
        return Totals(part, float(sum(each.whole for each in there)), session, at_ns)
    weights = None
    if any(each.weights is not None for each in there):
        weights = np.concatenate([np.ones(len(s.values)) if s.weights is None else s.weights for s in there])
    return Sample(
        np.concatenate([each.values for each in there]),
        session,
        weights,
        sum(each.censored for each in there),
        max(each.resolution for each in there),
        at_ns,
    )


def began(side: Side) -> Begun:
    """When the sessions of all runs of a side were due, as if the runs had stood end to end; sessions as `pooled`."""
    each = [begun(run) for run in side.runs]
    if len(each) == 1:
        return each[0]
    session, due_ns, upto_ns = [], [], 0
    for i, one in enumerate(each):
        inside = one.window.holds(one.due_ns)
        session.append(one.session + i * APART)
        due_ns.append(np.where(inside, one.due_ns - one.window.start_ns + upto_ns, -1.0))  # before all windows
        upto_ns += one.window.end_ns - one.window.start_ns
    return Begun(np.concatenate(session), np.concatenate(due_ns), Window(0, upto_ns))


def equal(a: Sequence[Sample | Totals | None], b: Sequence[Sample | Totals | None]) -> bool:
    """Whether both sides observed the very same, value by value."""
    return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))


def _equal(a: Sample | Totals | None, b: Sample | Totals | None) -> bool:
    if isinstance(a, Totals) and isinstance(b, Totals):
        wholes = np.array_equal(np.asarray(a.whole), np.asarray(b.whole))
        return wholes and np.array_equal(a.part, b.part) and np.array_equal(a.session, b.session)
    if not isinstance(a, Sample) or not isinstance(b, Sample):
        return False
    same = np.array_equal(a.values, b.values, equal_nan=True) and np.array_equal(a.session, b.session)
    if a.weights is None or b.weights is None:
        return same and a.weights is b.weights
    return same and np.array_equal(a.weights, b.weights)
