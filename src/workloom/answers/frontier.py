"""The highest load that keeps a promise, as an interval.

A rate holds when every limit does. Whether a measured percentile keeps its limit is a coin toss near the edge, and more
so where the figure hardly rises with the load: then rates that hold and rates that do not lie among each other. So the
answer is never one number. Of one series of runs it is the interval from the last rate before any broke to the last
that held at all; of several seeds, or several readings of one limit, the range of all these.

    rate   4.0   4.5   5.0   5.5   6.0
    holds   x     x     .     x     .        interval 4.5 to 5.5; on a sharp edge both ends are one rate
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from workloom.errors import UsageError

Figures = Mapping[str, float]
"""Figures of one run by name; nan or absent is not enough data, and breaks a limit."""


class Limit(Struct, frozen=True):
    """`figure` may be `at_most` so much."""

    figure: str
    at_most: float

    def kept(self, figures: Figures) -> bool:
        return figures.get(self.figure, float("nan")) <= self.at_most

    def say(self) -> str:
        return f"{self.figure} <= {self.at_most:g}"


class Probe(Struct, frozen=True):
    """A rate that was tried, and what came of it. `broken`: the figures of the limits that did not hold."""

    rate: float
    figures: dict[str, float]
    broken: tuple[str, ...]


class Frontier(Struct, frozen=True):
    """What one series of runs says.

    `holds`: the highest rate that held, None if none did. `breaks`: the lowest rate that did not, None if none broke.
    `breaks` < `holds` where the figures wander about the limit: in between the answer depends on the run.
    """

    holds: float | None
    breaks: float | None
    probes: tuple[Probe, ...]
    """By rate."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The rates among which the frontier lies; None where no rate held or none broke: then look further."""
        holds, breaks = self.holds, self.breaks
        if holds is None or breaks is None:
            return None
        return max((probe.rate for probe in self.probes if probe.rate < breaks), default=breaks), holds

    @property
    def limited_by(self) -> tuple[str, ...]:
        """What broke at the lowest rate that did not hold."""
        return next((probe.broken for probe in self.probes if probe.broken), ())


class Series:
    """Runs at several rates, each made once: limits may be asked of them again and again."""

    def __init__(self, measure: Callable[[float], Figures]) -> None:
        self._measure = measure
        self._runs: dict[float, dict[str, float]] = {}

    def at(self, rate: float) -> dict[str, float]:
        """Figures at a rate."""
        if rate not in self._runs:
            self._runs[rate] = dict(self._measure(rate))
        return self._runs[rate]

    def probe(self, rate: float, limits: Sequence[Limit]) -> Probe:
        figures = self.at(rate)
        return Probe(rate, figures, tuple(limit.figure for limit in limits if not limit.kept(figures)))


def search(
    series: Series, limits: Sequence[Limit], low: float, high: float, step: float, *, beside: int = 2
) -> Frontier:
    """Bisect between two rates on a grid of `step`, then try `beside` rates on either side of what was found.

    Each rate costs one run of the series. The rates beside it find out whether the edge is sharp: if one of them is on
    the wrong side, the search goes on around it until `beside` neighbours on both sides agree, or the grid ends.
    """
    if not (step > 0 and 0 < low < high):
        raise UsageError("a search needs 0 < low < high and a step", found=f"{low:g}, {high:g}, {step:g}")
    last = int((high - low) / step + 1e-9)
    found: dict[int, Probe] = {}

    def holds(i: int) -> bool:
        if i not in found:
            found[i] = series.probe(round(low + i * step, 9), limits)
        return not found[i].broken

    good, bad = -1, last + 1
    if not holds(0):
        bad = 0
    elif holds(last):
        good = last
    else:
        good, bad = 0, last
    while bad - good > 1 and good >= 0 and bad <= last:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    top, bottom = good, bad
    for i in _until_quiet(holds, good, +1, last, beside, wanted=True):
        top = i
    for i in _until_quiet(holds, bad, -1, last, beside, wanted=False):
        bottom = i
    probes = tuple(found[i] for i in sorted(found))
    rate = {i: probe.rate for i, probe in found.items()}
    return Frontier(rate.get(top), rate.get(bottom), probes)


def _until_quiet(
    holds: Callable[[int], bool], start: int, direction: int, last: int, beside: int, *, wanted: bool
) -> Iterable[int]:
    """Places behind `start` that are on the wrong side, until `beside` in a row are not."""
    quiet, i = 0, start + direction
    while quiet < beside and 0 <= i <= last:
        if holds(i) == wanted:
            quiet = 0
            yield i
        else:
            quiet += 1
        i += direction


def spread(frontiers: Iterable[Frontier]) -> tuple[float, float] | None:
    """The range of the intervals of several series or limits; None if one of them has none."""
    intervals = [frontier.interval for frontier in frontiers]
    if not intervals or any(interval is None for interval in intervals):
        return None
    there = [interval for interval in intervals if interval is not None]
    return min(low for low, _ in there), max(high for _, high in there)


def miss(interval: tuple[float, float], value: float) -> float:
    """By what share of the value an interval misses it; 0 when it holds it."""
    low, high = interval
    return max(low - value, value - high, 0.0) / value
