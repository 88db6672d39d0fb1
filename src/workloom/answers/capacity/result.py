"""The answer of a search: the edge, what broke there, what it feels like about it, and all that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, exp, floor, hypot, log
from statistics import median

from msgspec import Struct

from workloom.answers.capacity.belief import Axis, Span
from workloom.answers.capacity.probe import Met, Number, Probe, heard, said
from workloom.answers.capacity.search import Search, Status, Stop, believed, near, neighbours

JUST_ABOVE = 1.25
"""How far beyond the edge what broke first is counted."""
CLIFF = 2.0
"""Factor by which a latency changes from one neighbouring load to the next where there is a cliff."""
CLIFF_DELIVERED = 1.5
"""The same for what is delivered: hit rates, throughputs, goodput."""


class Binding(Struct, frozen=True):
    """How often an SLO broke in the runs that did not hold, just beyond the edge."""

    slo: str
    broke: int
    of: int


class Seen(Struct, frozen=True):
    """A figure over the runs at one load: the middle, and the least and the greatest of them."""

    middle: Number
    least: Number
    greatest: Number


class Beside(Struct, frozen=True):
    """What the runs at one load saw."""

    load: float
    runs: int
    held: int
    figures: dict[str, Seen]


class Cliff(Struct, frozen=True):
    """A figure that changes by more than a cliff's factor between two neighbouring loads."""

    figure: str
    load: float
    beyond: float
    before: Number
    after: Number


class Capacity(Struct, frozen=True):
    """What a search found. Loads in the unit of the axis; where `status` is not `found` there is no edge."""

    workload: str
    target: str
    over: Axis
    slos: list[str]
    status: Status
    why: str
    value: float | None
    """The load at which half of the runs hold every SLO; of whole loads the largest at which at least half do (of
    replicas the least)."""
    low: float | None
    high: float | None
    level: float
    precision: float
    """What was asked: half the interval, as a share of the value."""
    precise: bool
    """Whether it was reached."""
    spread: float | None
    """How far the edges of single runs lie apart, as a share: of long runs less. Of rates: beyond what is known of a
    run, which is how many sessions arrived."""
    likely: float | None
    """The load that nine of ten runs of this length hold."""
    binding: list[Binding]
    """The SLO that broke most often first."""
    cliffs: list[Cliff]
    beside: list[Beside]
    probes: list[Probe]
    unused: int = 0
    """Runs in the directory that this search did not ask for."""
    edges: list[float] = []
    """Edges that are possible, and..."""
    chances: list[float] = []
    """...how likely each is."""

    @property
    def span(self) -> Span | None:
        if self.value is None or self.low is None or self.high is None:
            return None
        return Span(self.value, self.low, self.high)


def result(
    search: Search, probes: Sequence[Probe], stop: Stop, *, workload: str, target: str, slos: list[str], unused: int = 0
) -> Capacity:
    """What was found."""
    belief = believed(search, probes) if stop.status == "found" else None
    span = belief.span(search.level) if belief is not None else None
    edges, chances, likely = [], [], None
    if belief is not None:
        kept = belief.of_edges > 1e-6
        edges, chances = belief.edges[kept].tolist(), belief.of_edges[kept].tolist()
        arrivals = _arrivals(probes) if any(probe.offered is not None for probe in probes) else 0.0
        likely = _likely(belief.quantile(0.5), hypot(belief.spread, arrivals), search.axis)
    looked = believed(search, [probe for probe in probes if probe.purpose != "beside"]) if span is not None else None
    groups = _beside(search.axis, looked.span(search.level).value, probes) if looked is not None else []
    return Capacity(
        workload=workload,
        target=target,
        over=search.axis,
        slos=slos,
        status=stop.status,
        why=stop.why,
        value=span.value if span else None,
        low=span.low if span else None,
        high=span.high if span else None,
        level=search.level,
        precision=search.precision,
        precise=span is not None and (span.half_width <= search.precision or span.low == span.high),
        spread=belief.spread if belief is not None else None,
        likely=likely,
        binding=_binding(search.axis, span, slos, probes),
        cliffs=_cliffs(search.axis, groups),
        beside=groups,
        probes=list(probes),
        unused=unused,
        edges=[float(f"{edge:.6g}") for edge in edges],
        chances=[float(f"{chance:.3g}") for chance in chances],
    )


