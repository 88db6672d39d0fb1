"""When there is not enough data to say, and how much would be.

The counts come from the coverage study, `benchmarks/coverage.py`; docs/uncertainty.md has its table.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.metrics.figure import Figure

if TYPE_CHECKING:
    from workloom.metrics.estimate import Estimate

SESSIONS_MEAN = 40
"""Fewer do not carry the interval of a mean, a share or a rate."""
SESSIONS = {0.5: 40, 0.75: 40, 0.9: 60, 0.95: 60, 0.99: 300}
"""Fewer do not carry the interval of a quantile, nor of one that is further out."""
SESSIONS_OF_GAPS, SESSIONS_OF_GAPS_TAIL = 400, 1000
"""The same of the mean or middle of gaps, and of their tail: gaps follow the load of the server, whose busy times
outlast sessions."""
BEYOND = 7.0
"""Effective values beyond a quantile, under which it has no interval."""
BEYOND_VALUE = 2.0
"""Under which it has no value either."""
CENSORED_MOST = 0.2
"""Share of values cut off by the end of the run. They are the long ones: with more of them missing a figure is no
figure any more."""


def sessions_needed(figure: Figure) -> int:
    """How many sessions the interval of a figure needs at least; effective values are another matter."""
    level = figure.quantile
    if figure.about.of != "gap":
        return _sessions(level)
    tail = level is not None and max(level, 1 - level) > 0.5
    return SESSIONS_OF_GAPS_TAIL if tail else SESSIONS_OF_GAPS


def _sessions(level: float | None) -> int:
    if level is None:
        return SESSIONS_MEAN
    tail = max(level, 1 - level)
    return next((count for known, count in SESSIONS.items() if tail <= known), ceil(SESSIONS[0.99] * 0.01 / (1 - tail)))


def interval_withheld(figure: Figure, told: Estimate) -> str:
    """Why there is no interval; empty where there is one."""
    needed = sessions_needed(figure)
    if told.sessions < needed:
        return f"not enough data: {told.sessions} session{'s' * (told.sessions != 1)}, {needed} needed for {_a(figure)}"
    level = figure.quantile
    if level is not None and (beyond := _beyond(told, level)) < BEYOND:
        return (
            f"not enough data: {beyond:.1f} effective values beyond a {figure.statistic}, {BEYOND:g} needed for its "
            "interval"
        )
    return ""


def value_withheld(figure: Figure, told: Estimate) -> str:
    """Why there is no value either: a quantile that only one or two values are beyond is an anecdote."""
    level = figure.quantile
    if level is None or (beyond := _beyond(told, level)) >= BEYOND_VALUE:
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


def _beyond(told: Estimate, level: float) -> float:
    return (told.effective or 0.0) * min(level, 1 - level)


def _a(figure: Figure) -> str:
    if figure.quantile is not None:
        return f"a {figure.statistic}" + (" of gaps" if figure.about.of == "gap" else "")
    return "a mean" if figure.statistic == "mean" else "a share or a rate"


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
