"""Standard errors from blocks of neighbours, and the studentised bootstrap over them.

Sessions are what is independent in a workload, but not in a run: those that are alive together share a queue, so a busy
minute makes all of them slow. Drawn one by one, the sessions of a run seem to tell more than they do. So neighbours in
the order they were due are put into a few long blocks, and blocks are drawn (non-overlapping batch means; Schmeiser,
Batch size effects in the analysis of simulation output, Operations Research 30, 1982). In a closed loop too.

Few blocks say little of a spread: where sessions drawn one by one spread more than blocks do, theirs is taken.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from workloom import seeds
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty.ratio import Ratio, sums

FEWEST, MOST = 10, 100
"""Blocks. The most keep drawing cheap; more would add nothing."""
REPEATS = 999


def count(sessions: int) -> int:
    """Blocks that so many sessions are put into: as many as a block has sessions, within bounds.

    With the square root both grow: blocks get long enough to be independent, and many enough to tell their spread.
    """
    return min(max(isqrt(sessions), FEWEST), MOST, sessions)


def blocked(values: Floats, blocks: int) -> Floats:
    """Sums of neighbours, equally many to a block as far as that goes."""
    n = len(values)
    return sums(np.arange(n) * blocks // n, values, blocks)


def error_of(apart: Floats) -> float:
    """The standard error of a sum of independent contributions whose mean is about 0."""
    n = len(apart)
    return float(np.sqrt(n / (n - 1) * (apart @ apart))) if n > 1 else float("inf")


def spread(ratio: Ratio) -> tuple[float, int]:
    """The larger of the standard errors of blocks and of sessions, and the number of blocks."""
    apart = ratio.apart
    blocks = count(len(apart))
    return max(error_of(blocked(apart, blocks)), error_of(apart)), blocks


def t_limits(level: float, blocks: int) -> tuple[float, float]:
    """Student's t between which `level` of the probability lies."""
    from scipy.special import stdtrit

    t = float(stdtrit(blocks - 1, (1 + level) / 2))
    return -t, t


def drawn_limits(ratio: Ratio, blocks: int, level: float, seed: int, name: str) -> tuple[float, float]:
    """The same of the ratio itself, from blocks drawn anew: of skewed values the two differ.

    Each time (ratio drawn - ratio) / its own standard error (Efron and Tibshirani, An Introduction to the Bootstrap,
    section 12.5). Memory is REPEATS x blocks, whatever the number of values.
    """
    part, whole = blocked(ratio.part, blocks), blocked(ratio.whole, blocks)
    rng = seeds.stream(seed, "bootstrap", name)
    times = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=REPEATS).astype(np.float64)
    of, wholes = times @ part, times @ whole
    with np.errstate(divide="ignore", invalid="ignore"):
        values = of / wholes
        square = times @ (part * part) - 2 * values * (times @ (part * whole)) + values**2 * (times @ (whole * whole))
        errors = np.sqrt(np.maximum(square, 0.0) * blocks / (blocks - 1)) / wholes
        t = (values - ratio.value) / errors
    t = t[np.isfinite(t)]
    if len(t) < REPEATS / 2:
        return t_limits(level, blocks)
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
