"""Samples of a server by the family of their names and by labels: what AgentX's adapters ask.

A sample's name is `metric` or `metric{label=value,...}`, the values quoted or not, as the server says it (`{label}`
alone: the label's value is the sample's). Counters go by their family: `_total` at the end makes no difference. What
a counter grew by is what :mod:`workloom.metrics.samples` says it did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from workloom.metrics.frame import Window
from workloom.metrics.samples import Samples, Series, growth, heard
from workloom.metrics.stats import Floats


@dataclass(slots=True)
class Labelled:
    """One series of a server over the window."""

    labels: dict[str, str]
    replica: str
    growth: float
    inside: Floats
    """Its values at instants of the window, both ends in it."""


Filter = Callable[[Labelled], bool]


@dataclass(slots=True)
class Metrics:
    """All series of a server."""

    families: dict[str, list[Labelled]] = field(default_factory=dict)

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
        return max(self._peaks(names, where, has), default=None)

    def sum_of_peaks(self, *names: str, has: str | None = None) -> float | None:
        """The peaks of all series together: a capacity over ranks."""
        peaks = self._peaks(names, None, has)
        return sum(peaks) if peaks else None

    def mean(self, *names: str) -> float | None:
        """The mean over all samples of all series."""
        found = [series.inside for series in self._first(names, None)]
        values = np.concatenate([np.empty(0), *found])
        return float(values.mean()) if len(values) else None

    def _peaks(self, names: tuple[str, ...], where: Filter | None, has: str | None) -> list[float]:
        found = [series for series in self._first(names, where) if has is None or has in series.labels]
        return [float(series.inside.max()) for series in found if len(series.inside)]

    def _first(self, names: tuple[str, ...], where: Filter | None) -> list[Labelled]:
        for name in names:
            found = [s for s in self.families.get(name, []) if where is None or where(s)]
            if found:
                return found
        return []


def metrics(samples: Samples, window: Window) -> Metrics:
    """The series of some samples over a window, its end in it: a peak at the end of the last request counts."""
    first, out = heard(samples), Metrics()
    for (said, replica), series in samples.items():
        if len(series.at_ns) and series.at_ns[0] <= window.end_ns:
            name, labels = parse(said)
            grown = growth(series, window, first.get(replica, np.inf)).amount
            out.families.setdefault(name, []).append(Labelled(labels, replica, grown, _inside(series, window)))
    return out


def _inside(series: Series, window: Window) -> Floats:
    inside: Floats = series.values[(series.at_ns >= window.start_ns) & (series.at_ns <= window.end_ns)]
    return inside


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
