"""Whether two runs differ in a figure, told by exchanging what belongs to one for what belongs to the other.

If b is no other system than a, it is chance on which of the two a session did what it did. Paired: each session may
have both exchanged, which turns the sign of its difference; of 20 sessions there are a million ways, so the test is
sharp where an interval would be wild. Unpaired: blocks of neighbours are dealt out to the two sides anew.
"""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, pi, sqrt

import numpy as np

from workloom import seeds
from workloom.metrics.stats import Floats

EXACT = 14
"""Signs up to which all ways to set them are gone through."""
DEALS = 9999
"""How often blocks are dealt out anew: no p value is smaller than one in so many."""


def of_signs(apart: Floats, inflation: float = 1.0) -> float:
    """How often signs set by chance make the sum of `apart` as large as it is, or larger, on either side.

    `inflation`: how many times the variance of the sum is what independent signs would make it.

    Exact for a few; of more the tail is a saddlepoint approximation (Robinson, Saddlepoint approximations for
    permutation tests and confidence intervals, JRSS B 44, 1982), good to a few per cent of p and drawn from nothing.
    """
    size = np.abs(apart[apart != 0])
    size = size / size.max(initial=1e-300)
    n, sum_, most = len(size), abs(float(apart.sum())), float(np.abs(apart).sum())
    if not n:
        return 1.0
    reached = sum_ / most * float(size.sum()) / sqrt(inflation)
    if n <= EXACT:
        sums = size[:1]
        for each in size[1:]:
            sums = np.concatenate([sums + each, sums - each])
        return float(np.mean(np.abs(sums) >= reached * (1 - 1e-9)))
    least = 2.0 ** (1 - n)
    if reached >= size.sum() * (1 - 1e-9):
        return least
    return float(min(max(_tail(size, reached), least), 1.0))


def _tail(size: Floats, reached: float) -> float:
    """The chance of a sum of +-size beyond `reached`, on both sides."""
    from scipy.optimize import brentq

    def short(s: float) -> float:
        return float(size @ np.tanh(s * size)) - reached

    high = 1.0
    while short(high) < 0:
        high *= 2
    s = float(brentq(short, 0.0, high, xtol=1e-14))
    x = s * size
    k = float(np.sum(x + np.log1p(np.exp(-2 * x)) - np.log(2.0)))  # log cosh, without overflow
    w = sqrt(max(2 * (s * reached - k), 0.0))
    if w < 1e-3:
        return 1.0
    u = s * sqrt(float(np.square(size) @ (1 - np.tanh(x) ** 2)))
    return erfc(w / sqrt(2)) + 2 * exp(-w * w / 2) / sqrt(2 * pi) * (1 / u - 1 / w)


def of_blocks(a: Floats, b: Floats, seed: int) -> float:
    """How often blocks dealt out to two sides by chance differ as much as `a` and `b` do, or more, on either side.

    What is compared is the difference of means over its standard error, so that sides that scatter unlike do no harm
    (Chung and Romano, Exact and asymptotically robust permutation tests, Annals of Statistics 41, 2013).
    """
    every = np.concatenate([a, b])
    found = abs(float(_student(every[None, :], len(a))[0]))
    drawn = np.abs(_student(every[_deals(len(a), len(b), seed)], len(a)))
    return float((1 + np.count_nonzero(drawn >= found * (1 - 1e-9))) / (DEALS + 1))


@lru_cache(maxsize=8)
def _deals(a: int, b: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    rng = seeds.stream(seed, "deal", a, b)
    return np.argsort(rng.random((DEALS, a + b)), axis=1)


def _student(rows: Floats, first: int) -> Floats:
    """Of each row: the mean of what comes after the `first`, less that of these, over the standard error."""
    one, other = rows[:, :first], rows[:, first:]
    by = other.mean(axis=1) - one.mean(axis=1)
    error = np.sqrt(one.var(axis=1, ddof=1) / one.shape[1] + other.var(axis=1, ddof=1) / other.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        student: Floats = np.where(error > 0, by / error, np.where(by == 0, 0.0, np.copysign(np.inf, by)))
    return student
