"""How far two samples are from each other, and how far two halves of one are.

Calls of one session go together, so p-values come from exchanging whole sessions between the two, and bands from
splitting the sessions of one in half: neither takes calls for independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
QUANTILES, LARGEST = 600, 400
"""Distribution functions are compared at all values; of more than this, at so many quantiles and all the largest, since
a tail decides Wasserstein's distance."""


class Distance(NamedTuple):
    """Kolmogorov-Smirnov (the largest difference of the distribution functions) and Wasserstein-1 (in the unit)."""

    ks: float
    wasserstein: float


class Counts:
    """For every session how many of its values are at most each of some points: any union of sessions is a sum."""

    def __init__(self, sessions: Sequence[Floats], points: Floats) -> None:
        self.points = points
        self.below = np.array([np.searchsorted(np.sort(v), points, side="right") for v in sessions], dtype=np.float32)
        self.sizes = np.array([len(v) for v in sessions], dtype=np.float64)

    def cdf(self, chosen: NDArray[np.int64]) -> Floats | None:
        """The distribution function of some sessions' values; None where they have none."""
        total = self.sizes[chosen].sum()
        out: Floats | None = self.below[chosen].sum(axis=0, dtype=np.float64) / total if total else None
        return out


def points(sessions: Sequence[Floats]) -> Floats:
    """Where distribution functions are compared."""
    every = np.sort(np.concatenate(sessions)) if sessions else np.empty(0)
    values = np.unique(every)
    if len(values) <= QUANTILES + LARGEST:
        return values
    body = every[np.linspace(0, len(every) - 1, QUANTILES).astype(np.int64)]
    return np.unique(np.concatenate([body, values[-LARGEST:]]))


def between(one: Floats, other: Floats, at: Floats) -> Distance:
    """The distance of two distribution functions that are told at some points.

    Between neighbouring values the difference stands; between the quantiles of many it is taken to go straight.
    """
    apart = np.abs(one - other)
    if len(at) < 2:
        return Distance(float(apart.max(initial=0.0)), 0.0)
    middle = apart[:-1] if len(at) <= QUANTILES else (apart[:-1] + apart[1:]) / 2
    return Distance(float(apart.max()), float((middle * np.diff(at)).sum()))


class Compared(NamedTuple):
    """The distance of two samples, its chance if they were one, and how far halves of the first are from each other."""

    distance: Distance
    p: float
    band: Distance


def compare(
    real: Sequence[Floats],
    other: Sequence[Floats],
    stream: Generator,
    *,
    band: Sequence[Floats] | None = None,
    rounds: int = 200,
    level: float = 0.9,
) -> Compared | None:
    """Compare two samples kept by session; None where one of them has no values.

    p: the share of `rounds` random exchanges of sessions that are at least as far (by KS). band: the `level` quantile,
    over random splits of the first sample's sessions (or of those given as `band`) in half, of the halves' distance.
    """
    both = [*real, *other]
    at = points(both)
    counts = Counts(both, at)
    n = len(real)
    every = np.arange(len(both))
    cdfs = counts.cdf(every[:n]), counts.cdf(every[n:])
    if cdfs[0] is None or cdfs[1] is None:
        return None
    distance = between(cdfs[0], cdfs[1], at)
    farther = 0
    for _ in range(rounds):
        mixed = stream.permutation(len(both))
        one, two = counts.cdf(mixed[:n]), counts.cdf(mixed[n:])
        farther += one is None or two is None or between(one, two, at).ks >= distance.ks - 1e-12
    return Compared(distance, (farther + 1) / (rounds + 1), halves(band or real, stream, rounds=rounds, level=level))


def halves(sessions: Sequence[Floats], stream: Generator, *, rounds: int, level: float) -> Distance:
    """The `level` quantile of the distances between random halves of some sessions; infinite where there are none."""
    at = points(sessions)
    counts = Counts(sessions, at)
    found = []
    for mixed in halvings(len(sessions), rounds, stream):
        one, two = (counts.cdf(np.array(half)) for half in mixed)
        if one is not None and two is not None:
            found.append(between(one, two, at))
    if not found:
        return Distance(float("inf"), float("inf"))
    ks, wasserstein = (float(np.quantile([d[i] for d in found], level)) for i in range(2))
    return Distance(ks, wasserstein)


def halvings(n: int, rounds: int, stream: Generator) -> list[tuple[list[int], list[int]]]:
    """Random splits of 0 .. n-1 in half; none where halves would be empty."""
    if n < 2:
        return []
    mixed = [stream.permutation(n).tolist() for _ in range(rounds)]
    return [(order[: n // 2], order[n // 2 :]) for order in mixed]
