"""A figure with its uncertainty: measured once, said as an interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty import blocks as over
from workloom.metrics.uncertainty import enough, quantile
from workloom.metrics.uncertainty.ratio import Begun, Ratio, begun, below, of_totals, of_values


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
    """`not enough data: ...` where a value or its interval is withheld; and what is infinite, since JSON has null for
    it."""
    blocks: int = 0
    """Blocks of neighbouring sessions that the interval rests on."""
    runs: int = 1
    """Runs with seeds of their own that it comes from."""

    @property
    def enough(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.low is not None and self.high is not None


def estimate(run: Measured, figure: Figure, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """One figure of a run."""
    return estimates(run, [figure], level=level, seed=seed)[0]


def estimates(run: Measured, figures: Iterable[Figure], *, level: float = 0.95, seed: int = 0) -> list[Estimate]:
    """Several figures of a run; each metric is observed once."""
    found: dict[tuple[str, object], Sample | Totals | None] = {}
    when = begun(run)
    out = []
    for figure in figures:
        key = (figure.metric, figure.of)
        if key not in found:
            found[key] = figure.observe(run)
        out.append(of_observed(figure, found[key], level=level, seed=seed, begun=when))
    return out


def of_observed(
    figure: Figure,
    observed: Sample | Totals | None,
    *,
    level: float = 0.95,
    seed: int = 0,
    begun: Begun | None = None,
) -> Estimate:
    """A figure of what was observed of its metric.

    `begun` says when sessions were due. Totals over a stretch of time need it for their intervals: how often sessions
    came is part of them.
    """
    return parts(figure, observed, level=level, seed=seed, begun=begun).estimate


class Parts(NamedTuple):
    """An estimate, and what each session adds to its error: `ratio.apart` x `slope`, in units of the value.

    No ratio where there is no interval, or an infinite one.
    """

    estimate: Estimate
    ratio: Ratio | None = None
    slope: float = 1.0


def parts(
    figure: Figure, observed: Sample | Totals | None, *, level: float, seed: int, begun: Begun | None = None
) -> Parts:
    """As `of_observed`, for those who compare."""
    found = _parts(figure, observed, level=level, seed=seed, begun=begun)
    return found._replace(estimate=infinite_said(found.estimate))


def infinite_said(told: Estimate) -> Estimate:
    """The same with `why` saying what of it is infinite."""
    if told.value == np.inf:
        said = "the value is infinite: failures are among it"
    elif told.high == np.inf:
        said = "the interval has no upper end: failures are among it"
    else:
        return told
    return replace(told, why=f"{told.why}; {said}" if told.why else said)


def _parts(
    figure: Figure, observed: Sample | Totals | None, *, level: float, seed: int, begun: Begun | None = None
) -> Parts:
    told = Estimate(figure.say(), None, level=level)
    if observed is None:
        return Parts(replace(told, why="not enough data: this run cannot say"))
    if isinstance(observed, Totals):
        return _of_totals(figure, told, observed, seed, begun)
    there = ~np.isnan(observed.values)
    values, session = observed.values[there], observed.session[there]
    weights = None if observed.weights is None else observed.weights[there]
    n = len(values) if weights is None else int(weights.sum())
    told = replace(told, values=n, sessions=len(np.unique(session)), censored=observed.censored)
    if refused := enough.too_many_censored(figure, n, observed.censored):
        return Parts(replace(told, why=refused))
    if not n:
        return Parts(replace(told, why="not enough data: no value"))
    if figure.quantile is not None:
        return _quantile(figure, told, values, session, weights)
    if figure.statistic == "max":
        why = "not enough data: a largest value has no interval, it grows with the run"
        return Parts(replace(told, value=float(values.max()), why=why))
    if np.isinf(values).any():
        return Parts(replace(told, value=np.inf, low=np.inf, high=np.inf))
    return _about_mean(figure, told, of_values(values, session, weights), seed)


def _of_totals(figure: Figure, told: Estimate, observed: Totals, seed: int, begun: Begun | None) -> Parts:
    ratio = of_totals(observed, begun)
    if ratio is None:
        return Parts(replace(told, why="not enough data: nothing of it in the window"))
    told = replace(told, values=len(observed.part), sessions=len(ratio.whole))
    if begun is None and not isinstance(observed.whole, np.ndarray):
        why = "not enough data: it is not known when the sessions began"
        return Parts(replace(told, value=ratio.value, why=why))
    return _about_mean(figure, told, ratio, seed)


def _about_mean(figure: Figure, told: Estimate, ratio: Ratio, seed: int) -> Parts:
    """A mean, a share or a rate."""
    told = replace(told, value=ratio.value)
    if told.sessions > 1:
        error, blocks = over.spread(ratio)
        told = replace(told, effective=_effective(ratio, error, told), blocks=blocks)
    if why := enough.interval_withheld(figure, told):
        return Parts(replace(told, why=why))
    if figure.about.unit == "share" and ratio.value in (0.0, 1.0):
        return Parts(_of_none(told, ratio.value))
    low, high = over.drawn_limits(ratio, blocks, told.level, seed, told.figure)
    return Parts(replace(told, low=ratio.value - high * error, high=ratio.value - low * error), ratio)


def _of_none(told: Estimate, value: float) -> Estimate:
    """A share of 0 or of all: no scatter to judge by, but a share p would show itself in one of n sessions unless by a
    chance of (1 - p)^n. With 95 % that is the rule of three, p < 3 / n."""
    most = 1 - (1 - told.level) ** (1 / told.sessions)
    told = replace(told, effective=float(told.sessions))
    return replace(told, low=0.0, high=most) if value == 0 else replace(told, low=1 - most, high=1.0)


def _quantile(figure: Figure, told: Estimate, values: Floats, session: Floats, weights: Floats | None) -> Parts:
    level = figure.quantile
    assert level is not None
    order = np.argsort(values, kind="stable")
    values, session = values[order], session[order]
    weights = None if weights is None else weights[order]
    value = quantile.of_sorted(values, weights, level)
    ratio, where = below(values, session, weights, value, level)
    if told.sessions > 1:
        error, blocks = over.spread(ratio)
        told = replace(told, effective=_effective(ratio, error, told), blocks=blocks)
    if why := enough.value_withheld(figure, told):
        return Parts(replace(told, why=why))
    told = replace(told, value=value)
    if why := enough.interval_withheld(figure, told):
        return Parts(replace(told, why=why))
    limits = quantile.interval(values, weights, where, ratio, level, told.level, blocks)
    if limits is None:
        return Parts(
            replace(told, why=f"not enough data: the interval of the {figure.statistic} ends beyond all values")
        )
    low, high = min(limits[0], value), max(limits[1], value)
    told = replace(told, low=low, high=high)
    if not np.isfinite(high):
        return Parts(told)
    slope = (low - high) / (2 * over.t_limits(told.level, blocks)[1] * error) if error > 0 else 0.0
    return Parts(told, ratio, slope)


def _effective(ratio: Ratio, error: float, told: Estimate) -> float:
    """As many independent values have this standard error; never more than there are."""
    return min(ratio.spread / error**2, float(told.values)) if error > 0 else float(told.values)
