"""Whether a run had settled: shapes in slices, and runs of the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workloom import seeds
from workloom.answers.trial import in_memory
from workloom.drive.driver import Options
from workloom.engine.profile import load
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty.stationary import IN_FLIGHT, SLICES, settled, shape, stationarity
from workloom.plan import Closed, Limits, Load, Open, Recipe, TraceRef, Waits, make

ALPHA = 0.02
WORKLOAD = """
workload: 1
name: short
agents:
  main:
    calls: {family: uniform, low: 2, high: 8}
    first:
      fresh: {family: lognormal, median: 1500, sigma: 0.5}
      output: {family: lognormal, median: 40, sigma: 0.7}
    turns:
      tool:
        fresh: {family: lognormal, median: 800, sigma: 0.5}
        output: {family: lognormal, median: 40, sigma: 0.7}
        wait: {family: lognormal, median: 1, sigma: 0.5}
"""


def slices(seed: int, alike: float = 0.3) -> Floats:
    """Scores that scatter by 0.05 about 0, neighbours alike."""
    rng = seeds.stream(seed, "slices")
    out = np.zeros(SLICES)
    last = rng.normal()
    for k in range(SLICES):
        last = alike * last + (1 - alike**2) ** 0.5 * rng.normal()
        out[k] = last
    return 0.05 * out


def test_flat_slices_are_flagged_in_at_most_a_twentieth_of_200() -> None:
    even = np.ones(SLICES)
    flagged = sum(shape(slices(seed), even, ALPHA).p_value < ALPHA for seed in range(200))
    assert flagged <= 10


@pytest.mark.parametrize("over", [0.25, 1.0])
def test_a_ramp_of_a_fifth_is_found_in_nine_of_ten(over: float) -> None:
    """From 20 % below, over the first quarter and over all of the run; the scatter of slices is 5 %."""
    even = np.ones(SLICES)
    middle = (np.arange(SLICES) + 0.5) / SLICES
    ramp = np.log(1 - 0.2 * np.clip(1 - middle / over, 0, 1))
    found = [shape(slices(seed) + ramp, even, ALPHA) for seed in range(100)]
    assert sum(test.p_value < ALPHA for test in found) >= 90
    assert np.median([np.expm1(test.change) for test in found]) == pytest.approx(-0.2, abs=0.06)


def test_a_cut_leaves_what_is_flat_and_a_drift_has_none() -> None:
    even = np.ones(SLICES)
    ramp, drift = slices(1, 0.0).copy(), slices(1, 0.0) + np.linspace(0, 2, SLICES)
    ramp[:5] -= 1.0
    cut = settled(ramp, even, ALPHA)
    assert cut is not None and 5 <= cut <= 9
    assert settled(drift, even, ALPHA) is None


def played(tmp_path: Path, offered: Load, sessions: int) -> Measured:
    path = tmp_path / "short.yaml"
    path.write_text(WORKLOAD)
    recipe = Recipe(TraceRef((str(path),), generate=sessions), offered, Limits(sessions=sessions), Waits(None), seed=2)
    return in_memory(make(recipe), load("llama-3.1-8b-h100x1"), Options(timeout_s=None))


def test_a_server_that_begins_empty_is_a_ramp_in_flight(tmp_path: Path) -> None:
    """An open loop: the calls in flight rise while the first sessions go on, and are level after the cut."""
    run = played(tmp_path, Open(4.0), 350)
    told = stationarity(run, IN_FLIGHT)
    assert told.verdict == "ramp" and told.change is not None and told.change < -0.2
    assert 0 < told.cut_s <= run.window.seconds / 2
    after = told.window(run)
    assert after.end_ns == run.window.end_ns and after.start_ns == pytest.approx(told.cut_s * 1e9, abs=2)


def test_an_overload_never_settles(tmp_path: Path) -> None:
    assert stationarity(played(tmp_path, Open(8.0), 250), IN_FLIGHT).verdict == "drift"


def test_a_closed_loop_that_begins_all_at_once_is_a_ramp(tmp_path: Path) -> None:
    """All first turns come at the same instant: the TTFT of the beginning is that of a crowd."""
    told = stationarity(played(tmp_path, Closed(64), 350), "ttft")
    assert told.verdict == "ramp" and told.change is not None and told.change > 0.2
    assert told.metric == "ttft_s" and told.p_value is not None and told.p_value < ALPHA


def test_a_short_run_cannot_say(tmp_path: Path) -> None:
    told = stationarity(played(tmp_path, Closed(8), 30), "ttft")
    assert told.verdict == "not enough data" and "30 sessions" in told.why and told.cut_s == 0
