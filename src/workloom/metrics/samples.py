"""Figures of servers as series: what counters grew by, and what gauges were, over a window.

Samples come about once a second, from each server in its own rhythm; a server may be away for a while, or start anew
with all counters at zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workloom.clock import NS
from workloom.drive.scrape.families import UP
from workloom.metrics.frame import Bools, Ints, Window, batches, floats
from workloom.metrics.stats import Floats
from workloom.records import ServerSample

if TYPE_CHECKING:
    import pyarrow as pa

HOLD_NS = 3 * NS
"""A gauge is taken to stand where it was for so long after a sample; then the server counts as not heard."""


@dataclass(slots=True)
class Series:
    """One figure of one replica, in time."""

    at_ns: Floats
    values: Floats


Samples = dict[tuple[str, str], Series]
"""By (name, replica)."""


def samples_of(tables: Iterable[pa.RecordBatch]) -> Samples:
    """The rows of server.parquet as series; counters under their name without `_total`."""
    parts: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for batch in tables:
        at_ns, values = floats(batch.column("at_ns")), floats(batch.column("value"))
        names, name_codes = _words(batch.column("name"))
        replicas, replica_codes = _words(batch.column("replica"))
        codes = name_codes * len(replicas) + replica_codes
        order = np.argsort(codes, kind="stable")
        found, begins = np.unique(codes[order], return_index=True)
        for code, rows in zip(found.tolist(), np.split(order, begins[1:]), strict=True):
            key = names[code // len(replicas)].removesuffix("_total"), replicas[code % len(replicas)]
            parts.setdefault(key, []).append((at_ns[rows], values[rows]))
    return {key: _series(pieces) for key, pieces in parts.items()}


def _words(column: pa.Array) -> tuple[list[str], Ints]:
    encoded = column.fill_null("").dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def samples(records: Iterable[ServerSample]) -> Samples:
    """Records as series."""
    return samples_of(batches(ServerSample, records))


def _series(pieces: list[tuple[Floats, Floats]]) -> Series:
    at_ns, values = (np.concatenate(part) for part in zip(*pieces, strict=True))
    there = np.isfinite(values)
    at_ns, values = at_ns[there], values[there]
    order = np.argsort(at_ns, kind="stable")
    return Series(at_ns[order], values[order])


def heard(samples: Samples) -> dict[str, float]:
    """When something of each replica, or the page that it is on, was first seen; nanoseconds."""
    first: dict[str, float] = {}
    for (name, replica), series in samples.items():
        seen = series.at_ns[series.values > 0] if name == UP else series.at_ns
        if len(seen):
            first[replica] = min(first.get(replica, np.inf), float(seen[0]))
    return {replica: min(at_ns, first.get(replica.partition("/")[0], np.inf)) for replica, at_ns in first.items()}


class Growth(NamedTuple):
    """What a counter grew by."""

    amount: float
    restarts: int
    """How often it fell: it began at zero again then, and all it showed was new."""


def steps(series: Series, heard_ns: float) -> Series:
    """A counter as what it grew by up to each sample, restarts mended: it never falls.

    `heard_ns`: when anything of its replica was first seen. A counter that comes into sight later (labels do, with the
    first count) stood at zero before.
    """
    values = series.values
    if not len(values):
        return series
    gained = np.diff(values)
    gained = np.where(gained < 0, values[1:], gained)
    late = series.at_ns[0] > heard_ns
    return Series(series.at_ns, np.cumsum(np.concatenate([[values[0] if late else 0.0], gained])))


def growth(series: Series, window: Window, heard_ns: float, near_ns: int = 0) -> Growth:
    """Growth from the last sample at or before the window's start (else the first) to the last at or before its end.

    A sample up to `near_ns` behind the end counts as taken at it: the servers are asked when the window ends.
    """
    grown = steps(series, heard_ns)
    fell = np.flatnonzero(np.diff(series.values) < 0) + 1
    inside = (series.at_ns[fell] > window.start_ns) & (series.at_ns[fell] <= window.end_ns)
    begin, end = (_at(grown, edge_ns, heard_ns) for edge_ns in (window.start_ns, window.end_ns + near_ns))
    return Growth(end - begin, int(inside.sum()))


def _at(grown: Series, at_ns: float, heard_ns: float) -> float:
    """What a mended counter stood at; before its first sample as at it, if nothing was heard before."""
    where = int(np.searchsorted(grown.at_ns, at_ns, side="right")) - 1
    if where >= 0:
        return float(grown.values[where])
    late = len(grown.at_ns) > 0 and grown.at_ns[0] > heard_ns
    return 0.0 if late or not len(grown.values) else float(grown.values[0])


def rising(series: Series, edges_ns: Floats, heard_ns: float) -> Floats:
    """Growth between each two neighbouring edges, spread evenly between samples."""
    grown = steps(series, heard_ns)
    if not len(grown.at_ns):
        return np.zeros(len(edges_ns) - 1)
    out: Floats = np.diff(np.interp(edges_ns, grown.at_ns, grown.values))
    return out


class Level:
    """A gauge as a step function: each value stands until the next sample, and no longer than `hold_ns`.

    From `until_ns` on nothing is known.
    """

    def __init__(self, series: Series, hold_ns: float = HOLD_NS, until_ns: float = np.inf) -> None:
        self.begin_ns = series.at_ns
        until = np.minimum(np.append(series.at_ns[1:], np.inf), until_ns)
        self.end_ns = np.maximum(self.begin_ns, np.minimum(until, series.at_ns + hold_ns))
        self.values = series.values
        spans = self.end_ns - self.begin_ns
        self._edges = np.column_stack([self.begin_ns, self.end_ns]).ravel()
        self._area = np.concatenate([[0.0], np.cumsum(self.values * spans)]).repeat(2)[1:-1]
        self._cover = np.concatenate([[0.0], np.cumsum(spans)]).repeat(2)[1:-1]

    def means(self, edges_ns: Floats) -> Floats:
        """Time-weighted means between neighbouring edges; nan where nothing was heard."""
        covered = self.covered(edges_ns)
        means: Floats = np.divide(self.areas(edges_ns), covered, out=np.full(len(covered), np.nan), where=covered > 0)
        return means

    def areas(self, edges_ns: Floats) -> Floats:
        """The integral between neighbouring edges, in nanoseconds; nothing where nothing was heard."""
        if not len(self._edges):
            return np.zeros(len(edges_ns) - 1)
        areas: Floats = np.diff(np.interp(edges_ns, self._edges, self._area))
        return areas

    def covered(self, edges_ns: Floats) -> Floats:
        """How much of the time between neighbouring edges the gauge was known; nanoseconds."""
        if not len(self._edges):
            return np.zeros(len(edges_ns) - 1)
        covered: Floats = np.diff(np.interp(edges_ns, self._edges, self._cover))
        return covered

    def at(self, instants_ns: Floats) -> Floats:
        """The value at instants; nan where nothing was heard."""
        if not len(self.values):
            return np.full(len(instants_ns), np.nan)
        where = np.searchsorted(self.begin_ns, instants_ns, side="right") - 1
        known: Bools = (where >= 0) & (instants_ns < self.end_ns[where])
        return np.where(known, self.values[where], np.nan)


def highest(levels: list[Level], window: Window, *, added: bool) -> float | None:
    """The highest that the sum of several gauges, or any one of them, came to in the window."""
    begins = np.concatenate([level.begin_ns for level in levels])
    instants = np.append(begins[window.holds(begins)], window.start_ns)
    values = np.array([level.at(instants) for level in levels])
    heard = np.isfinite(values).any(axis=0)
    if not heard.any():
        return None
    return float(np.max(np.nansum(values[:, heard], axis=0) if added else np.nanmax(values[:, heard])))


def quantile(bounds: Floats, counts: Floats, level: float) -> float | None:
    """A quantile of a histogram, even within buckets (as Prometheus's histogram_quantile).

    `bounds`: upper ends in order, the last infinite; `counts`: cumulative. In the last bucket: its lower end. None
    without observations.
    """
    if not len(counts) or counts[-1] <= 0:
        return None
    rank = level * float(counts[-1])
    at = int(np.searchsorted(counts, rank, side="left"))
    low = float(bounds[at - 1]) if at else 0.0
    if not np.isfinite(bounds[at]):
        return low
    before = float(counts[at - 1]) if at else 0.0
    inside = float(counts[at]) - before
    return low + (float(bounds[at]) - low) * ((rank - before) / inside if inside > 0 else 1.0)
