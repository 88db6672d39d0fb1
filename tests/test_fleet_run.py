"""A run on a fleet is a run: the same records, the figures of every replica, what it is and what it cost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from msgspec.structs import replace

from workloom.drive.driver import Options, Progress
from workloom.engine import fleet as fleets
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import load
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
