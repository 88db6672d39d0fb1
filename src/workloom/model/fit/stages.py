"""The first calls of a life, where they grow otherwise than the rest: an agent reads before it works."""

from __future__ import annotations

from collections.abc import Sequence

from workloom.model.fit.lives import Step
from workloom.model.fit.margins import Margins
from workloom.model.workload.spec import Opening

CUTS = (2, 3, 5, 8, 12, 20)
LEAST_STEPS = 20
MOST_STAGES = 2
SURE = 0.001
"""A stage is told apart if chance would make so plain a difference this rarely; calls go together, so it is low."""


def openings(place: str, steps: Sequence[Step], margins: Margins) -> tuple[Opening, ...]:
    """The stages of growing calls, each as long as makes its difference from all that follow plainest."""
    out: list[Opening] = []
    begin = 0
    while len(out) < MOST_STAGES:
        rest = [(step.number, max(0, step.growth_tokens)) for step in steps if step.number > begin]
        end = _plainest(rest, begin)
        if end is None:
            break
        sample = [tokens for number, tokens in rest if number <= end]
        out.append(Opening(end - begin, margins.fit(f"{place}[{len(out)}].fresh", sample)))
        begin = end
    return tuple(out)


def _plainest(rest: Sequence[tuple[int, int]], begin: int) -> int | None:
    """The call up to which steps differ most plainly from the rest, by the p-value of Kolmogorov and Smirnov."""
    from scipy import stats

    best: tuple[float, int] | None = None
    for cut in CUTS:
        early = [tokens for number, tokens in rest if number <= cut]
        late = [tokens for number, tokens in rest if number > cut]
        if cut > begin and min(len(early), len(late)) >= LEAST_STEPS:
            p = float(stats.ks_2samp(early, late, method="asymp").pvalue)
            if p < SURE and (best is None or p < best[0]):
                best = p, cut
    return None if best is None else best[1]
