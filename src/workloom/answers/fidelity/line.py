"""One comparison, and the one rule by which all are judged."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Verdict = Literal["alike", "differs", "not enough data"]
LEAST_SESSIONS = 8
"""On either side, for a verdict."""
CHANCE = 0.05
"""A p-value below it is no chance."""


class Line(Struct, frozen=True):
    """One comparison. `real`, `other`: the figure on either side (medians of margins).

    distance    KS for margins; else the absolute difference, of latencies and dispersions over the real figure
    tolerance   up to this two workloads are alike for the purpose of a benchmark
    band        how far random halves of the real sessions are from each other: 90 of 100 are within it
    p           of margins: the chance of such a distance if whole sessions of both were exchanged at random
    moved       of margins: Wasserstein's distance over the mean of the real values; `moved_band`: of halves
    """

    group: str
    name: str
    unit: str
    real: float | None = None
    other: float | None = None
    distance: float | None = None
    tolerance: float | None = None
    band: float | None = None
    p: float | None = None
    moved: float | None = None
    moved_band: float | None = None
    verdict: Verdict = "not enough data"

    @property
    def in_band(self) -> bool:
        """Whether the two are no farther from each other than 90 of 100 halves of the real sessions."""
        pairs = ((self.distance, self.band), (self.moved, self.moved_band))
        return all(a is None or b is None or a <= b for a, b in pairs)


def judge(distance: float, tolerance: float, band: float | None, sessions: int, p: float | None = None) -> Verdict:
    """alike: within the tolerance. differs: beyond it, and chance is no excuse: halves of the real sessions are nearer,
    or p is small. not enough data: beyond it, but so may two halves of the real sessions be; or too few sessions."""
    if sessions < LEAST_SESSIONS:
        return "not enough data"
    if distance <= tolerance:
        return "alike"
    beyond = band is not None and distance > band
    return "differs" if beyond or (p is not None and p < CHANCE) else "not enough data"


def worse(one: Verdict, other: Verdict) -> Verdict:
    """Of two verdicts on one thing the graver."""
    order: tuple[Verdict, ...] = ("alike", "not enough data", "differs")
    return max(one, other, key=order.index)
