"""From the interval of a difference to a verdict, and what is left of it when many figures are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from workloom.metrics.catalog import Better
from workloom.metrics.uncertainty.difference import Difference

Verdict = Literal["better", "worse", "higher", "lower", "same", "identical", "cannot tell"]
"""Of b against a. higher and lower: of a figure that has no good side. same: within the margin that was given, whether
or not the rest is chance. identical: value by value."""

SAME = 0.02
"""Margin of `same`, as a share of a's figure."""


def judge(found: Difference, better: Better, same: float = SAME) -> tuple[Verdict, str]:
    """A verdict, and what kept it from being one.

    same: the whole interval of the ratio lies from 1/(1 + same) to 1 + same, or both figures are 0 without a doubt.
    Otherwise the interval of the difference must not hold 0. Where there is none a test may show which is larger, also
    where one is infinite (so many calls failed): then the verdict rests on that alone, and why there is no interval
    stands beside it.
    """
    ratio, ends = (found.ratio_low, found.ratio_high), (found.low, found.high)
    if ratio[0] is not None and ratio[1] is not None and 1 / (1 + same) <= ratio[0] and ratio[1] <= 1 + same:
        return "same", ""
    low, high = ends
    if low is None or high is None:
        if by_test(found):
            assert found.difference is not None
            return _direction(better, up=found.difference > 0), f"by the test alone{_within(found)}: {_without(found)}"
        luck = f"; no test shows more than {found.within:.0%}" if found.within else ""
        return "cannot tell", (found.why or "not enough data") + luck
    if low == high == 0:
        return "same", ""
    if low > 0:
        return _direction(better, up=True), ""
    if high < 0:
        return _direction(better, up=False), ""
    return "cannot tell", "the interval holds no difference as well as one of more than the margin"


def by_test(found: Difference) -> bool:
    """Whether there is no interval, and a test shows that one is larger all the same."""
    shown = found.p_value is not None and found.p_value <= 1 - found.level + 1e-9
    return shown and found.low is None and bool(found.difference)


def _within(found: Difference) -> str:
    return f" (they differ by more than {found.within:.0%})" if found.within else ""


def _without(found: Difference) -> str:
    return found.why.removeprefix("not enough data: ") or "no interval"


def _direction(better: Better, *, up: bool) -> Verdict:
    if better == "neither":
        return "higher" if up else "lower"
    return "better" if up == (better == "higher") else "worse"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for how many there are (Holm 1979): right however the figures hang together.

    A figure differs at the 5 % level among all of them where its adjusted value is at most 0.05. None stays None.
    """
    there = sorted((p, i) for i, p in enumerate(p_values) if p is not None and isfinite(p))
    out: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for rank, (p, i) in enumerate(there):
        worst = max(worst, min(1.0, p * (len(there) - rank)))
        out[i] = worst
    return out
