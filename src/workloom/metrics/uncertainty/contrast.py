"""Two runs under a null: that b's figure is `ratio` times a's, and `shift` more.

a's values are moved so far. If the null is right both runs then have one figure, that of all values together, and it is
chance on which of them a session is above it and on which below. What a session adds is part - figure x whole (as in
ratio.py), of a quantile the share of its values beyond it; permute.py says how likely such a difference is by chance.
An interval is all the nulls that are not refused. It needs no density of values at a quantile, and as failures are
infinite whatever they are multiplied by, it does not mind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import Figure
from workloom.metrics.frame import Ints
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty import blocks as over
from workloom.metrics.uncertainty import permute
from workloom.metrics.uncertainty.quantile import of_sorted
from workloom.metrics.uncertainty.ratio import Begun, Ratio, of_totals, of_values, sums

FARTHEST = 100.0
"""How far an end of an interval is looked for: so many times the figure. What ends beyond it says nothing."""
STEPS = 14
"""Halvings to find it."""
BLOCKS = 5
"""Blocks that the shorter of two unpaired runs is put into. More would be shorter than what neighbours share."""


@dataclass(slots=True)
class Ordered:
    """The values of one run in order, `weights` of each up to it, and the place of each one's session."""

    values: Floats
    weights: Floats
    upto: Floats
    where: Ints
    whole: Floats
    session: Floats

    def moved(self, ratio: float, shift: float) -> Ordered:
        values = self.values * ratio + shift
        return Ordered(values, self.weights, self.upto, self.where, self.whole, self.session)

    def weight(self, value: float, *, equal: bool) -> float:
        """How much is below a value, or at most it."""
        at = int(np.searchsorted(self.values, value, side="right" if equal else "left"))
        return float(self.upto[at - 1]) if at else 0.0

    def beyond(self, value: float, share: float, level: float) -> Floats:
        """How much less of each session than `level` is below a value; of what is equal to it such a share counts."""
        low, high = np.searchsorted(self.values, value, side="left"), np.searchsorted(self.values, value, side="right")
        n = len(self.session)
        less = sums(self.where[:low], self.weights[:low], n)
        less += share * sums(self.where[low:high], self.weights[low:high], n)
        return level * self.whole - less

    def reaches(self, target: float, other: Ordered) -> float:
        """The first of these values at which both together hold so much; infinite where none does."""
        low, high = 0, len(self.values)
        while low < high:
            middle = (low + high) // 2
            value = float(self.values[middle])
            if self.weight(value, equal=True) + other.weight(value, equal=True) >= target:
                high = middle
            else:
                low = middle + 1
        return float(self.values[low]) if low < len(self.values) else np.inf


