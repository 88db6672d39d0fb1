"""Two runs against each other: how much a figure differs, and whether chance alone would do that.

Runs of one plan are compared session by session (contrast.py): what they share (long prompts, bursts of arrivals)
cancels, so a dozen sessions go far. Other runs are independent, and their intervals are put together (Zou and Donner,
Construction of confidence limits about effect measures, Statistics in Medicine 27, 2008): skewed intervals make a
skewed difference. Where the sessions carry no interval, a test may still tell which of the two is larger.
"""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt

from msgspec import Struct
from msgspec.structs import replace

from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.estimate import Estimate, of_observed
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured
from workloom.metrics.uncertainty import blocks as over
from workloom.metrics.uncertainty.contrast import Contrast, contrast
from workloom.metrics.uncertainty.enough import follows_load, too_many_censored
from workloom.metrics.uncertainty.ratio import Begun, begun

PAIRS_MEAN = 12
"""Sessions in both from which on pairs carry the interval of a mean, a median, a share or a rate."""
PAIRS = {0.5: 12, 0.95: 20, 0.99: 100}
"""The same of a quantile, and of one that is further out. Most p95 of 20 sessions have no end and are withheld."""
OF_LOAD = 400
"""The same of what follows the load of the server, of pairs and of strangers (each side)."""
APART, APART_FEW = 20, 40
"""Sessions a side from which on blocks of strangers can be dealt out, and from which on they are not few."""
WITHIN, WITHIN_OF_LOAD, WITHIN_OF_FEW = 0.02, 0.1, 0.2
"""By how much two runs may differ, as a ratio, for a test to put it down to their own luck. Gaps differ by a few per
cent between any two short runs of one system, in all sessions alike, as one had a little more load."""


