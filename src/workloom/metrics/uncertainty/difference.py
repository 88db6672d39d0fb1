"""Two runs against each other: how much a figure differs, and whether chance alone would do that.

Runs of one plan are compared session by session: what each session adds to the error of both figures is subtracted
before it is squared, so what the runs share (long prompts, bursts of arrivals) cancels. Other runs are independent, and
their intervals are put together (Zou and Donner, Construction of confidence limits about effect measures, Statistics in
Medicine 27, 2008): skewed intervals make a skewed difference.
"""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.estimate import Estimate, Parts, parts
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty import blocks as over
from workloom.metrics.uncertainty.ratio import Begun, begun


class Difference(Struct, frozen=True):
    """`difference` is b - a and `ratio` b / a, each with the interval that holds the true one with confidence `level`.

    None where it cannot be said; `why` says what is missing. `p_value`: how often chance alone would show such a
    difference; it is under 1 - level just where the interval of the difference leaves out 0.
    """

    figure: str
    a: float | None
    b: float | None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    level: float = 0.95
    pairs: int = 0
    """Sessions of both; 0 of runs that are not paired."""
    why: str = ""


def difference(
    run_a: Measured, run_b: Measured, figure: Figure, *, paired: bool, level: float = 0.95, seed: int = 0
) -> Difference:
    """One figure of two runs, b against a. `paired`: their plans are the same."""
    seen = [figure.observe(run) for run in (run_a, run_b)]
    when = begun(run_a), begun(run_b)
    return differences(seen[0], seen[1], figure, paired=paired, level=level, seed=seed, begun=when)


def differences(
    a: Sample | Totals | None,
    b: Sample | Totals | None,
    figure: Figure,
    *,
    paired: bool,
    level: float = 0.95,
    seed: int = 0,
    begun: tuple[Begun | None, Begun | None] = (None, None),
) -> Difference:
    """One figure of what was observed in two runs; `begun` says when their sessions were due, which totals over a
    stretch of time need."""
    of_a = parts(figure, a, level=level, seed=seed, begun=begun[0])
    of_b = parts(figure, b, level=level, seed=seed, begun=begun[1])
    one, other = of_a.estimate, of_b.estimate
    told = Difference(one.figure, one.value, other.value, level=level)
    if one.value is None or other.value is None:
        return replace(told, why=one.why if one.value is None else other.why)
    if isfinite(one.value) and isfinite(other.value):
        told = replace(told, difference=other.value - one.value, ratio=other.value / one.value if one.value else None)
    if not one.enough or not other.enough:
        return replace(told, why=other.why if one.enough else one.why)
    if not isfinite(one.value) or not isfinite(other.value):
        return _with_failures(told, one, other)
    if paired and of_a.ratio is not None and of_b.ratio is not None:
        return _paired(told, one.value, other.value, of_a, of_b)
    return _apart(told, one, other)


def _paired(told: Difference, one: float, other: float, a: Parts, b: Parts) -> Difference:
    assert a.ratio is not None and b.ratio is not None
    sessions = np.union1d(a.ratio.session, b.ratio.session)
    pairs = len(a.ratio.session) + len(b.ratio.session) - len(sessions)
    apart = [_at(sessions, made.ratio.session, made.ratio.apart * made.slope) for made in (a, b) if made.ratio]
    blocks = over.count(len(sessions))
    t = over.t_limits(told.level, blocks)[1]
    told = replace(told, pairs=pairs)
    by = other - one
    half = t * _error(apart[1] - apart[0], blocks)
    p_value = _p_value(by, half, told.level, blocks)
    told = replace(told, low=by - half, high=by + half, p_value=p_value)
    if not told.ratio or min(one, other) <= 0:
        return told
    wide = exp(min(t * _error(apart[1] / other - apart[0] / one, blocks), 700))
    return replace(told, ratio_low=told.ratio / wide, ratio_high=told.ratio * wide)


def _at(sessions: Floats, own: Floats, apart: Floats) -> Floats:
    """Contributions at the places of all sessions, 0 for those that are not there."""
    out = np.zeros(len(sessions))
    out[np.searchsorted(sessions, own)] = apart
    return out


def _error(apart: Floats, blocks: int) -> float:
    return max(over.error_of(over.blocked(apart, blocks)), over.error_of(apart))


def _apart(told: Difference, a: Estimate, b: Estimate) -> Difference:
    """Independent runs, from the interval of each."""
    assert a.value is not None and a.low is not None and a.high is not None
    assert b.value is not None and b.low is not None and b.high is not None and told.difference is not None
    down, up = (
        sqrt((b.value - b.low) ** 2 + (a.high - a.value) ** 2),
        sqrt((b.high - b.value) ** 2 + (a.value - a.low) ** 2),
    )
    toward_0 = down if told.difference > 0 else up
    told = replace(
        told,
        low=told.difference - down,
        high=told.difference + up,
        p_value=_p_value(told.difference, toward_0, told.level, min(a.blocks, b.blocks)),
    )
    if not told.ratio or min(a.value, b.value) <= 0:
        return told
    below_a, above_a = _logs(a)
    below_b, above_b = _logs(b)
    return replace(
        told,
        ratio_low=told.ratio * exp(-min(sqrt(below_b**2 + above_a**2), 700)),
        ratio_high=told.ratio * exp(min(sqrt(above_b**2 + below_a**2), 700)),
    )


def _logs(of: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above the value, as logarithms."""
    assert of.value is not None and of.low is not None and of.high is not None
    return (log(of.value / of.low) if of.low > 0 else inf), (log(of.high / of.value) if of.high < inf else inf)


def _with_failures(told: Difference, a: Estimate, b: Estimate) -> Difference:
    """One figure is infinite: all that can be said is whether the intervals lie apart."""
    assert a.value is not None and b.value is not None
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    if a.value == b.value:
        return replace(told, why="not enough data: both are infinite, for want of whole answers")
    rises = b.value > a.value
    lies_apart = b.low > a.high if rises else a.low > b.high
    return replace(
        told,
        difference=inf if rises else -inf,
        ratio=inf if rises else 0.0,
        p_value=1 - told.level if lies_apart else 1.0,
        why="" if lies_apart else "not enough data: one is infinite, and the intervals overlap",
    )


def _p_value(difference: float, half: float, level: float, blocks: int) -> float:
    """Of a difference whose interval reaches `half` towards 0."""
    from scipy.special import stdtr

    if not difference:
        return 1.0
    if not half:
        return 0.0
    t = abs(difference) / half * over.t_limits(level, blocks)[1]
    return float(2 * stdtr(max(blocks - 1, 1), -t))
