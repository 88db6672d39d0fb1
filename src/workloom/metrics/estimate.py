"""A figure with its uncertainty: measured once, said as an interval."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats

REPEATS = 400


class Estimate(Struct, frozen=True):
    """`value` with the interval from `low` to `high` that holds the true one with confidence `level`.

    Without an interval `why` says what is missing. An infinite value is a figure among failures.
    """

    figure: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    values: int = 0
    """Calls, gaps, tasks or sessions."""
    sessions: int = 0
    """Independent units they came from."""
    effective: float | None = None
    """How many independent values would tell as much: the effective sample size."""
    censored: int = 0
    why: str = ""
    """`not enough data: ...` where a value or its interval is withheld."""

    @property
    def enough(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.low is not None and self.high is not None


def estimate(run: Measured, figure: Figure, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """One figure of a run."""
    return of_observed(figure, figure.observe(run), level=level, seed=seed)


def estimates(run: Measured, figures: Iterable[Figure], *, level: float = 0.95, seed: int = 0) -> list[Estimate]:
    """Several figures of a run; each metric is observed once."""
    found: dict[tuple[str, object], Sample | Totals | None] = {}
    out = []
    for figure in figures:
        key = (figure.metric, figure.of)
        if key not in found:
            found[key] = figure.observe(run)
        out.append(of_observed(figure, found[key], level=level, seed=seed))
    return out


def of_observed(figure: Figure, observed: Sample | Totals | None, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """A figure of what was observed of its metric. PROVISIONAL: a plain percentile bootstrap over sessions."""
    name = figure.say()
    if observed is None:
        return Estimate(name, None, level=level, why="not enough data: this run cannot say")
    rng = seeds.stream(seed, "bootstrap", name)
    if isinstance(observed, Totals):
        sessions, codes = np.unique(observed.session, return_inverse=True)
        n = len(sessions)
        part = np.bincount(codes, observed.part, n)
        fixed = not isinstance(observed.whole, np.ndarray)
        whole = np.full(n, float(observed.whole) / max(n, 1)) if fixed else np.bincount(codes, observed.whole, n)
        if not n or not whole.sum():
            return Estimate(name, None, level=level, why="not enough data: nothing of it in the window")
        draws = rng.multinomial(n, np.full(n, 1 / n), size=REPEATS)
        values = draws @ part / (whole.sum() if fixed else draws @ whole)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(name, float(part.sum() / whole.sum()), float(low), float(high), level, len(observed.part), n)
    there = ~np.isnan(observed.values)
    values, owner = observed.values[there], observed.session[there]
    weights = np.ones(len(values)) if observed.weights is None else observed.weights[there]
    if not len(values):
        return Estimate(name, None, level=level, censored=observed.censored, why="not enough data: no value")
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    sessions, codes = np.unique(owner[order], return_inverse=True)
    n = len(sessions)
    value = _statistic(figure, values, weights)
    found = []
    for _ in range(REPEATS):
        drawn = np.bincount(rng.integers(n, size=n), minlength=n)
        found.append(_statistic(figure, values, weights * drawn[codes]))
    low, high = np.quantile(np.array(found), [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Estimate(name, value, float(low), float(high), level, int(weights.sum()), n, censored=observed.censored)


def _statistic(figure: Figure, values: Floats, weights: Floats) -> float:
    if figure.statistic == "mean":
        return float(np.average(values, weights=weights))
    if figure.statistic == "max":
        return float(values[-1])
    level = figure.quantile
    assert level is not None
    upto = np.cumsum(weights)
    at = int(np.searchsorted(upto, level * (upto[-1] - 1), side="right"))
    return float(values[min(at, len(values) - 1)])
