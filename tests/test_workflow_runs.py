"""The workflow metrics of real runs on simulated engines: parts add up in each, and the ideal is an engine's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_world import profile as toy
from msgspec.structs import replace

from workloom.answers.trial import in_memory, kept
from workloom.drive.driver import Options
from workloom.engine import profile as profiles
from workloom.engine.profile import FrontEnd, Profile, Template
from workloom.execute import Simulated
from workloom.metrics.catalog import Sample
from workloom.metrics.frame import CANCELLED, CENSORED, TIMEOUT
from workloom.metrics.measured import Measured
from workloom.metrics.workflow import METRICS, slowdown, tasks
from workloom.metrics.workflow.explain import explain
from workloom.metrics.workflow.ideal import ideal_s
from workloom.metrics.workflow.path import check_adds_up, session_blame
from workloom.metrics.workflow.slack import slack_ns, slack_s
from workloom.metrics.workflow.speedup import what_if
from workloom.metrics.workflow.view import workflow
from workloom.metrics.workflow.wasted import wasted
from workloom.plan import Closed, Limits, Load, Open, Plan, Recipe, TraceRef, Waits, make
from workloom.plan.start import Start

CANONICAL = Path(__file__).parents[1] / "src" / "workloom" / "data" / "canonical.jsonl"
WEKA = Path(__file__).parents[2] / "shared" / "data" / "weka"
H100 = profiles.load("llama-3.1-8b-h100x1")


def plan(load: Load, limits: Limits, path: Path = CANONICAL, **more: object) -> Plan:
    return make(Recipe(TraceRef((str(path),)), load, limits, **more))  # type: ignore[arg-type]


def check(run: Measured) -> int:
    """The parts add up, and the passes over the DAG find the run's own instants again."""
    view = workflow(run)
    done = view.dag.latest(view.marks.due, view.wait_ns, view.marks.took)
    inside = view.in_ended
    assert (done[inside] == view.marks.done[inside]).all()
    slack = slack_ns(view)[inside]
    assert (slack >= 0).all()
    assert (slack_ns(view)[session_blame(run).legs.row] == 0).all()
    assert not what_if(run, factor=1.0).saved_s.any()
    for metric in METRICS:
        metric.observe(run)
    return check_adds_up(run)


def test_a_closed_loop() -> None:
    run = in_memory(plan(Closed(6), Limits(sessions=16)), H100)
    assert check(run) == 16 + len(tasks(run))
    told = explain(run).sessions
    assert (told.ended, told.failed, told.censored) == (16, 0, 0)
    assert told.parts[0].part == "tool"


def test_an_open_loop_cut_off_by_its_duration() -> None:
    run = in_memory(plan(Open(0.1), Limits(duration_s=600)), H100, Options(timeout_s=None, drain_s=5))
    assert (run.calls.status == CENSORED).any()
    assert check(run) > 0
    told = explain(run)
    assert told.sessions.censored > 0
    assert told.tasks.censored > 0
    every = tasks(run)
    assert (every.ok | every.failed | every.censored | every.partial | every.never_begun).all()


def test_calls_that_time_out_take_their_branches_with_them() -> None:
    run = in_memory(plan(Closed(6), Limits(sessions=16)), H100, Options(timeout_s=8))
    assert (run.calls.status == TIMEOUT).any()
    assert (run.calls.status == CANCELLED).any()
    assert check(run) > 0
    assert wasted(run)[run.calls.status == TIMEOUT].all()
    assert not wasted(run)[run.calls.status == CANCELLED].any()
    assert np.isnan(slack_s(run))[~workflow(run).in_ended].all()
    every = tasks(run)
    assert set(every.instance[every.failed]) == set(run.sessions.instance[run.sessions.failed])
    assert every.never_begun.any()


def test_a_session_that_goes_on_after_a_failure_has_no_blame_either() -> None:
    run = in_memory(plan(Closed(6), Limits(sessions=16)), H100, Options(timeout_s=8, after_error="advance"))
    assert not (run.calls.status == CANCELLED).any()
    assert check(run) > 0
    assert wasted(run)[run.calls.status == TIMEOUT].all()
    assert not tasks(run).never_begun.any()
    assert set(session_blame(run).instance.tolist()) == set(run.sessions.instance[run.sessions.ok].tolist())


