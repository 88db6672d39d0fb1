"""Random numbers of a workload, equal to the last bit on every machine.

Everything is drawn as normal scores z and mapped through tables (:mod:`workloom.model.families.grid`); scores are the
standard library's normal quantiles of the stream's uniforms, rounded. From there only + - * / and square roots are
used, which every machine computes alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

from workloom import seeds

_NORMAL = NormalDist()
_AT_ONCE = 64
Matrix = list[list[float]]


class Draw:
    """A stream of uniforms and normal scores with an address: a session, and one agent of it."""

    __slots__ = ("_left", "_stream")

    def __init__(self, seed: int, *path: seeds.Address) -> None:
        self._stream = seeds.stream(seed, "synth", *path)
        self._left: list[float] = []

    def uniform(self) -> float:
        """From 0 up to, and without, 1."""
        if not self._left:
            self._left = self._stream.random(_AT_ONCE).tolist()
            self._left.reverse()
        return self._left.pop()

    def normal(self) -> float:
        """A standard normal score, rounded to 7 digits behind the point."""
        return round(_NORMAL.inv_cdf(self.uniform() or 5e-324), 7)

    def whole(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return int(self.uniform() * count)

    def some(self, count: int, among: int) -> list[int]:
        """`count` different ones of 0 .. among - 1, in order."""
        chosen: set[int] = set()
        for last in range(among - min(count, among), among):
            pick = self.whole(last + 1)
            chosen.add(last if pick in chosen else pick)
        return sorted(chosen)


def normal_correlation(rank: float) -> float:
    """Pearson's correlation of two normal variables with a rank correlation: 2 sin(pi rho / 6) (Pearson 1907)."""
    return round(2 * math.sin(math.pi * rank / 6), 7)


def rank_correlation(normal: float) -> float:
    """The inverse of :func:`normal_correlation`."""
    return round(6 / math.pi * math.asin(max(-1.0, min(1.0, normal / 2))), 7)


def matrix(names: Sequence[str], pairs: Mapping[str, float]) -> Matrix:
    """A correlation matrix of normal scores from rank correlations by pairs of names (`calls first`)."""
    out = [[1.0 if i == j else 0.0 for j in range(len(names))] for i in range(len(names))]
    for pair, rank in pairs.items():
        one, other = (names.index(name) for name in pair.split())
        out[one][other] = out[other][one] = normal_correlation(rank)
    return out


def cholesky(correlation: Matrix) -> Matrix:
    """A lower triangle L with L L' = the matrix.

    Measured pair by pair, correlations need not fit together: they are drawn towards none until they do.
    """
    found = _factor(_drawn(correlation, feasible(correlation)))
    assert found is not None
    return found


def feasible(correlation: Matrix) -> float:
    """What correlations that do not fit together have to be multiplied by to do so; 1 where they do."""
    shrink = 1.0
    while _factor(_drawn(correlation, shrink)) is None:
        shrink *= 0.9
    return shrink


def _drawn(correlation: Matrix, shrink: float) -> Matrix:
    return [[c if i == j else c * shrink for j, c in enumerate(row)] for i, row in enumerate(correlation)]


def _factor(matrix: Matrix) -> Matrix | None:
    size = len(matrix)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j]
            for k in range(j):
                rest -= lower[i][k] * lower[j][k]
            if i == j:
                if rest < 1e-9:
                    return None
                lower[i][i] = math.sqrt(rest)
            else:
                lower[i][j] = rest / lower[j][j]
    return lower


def correlated(lower: Matrix, draw: Draw) -> Iterator[float]:
    """Normal scores with the correlations of L L'."""
    scores: list[float] = []
    for row in lower:
        scores.append(draw.normal())
        total = 0.0
        for weight, score in zip(row, scores, strict=False):
            total += weight * score
        yield total
