"""Medians of repeats, with intervals from their order alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct

LEVEL = 0.95
"""Confidence asked for. Six repeats are the fewest that carry it."""


class Middle(Struct, frozen=True):
    """The median of `n` values, and two of them between which the true median lies with confidence `level`.

    `level` is what the order of so few values carries: below LEVEL where `n` is under 6, and then `low` and `high` are
    the least and the largest. Without values all are None.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.0
    n: int = 0


def middle(values: Iterable[float], level: float = LEVEL) -> Middle:
    """The median; its interval is from the k-th least to the k-th largest value, for the largest k that still carries
    `level`. The true median lies outside of those with probability 2 P(Binomial(n, 1/2) < k), whatever the
    distribution. nan is no value; a failure may be infinite."""
    there = sorted(value for value in values if not math.isnan(value))
    n = len(there)
    if not n:
        return Middle()
    k, outside = 1, 2 / (1 << n)
    ways = tail = 1  # comb(n, k - 1), and the sum of all up to it
    while k + 1 <= (n + 1) // 2:
        ways = ways * (n - k + 1) // k
        tail += ways
        wider = 2 * tail / (1 << n)
        if 1 - wider < level:
            break
        k, outside = k + 1, wider
    half = n // 2
    value = there[half] if n % 2 else (there[half - 1] + there[half]) / 2
    return Middle(value, there[k - 1], there[n - k], 1 - outside, n)
