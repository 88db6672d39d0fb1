"""A run as the metrics see it: the DAG in its rows is that of the trace, on disk and in memory, live or simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.answers.simulated import play
from workloom.engine import profile as profiles
from workloom.errors import UsageError
from workloom.metrics.figure import Figure, figure
from workloom.metrics.measured import GAPS, Measured, measured, measured_records
from workloom.plan import Closed, Plan, Recipe, TraceRef, make
from workloom.records import CallRecord, Dependency
from workloom.store import RunWriter, open_run
from workloom.store.manifest import Manifest

CANONICAL = Path(__file__).parent.parent / "src/workloom/data/canonical.jsonl"


def record(ordinal: int, *after: Dependency, instance: int = 0, **fields: object) -> CallRecord:
    names = {"session": f"s{instance}", "call": f"c{ordinal}", "agent": "main", "model": "m", "status": "ok"}
    return CallRecord(
        **{"instance": instance, "ordinal": ordinal, "due_ns": ordinal, "after": list(after), **names, **fields}
    )  # type: ignore[arg-type]


def edges(run: Measured) -> list[tuple[int, int, int, str]]:
    e = run.edges
    columns = (e.child.tolist(), e.parent.tolist(), e.wait_ns.tolist(), e.gap.tolist())
    return [(child, parent, int(wait), GAPS[gap]) for child, parent, wait, gap in zip(*columns, strict=True)]


def canonical() -> Plan:
    return make(Recipe(TraceRef((str(CANONICAL),)), Closed(4)))


def test_edges_name_rows_whatever_order_the_records_came_in() -> None:
    rows = [
        record(2, Dependency(0, 5, "tool"), Dependency(1, 7, "spawn"), instance=1),
        record(0, instance=1),
        record(1, Dependency(0, 3, "human"), instance=1),
        record(0, instance=0),
    ]
    assert edges(measured_records(rows)) == [(2, 1, 3, "human"), (3, 1, 5, "tool"), (3, 2, 7, "spawn")]


def test_a_parent_without_a_row_was_over_before_the_run_and_binds_nothing() -> None:
    rows = [record(3, Dependency(2, 5, "tool")), record(4, Dependency(3, 1, "tool"), Dependency(0, 9, "tool"))]
    assert edges(measured_records(rows)) == [(1, 0, 1, "tool")]


def test_a_row_of_the_warm_up_is_no_parent_where_the_call_ran_again() -> None:
    rows = [
        record(0, phase="warmup"),
        record(0),
        record(1, Dependency(0, 1, "tool"), phase="warmup"),
        record(1, Dependency(0, 1, "tool")),
    ]
    assert edges(measured_records(rows)) == [(3, 1, 1, "tool")]


def test_the_dag_of_a_run_is_that_of_its_trace() -> None:
    plan = canonical()
    run = play(plan, profiles.load("llama-3.1-8b-h200x1"))
    by = {(r.instance, r.ordinal): r for r in run.calls}
    seen = 0
    for instance in plan.instances():
        places = {call.id: i for i, call in enumerate(instance.session.calls)}
        for i, call in enumerate(instance.session.calls):
            wanted = [(places[e.call], plan.recipe.waits.wait_ns(e.wait_s), e.gap) for e in call.after]
            kept = by[instance.k, i]
            assert [(d.ordinal, d.wait_ns, d.gap) for d in kept.after] == wanted
            assert kept.planned_fresh_tokens == call.fresh_tokens
            seen += len(wanted)
    assert seen == len(measured_records(run.calls).edges.child) > 500


def test_a_call_is_due_at_the_latest_of_done_and_wait_over_its_edges() -> None:
    run = measured_records(play(canonical(), profiles.load("llama-3.1-8b-h200x1")).calls)
    e, calls = run.edges, run.calls
    ready = np.zeros(len(calls))
    np.maximum.at(ready, e.child, calls.done_ns[e.parent] + e.wait_ns)
    with_edges = np.unique(e.child)
    assert (calls.due_ns[with_edges] == ready[with_edges]).all()


def test_a_simulated_call_stood_in_a_queue_until_the_engine_began_with_it() -> None:
    calls = measured_records(play(canonical(), profiles.load("llama-3.1-8b-h200x1")).calls).calls
    assert (calls.sent_ns <= calls.admitted_ns).all()
    assert (calls.admitted_ns < calls.first_ns).all()


def test_on_disk_and_in_memory_a_run_is_the_same(tmp_path: Path) -> None:
    kept = play(canonical(), profiles.load("llama-3.1-8b-h200x1"))
    with RunWriter.create(tmp_path / "run", Manifest(backend="simulated"), b"{}") as writer:
        for call in kept.calls:
            writer.call(call)
        for session in kept.sessions:
            writer.session(session)
        writer.close(window_start_ns=kept.window.start_ns, window_end_ns=kept.window.end_ns)
    on_disk = measured(open_run(tmp_path / "run"))
    in_memory = measured_records(kept.calls, kept.sessions, window=kept.window)
    assert edges(on_disk) == edges(in_memory)
    assert on_disk.window == in_memory.window
    assert on_disk.agent.words == in_memory.agent.words
    for name in ("due_ns", "admitted_ns", "done_ns", "planned_fresh_tokens", "ordinal"):
        assert np.array_equal(getattr(on_disk.calls, name), getattr(in_memory.calls, name), equal_nan=True)
    assert np.array_equal(on_disk.carried, in_memory.carried)


def test_looking_at_some_calls_leaves_the_others_where_they_are() -> None:
    rows = [
        record(0, agent="main", due_ns=1),
        record(1, agent="explore:3", due_ns=2),
        record(2, agent="explore:4", due_ns=3),
    ]
    run = measured_records(rows)
    assert run.role.words == ["main", "explore"]
    part = run.looking_at(run.role.codes == 1)
    assert part.due.tolist() == [False, True, True]
    assert part.looking_at(np.array([True, True, False])).due.tolist() == [False, True, False]
    assert run.due.tolist() == [True, True, True]


# --- figures by name


@pytest.mark.parametrize(
    ("text", "parsed", "said"),
    [
        ("errors[agent=main]", Figure("errors", "", (("agent", "main"),)), "errors[agent=main]"),
        ("ttft_p95", Figure("ttft_s", "p95"), "ttft_p95"),
        ("ttft_s_p95", Figure("ttft_s", "p95"), "ttft_p95"),
        ("TTFC_P99.9", Figure("ttft_s", "p99.9"), "ttft_p99.9"),
        ("itl_mean", Figure("tbc_s", "mean"), "tbc_mean"),
        ("errors", Figure("errors"), "errors"),
        (
            "e2e_max[agent=main, model=a b]",
            Figure("e2e_s", "max", (("agent", "main"), ("model", "a b"))),
            "e2e_max[agent=main,model=a b]",
        ),
    ],
)
def test_a_figure_is_read_and_said_again(text: str, parsed: Figure, said: str) -> None:
    assert figure(text) == parsed
    assert figure(text).say() == said
    assert figure(figure(text).say()) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tfft_p95", "did you mean ttft"),
        ("ttft", "ttft_p50"),
        ("errors_p95", "is one number"),
        ("ttft_p0", "between 0 and 100"),
        ("ttft_p100", "between 0 and 100"),
        ("ttft_p95[who=main]", "agent=..."),
        ("ttft p95", "METRIC_STATISTIC"),
        ("", "METRIC_STATISTIC"),
    ],
)
def test_a_wrong_name_is_told_with_where_and_what_was_meant(text: str, words: str) -> None:
    with pytest.raises(UsageError) as told:
        figure(text, "--slo")
    assert words in str(told.value)
    assert "--slo" in str(told.value)


@given(st.text(max_size=30))
@settings(max_examples=200)
def test_any_text_is_a_figure_or_a_usage_error(text: str) -> None:
    try:
        found = figure(text)
    except UsageError:
        return
    assert figure(found.say()) == found


def test_a_role_that_nobody_has_is_an_error_with_the_nearest() -> None:
    run = measured_records([record(0), record(1, agent="explore:1")])
    with pytest.raises(UsageError, match="did you mean explore"):
        figure("ttft_p50[agent=explor]").observe(run)
