"""Distances between samples of sessions: by hand, against scipy, and whether the alarm rings when it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workloom import seeds
from workloom.answers.fidelity.distance import Counts, between, compare, halves, points

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def sessions(*values: list[float]) -> list[Floats]:
    return [np.array(v, dtype=np.float64) for v in values]


def cdfs(one: list[Floats], other: list[Floats]) -> tuple[Floats, Floats, Floats]:
    at = points([*one, *other])
    counts = Counts([*one, *other], at)
    a, b = counts.cdf(np.arange(len(one))), counts.cdf(np.arange(len(one), len(one) + len(other)))
    assert a is not None and b is not None
    return a, b, at


def test_two_samples_by_hand() -> None:
    a, b, at = cdfs(sessions([1, 2], [3]), sessions([2, 4]))
    found = between(a, b, at)
    assert found.ks == pytest.approx(0.5), "at 3 all of one and half of the other are below"
    assert found.wasserstein == pytest.approx(1 / 3 + abs(2 / 3 - 1 / 2) + 1 / 2)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=6),
)
def test_both_distances_are_scipys(one: list[list[float]], other: list[list[float]]) -> None:
    ours, theirs = sessions(*one), sessions(*other)
    found = between(*cdfs(ours, theirs))
    flat, flat_other = np.concatenate(ours), np.concatenate(theirs)
    assert found.ks == pytest.approx(stats.ks_2samp(flat, flat_other).statistic, abs=1e-6)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(flat, flat_other), abs=1e-4)


def drawn(seed: int, n: int, spread: float = 1.0, shift: float = 0.0) -> list[Floats]:
    """Sessions whose calls go together: each has a level of its own."""
    stream = seeds.stream(seed, "test")
    return [shift + spread * stream.normal() + stream.normal(size=20) for _ in range(n)]


def test_samples_of_one_kind_are_within_the_band_about_as_often_as_it_says() -> None:
    within = 0
    for seed in range(40):
        real, other = drawn(seed, 30), drawn(seed + 1000, 30)
        found = compare(real, other, seeds.stream(seed, "compare"), rounds=60)
        assert found is not None
        within += found.distance.ks <= found.band.ks
    assert within >= 36, "bands are of halves, which are farther from each other than wholes"


def test_the_alarm_rings_for_another_level_and_not_for_chance() -> None:
    real = drawn(1, 30)
    moved = compare(real, drawn(2, 30, shift=3.0), seeds.stream(1, "moved"))
    same = compare(real, drawn(3, 30), seeds.stream(1, "same"))
    assert moved is not None and same is not None
    assert moved.distance.ks > moved.band.ks and moved.p < 0.02
    assert same.distance.ks <= same.band.ks and same.p > 0.05


def test_calls_of_one_session_do_not_count_as_independent() -> None:
    """Ten thousand calls of six sessions: taken call by call everything would differ from everything."""
    real, other = (
        [np.repeat(level, 1000) for level in drawn_levels]
        for drawn_levels in ([1, 2, 3, 4, 5, 6], [1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    )
    found = compare(real, other, seeds.stream(1, "few"))
    assert found is not None
    assert stats.ks_2samp(np.concatenate(real), np.concatenate(other)).pvalue < 1e-9
    assert found.p > 0.5


def test_nothing_to_compare_is_said_so() -> None:
    empty = [np.empty(0)]
    assert compare(empty, drawn(1, 3), seeds.stream(1, "x")) is None
    assert halves(empty, seeds.stream(1, "x"), rounds=5, level=0.9).ks == float("inf")
    single = compare(drawn(1, 1), drawn(2, 1), seeds.stream(1, "x"))
    assert single is not None and single.band.ks == float("inf"), "one session has no halves"
