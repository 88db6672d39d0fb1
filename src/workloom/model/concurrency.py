"""How many calls and sessions are in flight at once, over time."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.model.distribution import SHARES, Distribution, distribution
from workloom.model.facts import SessionFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Instants = Sequence[float] | array[float] | NDArray[np.float64]

BINS = 200
"""Points in a series over the trace."""


class Levels(Struct, frozen=True):
    """How many were in flight, weighted by time; everything is None where no time passes.

    `quantiles`: for each of workloom.model.distribution.SHARES, the fewest that were not exceeded in that share of the
    time.
    """

    seconds: float = 0.0
    """The time looked at: from the first start to the last end, of the trace or of all its sessions."""
    mean: float | None = None
    mean_busy: float | None = None
    """Over the time with one or more in flight."""
    busy: float | None = None
    """Share of the time with one or more in flight."""
    several: float | None = None
    """Share of the time with two or more in flight."""
    p50: int | None = None
    p90: int | None = None
    p99: int | None = None
    max: int | None = None
    quantiles: tuple[int, ...] = ()


class Series(Struct, frozen=True):
    """Mean numbers in flight in equal stretches of the trace, `bin_s` long."""

    first_s: float
    """When the first stretch begins, on the clock of the sessions' starts."""
    bin_s: float
    calls: tuple[float, ...]
    sessions: tuple[float, ...]


class Concurrency(Struct, frozen=True):
    """In flight at once: a call from its start to its end, a session from its first start to its last end.

    Ends that the trace does not tell are assumed: see :class:`workloom.model.timing.Timing`.
    """

    common_clock: bool
    without_start: int
    """Sessions that do not say when they started; with a common clock only `within_sessions` counts them."""
    calls: Levels | None
    """Over the whole trace: only with a common clock, as are the next two."""
    sessions: Levels | None
    over_time: Series | None
    within_sessions: Levels
    """Calls of one session, over the time of all sessions one after another."""
    most_per_session: Distribution
    """The most calls of a session at once."""


class ConcurrencySection:
    """Tells what is in flight at once; memory: two numbers a call and three a session."""

    def __init__(self, *, common_clock: bool) -> None:
        self._common_clock = common_clock
        self._without_start = 0
        self._starts, self._ends = array("d"), array("d")
        self._firsts, self._lasts = array("d"), array("d")
        self._seconds_at: dict[int, float] = {}
        self._most = array("q")

    def add(self, facts: SessionFacts) -> None:
        starts_s, ends_s = [c.start_s for c in facts.calls], [c.end_s for c in facts.calls]
        here = seconds_at(starts_s, ends_s)
        for level, seconds in here.items():
            self._seconds_at[level] = self._seconds_at.get(level, 0.0) + seconds
        self._most.append(max(here, default=0))
        at_s = facts.session.start_s
        if at_s is None:
            self._without_start += 1
        elif self._common_clock:
            self._starts.extend(at_s + start_s for start_s in starts_s)
            self._ends.extend(at_s + end_s for end_s in ends_s)
            self._firsts.append(at_s + min(starts_s))
            self._lasts.append(at_s + max(ends_s))

    def result(self) -> Concurrency:
        common = self._common_clock
        return Concurrency(
            common_clock=common,
            without_start=self._without_start,
            calls=levels(seconds_at(self._starts, self._ends)) if common else None,
            sessions=levels(seconds_at(self._firsts, self._lasts)) if common else None,
            over_time=self._over_time() if common else None,
            within_sessions=levels(self._seconds_at),
            most_per_session=distribution(self._most),
        )

    def _over_time(self) -> Series | None:
        import numpy as np

        first_s, last_s = min(self._firsts, default=0.0), max(self._lasts, default=0.0)
        if last_s <= first_s:
            return None
        edges = np.linspace(first_s, last_s, BINS + 1)
        calls, sessions = means(self._starts, self._ends, edges), means(self._firsts, self._lasts, edges)
        return Series(first_s, (last_s - first_s) / BINS, calls, sessions)


def seconds_at(starts_s: Instants, ends_s: Instants) -> dict[int, float]:
    """For how many seconds so many of the intervals [start, end) held, from the first start to the last end."""
    import numpy as np

    if len(starts_s) < 2:  # most sessions of many traces
        return {1: float(ends_s[0] - starts_s[0])} if len(starts_s) and ends_s[0] > starts_s[0] else {}
    at, level = _steps(starts_s, ends_s)
    which, where = np.unique(level[:-1], return_inverse=True)
    seconds = np.bincount(where, weights=np.diff(at), minlength=len(which))
    return dict(zip(which.tolist(), seconds.tolist(), strict=True))


def levels(seconds: Mapping[int, float]) -> Levels:
    """The numbers of a time at so many in flight."""
    import numpy as np

    ordered = sorted(seconds)
    upto_s = np.cumsum([seconds[level] for level in ordered])
    total_s = float(upto_s[-1]) if ordered else 0.0
    if total_s <= 0:
        return Levels()
    busy_s = sum(seconds[level] for level in ordered if level > 0)
    several_s = sum(seconds[level] for level in ordered if level > 1)
    area = sum(level * seconds[level] for level in ordered)

    def at(share: float) -> int:
        # A share that ends where a level does belongs to that level, whatever the sum left behind the comma.
        place = int(np.searchsorted(upto_s, share * total_s - 1e-9 * total_s))
        return ordered[min(place, len(ordered) - 1)]

    return Levels(
        seconds=total_s,
        mean=area / total_s,
        mean_busy=area / busy_s if busy_s > 0 else None,
        busy=busy_s / total_s,
        several=several_s / total_s,
        p50=at(0.5),
        p90=at(0.9),
        p99=at(0.99),
        max=ordered[-1],
        quantiles=tuple(map(at, SHARES)),
    )


def means(starts_s: Instants, ends_s: Instants, edges_s: NDArray[np.float64]) -> tuple[float, ...]:
    """How many of the intervals held, on average between each two neighbouring edges."""
    import numpy as np

    at, level = _steps(starts_s, ends_s)
    area = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(at))])
    between = np.diff(np.interp(edges_s, at, area)) / np.diff(edges_s)
    return tuple(np.maximum(between, 0.0).tolist())  # rounding may leave a hair below


def _steps(starts_s: Instants, ends_s: Instants) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where the number in flight changes, and what it is from there on. Instants are rounded to the microsecond, so
    that a call that starts when another ends is not beside it for the dust of binary fractions."""
    import numpy as np

    at, where = np.unique(np.round(np.concatenate([starts_s, ends_s]), 6), return_inverse=True)
    change = np.bincount(where, minlength=len(at)).astype(np.int64)
    starts = np.bincount(where[: len(starts_s)], minlength=len(at))
    return at, np.cumsum(2 * starts - change)
