"""Means and percentiles that cannot be flattered: a failure is an infinite value, an absent value is none at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS = {"p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}


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
