"""Repeated runs on both sides: each run is one independent value, so a t-interval over runs.

What a whole run shares (a host that is slow today, a cache that filled differently) is in no bootstrap of its
sessions; repeats show it. Ratios are those of the means over runs, with their standard error linearised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty.difference import Difference

LEAST = 3
"""Runs a side from which on runs are the unit; of fewer their sessions are pooled."""


def over_runs(
    name: str, a: Sequence[float | None], b: Sequence[float | None], *, paired: bool, level: float = 0.95
) -> Difference:
    """Mean of b's runs against the mean of a's; `paired`: run i of one and of the other had the same plan.

    Unpaired: Welch's degrees of freedom. A run without the figure, or with an infinite one, leaves no interval.
    """
    x = np.array([math.nan if value is None else value for value in a], dtype=np.float64)
    y = np.array([math.nan if value is None else value for value in b], dtype=np.float64)
    units = len(x) if paired else len(x) + len(y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        why = "not enough data: a run has no such figure, or an infinite one"
        return _said(name, None, None, why, units, level)
    mean_a, mean_b = float(x.mean()), float(y.mean())
    difference, low, high, p_value = _interval(mean_b - mean_a, x, y, paired, level)
    if mean_a <= 0 or mean_b <= 0:
        ratio = ratio_low = ratio_high = None
    else:
        log, log_low, log_high, p_value = _interval(math.log(mean_b / mean_a), x / mean_a, y / mean_b, paired, level)
        ratio, ratio_low, ratio_high = math.exp(log), math.exp(log_low), math.exp(log_high)
    return Difference(
        name, mean_a, mean_b, ratio, ratio_low, ratio_high, difference, low, high, p_value, level, units, ""
    )


def _interval(value: float, x: Floats, y: Floats, paired: bool, level: float) -> tuple[float, float, float, float]:
    """The value, its interval and the p value of it being 0; `x`, `y`: what each run adds to it, but for the mean."""
    from scipy import stats

    if paired:
        error, freedom = float(np.std(y - x, ddof=1)) / math.sqrt(len(x)), float(len(x) - 1)
    else:
        parts = [float(np.var(each, ddof=1)) / len(each) for each in (x, y)]
        error = math.sqrt(sum(parts))
        below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (x, y), strict=True))
        freedom = sum(parts) ** 2 / below if below > 0 else float(len(x) + len(y) - 2)
    if error == 0:
        return value, value, value, 1.0 if value == 0 else 0.0
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return value, value - half, value + half, float(2 * stats.t.sf(abs(value) / error, freedom))


def _said(name: str, a: float | None, b: float | None, why: str, units: int, level: float) -> Difference:
    return Difference(name, a, b, None, None, None, None, None, None, None, level, units, why)
