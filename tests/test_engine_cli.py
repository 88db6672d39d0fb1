"""Runs as a user asks for them, with options that meet: what came of them is told right."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from msgspec.structs import replace
from run_audit import read

import workloom
from workloom.drive.driver import Options, Progress
from workloom.engine import fleet as fleets
from workloom.engine.fleet import Fleet
from workloom.engine.profile import FrontEnd, Tier, load
from workloom.execute import Simulated, execute
from workloom.plan import Closed, Limits, Recipe, TraceRef, Waits, make
from workloom.session import Call, Header, Part, Session
from workloom.store import Run
from workloom.traces import native

CANONICAL = Path(workloom.__file__).parent / "data/canonical.jsonl"
PROFILE = load("llama-3.1-8b-h100x1")


def run(folder: Path, trace: Path, fleet: Fleet, sessions: int, log: Path | None = None) -> Run:
    """A closed loop of a few sessions at once on a simulated fleet."""
    limit = min(pool.profile.longest_call for pool in fleet.pools)
    recipe = Recipe(TraceRef((str(trace),)), Closed(sessions), Limits(sessions=sessions), Waits(60.0))
    recipe = replace(recipe, context=replace(recipe.context, max_tokens=limit))
    return execute(
        make(recipe),
        replace(Simulated.of(fleet), event_log=log),
        folder / "run",
        options=Options(),
        progress=Progress(),
        argv=[],
        summarize=lambda done: b"{}",
    )


def test_a_call_in_the_front_end_keeps_the_samples_coming(tmp_path: Path) -> None:
    """On a second at which it neither waits nor runs there is work to come all the same."""
    trace = tmp_path / "trace.jsonl"
    native.write(trace, Header(source="test"), [Session("s", (Call("1", 900, fresh=(Part("user", 90),)),))])
    slow = replace(PROFILE, front_end=FrontEnd(call_ps=2_500_000_000_000))
    done = run(tmp_path, trace, fleets.of(slow), 1)
    assert done.manifest.status == "finished"
    rows = pq.read_table(tmp_path / "run/server.parquet").to_pylist()
    running = [(row["at_ns"] / 1e9, row["value"]) for row in rows if row["name"] == "vllm:num_requests_running"]
    assert running[:2] == [(0.0, 0.0), (3.0, 1.0)]
    assert running[-1][1] == 0.0 and running[-1][0] > 5, "until it had all its tokens"


def test_who_was_swapped_out_is_not_said_to_be_fetched_again(tmp_path: Path) -> None:
    """The audit of a run in which calls that read from the host first are swapped out later."""
    host = Tier("host", 50_000, 64e9, 64e9)
    small = replace(PROFILE, kv_tokens=120_000, preemption="swap", tiers=(host,))
    log = tmp_path / "events.jsonl"
    run(tmp_path, CANONICAL, fleets.of(small), 8, log)
    (book,) = read(log)
    fetched_first = [call for call in book.audit.calls.values() if call.fetched and call.preemptions]
    assert fetched_first, "such calls there were"