def _arrivals(probes: Sequence[Probe]) -> float:
    """How far the rates that runs saw lie from those that were asked for: the noise that the spread leaves out."""
    off = [log(probe.at / probe.load) for probe in probes if probe.counts and probe.at > 0]
    return (sum(x * x for x in off) / len(off)) ** 0.5 if off else 0.0


def _likely(edge: float, spread: float, axis: Axis) -> float:
    """The load that nine of ten runs hold."""
    z = 1.2816  # the normal distribution's 0.9

    load = edge * exp(z * spread if axis.easing else -z * spread)
    return load if not axis.whole else float(ceil(load) if axis.easing else max(0, floor(load)))


def _binding(axis: Axis, span: Span | None, slos: Sequence[str], probes: Sequence[Probe]) -> list[Binding]:
    """What broke in the runs just beyond the edge; without an edge, in all that broke."""
    broken = [probe for probe in probes if probe.verdict == "fail"]
    if span is not None:
        low, high = span.low / (JUST_ABOVE if axis.easing else 1), span.high * (1 if axis.easing else JUST_ABOVE)
        if axis.whole:
            low, high = (low - 1, high) if axis.easing else (low, max(high, span.high + 1))
        near_by = [probe for probe in broken if low <= probe.at <= high]
        broken = near_by or broken
    found = [Binding(one, sum(one in probe.broken for probe in broken), len(broken)) for one in slos]
    return sorted((one for one in found if one.broke), key=lambda one: -one.broke)


def _beside(axis: Axis, edge: float, probes: Sequence[Probe]) -> list[Beside]:
    """The runs at each load about the edge, as it was known when neighbouring loads were looked at."""
    groups = []
    for load in neighbours(axis, edge):
        there = [probe for probe in probes if probe.counts and near(axis, load, probe.load)]
        if there:
            figures = {
                name: _seen([probe.figures.get(name) for probe in there])
                for name in {**there[0].figures, **_slos(there)}
            }
            for name, values in _slos(there).items():
                figures[name] = _seen(values)
            groups.append(Beside(load, len(there), sum(probe.held for probe in there), figures))
    return groups


def _slos(there: Sequence[Probe]) -> dict[str, list[Number]]:
    """The figures that SLOs are about, by the name of the figure."""
    found: dict[str, list[Number]] = {}
    for probe in there:
        for met in probe.slos:
            found.setdefault(_figure(met), []).append(met.value)
    return found


def _figure(met: Met) -> str:
    """The figure of an SLO as it was written."""
    return met.slo.partition("<" if "<" in met.slo else ">" if ">" in met.slo else "≤" if "≤" in met.slo else "≥")[
        0
    ].strip()


def _seen(values: Sequence[Number]) -> Seen:
    known = sorted(heard(value) for value in values if value is not None)
    if not known:
        return Seen(None, None, None)
    return Seen(said(median(known)), said(known[0]), said(known[-1]))


def _cliffs(axis: Axis, groups: Sequence[Beside]) -> list[Cliff]:
    """Figures that fall off between two neighbouring loads; of each the steepest place."""
    ordered = sorted(groups, key=lambda group: group.load)
    found: dict[str, tuple[float, Cliff]] = {}
    for before, after in pairwise(ordered):
        for name in before.figures:
            if name == "errors" or name not in after.figures:
                continue
            a, b = heard(before.figures[name].middle), heard(after.figures[name].middle)
            least = CLIFF_DELIVERED if "rate" in name or "per_s" in name else CLIFF
            factor = max(a, b) / min(a, b) if min(a, b) > 0 else 0.0
            if factor >= least and factor > found.get(name, (0.0,))[0]:
                found[name] = factor, Cliff(name, before.load, after.load, said(a), said(b))
    return [cliff for _, cliff in found.values()]
