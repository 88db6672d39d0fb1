"""Sessions of two kinds: those that begin with nothing, and those that go on from a large context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workloom.model.fit.lives import Life

LEAST = 10
"""Lives of either kind."""
APART = 0.75
"""The least share of the variance of log first prompts that lies between the two kinds."""
TIMES = 3.0
"""The least ratio of their geometric means."""


def resumed_from(lives: Sequence[Life]) -> float | None:
    """Tokens of a first prompt from which a life is one of the second kind; None where there is one kind only.

    Otsu's threshold (1979): the cut with the most variance between its two sides.
    """
    sizes = np.sort(np.log([1 + life.first_tokens for life in lives]))
    if len(sizes) < 2 * LEAST or sizes[0] == sizes[-1]:
        return None
    best, cut, ratio = 0.0, 0, 0.0
    for place in range(LEAST, len(sizes) - LEAST + 1):
        low, high = sizes[:place], sizes[place:]
        share = place / len(sizes)
        gap = float(high.mean() - low.mean())
        between = share * (1 - share) * gap**2 / float(sizes.var())
        if between > best:
            best, cut, ratio = between, place, float(np.exp(gap))
    if best < APART or ratio < TIMES:
        return None
    return float(np.exp((sizes[cut - 1] + sizes[cut]) / 2))
