"""What groups of sessions show in an ideal cache of every size, and on a simulated engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.answers.fidelity.distance import halvings
from workloom.answers.fidelity.line import LEAST_SESSIONS, Line, judge
from workloom.answers.fidelity.margins import LEVEL
from workloom.answers.reuse import reuse_curves
from workloom.answers.simulated import simulate
from workloom.engine.profile import Profile
from workloom.model.curves import Curve
from workloom.plan import Closed, Context, Plan, Recipe, TraceRef, Waits, make
from workloom.session import Header, Session
from workloom.traces.reading import made

HIT_RATE = 0.03
CURVE = 0.1
LATENCY = 0.15
"""Tolerances: points of the hit rate, of the curve at its farthest; share of a latency."""
HALVINGS = 16
"""Of the real sessions, for bands."""
ORDERS = 2
"""Of the same sessions, that an engine is shown: who meets whom is chance."""
GROUPS = 8
"""Groups of as many sessions as the real trace has, that the other is run in, at most."""
MOST = 400
"""Sessions of either side that are run, at most: chosen by chance where there are more."""
FIGURES: tuple[tuple[str, str, float], ...] = (
    ("hit rate", "share", HIT_RATE),
    ("TTFT p50", "s", LATENCY),
    ("TTFT p95", "s", LATENCY),
    ("E2E p95", "s", LATENCY),
)


class Ask(Struct, frozen=True):
    """What two workloads are compared with: an engine, so many sessions at once, a seed for what is random."""

    profile: Profile
    concurrency: int = 4
    seed: int = 0
    block_tokens: int = 64
    rounds: int = 200
    wait_cap_s: float | None = 60.0


class Shown(Struct, frozen=True):
    """What one group of sessions shows. `left_out`: the share of its calls that the engine's context has no room for.

    (The curve is of all calls.)
    """

    figures: dict[str, float | None]
    curve: Curve
    left_out: float


class Runs:
    """Runs of both sides and of halves, under one load on one engine."""

    def __init__(self, ask: Ask, real: Sequence[Session], other: Sequence[Session], halved: Sequence[Session]) -> None:
        self._ask = ask
        real, other, halved = (_some(side, MOST, ask.seed) for side in (real, other, halved))
        n = len(real)
        groups = [other[i : i + n] for i in range(0, len(other), n)]
        whole = [group for group in groups if len(group) == n][:GROUPS]
        self.ours = self._show(real, ORDERS)
        self.theirs = [self._show(group, ORDERS) for group in whole or [other]]
        stream = seeds.stream(ask.seed, "fidelity", "runs")
        enough = len(halved) >= 2 * LEAST_SESSIONS
        self._halves = [
            [self._show([halved[i] for i in half], 1) for half in halves]
            for halves in (halvings(len(halved), HALVINGS, stream) if enough else [])
        ]
        self._sessions = min(n, len(other))

    def lines(self) -> list[Line]:
        """The curve of hits against capacity, and what the engine shows."""
        return [self._curve(), *(self._figure(*figure) for figure in FIGURES)]

    def _show(self, sessions: Sequence[Session], orders: int) -> Shown:
        runs = [self._run(sessions, self._ask.seed + order) for order in range(orders)]
        figures: dict[str, float | None] = {}
        for name, _, _ in FIGURES:
            values = [figures_of[name] for figures_of, _ in runs]
            there = [value for value in values if value is not None]
            figures[name] = float(np.mean(there)) if len(there) == len(values) else None
        everything = self._plan(sessions, self._ask.seed, None)
        curve = reuse_curves(everything, self._ask.block_tokens).curve
        return Shown(figures, curve, runs[0][1])

    def _run(self, sessions: Sequence[Session], seed: int) -> tuple[dict[str, float | None], float]:
        plan = self._plan(sessions, seed, self._ask.profile.longest_call)
        summary = simulate(plan, self._ask.profile)
        ttft, e2e = summary.latency["ttft_s"], summary.latency["e2e_s"]
        hit_rate = summary.hits.reported
        figures = {"hit rate": hit_rate, "TTFT p50": ttft.p50, "TTFT p95": ttft.p95, "E2E p95": e2e.p95}
        return figures, plan.source.calls_out / plan.source.calls_read

    def _plan(self, sessions: Sequence[Session], seed: int, longest: int | None) -> Plan:
        recipe = Recipe(
            trace=TraceRef(()),
            load=Closed(self._ask.concurrency),
            waits=Waits(self._ask.wait_cap_s),
            context=Context(longest, "stop"),
            seed=seed,
        )
        return make(recipe, made("sessions", Header(), lambda: iter(sessions)))

    def _figure(self, name: str, unit: str, tolerance: float) -> Line:
        theirs = [shown.figures[name] for shown in self.theirs]
        some = [value for value in theirs if value is not None]
        ours = self.ours.figures[name]
        if ours is None or len(some) < len(theirs) or (unit == "s" and not ours):
            return Line("engine", name, unit, ours, tolerance=tolerance)
        other = float(np.mean(some))

        def apart(a: float | None, b: float | None) -> float | None:
            if a is None or b is None or (unit == "s" and not a):
                return None
            return abs(a - b) if unit == "share" else abs(a - b) / a

        band = self._band(lambda a, b: apart(a.figures[name], b.figures[name]))
        distance = apart(ours, other) or 0.0
        verdict = judge(distance, tolerance, band, self._sessions)
        return Line("engine", name, unit, ours, other, distance, tolerance, band, verdict=verdict)

    def _curve(self) -> Line:
        apart = [curve_distance(self.ours.curve, shown.curve) for shown in self.theirs]
        name = "hit rate against KV capacity"
        ours = self.ours.curve.reachable_hit_rate
        other = float(np.mean([shown.curve.reachable_hit_rate for shown in self.theirs]))
        band = self._band(lambda a, b: curve_distance(a.curve, b.curve))
        distance = float(np.mean(apart))
        verdict = judge(distance, CURVE, band, self._sessions)
        return Line("cache", name, "share", ours, other, distance, CURVE, band, verdict=verdict)

    def _band(self, apart: Callable[[Shown, Shown], float | None]) -> float | None:
        """How far halves of the real sessions are from each other; None without halves, or without the figure."""
        found = [distance for one, two in self._halves if (distance := apart(one, two)) is not None]
        return float(np.quantile(found, LEVEL)) if found else None


def _some(sessions: Sequence[Session], most: int, seed: int) -> Sequence[Session]:
    if len(sessions) <= most:
        return sessions
    chosen = seeds.stream(seed, "fidelity", "some").permutation(len(sessions))[:most]
    return [sessions[i] for i in sorted(chosen.tolist())]


def curve_distance(one: Curve, other: Curve) -> float:
    """The largest difference of two LRU hit curves over the capacities that both tell; one without hits is 0."""
    if not one.capacity_tokens or not other.capacity_tokens:
        return max((*one.lru_hit_rate, *other.lru_hit_rate), default=0.0)
    capacities = np.union1d(one.capacity_tokens, other.capacity_tokens)
    low = max(min(one.capacity_tokens), min(other.capacity_tokens))
    capacities = capacities[capacities >= low]
    rates = [np.interp(np.log(capacities), np.log(c.capacity_tokens), c.lru_hit_rate) for c in (one, other)]
    return float(np.abs(rates[0] - rates[1]).max())
