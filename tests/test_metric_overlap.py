"""Decodes at once: by hand, against brute force, and on rows that were measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_runs import S, call, run_of

from workloom.metrics.catalog import Sample, Totals, catalog
from workloom.metrics.measured import Measured
from workloom.records import ChunkRun

ROOT = Path(__file__).parents[1]
ROWS = ROOT.parent / "shared" / "data" / "h100-vllm"
measured_rows = pytest.mark.skipif(
    not ROWS.is_dir(), reason="the measured rows are not here (../shared/data/h100-vllm)"
)


def ratio(run: Measured, name: str) -> float:
    seen = catalog()[name].observe(run)
    assert isinstance(seen, Totals)
    return float(np.sum(seen.part) / np.sum(seen.whole))


def most(run: Measured) -> list[float]:
    seen = catalog()["decodes_at_once"].observe(run)
    assert isinstance(seen, Sample)
    return [float(value) for value in seen.values]


def test_two_decodes_that_overlap_for_a_second() -> None:
    """One from 0 to 2 s, one from 1 to 3 s: 1 at once for 2 s, 2 for 1 s: (1*1*2 + 2*2*1) / (1*2 + 2*1)."""
    run = run_of([call(0, 0, 0, 0, 2, 3), call(1, 0, 1, 1, 3, 3)])
    assert ratio(run, "decode_overlap_ratio") == pytest.approx(6 / 4)
    assert most(run) == [2, 2]
    assert ratio(run, "decode_overlap_10_share") == 0


def test_one_that_begins_as_another_ends_is_alone() -> None:
    assert most(run_of([call(0, 0, 0, 0, 1, 3), call(1, 0, 1, 1, 2, 3)])) == [1, 1]


def test_ten_for_one_of_three_busy_seconds() -> None:
    lone = call(0, 0, 0, 0, 2, 5)
    many = [call(i, 0, 3, 3, 4, 5) for i in range(1, 11)]
    run = run_of([lone, *many])
    assert ratio(run, "decode_overlap_10_share") == pytest.approx(1 / 3)
    assert most(run) == [1, *([10] * 10)]


def test_only_time_in_the_window_counts_whoever_decodes() -> None:
    run = run_of([call(0, 0, 0, 0, 4, 5), call(1, 0, 0, 0, 1, 5)], window=(1, 2))
    assert ratio(run, "decode_overlap_ratio") == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=25))
@settings(max_examples=30, deadline=None)
def test_as_a_count_at_every_instant(spans: list[tuple[int, int]]) -> None:
    run = run_of([call(i, 0, begin, begin, begin + length, 2) for i, (begin, length) in enumerate(spans)])
    level = [sum(begin <= t < begin + length for begin, length in spans) for t in range(41)]
    assert ratio(run, "decode_overlap_ratio") == pytest.approx(sum(n * n for n in level) / sum(level))
    busy = [n for n in level if n]
    assert ratio(run, "decode_overlap_10_share") == pytest.approx(sum(n >= 10 for n in busy) / len(busy))
    assert most(run) == [max(level[begin : begin + length]) for begin, length in spans]


@measured_rows
def test_at_most_six_calls_of_the_measured_chains_decode_at_once() -> None:
    """As published for case study 2. The mean over decode time is compared with a plain walk over all instants."""
    sys.path.insert(0, str(ROOT / "examples"))
    from h100 import rows
    from h100.figures import decodes

    table = rows.table(ROWS / "case2_linear.parquet")
    calls = []
    for i, (first, last) in enumerate(zip(table.first_s, table.last_s, strict=True)):
        chunks = [ChunkRun(round(first * S), float(round(last * S) - round(first * S)), 0.0, 2, 1)]
        calls.append(call(i, 0, float(first), float(first), float(last), 2, chunks=chunks))
    run = run_of(calls)
    assert max(most(run)) == 6
    assert decodes(table.first_s, table.last_s) == (6, pytest.approx(ratio(run, "decode_overlap_10_share")))
    steps = sorted([(c.first_ns or 0, 1) for c in calls] + [(c.last_ns or 0, -1) for c in calls])
    level = squares = time = previous = 0
    for at, change in steps:
        squares, time = squares + level**2 * (at - previous), time + level * (at - previous)
        level, previous = level + change, at
    assert ratio(run, "decode_overlap_ratio") == pytest.approx(squares / time)
