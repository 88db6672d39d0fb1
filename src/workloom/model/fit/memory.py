"""What hangs together along sessions: shares of variance, what carries over, rank correlations.

All of it on normal scores (ranks within a kind of gap, mapped to normal quantiles): neither units nor tails matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from workloom.model.fit.lives import Life
from workloom.model.workload.draw import feasible, matrix, rank_correlation
from workloom.model.workload.round import significant
from workloom.model.workload.spec import MEASURES, PAIRS_OF_TRAITS, TRAITS, Measure, Memory, Pair, TraitPair

Floats = NDArray[np.float64]
LEAST_LIVES = 8
"""Of fewer, nothing can be said about what is a session's own."""
LEAST_STEPS = 6
"""Of a life, to say what carries over; if few lives are as long, nothing is said."""
NOTICED = 2.0
WEAK = 0.1
"""Correlations between traits below so many standard errors (1 / sqrt n), or below this, are left out."""
LEAST_CARRY, MOST = -0.5, 0.9


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
    if not len(scored.life):
        return Memory()
    carry = {name: value for name in MEASURES if abs(value := _carry(scored, name)) >= 0.05}
    if len(lives) < LEAST_LIVES:
        return Memory(carry=carry)
    session = {name: value for name in MEASURES if (value := _own(scored, name, carry.get(name, 0.0))) >= 0.02}
    return Memory(session=session, carry=carry, ranks=_traits(lives, scored, session))


def _traits(lives: Sequence[Life], scored: Scored, session: Mapping[Measure, float]) -> dict[TraitPair, float]:
    """Rank correlations between traits: of measures, those that sessions have a share in.

    A life's mean is its trait and chance. Covariances with a mean are those with the trait; between two means, the part
    between lives is (see :func:`_parts`).
    """
    calls, first = (np.array([getattr(life, name) for life in lives], np.float64) for name in ("calls", "first_tokens"))
    found: dict[TraitPair, float] = {"calls first": spearman(calls, first)}
    spread: dict[str, float] = {name: math.sqrt(_parts(scored, name, name)[0]) for name in session}
    own: dict[str, float] = {name: math.sqrt(share) for name, share in session.items()}
    for pair in PAIRS_OF_TRAITS[1:]:
        one, other = pair.split()
        if other not in spread or (one != "first" and one not in spread):
            continue
        if one == "first":
            means = _means(scored, other, len(lives))
            some = ~np.isnan(means)
            covariance = float(np.cov(scores(first[some]), means[some])[0, 1])
            found[pair] = rank_correlation(covariance / own[other]) if first.min() < first.max() else 0.0
        else:
            found[pair] = rank_correlation(_parts(scored, one, other)[0] / (spread[one] * spread[other]))
    least = max(WEAK, NOTICED / math.sqrt(len(lives)))
    clear = {pair: max(-MOST, min(MOST, rank)) for pair, rank in found.items() if abs(rank) >= least}
    shrink = feasible(matrix(TRAITS, {str(pair): rank for pair, rank in clear.items()}))
    return {pair: significant(rank * shrink, 2) for pair, rank in clear.items()}


def _means(scored: Scored, name: str, lives: int) -> Floats:
    """The mean score of each life; nan for one without such calls."""
    which = scored.life.astype(np.int64)
    counts = np.bincount(which, minlength=lives)
    with np.errstate(invalid="ignore"):
        out: Floats = np.bincount(which, weights=scored.measures[name], minlength=lives) / counts
    return out


def _own(scored: Scored, name: str, carry: float) -> float:
    """The share of variance that is the life's own: the intraclass correlation, less what calls have of their like.

    Two calls of a life that are k apart have c^k of what is left in common, which is as if it were the life's.
    """
    between, within = _parts(scored, name, name)
    if between <= 0:
        return 0.0
    counts = np.bincount(scored.life.astype(np.int64)).astype(np.float64)
    pairs = carry * (counts * (1 - carry) - (1 - carry**counts)) / (1 - carry) ** 2
    like = 2 * float(pairs.sum()) / float((counts * (counts - 1)).sum())
    own = (between / (between + within) - like) / (1 - like)
    return significant(min(0.95, max(0.0, own)), 2)


def _parts(scored: Scored, one: str, other: str) -> tuple[float, float]:
    """The covariance of two measures in two parts, between lives and within, by a one-way analysis of variance."""
    which = scored.life.astype(np.int64)
    counts = np.bincount(which)
    counts = counts[counts > 0]
    k, n = len(counts), len(which)
    if k < 2 or n <= k:
        return 0.0, 0.0
    a, b = scored.measures[one], scored.measures[other]
    mean_a, mean_b = (_means(scored, name, int(which.max()) + 1)[which] for name in (one, other))
    between = float(((mean_a - a.mean()) * (mean_b - b.mean())).sum()) / (k - 1)
    within = float(((a - mean_a) * (b - mean_b)).sum()) / (n - k)
    size = (n - float((counts**2).sum()) / n) / (k - 1)
    return (between - within) / size, within


def _carry(scored: Scored, name: str) -> float:
    """The correlation of a call's score with the next call's, both less their life's mean.

    A life's mean has some of its calls in it, which makes that too low: it is taken as what gives such a value.
    """
    which = scored.life.astype(np.int64)
    counts = np.bincount(which, minlength=1)
    if counts[counts >= LEAST_STEPS].sum() < len(which) / 2:
        return 0.0
    rest = scored.measures[name] - _means(scored, name, int(which.max()) + 1)[which]
    long = counts[which] >= LEAST_STEPS
    rest, which, number = rest[long], which[long], scored.number[long]
    follows = (which[1:] == which[:-1]) & (number[1:] == number[:-1] + 1)
    square = float((rest**2).mean())
    if not follows.any() or square == 0:
        return 0.0
    found = float((rest[1:] * rest[:-1])[follows].mean()) / square
    low, high = LEAST_CARRY, MOST
    lengths = counts[counts >= LEAST_STEPS].astype(np.float64)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _centred(middle, lengths) < found else (low, middle)
    return significant(low, 2)


def _centred(carry: float, lengths: Floats) -> float:
    """What neighbours of lives that are so long have in common, less their life's mean, where calls carry over so.

    For a first-order autoregression: of m calls the mean has variance V = (m + 2 sum (m - k) c^k) / m^2, and with the
    first or last of them the covariance E = (1 - c^m) / (m (1 - c)).
    """
    m, c = lengths, carry
    mean = (m + 2 * c * (m * (1 - c) - (1 - c**m)) / (1 - c) ** 2) / m**2
    end = (1 - c**m) / (m * (1 - c))
    together = (m - 1) * (c + mean) - 2 * m * mean + 2 * end
    return float(together.sum() / (m - 1).sum() / ((m * (1 - mean)).sum() / m.sum()))
