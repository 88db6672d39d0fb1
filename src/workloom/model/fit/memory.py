"""What hangs together along sessions: shares of variance, what carries over, rank correlations.

All of it on normal scores (ranks within a kind of gap, mapped to normal quantiles): neither units nor tails matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workloom.model.fit.lives import Life
from workloom.model.workload.round import significant
from workloom.model.workload.spec import MEASURES, PAIRS_OF_TRAITS, TRAITS, Memory, Pair

Floats = NDArray[np.float64]
LEAST_LIVES = 8
"""Of fewer, nothing can be said about what is a session's own."""
LEAST_STEPS = 6
"""Of a life, to say what carries over; if few lives are as long, nothing is said."""
NOTICED = 1.0
"""In standard errors (1 / sqrt n): weaker correlations between traits are left out."""


def scores(values: Floats) -> Floats:
    """Normal scores of a sample: its ranks (ties share theirs) as normal quantiles."""
    from scipy import special, stats

    out: Floats = special.ndtri((stats.rankdata(values) - 0.5) / len(values))
    return out


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    from scipy import stats

    if len(a) < 3 or a.min() == a.max() or b.min() == b.max():
        return 0.0
    return float(stats.spearmanr(a, b).statistic)


def ranks(columns: Sequence[Floats]) -> dict[Pair, float]:
    """Rank correlations between fresh, output and wait of calls."""
    fresh, output, wait = columns
    pairs: dict[Pair, float] = {
        "fresh output": spearman(fresh, output),
        "fresh wait": spearman(fresh, wait),
        "output wait": spearman(output, wait),
    }
    return {pair: significant(value, 2) for pair, value in pairs.items() if abs(value) >= 0.01}


class Scored:
    """The calls of a role's lives: normal scores of each measure, and which life and place each is of."""

    def __init__(self, life: Floats, number: Floats, measures: dict[str, Floats]) -> None:
        self.life, self.number, self.measures = life, number, measures


def memory(lives: Sequence[Life], scored: Scored) -> Memory:
    """The memory of a role."""
    if len(lives) < LEAST_LIVES:
        return Memory(carry={name: value for name in MEASURES if abs(value := _carry(scored, name)) >= 0.05})
    session = {name: value for name in MEASURES if (value := _own(scored, name)) >= 0.02}
    carry = {name: value for name in MEASURES if abs(value := _carry(scored, name)) >= 0.05}
    traits = [
        np.array([life.calls for life in lives], dtype=np.float64),
        np.array([life.first_tokens for life in lives], dtype=np.float64),
        *(_means(scored, name, len(lives)) for name in MEASURES),
    ]
    pairs: dict[str, float] = {}
    for pair in PAIRS_OF_TRAITS:
        one, other = (traits[TRAITS.index(name)] for name in pair.split())
        both = ~np.isnan(one) & ~np.isnan(other)
        found = spearman(one[both], other[both])
        if abs(found) * np.sqrt(both.sum()) >= NOTICED:
            pairs[pair] = significant(found, 2)
    return Memory(session=session, carry=carry, ranks=pairs)


def _means(scored: Scored, name: str, lives: int) -> Floats:
    """The mean score of each life; nan for one without such calls."""
    which = scored.life.astype(np.int64)
    counts = np.bincount(which, minlength=lives)
    with np.errstate(invalid="ignore"):
        out: Floats = np.bincount(which, weights=scored.measures[name], minlength=lives) / counts
    return out


def _own(scored: Scored, name: str) -> float:
    """The share of variance between lives: the intraclass correlation of a one-way analysis of variance."""
    which = scored.life.astype(np.int64)
    values = scored.measures[name]
    counts = np.bincount(which)
    counts = counts[counts > 0]
    k, n = len(counts), len(values)
    if k < 2 or n <= k:
        return 0.0
    means = _means(scored, name, int(which.max()) + 1)[which]
    between = float(((means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means) ** 2).sum()) / (n - k)
    size = (n - float((counts**2).sum()) / n) / (k - 1)
    total = between + (size - 1) * within
    return significant(min(0.95, max(0.0, (between - within) / total)), 2) if total > 0 else 0.0


def _carry(scored: Scored, name: str) -> float:
    """The correlation of a call's score with the next call's, both less their life's mean.

    Centring on a mean of m calls makes it too low by (1 + 3c) / m (Kendall 1954), which is put back.
    """
    which = scored.life.astype(np.int64)
    counts = np.bincount(which, minlength=1)
    if (counts >= LEAST_STEPS).sum() * LEAST_STEPS < len(which) / 2:
        return 0.0
    rest = scored.measures[name] - _means(scored, name, int(which.max()) + 1)[which]
    long = counts[which] >= LEAST_STEPS
    rest, which, number = rest[long], which[long], scored.number[long]
    follows = (which[1:] == which[:-1]) & (number[1:] == number[:-1] + 1)
    if not follows.any():
        return 0.0
    square = float((rest**2).mean())
    if square == 0:
        return 0.0
    found = float((rest[1:] * rest[:-1])[follows].mean()) / square
    counts = np.bincount(which)
    length = float((counts.astype(np.float64) ** 2).sum() / counts.sum())
    corrected = (found + 1 / length) / (1 - 3 / length) if length > 6 else found
    return significant(min(0.9, max(-0.5, corrected)), 2)
