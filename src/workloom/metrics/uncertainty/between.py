"""Runs with seeds of their own: what differs between them is the whole uncertainty, whatever is alike within one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from workloom.metrics.estimate import Estimate, infinite_said
from workloom.metrics.uncertainty.blocks import t_limits

RUNS = 3
"""Fewer say nothing of a spread."""


def between(estimates: Sequence[Estimate], *, level: float = 0.95) -> Estimate:
    """The mean of one figure over runs with other seeds, with Student's interval over runs.

    A run without a value is left out, and `why` says so. A run whose value is infinite makes the mean infinite, and
    certainly so: a load under which some calls fail has no finite mean. Runs that are all alike (no failure in any)
    have no spread: then the interval is as wide as that within a run, on average.
    """
    assert estimates and len({estimate.figure for estimate in estimates}) == 1
    there = [estimate for estimate in estimates if estimate.value is not None]
    effective = [estimate.effective for estimate in there]
    made = Estimate(
        estimates[0].figure,
        None,
        level=level,
        values=sum(estimate.values for estimate in there),
        sessions=sum(estimate.sessions for estimate in there),
        effective=None if None in effective else sum(value or 0.0 for value in effective),
        censored=sum(estimate.censored for estimate in estimates),
        blocks=len(there),
        runs=len(there),
    )
    if not there:
        return replace(made, why=estimates[0].why or "not enough data: no run has a value")
    values = np.array([estimate.value for estimate in there], dtype=np.float64)
    missing = len(estimates) - len(there)
    without = f"{missing} of {len(estimates)} runs have no value ({_why(estimates)})" if missing else ""
    value = float(values.mean())
    if len(there) < RUNS:
        why = f"not enough data: {len(there)} run{'s' * (len(there) != 1)}, {RUNS} needed for a spread between runs"
        return replace(made, value=value, why=f"{why}; {without}" if without else why)
    if np.isinf(values).any():
        return infinite_said(replace(made, value=value, low=value, high=value, why=without))
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    ends = [(estimate.low, estimate.high) for estimate in there]
    if not error and all(low is not None and high is not None for low, high in ends):
        low, high = np.array(ends, dtype=np.float64).mean(axis=0).tolist()
        return replace(made, value=value, low=low, high=high, why=without)
    low, high = t_limits(level, len(values))
    return replace(made, value=value, low=value + low * error, high=value + high * error, why=without)


def _why(estimates: Sequence[Estimate]) -> str:
    """What the first run without a value says."""
    return next((estimate.why for estimate in estimates if estimate.value is None), "")
