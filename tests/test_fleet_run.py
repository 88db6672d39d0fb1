"""A run on a fleet is a run: the same records, the figures of every replica, what it is and what it cost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from workloom.drive.driver import Options, Progress
from workloom.engine import fleet as fleets
from workloom.engine.fleet import Autoscale, Fleet, Pool
from workloom.engine.profile import Template, Tier, load
from workloom.errors import UsageError
from workloom.execute import Simulated, execute
from workloom.metrics.frame import Window
from workloom.metrics.samples import samples_of
from workloom.metrics.server import server_side
from workloom.plan import Closed, Limits, Recipe, TraceRef, Waits, make
from workloom.session import Call, Edge, Header, Inherit, Part, Session
from workloom.store import Run
from workloom.traces import native

PROFILE = load("llama-3.1-8b-h200x1")
NS = 10**9


def run(folder: Path, target: Simulated, wait_s: float, sessions: int = 6) -> Run:
    """Sessions of two calls, the second so long after the first, three of them at once."""
    first = Call("a", 400, agent="main", fresh=(Part("user", 3000),))
    second = Call("b", 300, (Edge("a", wait_s, "tool"),), "critic", inherit=Inherit("a"), fresh=(Part("tool", 500),))
    trace = folder / "trace.jsonl"
    native.write(trace, Header(source="test"), [Session(f"s{i}", (first, second)) for i in range(sessions)])
    plan = make(Recipe(TraceRef((str(trace),)), Closed(3), Limits(), Waits(None)))
    return execute(
        plan,
        target,
        folder / "run",
        options=Options(),
        progress=Progress(),
        argv=[],
        summarize=lambda run: b"{}",
    )


def test_the_figures_of_every_replica_are_in_the_records_each_second(tmp_path: Path) -> None:
    done = run(tmp_path, Simulated.of(fleets.of(PROFILE, 2, "least_outstanding")), 0.5)
    assert len(done.manifest.config["fleet"]["pools"]) == 1 and done.manifest.config["engine"]["gpus"] == 2
    assert done.manifest.backend == "simulated"
    (note,) = done.manifest.notes
    assert note.startswith("fleet: pool 0 ") and note.endswith("2 replicas in all")
    calls = pq.read_table(tmp_path / "run" / "calls.parquet").to_pydict()
    assert set(calls["target"]) == {"0", "1"}
    samples = samples_of(pq.read_table(tmp_path / "run" / "server.parquet").to_batches())
    end_ns = max(calls["done_ns"])
    side = server_side(samples, Window(0, end_ns + 1))
    assert side is not None and [replica.replica for replica in side.replicas] == ["0", "1"]
    assert side.growth["generation_tokens"] == sum(calls["output_tokens"]) == 6 * 700
    assert side.growth["prefix_hits_tokens"] == sum(calls["cached_tokens"])
    running = side.gauges["running"]
    assert running.mean is not None and running.peak is not None and 1 < running.mean < running.peak <= 3
    kv = side.gauges["kv_usage"]
    assert kv.peak is not None and 0 < kv.peak < 1
    series = samples["vllm:num_requests_running", "0"]
    assert any(at % NS == 0 and 0 < at < end_ns for at in series.at_ns), "looked at on whole seconds"


def test_a_quiet_night_takes_no_rows(tmp_path: Path) -> None:
    run(tmp_path, Simulated(PROFILE), 36_000.0, sessions=3)
    rows = pq.read_table(tmp_path / "run" / "server.parquet").to_pydict()
    assert max(rows["at_ns"]) > 36_000 * NS and len(rows["at_ns"]) < 150
    side = server_side(
        samples_of(pq.read_table(tmp_path / "run" / "server.parquet").to_batches()), Window(0, 36_000 * NS)
    )
    assert side is not None and side.gauges["running"].mean is not None
    assert side.gauges["running"].mean < 0.01, "nobody ran in the night, and that is known"


def test_calls_go_to_the_model_that_their_role_is_served_by(tmp_path: Path) -> None:
    small, large = Pool(PROFILE, models=("small",)), Pool(replace(PROFILE, max_num_seqs=8), models=("large",))
    fleet = fleets.checked(Fleet((small, large), model="large", served={"critic": "small"}))
    run(tmp_path, Simulated.of(fleet), 0.5)
    calls = pq.read_table(tmp_path / "run" / "calls.parquet").to_pydict()
    assert {*zip(calls["agent"], calls["served_model"], calls["target"], strict=True)} == {
        ("main", "large", "1"),
        ("critic", "small", "0"),
    }
    assert set(calls["cached_tokens"]) == {0}, "another model has nothing of the history"


def test_prompts_and_chunks_are_those_of_the_pool_that_a_call_goes_to(tmp_path: Path) -> None:
    """A template and merged chunks of one model are not another's."""
    plain = Pool(PROFILE, models=("plain",))
    front = replace(PROFILE.front_end, merged_chunks=(0.0, 0.9))
    wordy = Pool(replace(PROFILE, template=Template(call_tokens=40), front_end=front), models=("wordy",))
    fleet = fleets.checked(Fleet((plain, wordy), model="plain", served={"critic": "wordy"}))
    run(tmp_path, Simulated.of(fleet), 0.5)
    calls = pq.read_table(tmp_path / "run" / "calls.parquet").to_pylist()
    assert {(row["served_model"], row["prompt_tokens"]) for row in calls} == {("plain", 3000), ("wordy", 3940)}
    sizes = {
        model: {chunk["tokens_each"] for row in calls if row["served_model"] == model for chunk in row["chunks"]}
        for model in ("plain", "wordy")
    }
    assert sizes["plain"] == {1} and 3 in sizes["wordy"]


