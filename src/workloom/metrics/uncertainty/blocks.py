"""Standard errors from blocks of neighbours, and the studentised bootstrap.

Sessions are what is independent in a workload, but not in a run: those that are alive together share a queue, so a
busy minute makes all of them slow. Drawn one by one, the sessions of a run seem to tell more than they do. So what
neighbours in time add is put into a few long blocks (non-overlapping batch means; Schmeiser, Batch size effects in the
analysis of simulation output, Operations Research 30, 1982), in a closed loop too. Where blocks that follow each other
are still alike, the error is widened as that of an AR(1) process: busy times may outlast a block of a short run.

Few blocks say little of a spread: where sessions drawn one by one spread more than blocks do, theirs is taken.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import NamedTuple

import numpy as np

from workloom import seeds
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty.ratio import Ratio, sums

FEWEST, MOST = 10, 100
"""Blocks of which the error is made. The most keep drawing cheap; more would add nothing."""
DRAWN = 40
"""Blocks drawn anew to see how skewed the figure is: shorter ones, since correlation is in the error already."""
REPEATS = 999
FLOOR = 0.25
"""Of the error of the sample: a draw's own error is never taken for less. Where one odd session makes all the spread, a
draw without it would seem to be sure, and its t would be a number without a meaning."""
MOST_ALIKE = 0.9


class Spread(NamedTuple):
    """How much a ratio scatters. `half`: half of its interval, were it not skewed."""

    error: float
    half: float
    blocks: int


def count(sessions: int) -> int:
    """Blocks that so many sessions are put into: as many as a block has sessions, within bounds.

    With the square root both grow: blocks get long enough to be independent, and many enough to tell their spread.
    """
    return min(max(isqrt(sessions), FEWEST), MOST, sessions)


def count_in_time(sessions: int) -> int:
    """The same where blocks that are still alike are allowed for: fewer and longer ones tell how alike they are."""
    return min(max(isqrt(sessions // 2), FEWEST), MOST, sessions)


def blocked(values: Floats, blocks: int) -> Floats:
    """Sums of neighbours, equally many to a block as far as that goes."""
    n = len(values)
    return sums(np.arange(n) * blocks // n, values, blocks)


def error_of(apart: Floats) -> float:
    """The standard error of a sum of independent contributions whose mean is about 0."""
    n = len(apart)
    return float(np.sqrt(n / (n - 1) * (apart @ apart))) if n > 1 else float("inf")


def errors_of_blocks(apart: Floats, alike: bool) -> tuple[Floats, Floats]:
    """Of contributions by block (one column a figure): the standard error of each sum, and its degrees of freedom.

    `alike`: blocks may be alike. Their correlation is estimated and the bias of so few taken out (Kendall, Note on bias
    in the estimation of autocorrelation, Biometrika 41, 1954); what is alike tells less, so freedom is lost.
    """
    n = len(apart)
    square = np.square(apart).sum(axis=0)
    rho = np.zeros_like(square)
    if alike and n >= FEWEST:
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = np.nan_to_num((apart[1:] * apart[:-1]).sum(axis=0) / square)
        rho = np.clip((n * rho + 1) / (n - 4), 0.0, MOST_ALIKE)
    wider = (1 + rho) / (1 - rho)
    return np.sqrt(n / (n - 1) * square * wider), np.maximum((n - 1) / wider, min(3.0, n - 1))


def spread(ratio: Ratio, level: float, alike: bool = True) -> Spread:
    """By blocks of time, or by sessions where they scatter more."""
    series = ratio.apart_in_time
    blocks = min(count_in_time(ratio.sessions), len(series))
    if blocks < 2:
        return Spread(float("inf"), float("inf"), blocks)
    found, freedom = errors_of_blocks(blocked(series, blocks)[:, None], alike)
    error, half = float(found[0]), float(found[0] * t_limit(level, freedom)[0])
    if not ratio.timed:
        single = error_of(ratio.apart)
        error, half = max(error, single), max(half, single * float(t_limit(level, len(ratio.apart) - 1.0)))
    return Spread(error, half, blocks)


def t_limit(level: float, freedom: Floats | float) -> Floats:
    """Student's t that leaves (1 - level) / 2 beyond it."""
    from scipy.special import stdtrit

    t: Floats = stdtrit(freedom, (1 + level) / 2)
    return t


def t_limits(level: float, blocks: int) -> tuple[float, float]:
    """Student's t between which `level` of the probability lies."""
    t = float(t_limit(level, blocks - 1.0))
    return -t, t


def drawn_limits(ratio: Ratio, level: float, seed: int, name: str) -> tuple[float, float]:
    """How far the limits of the interval reach, as multiples of that of one that is not skewed: (below, above).

    Blocks are drawn anew, each time (ratio drawn - ratio) / its own standard error (Efron and Tibshirani, An
    Introduction to the Bootstrap, section 12.5). Memory is REPEATS x DRAWN, whatever the number of values.
    """
    from scipy.special import ndtri

    parts, wholes = ratio.in_time
    n = min(DRAWN, len(parts))
    part, whole = blocked(parts, n), blocked(wholes, n)
    rng = seeds.stream(seed, "bootstrap", name)
    times = rng.multinomial(n, np.full(n, 1 / n), size=REPEATS).astype(np.float64)
    of, over = times @ part, times @ whole
    apart = (part - ratio.value * whole) / whole.sum()
    least = FLOOR * sqrt(n / (n - 1) * (apart @ apart))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = of / over
        square = times @ (part * part) - 2 * values * (times @ (part * whole)) + values**2 * (times @ (whole * whole))
        errors = np.sqrt(np.maximum(square, 0.0) * n / (n - 1)) / over
        t = (values - ratio.value) / np.maximum(errors, least)
    t = t[np.isfinite(t)]
    if len(t) < REPEATS / 2:
        return 1.0, 1.0
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2]) / float(ndtri((1 + level) / 2))
    return max(float(high), 0.0), max(-float(low), 0.0)
