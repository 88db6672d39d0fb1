"""Samples of a server as series, one for each name, labels and replica, asked by the name of the metric.

A sample's name is `metric` or `metric{label=value,...}`, the values quoted or not, as the server says it (`{label}`
alone: the label's value is the sample's). Counters go by their family: `_total` at the end makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from workloom.records import ServerSample

Filter = Callable[["Series"], bool]


@dataclass(slots=True)
class Series:
    """One series between two instants. `growth` forgives restarts: a counter that falls begins anew."""

    name: str
    labels: dict[str, str]
    replica: str
    growth: float = 0.0
    peak: float = float("-inf")
    total: float = 0.0
    samples: int = 0
    _last: float | None = None

    def add(self, value: float, inside: bool) -> None:
        """The next value; one from before the instants is only where the growth begins."""
        if inside:
            if self._last is not None:
                self.growth += value - self._last if value >= self._last else value
            self.peak = max(self.peak, value)
            self.total += value
            self.samples += 1
        self._last = value


@dataclass(slots=True)
class Metrics:
    """All series of a server."""

    families: dict[str, list[Series]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.families)

    def growth(self, *names: str, where: Filter | None = None) -> float | None:
        """What the counters of the first of the names that is there grew by, all series together."""
        found = self._first(names, where)
        return sum(series.growth for series in found) if found else None

    def growth_by(self, name: str, label: str) -> dict[str, float]:
        """What a counter grew by, for each value of a label."""
        out: dict[str, float] = {}
        for series in self.families.get(name, []):
            if label in series.labels:
                value = series.labels[label]
                out[value] = out.get(value, 0.0) + series.growth
        return dict(sorted(out.items()))

    def peak(self, *names: str, where: Filter | None = None, has: str | None = None) -> float | None:
        """The highest that the gauges of the first of the names that is there stood, over time and series.

        `has`: only series that have such a label.
        """
        found = [series for series in self._first(names, where) if series.samples and _has(series, has)]
        return max((series.peak for series in found), default=None)

    def mean(self, *names: str) -> float | None:
        """The mean over all samples of all series."""
        found = self._first(names, None)
        count = sum(series.samples for series in found)
        return sum(series.total for series in found) / count if count else None

    def sum_of_peaks(self, *names: str, has: str | None = None) -> float | None:
        """The peaks of all series together: a capacity over ranks."""
        found = [series for series in self._first(names, None) if series.samples and _has(series, has)]
        return sum(series.peak for series in found) if found else None

    def _first(self, names: tuple[str, ...], where: Filter | None) -> list[Series]:
        for name in names:
            found = [s for s in self.families.get(name, []) if where is None or where(s)]
            if found:
                return found
        return []


def _has(series: Series, label: str | None) -> bool:
    return label is None or label in series.labels


def metrics(samples: Iterable[ServerSample], start_ns: int, end_ns: int) -> Metrics:
    """The series of some samples between two instants, both in it; growth is from the last sample at or before the
    start."""
    found: dict[tuple[str, str], Series] = {}
    out = Metrics()
    for sample in samples:
        if sample.at_ns > end_ns:
            continue
        key = (sample.name, sample.replica)
        series = found.get(key)
        if series is None:
            name, labels = parse(sample.name)
            series = found[key] = Series(name, labels, sample.replica)
            out.families.setdefault(name, []).append(series)
        series.add(sample.value, sample.at_ns > start_ns)
    return out


def parse(name: str) -> tuple[str, dict[str, str]]:
    """The family and the labels in a sample's name; never raises."""
    family, _, rest = name.partition("{")
    labels: dict[str, str] = {}
    for pair in _pairs(rest.rstrip().removesuffix("}")):
        key, _, value = pair.partition("=")
        if key.strip():
            labels[key.strip()] = value.strip().strip('"')
    return family.strip().removesuffix("_total"), labels


def _pairs(text: str) -> list[str]:
    """Split at commas that stand in no quotes."""
    out, quoted, at = [], False, 0
    for i, letter in enumerate(text):
        if letter == '"' and text[i - 1 : i] != "\\":
            quoted = not quoted
        elif letter == "," and not quoted:
            out.append(text[at:i])
            at = i + 1
    return [*out, text[at:]]
