"""From the interval of a difference to a verdict, and what is left of it when many figures are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from workloom.answers.compare.primitive import Difference
from workloom.metrics.catalog import Better

Verdict = Literal["better", "worse", "higher", "lower", "same", "identical", "cannot tell"]
"""Of b against a. higher and lower: of a figure that has no good side. same: within the margin that was given, whether
or not the rest is chance. identical: value by value."""

SAME = 0.02
"""Margin of `same`, as a share of a's figure."""


def judge(found: Difference, better: Better, same: float = SAME) -> tuple[Verdict, str]:
    """A verdict, and what kept it from being one.

    same: the whole interval of the ratio lies from 1/(1 + same) to 1 + same. Otherwise the interval must not hold "no
    difference". Where the ratio has no interval (a share of 0), that of the difference is judged.
    """
    if found.ratio_low is not None and found.ratio_high is not None:
        low, high, none = found.ratio_low, found.ratio_high, 1.0
        if 1 / (1 + same) <= low and high <= 1 + same:
            return "same", ""
    elif found.low is not None and found.high is not None:
        low, high, none = found.low, found.high, 0.0
    else:
        return "cannot tell", found.why or "not enough data"
    if low > none:
        return _direction(better, up=True), ""
    if high < none:
        return _direction(better, up=False), ""
    return "cannot tell", "the interval holds no difference as well as one of more than the margin"


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
