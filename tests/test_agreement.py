"""The simulated and the live run agree: the short version of benchmarks/agreement.py.

What follows from the design is exact here. What the machine has a part in is held to bounds that a busy machine keeps
and a wrong design (another time scale, a late or early writer, other cache hits) does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import Tier, load
from workloom.plan import Closed

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import twins

PROFILE = load("llama-3.1-8b-h200x1")
LATE_MS = 10.0
"""Median lateness of a token: a decode step takes 5 ms."""


def check_replay(record: Path) -> None:
    """(i) The recorded arrivals give the same schedule, and tokens left when they were made, never before."""
    seen = twins.replayed(record)
    assert not seen.differing
    assert seen.late_ms.min() >= 0
    assert np.median(seen.late_ms) < LATE_MS


def test_one_session_at_a_time_is_the_same_call_by_call(tmp_path: Path) -> None:
    size = twins.Size(sessions=3, calls=(4, 5), fresh=(200, 2000), output=(20, 40), wait_s=(0.02, 0.1))
    plan = twins.plan_of(tmp_path, size, Closed(1), seed=3)
    simulated, engine = twins.virtual(plan, PROFILE)
    record = tmp_path / "served.jsonl"
    real = twins.live(plan, PROFILE, record)
    check_replay(record)
    assert len(simulated.calls) > 12 and {call for _, call in simulated.calls} >= {"a", "b"}
    assert twins.counts(real) == twins.counts(simulated)
    assert twins.cached(real) == twins.cached(simulated)
    assert simulated.hit_rate > 0.3
    found = twins.pairs(simulated, engine, real)
    ttft, e2e = (np.median([pair.ttft_ms for pair in found]), np.median([pair.e2e_ms for pair in found]))
    assert np.median([abs(pair.ttft_by_ms) for pair in found]) < max(0.3 * ttft, 12.0)
    assert np.median([abs(pair.e2e_by_ms) for pair in found]) < 0.15 * e2e


def test_with_eviction_and_preemption_the_served_schedule_is_the_replayed_one(tmp_path: Path) -> None:
    tight = replace(PROFILE, kv_tokens=6_000, max_model_len=5_000)
    size = twins.Size(sessions=10, calls=(2, 4), fresh=(200, 700), output=(20, 60), wait_s=(0.0, 0.1))
    plan = twins.plan_of(tmp_path, size, Closed(8), seed=1)
    simulated, engine = twins.virtual(plan, tight)
    assert engine.preemptions > 0 and engine.evicted > 0
    record = tmp_path / "served.jsonl"
    real = twins.live(plan, tight, record)
    check_replay(record)
    assert twins.counts(real) == twins.counts(simulated)


def test_two_replicas_with_a_host_tier_serve_as_they_are_replayed(tmp_path: Path) -> None:
    tier = Tier("host", 100_000, 40e9, 40e9, 20_000_000)
    tight = replace(PROFILE, kv_tokens=3_000, max_model_len=3_000, kv_token_bytes=131_072, tiers=(tier,))
    fleet = Fleet((Pool(tight, 2),), "session")
    size = twins.Size(sessions=6, calls=(3, 4), fresh=(200, 700), output=(15, 30), wait_s=(0.02, 0.1))
    plan = twins.plan_of(tmp_path, size, Closed(4), seed=2)
    simulated, engines = twins.virtual(plan, fleet)
    assert {call.target for call in simulated.calls.values()} == {"0", "1"}
    assert engines.evicted > 0 and engines.fetched_tokens > 0
    record = tmp_path / "served.jsonl"
    real = twins.live(plan, fleet, record)
    check_replay(record)
    assert twins.counts(real) == twins.counts(simulated)
    assert abs(real.hit_rate - simulated.hit_rate) < 0.15


@pytest.mark.parametrize("row", [0, 1])
def test_the_replay_alarm_rings(tmp_path: Path, row: int) -> None:
    """A canary: one arrival moved by a few steps is another schedule."""
    from workloom.serve import record as records

    size = twins.Size(sessions=2, calls=(1, 1), fresh=(200, 300), output=(20, 30), wait_s=(0.0, 0.0))
    plan = twins.plan_of(tmp_path, size, Closed(2), seed=1)
    record = tmp_path / "served.jsonl"
    twins.live(plan, PROFILE, record)
    head, rows = records.read(record)
    rows[row] = replace(rows[row], arrival_ns=rows[row].arrival_ns + 20_000_000)
    again = {finished.call: records.end(finished) for finished in records.replay(head, rows)}
    assert again[rows[row].name] != rows[row].end
