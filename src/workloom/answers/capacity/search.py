"""Which runs to make, one step after another: bracket, search, beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

from workloom import seeds
from workloom.answers.capacity.belief import Axis, Belief, Span, learned
from workloom.answers.capacity.probe import Probe

Status = Literal["found", "never holds", "always holds", "not enough data"]
Purpose = Literal["bracket", "search", "beside"]

STRETCHES = 8
"""How many times as long as the first runs may become, to hold enough data."""
AGAIN = 3
"""Runs without enough data, where runs cannot be made longer, before the search gives up."""
MOST_BRACKET = 13
"""Loads before the search gives up: a factor of 4,096."""
STEPS = (0.8, 0.9, 1.0, 1.1, 1.2)
"""Neighbouring loads, as shares of the edge."""


class Search(Struct, frozen=True):
    """What is looked for, and how well it is to be known."""

    axis: Axis
    start: float
    """The first guess."""
    precision: float = 0.05
    """Half the interval, as a share of the edge."""
    level: float = 0.95
    most: int = 48
    """Runs of bracket and search."""
    batch: int = 1
    """Runs that are chosen together. The answer depends on it, and not on how many of them run at once."""
    beside: int = 3
    """Runs at each neighbouring load."""
    grow: float = 2.0
    """Factor between the loads of the bracket."""
    stretches: bool = True
    """Whether runs may be made longer."""


class Want(Struct, frozen=True):
    """A run to make."""

    number: int
    purpose: Purpose
    load: float
    stretch: int


class Stop(Struct, frozen=True):
    """The end of a search."""

    status: Status
    why: str = ""


Measure = Callable[[list[Want]], Iterable[Probe]]
"""Makes runs, and gives each when it is done."""


def seed_of(root: int, number: int) -> int:
    """The seed of a run: any two runs of a search are independent."""
    return seeds.number(root, "probe", number) >> 33


def walk(search: Search, measure: Measure) -> tuple[list[Probe], Stop]:
    """Make runs until the search is at its end."""
    probes: list[Probe] = []
    while True:
        wants = step(search, probes)
        if isinstance(wants, Stop):
            return probes, wants
        probes += sorted(measure(wants), key=lambda probe: probe.number)


def step(search: Search, probes: Sequence[Probe]) -> list[Want] | Stop:
    """The next runs, given all that were made; a function of nothing else."""
    stretch, short = _stretch(search, probes)
    if short is not None:
        return Stop("not enough data", _short(short))
    bracketed = _bracket(search, probes)
    if isinstance(bracketed, Stop):
        return bracketed
    number = len(probes)
    if bracketed is not None:
        return [Want(number, "bracket", bracketed, stretch)]
    edge = believed(search, [probe for probe in probes if probe.purpose != "beside"])
    if edge is None:
        return Stop("not enough data")
    used = sum(probe.purpose != "beside" for probe in probes)
    beside = any(probe.purpose == "beside" for probe in probes)
    if not beside and used < search.most and not settled(search, edge.span(search.level)):
        loads = edge.next(min(search.batch, search.most - used))
        return [Want(number + i, "search", load, stretch) for i, load in enumerate(loads)]
    loads = _beside(search, edge.span(search.level).value, probes)
    if loads:
        return [Want(number + i, "beside", load, stretch) for i, load in enumerate(loads)]
    return Stop("found")


def believed(search: Search, probes: Sequence[Probe]) -> Belief | None:
    """What the runs say of the edge; None before there is one that holds and one that does not."""
    counted = [probe for probe in probes if probe.counts]
    bracket = [probe.at for probe in probes if probe.purpose == "bracket" and probe.seems is not None]
    if not bracket:
        return None
    low, high = min(bracket) / 4, max(bracket) * 4
    if search.axis.whole:
        low = max(int(low), 1 if search.axis.easing else 0)
    return learned(search.axis, low, high, ((probe.at, probe.held) for probe in counted), search.precision)


def settled(search: Search, span: Span) -> bool:
    """Whether the edge is known as well as asked. Neighbouring integers cannot be told apart any better."""
    return (
        span.low == span.high
        if search.axis.whole and span.value < 1 / search.precision
        else (span.half_width <= search.precision)
    )


def _stretch(search: Search, probes: Sequence[Probe]) -> tuple[int, Probe | None]:
    """How long runs are to be now; and a run that shows that no length allowed is enough."""
    stretch = 1
    again = 0
    for probe in probes:
        if probe.purpose == "beside" or probe.counts or (probe.purpose == "bracket" and probe.seems is not None):
            continue  # the bracket goes on by what seems, and what seems is no part of the belief
        again = again + 1 if probe.stretch == stretch else 1
        if search.stretches and probe.stretch < STRETCHES:
            stretch = max(stretch, probe.stretch * 2)
        elif again >= AGAIN or probe.seems is None:
            return stretch, probe
    return stretch, None


def _short(probe: Probe) -> str:
    lacking = "; ".join(met.why for met in probe.slos if met.verdict == "not enough data")
    return f"at {probe.load:g}, in {probe.window_s:,.0f} s: {lacking.replace('not enough data: ', '')}"


def _bracket(search: Search, probes: Sequence[Probe]) -> float | Stop | None:
    """The next load of the bracket; None when it is closed."""
    axis = search.axis
    counted = [probe for probe in probes if probe.purpose == "bracket" and probe.seems is not None]
    if not counted:
        return search.start
    holding = [probe.load for probe in counted if probe.seems]
    breaking = [probe.load for probe in counted if not probe.seems]
    if holding and breaking:
        return None
    harder = bool(holding)  # all held: on to what is harder
    up = harder != axis.easing
    last = (max if up else min)(holding or breaking)
    factor = search.grow if len(counted) < 3 else max(2.0, search.grow)
    load = last * factor if up else last / factor
    if axis.whole:
        load = float(max(1, round(load) if abs(round(load) - last) >= 1 else last + (1 if up else -1)))
    if load == last or len(counted) >= MOST_BRACKET:
        if not counted[-1].counts:
            return Stop("not enough data", _short(counted[-1]))
        status: Status = "always holds" if harder else "never holds"
        return Stop(status, f"{axis.name} from {min(holding or breaking):g} to {max(holding or breaking):g}")
    return load


def _beside(search: Search, edge: float, probes: Sequence[Probe]) -> list[float]:
    """Neighbouring loads at which runs are missing, each as often as it is missing."""
    made = [probe.load for probe in probes]
    if any(probe.purpose == "beside" for probe in probes):
        return []
    wanted: list[float] = []
    for load in neighbours(search.axis, edge):
        have = sum(near(search.axis, load, other) for other in made)
        wanted += [load] * max(0, search.beside - have)
    return wanted


def neighbours(axis: Axis, edge: float) -> list[float]:
    """The loads about an edge that are looked at."""
    loads = [edge * share for share in STEPS]
    if axis.whole:
        steps = [round(edge * share) for share in STEPS]
        loads = [float(load) for load in sorted({*steps, round(edge) - 1, round(edge) + 1}) if load >= 1]
    return loads


def near(axis: Axis, load: float, other: float) -> bool:
    """Whether a run counts as one at this neighbouring load."""
    return load == other if axis.whole else abs(other / load - 1) < 0.03