def test_caps_on_idle_time_move_calls_up() -> None:
    waits = Waits(None, tree_idle_s=2.0)
    run = in_memory(plan(Closed(4), Limits(sessions=12), waits=waits), H100)
    says = run.calls.done_ns[run.edges.parent] + run.edges.wait_ns
    assert (says > run.calls.due_ns[run.edges.child]).any(), "some edges say later than the call was due"
    assert check(run) > 12


def test_sessions_begun_in_their_middle() -> None:
    run = in_memory(plan(Closed(6), Limits(duration_s=900), start=Start(0.2, 0.8)), H100)
    assert run.calls.warmup.any()
    assert not run.sessions.whole.all()
    assert check(run) > 0
    assert tasks(run).partial.any()


@pytest.mark.skipif(not WEKA.is_dir(), reason="the WEKA files of ../shared/data are not here")
def test_weka_sessions_with_calls_beyond_the_context() -> None:
    run = in_memory(plan(Closed(4), Limits(sessions=12), WEKA), profiles.load("qwen3-30b-a3b-h100x2"))
    assert run.sessions.failed.any()
    assert run.sessions.ok.any()
    assert check(run) > 0


def lone(profile: Profile) -> tuple[Measured, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Canonical sessions one at a time with all the room there is, and their slowdown."""
    profile = replace(profile, kv_tokens=None)
    run = in_memory(plan(Closed(1), Limits(sessions=14)), profile)
    ideal = ideal_s(run, profile)
    assert ideal is not None
    return run, (run.sessions.end_ns - run.sessions.due_ns) / 1e9 / ideal


@pytest.mark.parametrize("name", ["llama-3.1-8b-h100x1", "qwen3-30b-a3b-h100x2", "qwen3.5-35b-a3b-h100"])
def test_a_lone_session_has_no_slowdown(name: str) -> None:
    """Dense and with experts, stepping and scheduling ahead, with and without state pages and a template."""
    _, ratio = lone(profiles.load(name))
    assert (ratio > 0.999).all()
    assert (ratio < 1.01).all()


@pytest.mark.parametrize("launch_ps", [14_009, 700_001])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_ideal_of_a_lone_call_is_the_engines_to_the_nanosecond(ahead: bool, launch_ps: int) -> None:
    """Without a cache to hit on, several chunks of prefill and a front end: nothing is left to differ but rounding.
    With the longer launch it is that which most chunks wait for."""
    front = FrontEnd(call_ps=70_001, prompt_token_ps=303, first_token_ps=5_007, end_ps=11_003)
    many = {"max_batched_tokens": 512, "max_model_len": 1 << 20, "block_tokens": 1 << 20}
    server = toy(front_end=front, async_scheduling=ahead, **many)  # type: ignore[arg-type]
    server = replace(server, step=replace(server.step, launch_ps=launch_ps, launch_tail_ps=50_003, pair_ps=1))
    run = in_memory(plan(Closed(1), Limits(sessions=10)), server)
    view = workflow(run)
    alone = np.bincount(run.edges.parent, minlength=len(run.calls)) <= 1
    chains = [k for k in run.sessions.instance.tolist() if alone[run.calls.instance == k].all()]
    assert len(chains) >= 5
    ideal = ideal_s(run, server)
    assert ideal is not None
    for k in chains:
        at = int(np.flatnonzero(run.sessions.instance == k)[0])
        took_ns = run.sessions.end_ns[at] - run.sessions.due_ns[at]
        calls = int((view.place == at).sum())
        assert abs(took_ns - ideal[at] * 1e9) <= calls, "each call rounds up to a nanosecond"


def test_a_template_and_state_pages_are_in_the_ideal() -> None:
    template = Template(call_tokens=20, turn_tokens=5.5, tail_tokens=4)
    run, ratio = lone(replace(H100, template=template))
    assert (run.calls.prompt_tokens > run.calls.ideal_prompt_tokens).all()
    assert (ratio > 0.999).all()
    assert (ratio < 1.01).all()


def test_a_busy_server_slows_sessions_down_and_a_run_on_disk_knows_its_own(tmp_path: Path) -> None:
    """The profile is in the manifest; a run in memory has none, so nobody can say."""
    asked = plan(Closed(8), Limits(sessions=10))
    assert slowdown(in_memory(asked, H100)) is None
    run = kept(asked, Simulated(H100), tmp_path / "run", Options(), ["test"])
    found = slowdown(run)
    assert isinstance(found, Sample)
    assert (found.values > 1.005).any()
    assert (found.values > 0.999).all()
    assert check(run) > 10
