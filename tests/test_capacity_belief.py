"""How often a capacity's interval holds the true edge."""

from __future__ import annotations

import pytest
from scipy.stats import binom, norm
from test_capacity import RATE, found, noisy

from workloom import seeds
from workloom.answers.capacity import Search
from workloom.answers.capacity.belief import _phi


def covered(spread: float, searches: int) -> int:
    """Of searches with edges and runs of their own, how many intervals hold the edge."""
    held = 0
    for seed in range(searches):
        edge = float(seeds.stream(seed, "edge").uniform(2, 60))
        answer = found(Search(RATE, 16.0, batch=4, beside=0), noisy(edge, spread, seed))
        assert answer.low is not None and answer.high is not None
        held += answer.low <= edge <= answer.high
    return held


def test_a_95_percent_interval_holds_the_edge() -> None:
    assert covered(0.06, 12) >= binom.ppf(0.001, 12, 0.95)


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.003, 0.02, 0.06, 0.15])
def test_a_95_percent_interval_holds_the_edge_in_95_of_100_searches(spread: float) -> None:
    assert covered(spread, 200) >= binom.ppf(0.01, 200, 0.95)


def test_the_normal_distribution_is_close_enough() -> None:
    import numpy as np

    z = np.linspace(-6, 6, 1001)
    assert float(np.abs(_phi(z) - norm.cdf(z)).max()) < 2e-7
