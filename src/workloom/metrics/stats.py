"""Means and percentiles that cannot be flattered: a failure is an infinite value, an absent value is none at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS = {"p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}
POOL_VALUES = 20_000_000
"""Values a pool holds exactly (160 MB); beyond that it counts them in bins."""

_BIN_BITS = 10
RESOLUTION = 0.5**_BIN_BITS / 2
"""Relative error of a percentile read from bins: 0.05 %."""
_SMALLEST = 1e-9


class Stats(Struct, frozen=True):
    """Of `n` values, `infinite` of which are failures. In JSON an infinite figure is null, as is one of no values."""

    n: int = 0
    infinite: int = 0
    censored: int = 0
    """Calls or sessions due in the window that have no value because the run ended first: the figures leave them out,
    and they are the long ones."""
    mean: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    resolution: float = 0.0
    """Relative error of the percentiles; 0 where they are exact."""


def stats(values: Floats, censored: int = 0) -> Stats:
    """Mean and percentiles (linear between ranks, as numpy's) of the values that are there: nan is no value."""
    there = values[~np.isnan(values)]
    finite = np.sort(there[np.isfinite(there)])
    n, infinite = len(there), len(there) - len(finite)
    if n == 0:
        return Stats(censored=censored)
    mean = float("inf") if infinite else float(np.mean(finite))
    figures: dict[str, Any] = {name: _quantile(finite, n, level) for name, level in LEVELS.items()}
    return Stats(n=n, infinite=infinite, censored=censored, mean=mean, **figures)


def _quantile(finite: Floats, n: int, level: float) -> float:
    """The quantile of `n` values, the finite ones in order and infinite ones behind them."""
    rank = (n - 1) * level
    low = int(rank)
    part = rank - low
    below = float(finite[low]) if low < len(finite) else float("inf")
    if part == 0 or below == float("inf"):
        return below
    above = float(finite[low + 1]) if low + 1 < len(finite) else float("inf")
    return above if above == float("inf") else below + (above - below) * part


class Pool:
    """Any number of finite values, 0 or more, in bounded memory: exact up to `limit` of them, then in bins.

    A bin is as wide as 1/1024 of its lower power of two, so percentiles are off by 0.05 % at most; the mean stays
    exact.
    """

    def __init__(self, limit: int = POOL_VALUES) -> None:
        self._limit = limit
        self._held: list[Floats] = []
        self._held_count = 0
        self._bins: NDArray[np.int64] | None = None
        self._n = 0
        self._sum = 0.0

    def add(self, values: Floats) -> None:
        self._n += len(values)
        self._sum += float(np.sum(values))
        if self._bins is not None:
            self._count(values)
            return
        self._held.append(values)
        self._held_count += len(values)
        if self._held_count > self._limit:
            for held in self._held:
                self._count(held)
            self._held = []

    def stats(self) -> Stats:
        """Mean and percentiles of all values."""
        if self._bins is None:
            return stats(np.concatenate(self._held) if self._held else np.empty(0))
        upto = np.cumsum(self._bins)
        figures: dict[str, Any] = {}
        for name, level in LEVELS.items():
            where = int(np.searchsorted(upto, int((self._n - 1) * level), side="right"))
            figures[name] = 0.0 if where == 0 else _middle(where)
        return Stats(n=self._n, mean=self._sum / self._n, resolution=RESOLUTION, **figures)

    def _count(self, values: Floats) -> None:
        index = np.where(values < _SMALLEST, 0, (values.view(np.int64) >> (52 - _BIN_BITS)) - _BASE + 1)
        counts = np.bincount(index)
        if self._bins is None:
            self._bins = counts
        elif len(self._bins) >= len(counts):
            self._bins[: len(counts)] += counts
        else:
            counts[: len(self._bins)] += self._bins
            self._bins = counts


_BASE = int(np.array([_SMALLEST]).view(np.int64)[0]) >> (52 - _BIN_BITS)


def _middle(index: int) -> float:
    """The middle of a bin: the leading bits of a float, and half of what the rest could be."""
    bits = (index - 1 + _BASE << (52 - _BIN_BITS)) + (1 << (51 - _BIN_BITS))
    return float(np.array([bits], dtype=np.int64).view(np.float64)[0])
