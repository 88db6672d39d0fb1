"""One run of a search: where it was, whether the promises held, and what it felt like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from msgspec import Struct

from workloom.answers.slo import Slo, Verdict, call_limits, judged, together
from workloom.clock import NS
from workloom.metrics.catalog import Sample, Totals, catalog
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import Figure, figure
from workloom.metrics.frame import CENSORED
from workloom.metrics.measured import Measured
from workloom.metrics.uncertainty.enough import too_many_censored
from workloom.metrics.uncertainty.quantile import of_sorted

Number = float | Literal["inf"] | None
"""A figure in JSON, which has no infinity; None: the run cannot say."""

REPORTED = (
    "ttft_p50",
    "ttft_p95",
    "tbc_p95",
    "e2e_p95",
    "hit_rate",
    "output_tokens_per_s",
    "calls_per_s",
    "errors",
)
"""Figures that are kept of every run, as far as there are such metrics."""

_LATE = ("ttft_s", "ttft_from_due_s", "e2e_s", "e2e_from_due_s")
"""Latencies that grow while a call waits: one that was cut off has waited too long by then."""


class Met(Struct, frozen=True):
    """Whether one SLO held."""

    slo: str
    value: Number
    verdict: Verdict
    why: str = ""
    kept: bool | None = None
    """Whether the figure was on the right side, enough data or not; None: there was no figure."""


class Probe(Struct, frozen=True, omit_defaults=True):
    """A run that was made. `stretch`: how many times as long as the first ones it was, to hold enough data."""

    number: int
    purpose: Literal["bracket", "search", "beside"]
    load: float
    seed: int
    verdict: Verdict
    """Of all SLOs together: fail if one broke."""
    slos: list[Met]
    figures: dict[str, Number]
    stretch: int = 1
    window_s: float = 0.0
    calls: int = 0
    """Due in the window."""
    sessions: int = 0
    """Of which those calls were."""
    censored: int = 0
    """Calls due in the window that were cut off by the end of the run."""
    offered: float | None = None
    """Of a rate: what it was in this run, as arrivals fell. In 300 sessions of a Poisson process it differs by 6 % from
    run to run, and that much of the noise is known."""
    directory: str = ""
    """Where the run is kept; empty: only its figures are."""
    note: str = ""

    @property
    def counts(self) -> bool:
        """Whether it says something of the edge."""
        return self.verdict != "not enough data"

    @property
    def at(self) -> float:
        """The load that the run saw."""
        return self.load if self.offered is None else self.offered

    @property
    def held(self) -> bool:
        return self.verdict == "pass"

    @property
    def seems(self) -> bool | None:
        """Whether it seems to hold, enough data or not; None: it cannot be said at all."""
        if self.counts:
            return self.held
        kept = [met.kept for met in self.slos]
        return None if None in kept else False not in kept

    @property
    def broken(self) -> list[str]:
        """The SLOs that did not hold."""
        return [met.slo for met in self.slos if met.verdict == "fail"]


class Observed(Struct, frozen=True):
    """What a run says."""

    verdict: Verdict
    slos: list[Met]
    figures: dict[str, Number]
    window_s: float
    calls: int
    sessions: int
    censored: int
    arrived: int
    """Sessions whose first call was due in the window."""


def observe(run: Measured, asked: Sequence[Slo], *, drain_s: float = 0.0) -> Observed:
    """Judge a run by the points of its figures: the noise of a single run is what the search averages over.

    A call that was due in the window and still had no answer when the run ended, `drain_s` later, has broken every
    limit on its latency that is below `drain_s`; left out, the longest waits of an overloaded server would not count.
    """
    seen: dict[tuple[str, object], Sample | Totals | None] = {}

    def observed(about: Figure) -> Sample | Totals | None:
        key = (about.metric, about.of)
        if key not in seen:
            seen[key] = about.observe(run)
        return seen[key]

    met = []
    promised = run.as_promised()
    for one in asked:
        found = one.figure.observe(promised)
        if isinstance(found, Sample) and one.figure.metric in _LATE and one.upper and one.limit <= drain_s:
            found = _late(found)
        told = judged(one, point(one.figure, found), by="point")
        value = told.estimate.value
        met.append(Met(one.text, said(value), told.verdict, told.why, None if value is None else one.kept(value)))
    figures = {}
    for name in REPORTED:
        about = _known(name)
        if about is not None:
            figures[name] = said(point(about, observed(about)).value)
    goodput = _goodput(run, asked)
    if goodput is not None:
        figures["goodput_calls_per_s"] = goodput
    due = run.due
    return Observed(
        together(one.verdict for one in met),
        met,
        figures,
        (run.window.end_ns - run.window.start_ns) / NS,
        int(due.sum()),
        len(np.unique(run.calls.instance[due])),
        int((due & (run.calls.status == CENSORED)).sum()),
        int((due & (run.calls.ordinal == 0)).sum()),
    )


def point(about: Figure, found: Sample | Totals | None) -> Estimate:
    """A figure without its interval: percentiles linear between ranks. None where too much of it was cut off."""
    name = about.say()
    if found is None:
        return Estimate(name, None, why="not enough data: this run cannot say")
    if isinstance(found, Totals):
        whole = float(np.sum(found.whole)) if isinstance(found.whole, np.ndarray) else float(found.whole)
        if not whole:
            return Estimate(name, None, why="not enough data: nothing of it in the window")
        return Estimate(name, float(np.sum(found.part)) / whole, values=len(found.part))
    there = ~np.isnan(found.values)
    values = found.values[there]
    weights = np.ones(len(values)) if found.weights is None else found.weights[there]
    total = float(weights.sum())
    if refused := too_many_censored(about, int(total), found.censored):
        return Estimate(name, None, values=int(total), censored=found.censored, why=refused)
    if not total:
        return Estimate(name, None, why="not enough data: no value")
    if about.statistic == "mean":
        value = float(np.average(values, weights=weights))
    elif about.statistic == "max":
        value = float(values.max())
    else:
        assert about.quantile is not None
        order = np.argsort(values, kind="stable")
        value = of_sorted(values[order], weights[order], about.quantile)
    sessions = len(np.unique(found.session[there]))
    return Estimate(name, value, values=int(total), sessions=sessions, censored=found.censored)


def _late(found: Sample) -> Sample:
    """The same, with every call that was cut off as one that took for ever."""
    if not found.censored:
        return found
    values = np.concatenate([found.values, np.full(found.censored, np.inf)])
    session = np.concatenate([found.session, np.full(found.censored, -1)])
    weights = None if found.weights is None else np.concatenate([found.weights, np.ones(found.censored)])
    return replace(found, values=values, session=session, weights=weights, censored=0)


def _known(name: str) -> Figure | None:
    """A figure, if there is such a metric."""
    about = name.rpartition("_p")[0] if "_p" in name and name.rpartition("_p")[2].isdigit() else name
    return figure(name) if about in catalog() or about + "_s" in catalog() else None


def _goodput(run: Measured, asked: Sequence[Slo]) -> Number:
    """Calls per second that met every limit that an SLO sets a single call; None where none does."""
    from workloom.metrics.goodput import goodput_calls_per_s

    limits = call_limits(asked)
    if not limits:
        return None
    found = goodput_calls_per_s(run, limits)
    if found is None:
        return None
    return said(float(np.sum(found.part)) / float(np.sum(found.whole)))


def said(value: float | None) -> Number:
    """A figure as JSON can say it."""
    if value is None or math.isnan(value):
        return None
    return "inf" if math.isinf(value) else float(value)


def heard(value: Number) -> float:
    """A figure as it was before it was said; nan where the run could not say."""
    return math.nan if value is None else float(value)
