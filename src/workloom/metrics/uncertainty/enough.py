"""When there is not enough data to say, and how much would be.

The counts come from the coverage study, `benchmarks/coverage.py`; docs/uncertainty.md has its table.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from workloom.metrics.figure import Figure

if TYPE_CHECKING:
    from workloom.metrics.estimate import Estimate

FOLLOW_LOAD = ("tpot_s", "user_tokens_per_s", "tpot_throughput_tokens_per_s")
"""Metrics, besides those of gaps, of the pace of decoding: it follows how many calls decode at once, and busy times
last as long as sessions live. So a run must be many times as long as a session, whatever their number."""


class Rule(NamedTuple):
    """Sessions that intervals need at least."""

    mean: int
    """Of a mean, a share or a rate."""
    quantiles: dict[float, int]
    """Of a quantile, and of one that is not further out."""
    load: int
    """Of what follows the load, in a run of so many `lives` of a session."""
    lives: float
    load_alone: int
    """Of what follows the load where it is not known how long sessions live."""
    rate: int = 0
    """Of what came in a second: how often sessions came is in it."""


NEEDED = Rule(60, {0.95: 60, 0.99: 300}, 60, 20.0, 400, 120)
BEYOND = 7.0
"""Effective values beyond a quantile, as sessions drawn one by one have it, under which it has no interval."""
BEYOND_VALUE = 2.0
"""Under which it has no value either."""
CENSORED_MOST = 0.2
"""Share of values cut off by the end of the run. They are the long ones: with more of them missing a figure is no
figure any more."""


_RATES = ("tokens/s", "1/s")


def follows_load(figure: Figure) -> bool:
    """Whether a figure is of the pace of decoding."""
    return figure.about.of == "gap" or figure.metric in FOLLOW_LOAD


def sessions_needed(figure: Figure) -> int:
    """How many sessions the interval of a figure needs at least; effective values, and the length of a run, are another
    matter."""
    needed = _sessions(figure.quantile)
    if figure.about.of == "run" and figure.about.unit in _RATES and figure.metric not in FOLLOW_LOAD:
        return max(needed, NEEDED.rate)
    return max(needed, NEEDED.load) if follows_load(figure) else needed


def _sessions(level: float | None) -> int:
    if level is None:
        return NEEDED.mean
    tail = max(level, 1 - level)
    known = NEEDED.quantiles
    if not known:
        return 0
    return next((count for far, count in known.items() if tail <= far), ceil(known[max(known)] * 0.01 / (1 - tail)))


def interval_withheld(figure: Figure, told: Estimate, lives: float | None, carried: float) -> str:
    """Why there is no interval; empty where there is one. `lives`: how many times as long as a session the run is.

    `carried`: the effective values by sessions drawn one by one. By blocks of time it is a poor guide: runs whose
    blocks happen to scatter little would be picked out, and their intervals hold less than they say.
    """
    needed = sessions_needed(figure)
    if follows_load(figure) and lives is None:
        needed = max(needed, NEEDED.load_alone)
    if told.sessions < needed:
        return f"not enough data: {told.sessions} session{'s' * (told.sessions != 1)}, {needed} needed for {_a(figure)}"
    if follows_load(figure) and lives is not None and lives < NEEDED.lives:
        return (
            f"not enough data: the run is {lives:.1f} times as long as a session, {NEEDED.lives:g} needed for "
            f"{_a(figure)}, which follows the load"
        )
    level = figure.quantile
    if level is not None and (beyond := carried * min(level, 1 - level)) < BEYOND:
        return (
            f"not enough data: {beyond:.1f} effective values beyond a {figure.statistic}, {BEYOND:g} needed for its "
            "interval"
        )
    return ""


def value_withheld(figure: Figure, carried: float) -> str:
    """Why there is no value either: a quantile that only one or two values are beyond is an anecdote."""
    level = figure.quantile
    if level is None or (beyond := carried * min(level, 1 - level)) >= BEYOND_VALUE:
        return ""
    return f"not enough data: {beyond:.1f} effective values beyond a {figure.statistic}, {BEYOND_VALUE:g} needed for it"


def too_many_censored(figure: Figure, values: int, censored: int) -> str:
    """Why a figure of values of which too many are missing is refused."""
    if not censored:
        return ""
    share = censored / max(values + censored, 1)
    if share <= CENSORED_MOST:
        return ""
    of = figure.about.of
    what = {"session": "sessions", "task": "tasks", "gap": "gaps"}.get(of, "calls")
    how = "a longer --duration, or a lower --max-wait" if of in ("session", "task") else "a longer --drain"
    return (
        f"not enough data: {share:.0%} of the {what} were cut off by the end of the run, and they are the long ones; "
        f"at most {CENSORED_MOST:.0%} may be ({how})"
    )


def _a(figure: Figure) -> str:
    if figure.quantile is not None:
        return f"a {figure.statistic}" + (" of gaps" if figure.about.of == "gap" else "")
    return "a mean" if figure.statistic == "mean" else "a rate" if figure.about.unit in _RATES else "a share"


class Needed(Struct, frozen=True):
    """What a run must have in all so that half an interval is as wide as asked, relative to the value.

    None where the estimate does not say; `why` says what is missing.
    """

    sessions: int | None
    values: int | None
    why: str = ""


def needed(estimate: Estimate, relative_half_width: float) -> Needed:
    """Intervals narrow with the square root of the data: so many times as much as the run of the estimate had, and
    never less than an interval needs."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None or low is None or high is None:
        return Needed(None, None, estimate.why or "not enough data: no interval")
    half = (high - low) / 2
    if not value or half == float("inf") or half != half:
        return Needed(None, None, "not enough data: the interval is not finite, or the value is 0")
    times = (half / abs(value) / relative_half_width) ** 2
    return Needed(ceil(estimate.sessions * times), ceil(estimate.values * times))
