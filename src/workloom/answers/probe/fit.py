"""A time as a sum of terms: least squares in relative error, with no term below nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from workloom.metrics.stats import Floats

LEVEL = 0.95
ALIKE = 0.995
"""Two terms whose estimates are correlated more than so are not told apart by these points."""


class Term(Struct, frozen=True):
    """One coefficient. `low`, `high`: its 95 % interval, None where there are no more points than terms.

    A term that came out below 0 is 0, and its `high` is what it may at most be."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def seen(self) -> bool:
        """Whether it differs from 0."""
        return self.value > 0 and (self.low is None or self.low > 0)


class Fit(Struct, frozen=True):
    """`off`: the largest relative distance of a point from the sum of terms; `points`: how many were fitted."""

    terms: list[Term]
    points: int
    off: float
    alike: list[tuple[str, str]]
    """Pairs of terms that the points do not tell apart: their intervals are wide together."""

    def __getitem__(self, name: str) -> Term:
        return next(term for term in self.terms if term.name == name)


def fit(names: Sequence[str], columns: Floats, times: Floats) -> Fit | None:
    """Coefficients of `columns` (points x terms) for positive `times`; None with fewer points than terms.

    Minimises the squares of (sum - time) / time: noise of times grows with them. Terms are taken out, the most negative
    first, until none is below 0. The intervals are Student's with the spread about the fit, so they hold the noise of
    the points as well as what no such sum can follow.
    """
    points, terms = columns.shape
    if points < terms:
        return None
    scaled = columns / times[:, None]
    kept = list(range(terms))
    while True:
        values, *_ = np.linalg.lstsq(scaled[:, kept], np.ones(points), rcond=None)
        worst = int(np.argmin(values))
        if values[worst] >= 0 or len(kept) == 1:
            break
        del kept[worst]
    full = np.zeros(terms)
    full[kept] = np.maximum(values, 0.0)
    rest = scaled @ full - 1
    half, alike = _uncertainty(scaled, kept, rest)
    said = []
    for at, name in enumerate(names):
        value, width = float(full[at]), half[at]
        low = None if width is None else max(0.0, value - width)
        said.append(Term(name, value, low, None if width is None else value + width))
    pairs = [(names[i], names[j]) for i, j in alike]
    return Fit(said, points, float(np.max(np.abs(rest))), pairs)


def _uncertainty(scaled: Floats, kept: list[int], rest: Floats) -> tuple[list[float | None], list[tuple[int, int]]]:
    """Half widths of the intervals of all terms, and pairs that are not told apart."""
    from scipy.special import stdtrit

    points, terms = scaled.shape
    free = points - len(kept)
    if free < 1:
        return [None] * terms, []
    size = np.linalg.norm(scaled, axis=0)
    unit = scaled / size
    inverse = np.linalg.pinv(unit.T @ unit)
    spread = np.sqrt(float(rest @ rest) / free)
    factor = float(stdtrit(free, (1 + LEVEL) / 2)) * spread
    half: list[float | None] = [float(factor * np.sqrt(max(inverse[i, i], 0.0)) / size[i]) for i in range(terms)]
    scale = np.sqrt(np.maximum(np.diag(inverse), 1e-300))
    correlation = inverse / np.outer(scale, scale)
    alike = [(i, j) for i in range(terms) for j in range(i + 1, terms) if abs(correlation[i, j]) > ALIKE]
    return half, alike
