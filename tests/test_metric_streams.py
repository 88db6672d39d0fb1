"""Gaps of any number of streams in bounded memory: binned by session, off by the stated resolution at most."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_runs import call, run_of

from workloom.metrics import streams
from workloom.metrics.bins import RESOLUTION, binned, middles, weighted_stats
from workloom.metrics.catalog import Sample
from workloom.metrics.measured import Measured
from workloom.metrics.streams import _Gaps, _grouped

gaps = st.one_of(st.just(0.0), st.floats(1e-6, 1e4))


@given(st.lists(gaps, min_size=1, max_size=300))
@settings(max_examples=40, deadline=None)
def test_a_value_read_back_from_its_bin_is_off_by_the_resolution_at_most(values: list[float]) -> None:
    there = np.array(values)
    assert middles(binned(there)) == pytest.approx(there, rel=RESOLUTION * 1.001, abs=1e-9)
    told = weighted_stats(middles(binned(there)), np.ones(len(there)), float(np.mean(there)))
    ranked = sorted(values)
    assert told.n == len(values) and told.resolution == RESOLUTION
    for name, level in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        value = ranked[math.floor((len(values) - 1) * level)]
        assert getattr(told, name) == pytest.approx(value, rel=RESOLUTION * 1.001)


@given(st.lists(st.lists(gaps, max_size=12), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_gaps_are_the_same_however_many_are_held(calls: list[list[float]], exact: int, most: int) -> None:
    """Two calls a session. Whether they are held or counted: how many, their sum by session, and their percentiles."""
    instance = np.array([i // 2 for i in range(len(calls))], dtype=np.float64)
    plain, small = _Gaps(instance), _Gaps(instance, exact, most)
    for row, values in enumerate(calls):
        for both in (plain, small):
            both.add(np.array(values), np.full(len(values), row))
            both.settle(every=10)
    held, counted = plain.sample(), small.sample()
    assert _by_session(counted) == pytest.approx(_by_session(held), rel=RESOLUTION * 1.001)
    assert _weights(counted).sum() == len(held.values)
    if not len(held.values):
        return
    told, expected = small.stats(), plain.stats()
    assert (told.n, told.mean) == (expected.n, pytest.approx(expected.mean))


def _weights(sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.ones(len(sample.values)) if sample.weights is None else sample.weights


def _by_session(sample: Sample) -> dict[float, float]:
    sums: dict[float, float] = {}
    for session, value, n in zip(sample.session, sample.values, _weights(sample), strict=True):
        sums[session] = sums.get(session, 0.0) + value * n
    return {session: total for session, total in sorted(sums.items()) if total}


def test_of_very_many_sessions_neighbours_are_counted_together() -> None:
    instance = np.repeat(np.arange(5_000.0), 2)
    groups, first = _grouped(instance)
    assert len(first) == 1667 <= streams.MOST_GROUPS
    assert groups[:8].tolist() == [0, 0, 0, 0, 0, 0, 1, 1] and first[:3].tolist() == [0, 3, 6]
    few, own = _grouped(np.array([4.0, 4.0, 9.0]))
    assert few.tolist() == [0, 0, 1] and own.tolist() == [4, 9]


def test_a_long_run_is_summed_up_in_bins_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Measured:
        return run_of([call(i, 0, 0, 1, 2 + i, 50) for i in range(6)])

    exact = streams.streams(run())
    monkeypatch.setattr(streams._Gaps.__init__, "__defaults__", (100, 20))
    counted = streams.streams(run())
    assert exact.gaps.weights is None and counted.gaps.weights is not None
    assert counted.gaps.resolution == counted.gaps_stats.resolution == RESOLUTION
    assert counted.gaps_stats.p95 == pytest.approx(exact.gaps_stats.p95, rel=0.001)
    assert len(counted.gaps.values) == 6, "the gaps of a session are all alike"
