"""What the streams of a run hold, in one pass over its chunk runs: gaps, and tokens that came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloom.clock import NS
from workloom.metrics.bins import RESOLUTION, binned, middles, weighted_stats
from workloom.metrics.catalog import Sample
from workloom.metrics.chunks import delivered_tokens, gaps_by_call_s
from workloom.metrics.frame import CENSORED, Calls, Chunks, Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats, Stats, stats

EXACT_GAPS = 4_000_000
"""Gaps held one by one (64 MB), for percentiles that are exact; beyond that they are counted in bins."""
SAMPLE_GAPS = 200_000
"""Most values of a sample, from which intervals are made: more gaps are told by session and bin."""
MOST_GROUPS = 2_000
"""Of more sessions, neighbours in the order of the plan are counted together, so that bins stay in bounded memory:
what came one after the other is no more independent for being told apart."""

_SPAN = 4
"""Bins are counted by an array as long as the range of the keys where that is no more than so many times the values."""
_BINS = 1 << 17
"""More than there are bins of finite values."""


@dataclass(slots=True)
class Streams:
    """Rows of `carried` and `delivered` are those of the calls."""

    gaps: Sample
    """TBC of the calls looked at; one value a gap, or a bin."""
    gaps_stats: Stats
    together: int
    """Gaps of 0: chunks that one read brought."""
    carried: Floats
    """Output tokens of each call as counted from its chunks."""
    delivered: Floats
    """Of these, those whose chunk came in the window."""
    held_token_s: Floats
    """Tokens of each answer times the seconds from when they came to the end of the call; nan of one without an end."""


def streams(run: Measured) -> Streams:
    """The streams of a run; worked out once."""
    found = run.__dict__.get("streams")
    if not isinstance(found, Streams):
        found = run.__dict__["streams"] = _streams(run)
        run.__dict__.setdefault("carried", found.carried)
    return found


def _streams(run: Measured) -> Streams:
    gaps = _Gaps(run.calls.instance)
    carried: list[Floats] = [np.empty(0)]
    delivered: list[Floats] = [np.empty(0)]
    held: list[Floats] = [np.empty(0)]
    end_ns = ended_ns(run.calls)
    row = together = 0
    for piece in run.pieces():
        for values, call in gaps_by_call_s(piece, run.due[row : row + piece.calls]):
            gaps.add(values, call + row)
            together += int(np.count_nonzero(values == 0))
        gaps.settle()
        carried.append(piece.tokens)
        delivered.append(delivered_tokens(piece, run.window))
        held.append(_held_token_s(piece, end_ns[row : row + piece.calls]))
        row += piece.calls
    tokens, came, kept = (np.concatenate(part) for part in (carried, delivered, held))
    return Streams(gaps.sample(run.calls.due_ns), gaps.stats(), together, tokens, came, kept)


def ended_ns(calls: Calls) -> Floats:
    """When each call left the air: at the end of its stream, or when it was last heard of; nan where the end of the run
    cut it off, or it never left."""
    end_ns = np.where(np.isnan(calls.done_ns), np.fmax(calls.sent_ns, calls.last_ns), calls.done_ns)
    return np.where(calls.status == CENSORED, np.nan, end_ns)


def _held_token_s(chunks: Chunks, end_ns: Floats) -> Floats:
    """Exact: sum over the chunks of a run of tokens_each * (end - first - i*gap - slope*i*(i-1)/2)."""
    n = chunks.count.astype(np.float64)
    pairs = n * (n - 1) / 2
    spent_ns = n * (end_ns[chunks.call] - chunks.first_ns) - chunks.gap_ns * pairs
    spent_ns -= chunks.slope_ns * pairs * (n - 2) / 3
    held_ns = np.bincount(chunks.call, weights=chunks.tokens_each * spent_ns, minlength=chunks.calls)
    return held_ns / NS


class _Gaps:
    """Gaps with the session of each: as they are, or from some millions on counted by session and bin."""

    def __init__(self, instance: Floats, exact: int = EXACT_GAPS, most: int = SAMPLE_GAPS) -> None:
        self._instance, self._exact, self._most = instance, exact, most
        self._values: list[Floats] = [np.empty(0)]
        self._rows: list[Ints] = [np.empty(0, dtype=np.int64)]
        self._held = 0
        self._groups: Ints | None = None
        self._keys: list[Ints] = []
        self._counts: list[Ints] = []
        self._fresh = 0
        self._n, self._sum = 0, 0.0

    def add(self, values: Floats, rows: Ints) -> None:
        """Gaps, and the row of the call that each belongs to."""
        self._n += len(values)
        self._sum += float(np.sum(values))
        if self._groups is not None:
            self._count(values, rows)
            return
        self._values.append(values)
        self._rows.append(rows)
        self._held += len(values)
        if self._held > self._exact:
            self._count_held()
            self._values, self._rows = [], []

    def _count_held(self) -> None:
        self._groups, self._first = _grouped(self._instance)
        for held, owners in zip(self._values, self._rows, strict=True):
            self._count(held, owners)

    def _count(self, values: Floats, rows: Ints) -> None:
        if not len(values):
            return
        assert self._groups is not None
        keys = self._groups[rows] * _BINS + binned(values)
        low = int(keys.min())
        if int(keys.max()) - low < _SPAN * len(keys):
            counts = np.bincount(keys - low)
            there = np.flatnonzero(counts)
            self._keys.append(there + low)
            self._counts.append(counts[there])
        else:
            found, counts = np.unique(keys, return_counts=True)
            self._keys.append(found)
            self._counts.append(counts)
        self._fresh += len(self._keys[-1])

    def settle(self, every: int = 4 * EXACT_GAPS) -> None:
        """Bring counts of equal keys together before they take much room."""
        if self._fresh > every:
            keys, counts = self._merged()
            self._keys, self._counts, self._fresh = [keys], [counts], 0

    def _merged(self) -> tuple[Ints, Ints]:
        keys, where = np.unique(np.concatenate(self._keys), return_inverse=True)
        return keys, np.bincount(where, weights=np.concatenate(self._counts)).astype(np.int64)

    def sample(self, due_ns: Floats | None = None) -> Sample:
        """One value a gap, or a bin of a session; to be asked for when all gaps are there. `due_ns`: of the calls,
        which stand for when their gaps were."""
        if self._groups is None and self._n <= self._most:
            rows = np.concatenate(self._rows)
            at_ns = None if due_ns is None else due_ns[rows]
            return Sample(np.concatenate(self._values), self._instance[rows], at_ns=at_ns)
        if self._groups is None:
            self._count_held()
        keys, counts = self._merged()
        return Sample(
            middles(keys % _BINS), self._first[keys // _BINS], counts.astype(np.float64), resolution=RESOLUTION
        )

    def stats(self) -> Stats:
        """Mean and percentiles of all gaps; the mean is exact."""
        if self._n <= self._exact:
            return stats(np.concatenate(self._values))
        keys, counts = self._merged()
        return weighted_stats(middles(keys % _BINS), counts.astype(np.float64), self._sum / self._n)


def _grouped(instance: Floats) -> tuple[Ints, Floats]:
    """The group of each row, and the first session of each group."""
    sessions, codes = np.unique(instance, return_inverse=True)
    each = -(-len(sessions) // MOST_GROUPS)
    return codes.astype(np.int64) // each, sessions[::each]
