"""The interval of a quantile: the values that could be it, given how sure the shares below them are.

A value q is kept when the share of values below it, F(q), is no further from p than chance would have it. So failures,
which are infinite, and gaps between two kinds of calls do no harm, as they do to a normal interval about the quantile.
The standard error of F(q) is that of blocks of sessions at this very q (design effect times p (1 - p) / n): the share
is p if q is the quantile. Francisco and Fuller, Quantile estimation with a complex survey design, Annals of Statistics
19, 1991, invert the test in the same way.
"""

from __future__ import annotations

import numpy as np

from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty import blocks as over
from workloom.metrics.uncertainty.ratio import Ratio

CANDIDATES = 161


def of_sorted(values: Floats, weights: Floats | None, level: float) -> float:
    """The quantile of values in order, linear between ranks as numpy's; a value of weight w stands there w times."""
    upto = np.arange(1, len(values) + 1, dtype=np.float64) if weights is None else np.cumsum(weights)
    rank = level * (upto[-1] - 1)
    below, above = (
        float(values[min(int(np.searchsorted(upto, np.floor(rank) + i, side="right")), len(values) - 1)])
        for i in (0, 1)
    )
    part = float(rank - np.floor(rank))
    if part == 0 or below == above:
        return below
    return above if np.isinf(above) else float(below + (above - below) * part)


def interval(
    values: Floats,
    weights: Floats | None,
    where: np.ndarray[tuple[int], np.dtype[np.int64]],
    ratio: Ratio,
    level: float,
    confidence: float,
    blocks: int,
) -> tuple[float, float] | None:
    """From the candidate before the first that is kept to the one after the last. None where that is the very largest
    value, or the smallest: then the run does not reach so far.

    `values` in order, with the place `where` of their session in `ratio`. Candidates are quantiles themselves, dense
    about the level; memory is candidates x blocks.
    """
    n = len(ratio.whole)
    total = float(ratio.whole.sum())
    tail = min(level, 1 - level)
    steps = np.linspace(-1, 1, CANDIDATES)
    levels = level + np.where(steps < 0, level, 1 - level) * np.sign(steps) * np.abs(steps) ** (2 if tail < 0.2 else 1)
    upto = np.arange(1, len(values) + 1, dtype=np.float64) if weights is None else np.cumsum(weights)
    at = np.minimum(np.searchsorted(upto, np.clip(levels, 0, 1) * total), len(values) - 1)
    candidates = np.unique(values[at])
    if len(candidates) == 1:
        return float(candidates[0]), float(candidates[0])
    last = np.searchsorted(values, candidates, side="right") - 1
    share = upto[last] / total
    block = (np.arange(n) * blocks // n)[where]
    bins = np.searchsorted(candidates, values, side="left")
    k = len(candidates)
    held = np.bincount(block * (k + 1) + bins, weights, blocks * (k + 1)).reshape(blocks, k + 1)[:, :k].cumsum(axis=1)
    whole = over.blocked(ratio.whole, blocks)
    apart = (held - share * whole[:, None]) / total
    error = np.sqrt(blocks / (blocks - 1) * np.square(apart).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        error *= np.sqrt(level * (1 - level) / (share * (1 - share)))
    t = over.t_limits(confidence, blocks)[1]
    kept = np.flatnonzero(np.abs(share - level) <= t * np.nan_to_num(error, nan=0.0, posinf=0.0))
    if not len(kept):
        kept = np.array([int(np.searchsorted(share, level))])
    low, high = float(candidates[max(int(kept[0]) - 1, 0)]), float(candidates[min(int(kept[-1]) + 1, k - 1)])
    alone = len(values) > 1 and values[-1] != values[-2], len(values) > 1 and values[0] != values[1]
    if (kept[-1] >= k - 2 and alone[0]) or (kept[0] <= 1 and alone[1]):
        return None
    return low, high
