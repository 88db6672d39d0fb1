"""Where more load brings no more throughput.

A step from one level of load to the next *pays* when throughput rises by PAYS or more for a doubling (of a step that is
no doubling, its gain is scaled as if it went on so). The knee is the level behind the last step that pays.

    level        1     2     4     8    16    32
    tokens/s    90   170   310   520   560   565
    pays           yes   yes   yes    no    no            knee 8, between 4 (4 -> 8 paid) and 8
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

PAYS = 0.10
"""Gain in throughput for twice the load."""


class Rate(Struct, frozen=True):
    """Throughput at a level, and its interval; None where it has none."""

    load: float
    value: float
    low: float | None = None
    high: float | None = None


class Knee(Struct, frozen=True):
    """`at`: the level behind the last step that pays; None: the last step still paid, so it lies beyond.

    `low`: a level from which on some step surely paid (the knee is above it); `high`: the lowest level from which on
    surely none does; None where the noise leaves it open.
    """

    at: float | None
    low: float | None
    high: float | None
    why: str = ""


def knee(rates: Sequence[Rate]) -> Knee:
    """The knee of levels in rising order."""
    if len(rates) < 2:
        return Knee(None, None, None, "not enough data: it takes two levels of load")
    steps = [gain(one, two) for one, two in pairwise(rates)]
    paying = [i for i, (value, _, _) in enumerate(steps) if value >= PAYS]
    surely = [i for i, (_, low, _) in enumerate(steps) if low is not None and low >= PAYS]
    perhaps = [i for i, (_, _, high) in enumerate(steps) if high is None or high >= PAYS]
    last = paying[-1] + 1 if paying else 0
    low = rates[surely[-1]].load if surely else None
    top = perhaps[-1] + 1 if perhaps else 0
    high = rates[top].load if top < len(rates) - 1 else None
    if last == len(rates) - 1:
        return Knee(None, low, None, f"throughput still rose from {rates[-2].load:g} to {rates[-1].load:g}")
    return Knee(rates[last].load, low, high)


def gain(one: Rate, two: Rate) -> tuple[float, float | None, float | None]:
    """Relative gain of a step for each doubling of load: value, and its least and most by both intervals."""
    doublings = math.log2(two.load / one.load)

    def each(above: float, below: float) -> float:
        return (above / below) ** (1 / doublings) - 1 if below > 0 else math.inf

    if one.low is None or one.high is None or two.low is None or two.high is None:
        return each(two.value, one.value), None, None
    return each(two.value, one.value), each(max(two.low, 0.0), one.high), each(two.high, one.low)


def bound(rates: Sequence[Rate]) -> float | None:
    """The load below which no server like this can be saturated: the most throughput over that of one call at a time
    (the knee of the asymptotic bounds of a closed system; Denning and Buzen 1978). None without a level of 1."""
    alone = [rate.value for rate in rates if rate.load == 1 and rate.value > 0]
    return max(rate.value for rate in rates) / alone[0] if alone else None
