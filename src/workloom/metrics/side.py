"""Which series of a server's page make up which figure of which replica, and these figures over a window."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.drive.scrape.families import ADDED, FAMILIES, GAUGES, GONE, HISTOGRAMS, UP, family_of, find
from workloom.metrics.frame import Window
from workloom.metrics.samples import HOLD_NS, Growth, Level, Samples, Series, growth, heard, highest, quantile, rising
from workloom.metrics.stats import Floats


class Gauge(Struct, frozen=True):
    """A gauge over the window: its mean over the time it was known, and the highest seen."""

    mean: float | None = None
    peak: float | None = None


class ServerLatency(Struct, frozen=True):
    """A histogram of the server's own over the window. Quantiles come from its buckets, and are as coarse."""

    count: int = 0
    mean_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None


class Replica(Struct, frozen=True):
    """What one engine said, over the window."""

    replica: str
    """host:port, and behind a slash which engine of the page."""
    family: str
    growth: dict[str, float] = {}
    gauges: dict[str, Gauge] = {}
    restarts: int = 0


class ServerSeries(Struct, frozen=True):
    """Points over the window: means over the part that begins at `at_s`; null where the server was not heard."""

    at_s: list[float] = []
    running: list[float | None] = []
    waiting: list[float | None] = []
    kv_usage: list[float | None] = []
    hit_rate: list[float | None] = []
    preemptions_per_s: list[float | None] = []
    computed_tokens_per_s: list[float | None] = []
    prompt_tokens_per_s: list[float | None] = []
    generation_tokens_per_s: list[float | None] = []
    power_w: list[float | None] = []


NEAR_NS = NS // 4
"""A sample so long behind the end of a live run's window counts as taken at it."""

Source = tuple[str, str]
"""(family, replica)."""


