"""How sessions and calls arrive: how often, how bursty, and at what time of day."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Instants = Sequence[float] | array[float] | NDArray[np.float64]

WINDOWS_S = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0)
"""Lengths of the windows that arrivals are counted in."""
FEWEST_WINDOWS = 10
"""With fewer windows a variance of counts says nothing."""
EPOCH_S = 1e8
"""Starts beyond this are seconds since 1970: hours of the day can be told."""
DAY_S = 86_400.0


class Counted(Struct, frozen=True):
    """Arrivals counted in full windows of one length, from the first arrival on.

    `idc`: the index of dispersion for counts, variance / mean: 1 for a Poisson process, 0 for a steady beat, more in
    bursts. `peak_to_mean`: the fullest window over the mean one.
    """

    window_s: float
    windows: int
    idc: float
    peak_to_mean: float


class Process(Struct, frozen=True):
    """A stream of arrivals on one clock.

    `gap_cv`: standard deviation / mean of the gaps between arrivals. `burstiness` = (cv - 1) / (cv + 1) (Goh and
    Barabasi 2008): -1 for a steady beat, 0 for a Poisson process, towards 1 in bursts. Where many gaps are 0, the trace
    tells time in ticks of about `least_gap_s`: gaps and windows shorter than ten of them show the clock, not the load.
    """

    arrivals: int = 0
    span_s: float = 0.0
    """From the first arrival to the last."""
    rate_per_s: float | None = None
    """Gaps / span."""
    gap_s: Distribution = Distribution()
    gap_cv: float | None = None
    burstiness: float | None = None
    zero_gaps: float | None = None
    """Share of gaps that are 0."""
    least_gap_s: float | None = None
    """The smallest gap that is not 0."""
    counts: tuple[Counted, ...] = ()
    """For every one of WINDOWS_S that fits FEWEST_WINDOWS times or more."""
    hours: tuple[float, ...] | None = None
    """Share of arrivals in each hour of the day (UTC): only where the trace tells dates and spans a day."""


class WithinSessions(Struct, frozen=True):
    """Gaps between the starts of consecutive calls of a session, in order of their starts.

    Pooled gaps mix slow sessions and fast ones, so their cv is larger than most of those `per_session`.
    """

    sessions: int
    """With two calls or more."""
    gap_s: Distribution
    gap_cv: float | None
    burstiness: float | None
    cv_per_session: Distribution
    """Over sessions with three calls or more."""


class Arrivals(Struct, frozen=True):
    """How sessions and calls arrive. Without a common clock only what is within sessions can be told."""

    common_clock: bool
    without_start: int
    """Sessions that do not say when they started; with a common clock they are left out."""
    sessions: Process | None
    calls: Process | None
    """Starts that the trace does not tell are assumed: see :class:`workloom.model.timing.Timing`."""
    within_sessions: WithinSessions


class ArrivalsSection:
    """Tells how sessions and calls arrive; memory: two numbers a call."""

    def __init__(self, *, common_clock: bool) -> None:
        self._common_clock = common_clock
        self._without_start = self._several = 0
        self._sessions, self._calls = array("d"), array("d")
        self._gaps, self._cvs = array("d"), array("d")

    def add(self, facts: SessionFacts) -> None:
        starts_s = sorted(c.start_s for c in facts.calls)
        gaps = [later - start for start, later in pairwise(starts_s)]
        self._gaps.extend(gaps)
        self._several += bool(gaps)
        cv = _cv(gaps)
        if cv is not None:
            self._cvs.append(cv)
        at_s = facts.session.start_s
        if at_s is None:
            self._without_start += 1
        elif self._common_clock:
            self._sessions.append(at_s)
            self._calls.extend(at_s + start_s for start_s in starts_s)

    def result(self) -> Arrivals:
        cv = _cv(self._gaps)
        return Arrivals(
            common_clock=self._common_clock,
            without_start=self._without_start,
            sessions=process(self._sessions) if self._common_clock else None,
            calls=process(self._calls) if self._common_clock else None,
            within_sessions=WithinSessions(
                sessions=self._several,
                gap_s=distribution(self._gaps),
                gap_cv=cv,
                burstiness=None if cv is None else burstiness(cv),
                cv_per_session=distribution(self._cvs),
            ),
        )


def process(arrivals_s: Instants) -> Process:
    """What instants of arrival, in any order, say; they are taken to the microsecond, as no trace tells more."""
    import numpy as np

    at: NDArray[np.float64] = np.sort(np.round(np.asarray(arrivals_s, dtype=np.float64), 6))
    if not len(at):
        return Process()
    gaps: NDArray[np.float64] = np.diff(at)
    span_s = float(at[-1] - at[0])
    cv = _cv(gaps)
    windows = [window_s for window_s in WINDOWS_S if span_s >= FEWEST_WINDOWS * window_s]
    return Process(
        arrivals=len(at),
        span_s=span_s,
        rate_per_s=len(gaps) / span_s if span_s > 0 else None,
        gap_s=distribution(gaps),
        gap_cv=cv,
        burstiness=None if cv is None else burstiness(cv),
        zero_gaps=float(np.mean(gaps == 0)) if len(gaps) else None,
        least_gap_s=float(gaps[gaps > 0].min()) if span_s > 0 else None,
        counts=tuple(counted(at - at[0], window_s) for window_s in windows),
        hours=hours(at),
    )


def counted(since_s: Instants, window_s: float) -> Counted:
    """Counts in windows of instants since the first, sorted; what is behind the last full window is left out.

    Windows without arrivals are not held: there may be millions of them.
    """
    import numpy as np

    windows = int(since_s[-1] // window_s)
    place = (np.asarray(since_s) // window_s).astype(np.int64)
    _, counts = np.unique(place[place < windows], return_counts=True)
    mean = int(counts.sum()) / windows
    squares = float(np.square(counts - mean).sum()) + (windows - len(counts)) * mean**2
    return Counted(window_s, windows, squares / (windows - 1) / mean, int(counts.max()) / mean)


def burstiness(cv: float) -> float:
    """Of a coefficient of variation of gaps: (cv - 1) / (cv + 1), Goh and Barabasi 2008."""
    return (cv - 1) / (cv + 1)


def hours(arrivals_s: Instants) -> tuple[float, ...] | None:
    """Share of sorted arrivals in each hour of the day, UTC; None where they are no dates or span less than a day."""
    import numpy as np

    if not len(arrivals_s) or arrivals_s[0] <= EPOCH_S or arrivals_s[-1] - arrivals_s[0] < DAY_S:
        return None
    hour = (np.asarray(arrivals_s) % DAY_S // 3600).astype(np.int64)
    return tuple((np.bincount(hour, minlength=24) / len(hour)).tolist())


def _cv(gaps: Instants) -> float | None:
    """Standard deviation / mean; None for fewer than two gaps, or if all are 0."""
    import numpy as np

    if len(gaps) < 2:
        return None
    sample = np.asarray(gaps, dtype=np.float64)
    mean = float(sample.mean())
    return float(sample.std()) / mean if mean > 0 else None
