"""How alike two workloads are: margins, what goes together, the cache curve, and what an engine makes of both.

Every line has a distance, a limit and a verdict of three values:

    alike             the distance is within that of random halves of the real sessions, or a tolerance
    differs           it is beyond
    not enough data   one side has too few sessions, or the tolerance is less than halves of the real ones differ by
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from workloom import seeds
from workloom.answers.distance import compare
from workloom.answers.reuse import reuse_curves
from workloom.answers.simulated import simulate
from workloom.engine.profile import Profile
from workloom.errors import UsageError
from workloom.model.arrivals import process
from workloom.model.curves import Curve
from workloom.model.facts import facts
from workloom.model.fit.memory import spearman
from workloom.model.measures import MEASURES, PAIRS, Measure, Sample, sample
from workloom.plan import Closed, Context, Plan, Recipe, TraceRef, Waits, make
from workloom.session import Header, Session
from workloom.traces import Reading
from workloom.traces.reading import made

Verdict = Literal["alike", "differs", "not enough data"]
LEAST_SESSIONS = 8
"""On either side, for a verdict."""
LEVEL = 0.9
"""Of the distances of random halves of the real sessions, the share that a line may reach."""
LEAST_ARRIVALS = 100
BURSTINESS = 0.1
DISPERSION = 0.25
"""How far the burstiness of arrivals, and the index of dispersion of their counts (over the real one), may be."""
RANKS = 0.1
"""Rank correlations may differ by so much."""
HIT_RATE = 0.03
LATENCY = 0.15
"""Tolerances of what an engine shows: points of the hit rate, share of a latency."""
HALVINGS = 8
"""Of the real sessions, for the bands of lines that need a run each."""
ORDERS = 2
"""Of the same sessions, that an engine is shown: who meets whom is chance."""
GROUPS = 8
"""Groups of as many sessions as the real trace has, that the other is run in, at most."""
Floats = NDArray[np.float64]


class Line(Struct, frozen=True):
    """One comparison. `real`, `other`: the figure on either side (medians of margins); `limit`: what is still alike.

    distance: KS for margins (wasserstein beside it, in the unit); else the absolute difference, for latencies and
    dispersions over the real figure. p: the chance of such a distance if the sessions of both were one lot, by
    exchanging whole sessions.
    """

    group: str
    name: str
    unit: str
    real: float | None
    other: float | None
    distance: float | None
    limit: float | None
    verdict: Verdict
    p: float | None = None
    wasserstein: float | None = None
    wasserstein_limit: float | None = None


class Fidelity(Struct, frozen=True):
    """All lines, and what they were found with."""

    real_sessions: int
    other_sessions: int
    band_sessions: int
    """Of the trace whose halves say how far is far."""
    engine: str
    concurrency: int
    seed: int
    lines: list[Line]
    curves: dict[str, Curve]

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict == verdict for line in self.lines)


class Ask(Struct, frozen=True):
    """What two workloads are compared with: an engine, so many sessions at once, a seed for what is random."""

    profile: Profile
    concurrency: int = 4
    seed: int = 0
    block_tokens: int = 64
    rounds: int = 200
    wait_cap_s: float | None = 60.0


def fidelity(real: Reading, other: Reading, ask: Ask, band: Reading | None = None) -> Fidelity:
    """Compare two traces. `band`: the sessions whose halves say how far is far (default: the real ones).

    Raises UsageError where a trace is empty. Memory: the sessions of all.
    """
    ours, theirs = _plain(real), _plain(other)
    halved = ours if band is None else _plain(band)
    for name, sessions in (("the real trace", ours), ("the other trace", theirs), ("the trace for bands", halved)):
        if not sessions:
            raise UsageError(f"{name} holds no session", hint="look at it with `workloom inspect`")
    samples = sample(facts(ours)), sample(facts(theirs))
    bands = samples[0] if band is None else sample(facts(halved))
    runs = _Runs(ask, ours, theirs, halved)
    lines = [
        *_margins(*samples, bands, ask),
        *_arrivals(real, other, ours, theirs),
        *_correlations(*samples, bands, ask),
        *runs.lines(),
    ]
    return Fidelity(
        real_sessions=len(ours),
        other_sessions=len(theirs),
        band_sessions=len(halved),
        engine=ask.profile.name,
        concurrency=ask.concurrency,
        seed=ask.seed,
        lines=lines,
        curves=runs.curves(),
    )


def _plain(reading: Reading) -> list[Session]:
    """Sessions without recorded instants, which only one side may have: both take their nominal times."""
    return [
        replace(session, calls=tuple(replace(call, recorded=None) for call in session.calls)) for session in reading
    ]


# -------------------------------------------------------------------------------------------------- margins and ranks


def _margins(real: Sample, other: Sample, bands: Sample, ask: Ask) -> list[Line]:
    return [_margin(measure, real, other, bands, ask) for measure in MEASURES]


def _margin(measure: Measure, real: Sample, other: Sample, bands: Sample, ask: Ask) -> Line:
    ours, theirs = real.values[measure.name], other.values[measure.name]
    having = min(sum(len(v) > 0 for v in side) for side in (ours, theirs))
    stream = seeds.stream(ask.seed, "fidelity", measure.name)
    found = compare(ours, theirs, stream, band=bands.values[measure.name], rounds=ask.rounds) if having else None
    if found is None:
        return Line("margin", measure.name, measure.unit, None, None, None, None, "not enough data")
    distance, band = found.distance, found.band
    within = distance.ks <= band.ks and distance.wasserstein <= band.wasserstein
    verdict: Verdict = "alike" if within else "differs"
    return Line(
        group="margin",
        name=measure.name,
        unit=measure.unit,
        real=float(np.median(np.concatenate(ours))),
        other=float(np.median(np.concatenate(theirs))),
        distance=distance.ks,
        limit=band.ks,
        verdict=verdict if having >= LEAST_SESSIONS else "not enough data",
        p=found.p,
        wasserstein=distance.wasserstein,
        wasserstein_limit=band.wasserstein,
    )


def _arrivals(real: Reading, other: Reading, ours: list[Session], theirs: list[Session]) -> list[Line]:
    """How bursty sessions arrive, where both traces have a common clock."""
    if not (real.header.common_clock and other.header.common_clock):
        return []
    mine, its = (process([s.start_s for s in side if s.start_s is not None]) for side in (ours, theirs))
    enough = min(mine.arrivals, its.arrivals) >= LEAST_ARRIVALS
    pairs = [("burstiness of arrivals", "B", mine.burstiness, its.burstiness)]
    counted = {count.window_s: count.idc for count in its.counts}
    for count in mine.counts:
        if count.window_s in counted:
            name = f"dispersion of arrivals in {count.window_s:g} s"
            pairs.append((name, "IDC", count.idc, counted[count.window_s]))
    lines = []
    for name, unit, a, b in pairs:
        if a is None or b is None:
            continue
        apart = abs(a - b) if unit == "B" else abs(a - b) / a if a else 0.0
        limit = BURSTINESS if unit == "B" else DISPERSION
        verdict: Verdict = ("alike" if apart <= limit else "differs") if enough else "not enough data"
        lines.append(Line("arrivals", name, unit, a, b, apart, limit, verdict))
    return lines


def _ranks(calls: Sequence[Floats]) -> list[float]:
    """Rank correlations of PAIRS over the calls behind tools."""
    rows = np.concatenate(calls)
    columns = {"fresh": rows[:, 0], "output": rows[:, 1], "wait": rows[:, 2]}
    return [spearman(columns[one], columns[two]) for one, two in PAIRS]


def _correlations(real: Sample, other: Sample, halved: Sample, ask: Ask) -> list[Line]:
    """What goes together in calls behind tools; halves of the real sessions say how well that is known."""
    having = min(sum(len(rows) > 0 for rows in side.calls) for side in (real, other))
    if not having:
        return [Line("together", f"{a} and {b}", "rank r", None, None, None, None, "not enough data") for a, b in PAIRS]
    ours, theirs = _ranks(real.calls), _ranks(other.calls)
    stream = seeds.stream(ask.seed, "fidelity", "ranks")
    apart: list[list[float]] = []
    for one, two in _halvings(halved.sessions, 50, stream):
        halves = [_ranks([halved.calls[i] for i in half]) for half in (one, two)]
        apart.append([abs(a - b) for a, b in zip(*halves, strict=True)])
    bands = np.quantile(apart, LEVEL, axis=0) if apart else np.full(len(PAIRS), np.inf)
    lines = []
    for (a, b), mine, its, band in zip(PAIRS, ours, theirs, bands.tolist(), strict=True):
        verdict = _tolerated(abs(mine - its), RANKS, band, having)
        lines.append(Line("together", f"{a} and {b}", "rank r", mine, its, abs(mine - its), RANKS, verdict))
    return lines


def _halvings(n: int, rounds: int, stream: np.random.Generator) -> list[tuple[list[int], list[int]]]:
    """Random splits of 0 .. n-1 in half; none where halves would be empty."""
    if n < 2:
        return []
    mixed = [stream.permutation(n).tolist() for _ in range(rounds)]
    return [(order[: n // 2], order[n // 2 :]) for order in mixed]


def _tolerated(distance: float, tolerance: float, band: float, sessions: int) -> Verdict:
    """A verdict by a tolerance: beyond it, a distance that halves of the real sessions have too proves nothing."""
    if sessions < LEAST_SESSIONS:
        return "not enough data"
    if distance <= tolerance:
        return "alike"
    return "differs" if distance > band else "not enough data"


# --------------------------------------------------------------------------------------------------- what engines show


class Shown(Struct, frozen=True):
    """What one group of sessions shows on the engine and in an ideal cache."""

    figures: dict[str, float]
    curve: Curve


FIGURES: tuple[tuple[str, str, float], ...] = (
    ("hit rate", "share", HIT_RATE),
    ("TTFT p50", "s", LATENCY),
    ("TTFT p95", "s", LATENCY),
    ("E2E p95", "s", LATENCY),
)


class _Runs:
    """Runs of groups of sessions, under one load on one engine."""

    def __init__(self, ask: Ask, real: list[Session], other: list[Session], halved: list[Session]) -> None:
        self._ask = ask
        n = len(real)
        groups = [other[i : i + n] for i in range(0, len(other), n)]
        whole = [group for group in groups if len(group) == n][:GROUPS]
        self.ours = self._show(real)
        self.theirs = [self._show(group) for group in whole or [other]]
        stream = seeds.stream(ask.seed, "fidelity", "runs")
        enough = len(halved) >= 2 * LEAST_SESSIONS
        self.halves = [
            (self._show([halved[i] for i in one]), self._show([halved[i] for i in two]))
            for one, two in (_halvings(len(halved), HALVINGS, stream) if enough else [])
        ]
        self.sessions = min(n, len(other))

    def _show(self, sessions: list[Session]) -> Shown:
        """What sessions show, on average over several orders of them."""
        runs = [self._run(sessions, self._ask.seed + order) for order in range(ORDERS)]
        figures = {name: float(np.mean([run[name] for run in runs])) for name, _, _ in FIGURES}
        return Shown(figures, reuse_curves(self._plan(sessions, self._ask.seed), self._ask.block_tokens).curve)

    def _run(self, sessions: list[Session], seed: int) -> dict[str, float]:
        summary = simulate(self._plan(sessions, seed), self._ask.profile)
        ttft, e2e = summary.latency["ttft_s"], summary.latency["e2e_s"]
        return {
            "hit rate": summary.hits.reported or 0.0,
            "TTFT p50": ttft.p50 or 0.0,
            "TTFT p95": ttft.p95 or 0.0,
            "E2E p95": e2e.p95 or 0.0,
        }

    def _plan(self, sessions: list[Session], seed: int) -> Plan:
        ask = self._ask
        recipe = Recipe(
            trace=TraceRef(()),
            load=Closed(ask.concurrency),
            waits=Waits(ask.wait_cap_s),
            context=Context(ask.profile.longest_call, "stop"),
            seed=seed,
        )
        return make(recipe, made("sessions", Header(), lambda: iter(sessions)))

    def lines(self) -> list[Line]:
        """What the engine shows, and the curve of hits against capacity."""
        out = [self._figure(*figure) for figure in FIGURES]
        apart = [curve_distance(self.ours.curve, shown.curve) for shown in self.theirs]
        band = self._band(lambda a, b: curve_distance(a.curve, b.curve))
        distance = float(np.mean(apart))
        out.append(
            Line(
                group="cache",
                name="hit rate against KV capacity",
                unit="share",
                real=self.ours.curve.reachable_hit_rate,
                other=float(np.mean([shown.curve.reachable_hit_rate for shown in self.theirs])),
                distance=distance,
                limit=max(band, HIT_RATE),
                verdict=_tolerated(distance, max(band, HIT_RATE), band, self.sessions),
            )
        )
        return out

    def _figure(self, name: str, unit: str, tolerance: float) -> Line:
        ours = self.ours.figures[name]
        theirs = float(np.mean([shown.figures[name] for shown in self.theirs]))

        def apart(a: float, b: float) -> float:
            return abs(a - b) if unit == "share" else abs(a - b) / a if a else 0.0

        band = self._band(lambda a, b: apart(a.figures[name], b.figures[name]))
        distance = apart(ours, theirs)
        verdict = _tolerated(distance, tolerance, band, self.sessions)
        return Line("engine", name, unit, ours, theirs, distance, tolerance, verdict)

    def _band(self, apart: Callable[[Shown, Shown], float]) -> float:
        """How far halves of the real sessions are from each other; without halves, nothing is known."""
        return float(np.quantile([apart(a, b) for a, b in self.halves], LEVEL)) if self.halves else float("inf")

    def curves(self) -> dict[str, Curve]:
        return {"real": self.ours.curve, "other": self.theirs[0].curve}


def curve_distance(one: Curve, other: Curve) -> float:
    """The largest difference of two LRU hit curves over the capacities that both tell."""
    capacities = np.union1d(one.capacity_tokens, other.capacity_tokens)
    low = max(min(one.capacity_tokens), min(other.capacity_tokens))
    capacities = capacities[capacities >= low]
    rates = [np.interp(np.log(capacities), np.log(c.capacity_tokens), c.lru_hit_rate) for c in (one, other)]
    return float(np.abs(rates[0] - rates[1]).max())