class Side:
    """Which series make up which figure of which replica."""

    def __init__(self, samples: Samples, window: Window) -> None:
        self.samples, self.window = samples, window
        self.restarts: dict[Source, int] = {}
        self.heard_ns = heard(samples)
        self.up = {host: series for (name, host), series in samples.items() if name == UP}
        self.hold_ns = HOLD_NS if self.up else max(HOLD_NS, window.end_ns)
        """A simulated server is never away: it says what changes, and when it is gone."""
        names: dict[Source, list[str]] = {}
        for (name, replica), series in samples.items():
            family = family_of(name)
            if family is not None and len(series.at_ns):
                names.setdefault((family, replica), []).append(name)
        self.figures: dict[str, dict[Source, list[str]]] = {}
        for source, kept in names.items():
            self._place(source, kept)
        for by in self.figures.values():
            tier = min(FAMILIES[family].tier for family, _ in by)
            for source in [source for source in by if FAMILIES[source[0]].tier > tier]:
                del by[source]

    def _place(self, source: Source, kept: list[str]) -> None:
        bases = sorted({name.partition("_bucket{")[0] for name in kept if "_bucket{" in name})
        for figure in FAMILIES[source[0]].figures:
            found = find(source[0], figure, bases if figure in HISTOGRAMS else kept)
            if found:
                self.figures.setdefault(figure, {})[source] = found

    def growths(self, figures: Iterable[str]) -> dict[str, dict[Source, float]]:
        """Growth of counters over the window by replica."""
        out: dict[str, dict[Source, float]] = {}
        for figure in figures:
            for source, names in self.figures.get(figure, {}).items():
                grown = [self._growth(self.samples[n, source[1]], source[1]) for n in names]
                out.setdefault(figure, {})[source] = sum(each.amount for each in grown)
                restarts = max(each.restarts for each in grown)
                self.restarts[source] = max(self.restarts.get(source, 0), restarts)
        return out

    def levels(self, figure: str) -> dict[Source, Level]:
        """A gauge by replica."""
        by = self.figures.get(figure, {})
        return {
            source: Level(self.samples[names[0], source[1]], self.hold_ns, self._until_ns(figure, source[1]))
            for source, names in by.items()
        }

    def _until_ns(self, figure: str, replica: str) -> float:
        """When a replica went: no calls run on it from then on, and of its KV there is nothing to say."""
        gone = self.samples.get((GONE, replica))
        return np.inf if gone is None or figure in ADDED else float(gone.at_ns[0])

    def gauge(self, figure: str) -> Gauge:
        """A gauge over the window, replicas together."""
        levels = list(self.levels(figure).values())
        edges = np.array([self.window.start_ns, self.window.end_ns], dtype=np.float64)
        means = np.array([level.means(edges)[0] for level in levels])
        if not np.isfinite(means).any():
            return Gauge()
        added = figure in ADDED
        mean = float(np.nansum(means) if added else np.nanmean(means))
        return Gauge(mean, highest(levels, self.window, added=added))

    def replicas(self, grown: dict[str, dict[Source, float]]) -> list[Replica]:
        """Each replica by itself."""
        sources = sorted({source for by in self.figures.values() for source in by}, key=lambda pair: pair[::-1])
        edges = np.array([self.window.start_ns, self.window.end_ns], dtype=np.float64)
        gauges: dict[Source, dict[str, Gauge]] = {}
        for figure in GAUGES:
            for source, level in self.levels(figure).items():
                mean = _number(level.means(edges)[0])
                gauges.setdefault(source, {})[figure] = Gauge(mean, highest([level], self.window, added=False))
        return [
            Replica(
                source[1],
                source[0],
                {figure: by[source] for figure, by in grown.items() if source in by},
                gauges.get(source, {}),
                self.restarts.get(source, 0),
            )
            for source in sources
        ]

    def heard_s(self) -> float:
        """How much of the window the server that was heard least was up for."""
        edges = np.array([self.window.start_ns, self.window.end_ns], dtype=np.float64)
        return min((Level(up).areas(edges)[0] / NS for up in self.up.values()), default=0.0)

    def _growth(self, series: Series, replica: str) -> Growth:
        """Growth over the window; a live server is asked at its end, and answers a moment later."""
        return growth(series, self.window, self.heard_ns[replica], NEAR_NS if self.up else 0)

    def latency(self, figure: str) -> ServerLatency:
        """A histogram's growth over the window, replicas summed."""
        sums = counts = 0.0
        buckets: dict[float, float] = {}
        for (_, replica), (base, *_) in self.figures[figure].items():
            for (name, of), series in self.samples.items():
                if of != replica or not name.startswith(f"{base}_"):
                    continue
                amount = self._growth(series, replica).amount
                if name == f"{base}_sum":
                    sums += amount
                elif name == f"{base}_count":
                    counts += amount
                elif name.startswith(f"{base}_bucket{{le="):
                    bound = float(name.partition("le=")[2].rstrip("}"))
                    buckets[bound] = buckets.get(bound, 0.0) + amount
        bounds = sorted(buckets)
        upto = np.maximum.accumulate([buckets[bound] for bound in bounds])
        p50, p90, p99 = (quantile(np.array(bounds), upto, level) for level in (0.5, 0.9, 0.99))
        return ServerLatency(round(counts), share(sums, counts), p50, p90, p99)

    def series(self, points: int) -> ServerSeries:
        """Points over the window."""
        window = self.window
        if window.end_ns <= window.start_ns:
            return ServerSeries()
        edges = np.linspace(window.start_ns, window.end_ns, points + 1)
        return ServerSeries(
            at_s=[round(edge / NS, 9) for edge in edges[:-1].tolist()],
            hit_rate=self._hit_rates(edges),
            **{name: self._mean_points(name, edges) for name in ("running", "waiting", "kv_usage", "power_w")},
            **{
                f"{name}_per_s": self._rates(name, edges)
                for name in ("preemptions", "computed_tokens", "prompt_tokens", "generation_tokens")
            },
        )

    def _mean_points(self, figure: str, edges: Floats) -> list[float | None]:
        levels = list(self.levels(figure).values())
        if not levels:
            return []
        values = np.array([level.means(edges) for level in levels])
        heard = np.isfinite(values)
        totals = np.where(heard, values, 0.0).sum(axis=0)
        count = heard.sum(axis=0)
        shown = totals if figure in ADDED else totals / np.maximum(count, 1)
        return [float(value) if n else None for value, n in zip(shown.tolist(), count.tolist(), strict=True)]

    def _rising(self, figure: str, edges: Floats) -> Floats | None:
        parts = [
            rising(self.samples[name, source[1]], edges, self.heard_ns[source[1]])
            for source, names in self.figures.get(figure, {}).items()
            for name in names
        ]
        return np.sum(parts, axis=0) if parts else None

    def _rates(self, figure: str, edges: Floats) -> list[float | None]:
        grown = self._rising(figure, edges)
        return [] if grown is None else [float(rate) for rate in grown / (np.diff(edges) / NS)]

    def _hit_rates(self, edges: Floats) -> list[float | None]:
        hits, queries = self._rising("prefix_hits_tokens", edges), self._rising("prefix_queries_tokens", edges)
        if hits is None or queries is None:
            return []
        return [share(hit, query) for hit, query in zip(hits.tolist(), queries.tolist(), strict=True)]


def share(part: float | None, whole: float | None) -> float | None:
    """A part of a whole; None where either is missing or the whole is nothing."""
    return float(part / whole) if part is not None and whole is not None and whole > 0 else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