def test_the_pools_of_a_model_have_one_template() -> None:
    other = replace(PROFILE, template=Template(call_tokens=40))
    fleets.checked(Fleet((Pool(PROFILE), Pool(replace(PROFILE, kv_tokens=100_000)))))
    with pytest.raises(UsageError, match="one chat template") as refused:
        fleets.checked(Fleet((Pool(PROFILE), Pool(other))))
    assert "pools[1]" in str(refused.value) and refused.value.hint is not None


def test_a_replica_that_is_gone_is_none_that_is_empty(tmp_path: Path) -> None:
    """In the mean use of KV it counts while it was there; in the calls that run it counts as none."""
    rules = Autoscale(most=2, up_outstanding=100, down_outstanding=1.5, every_s=0.5, start_s=1, cool_down_s=1)
    fleet = Fleet((Pool(PROFILE, 2, autoscale=rules),), "round_robin")
    run(tmp_path, Simulated.of(fleet), 20.0, sessions=3)
    samples = samples_of(pq.read_table(tmp_path / "run" / "server.parquet").to_batches())
    gone_ns = {replica: series.at_ns[0] for (name, replica), series in samples.items() if name == "gone"}
    assert gone_ns.keys() == {"1"}
    end_ns = max(pq.read_table(tmp_path / "run" / "calls.parquet").column("done_ns").to_pylist())
    assert gone_ns["1"] < end_ns / 2
    side = server_side(samples, Window(0, end_ns))
    assert side is not None
    kv = [replica.gauges["kv_usage"].mean for replica in side.replicas]
    running = [replica.gauges["running"].mean for replica in side.replicas]
    there = server_side(samples, Window(0, int(gone_ns["1"])))
    assert there is not None
    assert kv[1] == there.replicas[1].gauges["kv_usage"].mean
    assert running[1] == pytest.approx(there.replicas[1].gauges["running"].mean * gone_ns["1"] / end_ns)  # type: ignore[operator]
    after = server_side(samples, Window(int(gone_ns["1"]), end_ns))
    assert after is not None and after.gauges["kv_usage"] == after.replicas[0].gauges["kv_usage"]


def test_a_replica_that_came_later_ran_no_calls_before(tmp_path: Path) -> None:
    """Else its mean would count as if it had been there all the time, and the sum over replicas be too high."""
    rules = Autoscale(most=2, up_outstanding=1, down_outstanding=0.01, every_s=1, start_s=1, cool_down_s=1)
    run(tmp_path, Simulated.of(Fleet((Pool(PROFILE, autoscale=rules),), "least_outstanding")), 0.5)
    calls = pq.read_table(tmp_path / "run" / "calls.parquet").to_pydict()
    assert set(calls["target"]) == {"0", "1"}
    samples = samples_of(pq.read_table(tmp_path / "run" / "server.parquet").to_batches())
    later = samples["vllm:num_requests_running", "1"]
    assert list(later.at_ns[:1]) == [0] and list(later.values[:1]) == [0]
    assert samples["vllm:kv_cache_usage_perc", "1"].at_ns[0] >= NS
    end_ns = max(calls["done_ns"])
    side = server_side(samples, Window(0, end_ns))
    assert side is not None and side.gauges["running"].mean is not None
    in_flight = sum(done - sent for done, sent in zip(calls["done_ns"], calls["sent_ns"], strict=True)) / end_ns
    assert side.gauges["running"].mean == pytest.approx(in_flight, rel=0.15)


def test_what_host_memory_gave_is_in_the_records(tmp_path: Path) -> None:
    host = Tier("host", tokens=400_000, read_bytes_per_s=40e9, write_bytes_per_s=40e9, write="through")
    profile = replace(PROFILE, kv_tokens=11_000, max_model_len=7_000, kv_token_bytes=131_072, tiers=(host,))
    run(tmp_path, Simulated(profile), 5.0)
    calls = pq.read_table(tmp_path / "run" / "calls.parquet").to_pydict()
    end_ns = max(calls["done_ns"])
    samples = samples_of(pq.read_table(tmp_path / "run" / "server.parquet").to_batches())
    side = server_side(samples, Window(0, end_ns + 1))
    assert side is not None
    external = side.growth["external_hit_tokens"]
    preempted = side.growth["preemptions"]
    assert external > 0 and side.growth["offload_load_bytes"] == external * 131_072 and not preempted
    assert side.growth["local_hit_tokens"] + external == sum(calls["cached_tokens"])
    assert sum(side.prompt_sources.values()) == pytest.approx(1)
    assert side.offload_load_bytes_per_s == pytest.approx(40e9, rel=0.01)
