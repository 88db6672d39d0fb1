"""Whether all sessions are served alike.

Jain's index: R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness and Discrimination for Resource Allocation
in Shared Computer Systems, DEC-TR-301, 1984. (sum x)^2 / (n * sum x^2): 1 where all x are equal, k/n where k of n have
it all.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.clock import NS
from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.frame import OK, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.streams import ended_ns

FEW = 40
"""Sessions below which a spread has no interval."""
REPEATS = 400


def _by_session(run: Measured, rows: Bools, *columns: Floats) -> tuple[Floats, list[Floats]]:
    """Sessions of some rows, and the sums of their columns."""
    sessions, at = np.unique(run.calls.instance[rows], return_inverse=True)
    return sessions, [np.bincount(at, column[rows], len(sessions)).astype(np.float64) for column in columns]


def session_tokens_per_s(run: Measured) -> Sample:
    """Service rate of a session: output tokens of its calls / their seconds in flight (sent to done), over its calls
    due in the window that were sent and ended. What a failed call gave is not counted, the time it took is."""
    calls = run.calls
    took = (ended_ns(calls) - calls.sent_ns) / NS
    rows = run.due & (took > 0)
    tokens = np.where(calls.status == OK, run.output_tokens, 0.0)
    sessions, (given, spent) = _by_session(run, rows, np.nan_to_num(tokens), took)
    return Sample(given / spent, sessions)


def session_ttft_s(run: Measured) -> Sample:
    """Mean TTFT of the calls of a session that were due in the window; infinite if one of them is. How
    much its tail (p95) is above its middle (p50) says whether some sessions are served worse than others."""
    ttft = per_call.ttft_s(run.calls)
    rows = run.due & ~np.isnan(ttft)
    sessions, (total, n) = _by_session(run, rows, ttft, np.ones(len(ttft)))
    return Sample(total / n, sessions)


def jain_index(run: Measured) -> Totals | None:
    """Jain's fairness index of the sessions' service rates (`session_tokens_per_s`): (sum x)^2 / (n * sum x^2), 1 where
    all sessions get equally many tokens a second while they are in flight. Sessions of other make differ by themselves:
    compare it on one workload."""
    # A ratio of sums that has the index's value and, to first order, its response to every session: the delta method.
    rates = session_tokens_per_s(run)
    x = rates.values
    if not len(x) or not (x > 0).any():
        return None
    mean = float(np.mean(x))
    return Totals(2 * mean * x - mean**2, x**2, rates.session)


class Spread(Struct, frozen=True):
    """How unequal sessions are: a high percentile over the median. Without an interval: too few sessions."""

    metric: str
    sessions: int
    p50: float
    p95: float
    ratio: float | None
    low: float | None = None
    high: float | None = None


def spread(metric: str, values: Floats, *, level: float = 0.95, seed: int = 0) -> Spread | None:
    """p95 / p50 of one value a session, with a percentile interval from drawing sessions anew; None without any."""
    there = np.sort(values[~np.isnan(values)])
    n = len(there)
    if not n:
        return None
    p50, p95 = _at(there, 0.50), _at(there, 0.95)
    if not 0 < p50 < np.inf:
        return Spread(metric, n, p50, p95, None)
    if n < FEW:
        return Spread(metric, n, p50, p95, p95 / p50)
    rng = seeds.stream(seed, "spread", metric)
    drawn = [np.sort(there[rng.integers(n, size=n)]) for _ in range(REPEATS)]
    with np.errstate(invalid="ignore"):
        ratios = np.array([_at(each, 0.95) / _at(each, 0.50) for each in drawn])
    low, high = np.quantile(np.nan_to_num(ratios, nan=np.inf), [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Spread(metric, n, p50, p95, p95 / p50, float(low), float(high))


def _at(ordered: Floats, level: float) -> float:
    return float(ordered[min(int(level * len(ordered)), len(ordered) - 1)])


METRICS = (
    Metric("session_tokens_per_s", "service rate of a session", "tokens/s", "session", "higher", session_tokens_per_s),
    Metric("session_ttft_s", "mean TTFT of a session", "s", "session", "lower", session_ttft_s),
    Metric("jain_index", "fairness (Jain)", "ratio", "run", "higher", jain_index, ("jain", "fairness")),
)
