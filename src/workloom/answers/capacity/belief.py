"""Where the edge lies, by what runs about it have said: a belief that every run sharpens.

A run at a load holds or it does not. How likely it is to hold falls with the load, as a step that noise has rounded:

    P(holds at x) = lapse + (1 - 2 lapse) * Phi((ln edge - ln x) / spread)

The edge is the load at which half of the runs hold. `spread` is how far the edges of single runs lie apart; it is not
known either, and the belief is about both together. `lapse`: runs that say the wrong thing far from the edge, so that
one of them cannot mislead the search for good. Where the next run tells most is the load after which the edge is
expected to be known best. This is the adaptive estimation of a psychometric function (Kontsevich & Tyler, Vision
Research 39, 1999, "Bayesian adaptive estimation of psychometric slope and threshold"), on a grid, without drawing
anything at random: the same runs lead to the same belief.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from workloom.metrics.stats import Floats

LAPSE = 0.02
SPREADS: Floats = np.geomspace(0.004, 0.5, 18)
"""Relative spreads of single runs' edges that are thought possible."""
PRIOR = 0.5
"""Larger spreads are thought likelier than small ones by this power of theirs: a search stops when its interval is
tight, that is too early where the first runs happened to agree. With it, 95 % intervals hold the edge in 95 % of
searches or more (tests/test_capacity_belief.py)."""
MOST_POINTS = 3000
"""Of continuous loads, so many edges at most are thought possible; five within the precision that is asked for."""
MOST_WHOLE = 2000
"""Above so many whole loads, the edges are spaced as continuous ones are."""


class Axis(Struct, frozen=True):
    """What a capacity is looked for along. `whole`: only integers; `easing`: more of it makes it easier (replicas)."""

    name: str
    unit: str
    whole: bool = False
    easing: bool = False


class Span(Struct, frozen=True):
    """An edge as it is known: the middle of the belief, and the interval that holds it."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Relative to the value."""
        return (self.high - self.low) / 2 / self.value


class Belief:
    """The belief about an edge that lies somewhere from `low` to `high`."""

    def __init__(self, axis: Axis, low: float, high: float, precision: float = 0.05) -> None:
        self.axis = axis
        if axis.whole and high - low <= MOST_WHOLE:  # between two integers, one edge is as good as another
            self.edges: Floats = np.arange(math.ceil(low), math.floor(high) + 1, dtype=np.float64)
            self.edges += -0.5 if axis.easing else 0.5
        else:
            points = min(MOST_POINTS, max(100, math.ceil(5 * math.log(high / low) / precision)))
            self.edges = np.asarray(np.geomspace(low, high, points), dtype=np.float64)
        self._log = np.tile(PRIOR * np.log(SPREADS), (len(self.edges), 1))
        self._weights: Floats | None = None

    def learn(self, load: float, held: bool) -> None:
        """One run more."""
        chance = self._chance(np.array([load]))[..., 0]
        self._log += np.log(chance if held else 1 - chance)
        self._weights = None

    @property
    def weights(self) -> Floats:
        """How likely each edge (row) with each spread (column) is."""
        if self._weights is None:
            raised = np.exp(self._log - self._log.max())
            self._weights = raised / raised.sum()
        return self._weights

    @property
    def of_edges(self) -> Floats:
        """How likely each edge is."""
        weights: Floats = self.weights.sum(axis=1)
        return weights

    @property
    def spread(self) -> float:
        """How far the edges of single runs lie apart, as a share of the edge."""
        return float(np.exp((self.weights.sum(axis=0) * np.log(SPREADS)).sum()))

    def holds(self, load: float) -> float:
        """How likely a run at a load holds."""
        return float((self.weights * self._chance(np.array([load]))[..., 0]).sum())

    def span(self, level: float = 0.95) -> Span:
        """The edge's interval. Of whole loads: the largest that holds (or, where more makes it easier, the least)."""
        low, middle, high = (self.quantile(q) for q in ((1 - level) / 2, 0.5, (1 + level) / 2))
        if self.axis.whole:
            turn = math.ceil if self.axis.easing else math.floor
            return Span(float(turn(middle)), float(turn(low)), float(turn(high)))
        return Span(middle, low, high)

    def quantile(self, q: float) -> float:
        """The edge below which a share q of the belief lies."""
        upto = np.cumsum(self.of_edges)
        if self.axis.whole:
            return float(self.edges[min(int(np.searchsorted(upto, q)), len(self.edges) - 1)])
        return float(np.exp(np.interp(q, upto - self.of_edges / 2, np.log(self.edges))))

    def next(self, count: int = 1, grid: int = 24) -> list[float]:
        """Where the next runs tell most. Several at once are told apart by what each of them is expected to say."""
        low, high = self.quantile(0.01), self.quantile(0.99)
        candidates = self._candidates(low, high, grid)
        chance = self._chance(candidates)
        logs = np.log(self.edges)
        chosen: list[float] = []
        worlds = [self.weights]  # one belief for every way in which the runs chosen so far may come out
        for _ in range(count):
            expected = sum((_expected_variance(world, chance, logs) for world in worlds), np.zeros(len(candidates)))
            best = int(np.argmin(expected))
            chosen.append(float(candidates[best]))
            p = chance[..., best]
            worlds = [split for world in worlds for split in (world * p, world * (1 - p))]
        return chosen

    def _candidates(self, low: float, high: float, grid: int) -> Floats:
        if not self.axis.whole:
            return np.geomspace(low * 0.97, high * 1.03, grid)
        first, last = max(1, math.floor(low)), math.ceil(high)
        return np.unique(np.round(np.linspace(first, last, min(grid, last - first + 1))))

    def _chance(self, loads: Floats) -> Floats:
        """P(holds) for every edge, spread and load."""
        away = np.log(self.edges)[:, None, None] - np.log(loads)[None, None, :]
        if self.axis.easing:
            away = -away
        steps = _phi(away / SPREADS[None, :, None])
        chance: Floats = LAPSE + (1 - 2 * LAPSE) * steps
        return chance


def _expected_variance(world: Floats, chance: Floats, logs: Floats) -> Floats:
    """Of the logarithm of the edge, after one run at each candidate: weighted by how likely the world is."""
    total = np.zeros(chance.shape[-1])
    for outcome in (chance, 1 - chance):
        joint = np.einsum("es,esc->ec", world, outcome)
        mass = joint.sum(axis=0)
        mean = (joint * logs[:, None]).sum(axis=0) / mass
        total += (joint * logs[:, None] ** 2).sum(axis=0) - mass * mean**2
    return total


def _phi(z: Floats) -> Floats:
    """The normal distribution function, to 1.5e-7 (Abramowitz & Stegun 7.1.26): scipy is slow to load."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * np.exp(-(x**2)) / 2
    return np.where(z < 0, tail, 1 - tail)


def learned(axis: Axis, low: float, high: float, runs: Iterable[tuple[float, bool]], precision: float = 0.05) -> Belief:
    """The belief after some runs."""
    belief = Belief(axis, low, high, precision)
    for load, held in runs:
        belief.learn(load, held)
    return belief
