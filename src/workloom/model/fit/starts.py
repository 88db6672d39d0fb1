"""How sessions arrive: the gaps between their starts, or, where a coarse clock hides those, how many come at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloom.model.families import Family, Gamma
from workloom.model.fit.margins import Margins
from workloom.model.workload.round import rounded

Floats = NDArray[np.float64]
ON_ONE_TICK = 0.2
"""The share of starts that fall on the instant of the one before, from which a clock is looked for."""
OFF = 0.01
"""How far the gaps between ticks may be from whole multiples of the shortest, as a share of it."""
TICKS = 20
"""A window of so many ticks is long enough for the clock not to matter."""
LEAST_WINDOWS = 10


def arrivals(starts_s: Floats, margins: Margins) -> tuple[Family, float | None]:
    """The distribution of gaps, and the tick of the clock in seconds (None: none is seen).

    On a coarse clock gaps are 0 or a tick and say nothing. Then they are taken for gamma, with the mean that the starts
    have, and the variance over the squared mean that counts in long windows have over their mean: in a renewal process
    the two are equal in the limit (Cox 1962).
    """
    starts = np.sort(starts_s)
    between = np.diff(starts)
    tick = _tick_s(between)
    window = TICKS * tick if tick is not None else 0.0
    span = float(starts[-1] - starts[0])
    if tick is None or span < LEAST_WINDOWS * window:
        return margins.fit("arrivals", between), None
    counts = np.histogram(starts, bins=np.arange(starts[0], starts[-1], window))[0]
    dispersion = float(counts.var(ddof=1) / counts.mean())
    margins.notes["arrivals"] = f"n {len(between):,}; the clock ticks every {tick:g} s; by counts in {window:g} s"
    return rounded(Gamma(mean=span / len(between), shape=1 / max(dispersion, 1e-3))), tick


def _tick_s(between: Floats) -> float | None:
    some = between[between > 0]
    if not len(some) or (between == 0).mean() < ON_ONE_TICK:
        return None
    tick = float(np.median(some[some < 1.5 * some.min()]))
    off = np.abs(some / tick - np.round(some / tick))
    return float(f"{tick:.3g}") if float(np.quantile(off, 0.99)) <= OFF else None