@dataclass(slots=True)
class Contrast:
    """Two runs that are compared in one figure. `level`: of a quantile."""

    a: Ratio | Ordered
    b: Ratio | Ordered
    paired: bool
    level: float = 0.5
    seed: int = 0

    def values(self) -> tuple[float, float]:
        """Both figures, of however few values."""
        one, other = (
            made.value if isinstance(made, Ratio) else of_sorted(made.values, made.weights, self.level)
            for made in (self.a, self.b)
        )
        return one, other

    @property
    def identical(self) -> bool:
        """Whether both are the very same, value by value."""
        a, b = self.a, self.b
        names = ("part", "whole") if isinstance(a, Ratio) else ("values", "weights", "where")
        return type(a) is type(b) and all(
            np.array_equal(getattr(a, name), getattr(b, name)) for name in (*names, "session")
        )

    @property
    def sessions(self) -> int:
        """Of pairs those in both, of strangers those of the side that has fewer."""
        if self.paired:
            return len(np.intersect1d(self.a.session, self.b.session, assume_unique=True))
        return min(len(self.a.session), len(self.b.session))

    def p_value(self, ratio: float = 1.0, shift: float = 0.0) -> tuple[float, int]:
        """How likely such a difference is under the null, on either side; and the side on which b is, 1 for above.

        Neighbours share a queue: where blocks of them scatter more than sessions one by one, so much less is believed.
        """
        a, b = self.apart(ratio, shift)
        side = int(np.sign(b.sum()))
        if self.paired:
            sessions = np.union1d(self.a.session, self.b.session)
            by = np.zeros(len(sessions))
            by[np.searchsorted(sessions, self.b.session)] += b
            by[np.searchsorted(sessions, self.a.session)] -= a
            return permute.of_signs(by, _inflation(by)), side
        long = max(self.sessions // BLOCKS, 1)
        one, other = (over.blocked(each, len(each) // long) for each in (a, b))
        return permute.of_blocks(one, other, self.seed), side

    def beyond(self, by: float, *, up: bool) -> float:
        """How likely such a difference is if b's figure is larger (`up`), or smaller, by a ratio of 1 + by at most."""
        p_value, side = self.p_value(1 + by if up else 1 / (1 + by))
        return p_value if side == (1 if up else -1) else 1.0

    def apart(self, ratio: float, shift: float) -> tuple[Floats, Floats]:
        """What each session of a and of b adds. All together sum to 0."""
        if isinstance(self.a, Ratio) and isinstance(self.b, Ratio):
            part, whole = ratio * self.a.part + shift * self.a.whole, self.a.whole
            both = (part.sum() + self.b.part.sum()) / (whole.sum() + self.b.whole.sum())
            return part - both * whole, self.b.part - both * self.b.whole
        assert isinstance(self.a, Ordered) and isinstance(self.b, Ordered)
        a, b = self.a.moved(ratio, shift), self.b
        target = self.level * float(a.upto[-1] + b.upto[-1])
        value = min(a.reaches(target, b), b.reaches(target, a))
        below, upto = (a.weight(value, equal=equal) + b.weight(value, equal=equal) for equal in (False, True))
        share = (target - below) / (upto - below) if upto > below else 0.0
        return a.beyond(value, share, self.level), b.beyond(value, share, self.level)

    def ratios(self, at: float, level: float) -> tuple[float, float] | None:
        """The interval of the ratio, about `at`; None where it has no end."""
        low = _end(lambda far: self.p_value(at / (1 + far))[0], FARTHEST, level)
        high = _end(lambda far: self.p_value(at * (1 + far))[0], FARTHEST, level)
        return None if low is None or high is None else (at / (1 + low), at * (1 + high))

    def shifts(self, at: float, size: float, level: float) -> tuple[float, float] | None:
        """The interval of the difference, about `at`, of figures of such a size; None where it has no end."""
        low = _end(lambda far: self.p_value(1.0, at - far * size)[0], FARTHEST, level)
        high = _end(lambda far: self.p_value(1.0, at + far * size)[0], FARTHEST, level)
        return None if low is None or high is None else (at - low * size, at + high * size)


def _inflation(by: Floats) -> float:
    """How many times the variance of a sum is what it would be if neighbours had nothing in common; 1 or more."""
    scatter = by - by.mean()
    alone = over.error_of(scatter)
    blocks = over.blocked(scatter, over.count(len(by)))
    return max((over.error_of(blocks) / alone) ** 2, 1.0) if 0 < alone < np.inf else 1.0


def _end(p_value: Callable[[float], float], farthest: float, level: float) -> float | None:
    """How far from the middle nulls are refused."""
    near, far = 0.0, 0.01
    while p_value(far) > 1 - level:
        near, far = far, 2 * far
        if far > farthest:
            return None
    for _ in range(STEPS):
        middle = (near + far) / 2
        near, far = (middle, far) if p_value(middle) > 1 - level else (near, middle)
    return far if near else 0.0


def contrast(
    figure: Figure,
    a: Sample | Totals | None,
    b: Sample | Totals | None,
    begun: tuple[Begun | None, Begun | None],
    *,
    paired: bool,
    seed: int = 0,
) -> Contrast | None:
    """Two runs in one figure, by what was observed; None where there is nothing that could be exchanged.

    A mean among failures is infinite: then their failures are what is compared.
    """
    if isinstance(a, Totals) and isinstance(b, Totals):
        made = [of_totals(a, begun[0]), of_totals(b, begun[1])]
        if made[0] is None or made[1] is None:
            return None
        return Contrast(made[0], made[1], paired, seed=seed)
    if not isinstance(a, Sample) or not isinstance(b, Sample) or figure.statistic == "max":
        return None
    a, b = _there(a), _there(b)
    if not len(a.values) or not len(b.values):
        return None
    if figure.quantile is not None:
        return Contrast(_ordered(a), _ordered(b), paired, figure.quantile, seed)
    failed = [np.isinf(each.values) for each in (a, b)]
    if any(each.any() for each in failed):
        a, b = (Sample(f.astype(np.float64), s.session, s.weights) for f, s in zip(failed, (a, b), strict=True))
    one, other = (of_values(each.values, each.session, each.weights) for each in (a, b))
    return Contrast(one, other, paired, seed=seed)


def _there(sample: Sample) -> Sample:
    there = ~np.isnan(sample.values)
    weights = None if sample.weights is None else sample.weights[there]
    return Sample(sample.values[there], sample.session[there], weights)


def _ordered(sample: Sample) -> Ordered:
    order = np.argsort(sample.values, kind="stable")
    weights = np.ones(len(order)) if sample.weights is None else sample.weights[order]
    session, where = np.unique(sample.session[order], return_inverse=True)
    whole = sums(where, weights, len(session))
    return Ordered(sample.values[order], weights, np.cumsum(weights), where, whole, session)
