"""Hit or miss: by the server's count, or where it gives none by TTFT against the two known levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

LEAST_SPREAD = 0.02
"""Of TTFT, as a share: no less is believed of a handful of calls."""
ODDS = 20.0
"""So many times as likely as the other must a level be."""
APART = 4.0
"""Spreads between the levels below which single calls cannot be told."""


class Levels(Struct, frozen=True):
    """TTFT of cached and cold calls of one length, as natural logarithms, and their common spread."""

    cached: float
    cold: float
    spread: float

    @property
    def apart(self) -> bool:
        """Whether one call can tell."""
        return self.cold - self.cached >= APART * self.spread


def levels(cached_s: Sequence[float], cold_s: Sequence[float]) -> Levels | None:
    """From calls whose state is known; None without both. The spread is the larger of the two median deviations,
    scaled as for a normal distribution."""
    one, two = ([math.log(each) for each in some if 0 < each < math.inf] for some in (cached_s, cold_s))
    if not one or not two:
        return None
    middles = [_median(one), _median(two)]
    wide = [1.4826 * _median([abs(each - mid) for each in some]) for some, mid in zip((one, two), middles, strict=True)]
    return Levels(middles[0], middles[1], max(LEAST_SPREAD, *wide))


def by_time(ttft_s: float, known: Levels | None) -> bool | None:
    """True a hit, False a miss, None cannot tell: the likelihoods of the levels (normal in the logarithm) are within
    ODDS of each other, or the levels are too close for single calls."""
    if known is None or not known.apart or not 0 < ttft_s < math.inf:
        return None
    x = math.log(ttft_s)
    hit, miss = ((x - level) / known.spread for level in (known.cached, known.cold))
    odds = (miss**2 - hit**2) / 2  # log of the likelihood ratio
    if x <= known.cached:
        return True
    if x >= known.cold:
        return False
    if abs(odds) < math.log(ODDS) or min(abs(hit), abs(miss)) > APART:
        return None
    return odds > 0


def _median(values: Sequence[float]) -> float:
    there = sorted(values)
    half = len(there) // 2
    return there[half] if len(there) % 2 else (there[half - 1] + there[half]) / 2