class Difference(Struct, frozen=True):
    """`difference` is b - a and `ratio` b / a, each with the interval that holds the true one with confidence `level`.

    None where it cannot be said; `why` says what is missing. `p_value`: how often chance alone would show such a
    difference; it is under 1 - level where the interval of the difference leaves out 0. Without an interval it is
    that of a test, that they differ by a ratio of more than 1 + `within`.
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
    within: float = 0.0


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
    return contrasted(a, b, figure, paired=paired, level=level, seed=seed, begun=begun)[0]


def contrasted(
    a: Sample | Totals | None,
    b: Sample | Totals | None,
    figure: Figure,
    *,
    paired: bool,
    level: float,
    seed: int,
    begun: tuple[Begun | None, Begun | None],
) -> tuple[Difference, Contrast | None]:
    """As `differences`, and what tests of other nulls can be made with."""
    one, other = (
        of_observed(figure, observed, level=level, seed=seed, begun=when)
        for observed, when in zip((a, b), begun, strict=True)
    )
    told = Difference(one.figure, one.value, other.value, level=level)
    if one.value is None or other.value is None:
        made = contrast(figure, a, b, begun, paired=paired, seed=seed)
        return _of_too_few(told, one, other, figure, made), made
    if isfinite(one.value) and isfinite(other.value):
        told = replace(told, difference=other.value - one.value, ratio=other.value / one.value if one.value else None)
    elif one.value == other.value:
        return replace(told, why="not enough data: both are infinite, for want of whole answers"), None
    made = contrast(figure, a, b, begun, paired=paired, seed=seed) if one.value or other.value else None
    if paired and made is not None and not _no_scatter(figure, one, other):
        return _paired(told, one.value, other.value, made, figure), made
    if not one.enough or not other.enough:
        return _by_test(told, made, figure, other.why if one.enough else one.why), made
    if not isfinite(one.value) or not isfinite(other.value):
        return _with_failures(told, one, other, made), made
    sessions = min(one.sessions, other.sessions)
    if follows_load(figure) and sessions < OF_LOAD:
        why = f"not enough data: {sessions} sessions, {OF_LOAD} needed for an interval of what follows the load"
        return _by_test(told, made, figure, why), made
    return _apart(told, one, other), made


def _of_too_few(told: Difference, one: Estimate, other: Estimate, figure: Figure, made: Contrast | None) -> Difference:
    """A quantile that too few values are beyond to be given by itself: exchanging sessions may tell all the same. None
    is made of values of which too many are missing."""
    why = one.why if one.value is None else other.why
    if made is None or any(too_many_censored(figure, each.values, each.censored) for each in (one, other)):
        return replace(told, why=why)
    a, b = made.values()
    if not (isfinite(a) and isfinite(b)):
        return replace(told, why=why)
    told = replace(told, a=a, b=b, difference=b - a, ratio=b / a if a else None)
    return _paired(told, a, b, made, figure) if made.paired else _by_test(told, made, figure, why)


def pairs_needed(figure: Figure) -> int:
    """How many sessions of both the interval of a difference needs at least."""
    level = figure.quantile
    if follows_load(figure):
        return OF_LOAD
    if level is None:
        return PAIRS_MEAN
    return next((count for known, count in PAIRS.items() if max(level, 1 - level) <= known), 10 * PAIRS[0.99])


def _paired(told: Difference, one: float, other: float, made: Contrast, figure: Figure) -> Difference:
    told = replace(told, pairs=made.sessions)
    if made.identical:
        ratio = 1.0 if one else None
        return replace(told, low=0.0, high=0.0, ratio_low=ratio, ratio_high=ratio, p_value=1.0)
    needed = pairs_needed(figure)
    if made.sessions < needed:
        why = f"not enough data: {made.sessions} sessions in both, {needed} needed for an interval of their difference"
        return _by_test(told, made, figure, why)
    if told.difference is None:
        return _by_test(told, made, figure, "one of them is infinite")
    limits = made.shifts(told.difference, max(abs(one), abs(other)), told.level)
    if limits is None:
        why = "not enough data: the interval of the difference has no end"
        return _by_test(told, made, figure, why)
    p_value = made.p_value()[0]
    told = replace(told, low=limits[0], high=limits[1], p_value=p_value)
    ratios = made.ratios(told.ratio, told.level) if told.ratio and min(one, other) > 0 else None
    if ratios is not None:
        told = replace(told, ratio_low=ratios[0], ratio_high=ratios[1])
    return _with_no_difference(told) if p_value > 1 - told.level else told


def _with_no_difference(told: Difference) -> Difference:
    """Of few sessions p values need not fall steadily to both sides. A null that is not refused is in the interval."""
    assert told.low is not None and told.high is not None
    told = replace(told, low=min(told.low, 0.0), high=max(told.high, 0.0))
    if told.ratio_low is None or told.ratio_high is None:
        return told
    return replace(told, ratio_low=min(told.ratio_low, 1.0), ratio_high=max(told.ratio_high, 1.0))


def _by_test(told: Difference, made: Contrast | None, figure: Figure, why: str) -> Difference:
    """Without an interval: whether one is shown to be larger at all, by more than the luck of a run."""
    if made is None or (not made.paired and made.sessions < APART):
        return replace(told, why=why)
    assert told.a is not None and told.b is not None
    if told.difference is None:
        by = inf if told.b > told.a else -inf
        return replace(told, difference=by, ratio=max(by, 0.0), p_value=made.p_value()[0], why=why)
    if min(told.a, told.b) <= 0:
        return replace(told, p_value=made.p_value()[0], why=why)
    within = WITHIN_OF_LOAD if follows_load(figure) else WITHIN
    if not made.paired and made.sessions < APART_FEW:
        within = WITHIN_OF_FEW
    return replace(told, p_value=made.beyond(within, up=told.b > told.a), within=within, why=why)


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


def _no_scatter(figure: Figure, one: Estimate, other: Estimate) -> bool:
    """Shares of none or of all: exchanging sessions would tell the difference as if it were known. The rule of three
    of each says how far it may be off."""
    extreme = one.value in (0.0, 1.0) and other.value in (0.0, 1.0)
    return figure.about.unit == "share" and extreme and one.enough and other.enough


def _with_failures(told: Difference, a: Estimate, b: Estimate, made: Contrast | None) -> Difference:
    """One figure is infinite: all that can be said is whether the intervals lie apart, which is 1 - level by chance at
    most; the test may say how much less."""
    assert a.value is not None and b.value is not None
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    rises = b.value > a.value
    lies_apart = b.low > a.high if rises else a.low > b.high
    by_chance = 1.0 if made is None else made.p_value()[0]
    return replace(
        told,
        difference=inf if rises else -inf,
        ratio=inf if rises else 0.0,
        p_value=min(1 - told.level, by_chance) if lies_apart else 1.0,
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
