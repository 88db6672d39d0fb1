"""Counting values in bins that are narrow beside the values: percentiles of any number of them in bounded memory.

A bin is as wide as 1/1024 of its lower power of two, so a value read back from its bin is off by 0.05 % at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workloom.metrics.frame import Ints
from workloom.metrics.stats import LEVELS, Floats, Stats

_BIN_BITS = 10
RESOLUTION = 0.5**_BIN_BITS / 2
"""Relative error of a value read from bins: 0.05 %."""
_SMALLEST = 1e-9
_SHIFT = 52 - _BIN_BITS
_BASE = int(np.array([_SMALLEST]).view(np.int64)[0]) >> _SHIFT


def binned(values: Floats) -> Ints:
    """The bin of each finite value, 0 or more; bin 0 holds what is below a thousand-millionth."""
    index: Ints = np.where(values < _SMALLEST, 0, (values.view(np.int64) >> _SHIFT) - _BASE + 1)
    return index


def middles(bins: Ints) -> Floats:
    """The middle of each bin: the leading bits of a float, and half of what the rest could be. Of bin 0: 0."""
    bits = (bins.astype(np.int64) - 1 + _BASE << _SHIFT) + (1 << (_SHIFT - 1))
    return np.where(bins == 0, 0.0, bits.view(np.float64))


def weighted_stats(values: Floats, weights: Floats, mean: float, resolution: float = RESOLUTION) -> Stats:
    """Percentiles of finite values each of which was seen `weights` times; the mean is known beforehand.

    A percentile is the value at its rank, rounded down: between neighbours there is less than the resolution.
    """
    if not len(values):
        return Stats()
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    n = int(upto[-1])
    figures: dict[str, Any] = {}
    for name, level in LEVELS.items():
        at = int(np.searchsorted(upto, int((n - 1) * level), side="right"))
        figures[name] = float(values[order[at]])
    return Stats(n=n, mean=mean, resolution=resolution, **figures)
