"""The interval of a quantile: the quantiles between which it lies, given how sure the share of values below it is.

The share below the quantile q found is p. Had it been p + h, another value would be the quantile: so the interval of
the share, made by blocks of time as that of any mean, is read off at the values (Woodruff, Confidence intervals for
medians and other position measures, Journal of the American Statistical Association 47, 1952). So failures, which are
infinite, and gaps between two kinds of calls do no harm, as they do to a normal interval about the quantile. Shares
near 1 have no room above: the interval is symmetric in their log odds (Korn and Graubard, Survey Methodology 24, 1998).
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from workloom.metrics.stats import Floats


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


def interval(values: Floats, weights: Floats | None, level: float, below: float, above: float) -> tuple[float, float]:
    """The quantiles at the ends of the interval of the share below. `values` in order; `below`, `above`: how far the
    true share below the quantile found may be from `level`.

    Were it so much below, the true quantile would be the value found at so much above. To withhold those that end at
    the largest value would pick out runs whose blocks scatter little: their intervals hold less than they say.
    """
    odds = log(level / (1 - level))
    low, high = (1 / (1 + exp(-(odds + min(max(by / (level * (1 - level)), -700.0), 700.0)))) for by in (-above, below))
    return of_sorted(values, weights, low), of_sorted(values, weights, high)
