"""What it cost: GPUs, tokens and energy under prices that somebody gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from metric_runs import S, call, edge, run_of, session

from workloom.metrics.catalog import Totals, catalog
from workloom.metrics.given import Given, gpus_of
from workloom.metrics.measured import Measured
from workloom.records import ServerSample
from workloom.store.manifest import Manifest

TWO_GPUS = Manifest(backend="simulated", config={"engine": {"gpus": 2}})


def hour(given: Given, samples: list[ServerSample] | None = None, manifest: Manifest | None = TWO_GPUS) -> Measured:
    """An hour with two sessions. 0: two tasks, of two calls and of one. 1: one call that failed."""
    calls = [
        call(0, 0, 0, 1, 2, 1000, prompt_tokens=10_000, cached_tokens=0),
        call(0, 1, 3, 4, 5, 1000, prompt_tokens=20_000, cached_tokens=8_000, after=[edge(0, 1, "tool")]),
        call(0, 2, 15, 16, 17, 2000, prompt_tokens=40_000, cached_tokens=32_000, after=[edge(1, 10, "human")]),
        call(1, 0, 0, None, None, 5, status="error", prompt_tokens=1000),
    ]
    ended = [session(0, 0, 17, calls=3), session(1, 0, 1, "failed")]
    return replace(run_of(calls, ended, (0, 3600), samples, manifest), given=given)


def figure(run: Measured, name: str) -> float:
    seen = catalog()[name].observe(run)
    assert isinstance(seen, Totals), name
    return float(np.sum(seen.part) / np.sum(seen.whole))


def test_gpus_cost_the_whole_hour_whoever_came() -> None:
    run = hour(Given(usd_per_gpu_hour=3.0))
    assert figure(run, "gpu_call_usd") == pytest.approx(6 / 3)
    assert figure(run, "gpu_task_usd") == pytest.approx(6 / 2)
    assert figure(run, "gpu_session_usd") == pytest.approx(6)
    assert figure(run, "gpu_mtok_usd") == pytest.approx(6 / 0.004)
    eight = hour(Given(gpus=8, usd_per_gpu_hour=3.0))
    assert figure(eight, "gpu_task_usd") == pytest.approx(24 / 2), "what was said goes before what the manifest says"


def test_every_session_bears_an_equal_part_so_that_drawing_sessions_anew_leaves_the_sum() -> None:
    seen = catalog()["gpu_task_usd"].observe(hour(Given(usd_per_gpu_hour=3.0)))
    assert isinstance(seen, Totals)
    parts = {i: float(seen.part[seen.session == i].sum()) for i in np.unique(seen.session).tolist()}
    assert parts == {0: pytest.approx(3.0), 1: pytest.approx(3.0)}


def test_tokens_cost_what_they_are() -> None:
    """Computed 10,000 + 12,000 + 8,000, cached 40,000, output 4,000."""
    run = hour(Given(usd_per_mtok_input=3.0, usd_per_mtok_cached=0.3, usd_per_mtok_output=15.0))
    usd = (30_000 * 3 + 40_000 * 0.3 + 4_000 * 15) / 1e6
    assert figure(run, "token_call_usd") == pytest.approx(usd / 3)
    assert figure(run, "token_task_usd") == pytest.approx(usd / 2)
    assert figure(run, "token_session_usd") == pytest.approx(usd)
    assert figure(run, "token_mtok_usd") == pytest.approx(usd / 4_000 * 1e6)
    dear = hour(Given(usd_per_mtok_input=3.0, usd_per_mtok_output=15.0))
    assert figure(dear, "token_session_usd") == pytest.approx((70_000 * 3 + 4_000 * 15) / 1e6), "cached as computed"


def test_energy_by_the_power_given_or_by_what_was_sampled() -> None:
    given = hour(Given(power_w=500.0))
    assert figure(given, "power_w") == pytest.approx(1000)
    assert figure(given, "task_energy_j") == pytest.approx(1000 * 3600 / 2)
    assert figure(given, "output_token_energy_j") == pytest.approx(1000 * 3600 / 4000)
    counted = [ServerSample(0, "gpu:energy_j", 5e6), ServerSample(3600 * S, "gpu:energy_j", 7e6)]
    sampled = hour(Given(), counted)
    assert figure(sampled, "session_energy_j") == pytest.approx(2e6)
    assert figure(sampled, "power_w") == pytest.approx(2e6 / 3600)


def test_without_a_price_a_power_or_a_number_of_gpus_there_is_no_figure() -> None:
    nothing = hour(Given())
    assert all(m.observe(nothing) is None for m in catalog().values() if m.unit in ("USD", "J", "W"))
    unknown = hour(Given(usd_per_gpu_hour=3.0), manifest=None)
    assert catalog()["gpu_task_usd"].observe(unknown) is None
    assert catalog()["output_tokens_per_s_per_gpu"].observe(unknown) is None


def test_a_fleet_whose_size_changes_has_no_number_of_gpus() -> None:
    pools = [{"replicas": 1, "autoscale": {"most": 4}}]
    manifest = Manifest(backend="simulated", config={"engine": {"gpus": 2}, "fleet": {"pools": pools}})
    assert gpus_of(manifest) is None
    pools[0].pop("autoscale")
    assert gpus_of(manifest) == 2


def test_assumptions_are_said() -> None:
    assert Given().say() == ""
    said = Given(4, 2.5, 3.0, None, 15.0, 700).say()
    assert said == "4 GPUs; 2.5 USD a GPU-hour; 3 computed, 3 cached, 15 output (USD a million tokens); 700 W a GPU"
