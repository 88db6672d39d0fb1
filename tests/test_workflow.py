"""Metrics of the workflow: small DAGs worked out by hand, each with its critical path, slack and tasks."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from dags_by_hand import (
    INF,
    WORLDS,
    S,
    World,
    background,
    call,
    chain,
    failed_branch,
    fan_in,
    fan_out,
    human_pause,
    live,
    nested,
    records,
)
from rich.console import Console

from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.metrics.workflow import METRICS, depths, tasks, turns
from workloom.metrics.workflow.explain import explain, table
from workloom.metrics.workflow.parts import CODE, PARTS
from workloom.metrics.workflow.path import Blame, check_adds_up, session_blame, task_blame
from workloom.metrics.workflow.slack import slack_s
from workloom.metrics.workflow.speedup import ranked, what_if, what_if_call
from workloom.metrics.workflow.wasted import wasted
from workloom.records import CallRecord, SessionRecord

BY_NAME = {metric.name: metric for metric in METRICS}


def run_of(*worlds: World, window: Window | None = None) -> Measured:
    """A run in which each world is a session."""
    calls: list[CallRecord] = []
    sessions: list[SessionRecord] = []
    for instance, world in enumerate(worlds):
        rows, session = records(world, instance)
        calls += rows
        sessions.append(session)
    return measured_records(calls, sessions, window=window)


def names(world: World) -> list[str]:
    return [made.record.call for made in world.calls]


def sample(run: Measured, name: str) -> Sample:
    found = BY_NAME[name].observe(run)
    assert isinstance(found, Sample)
    return found


def share(run: Measured, name: str) -> float:
    found = BY_NAME[name].observe(run)
    assert isinstance(found, Totals)
    return float(found.part.sum() / np.sum(found.whole))


def told(blame: Blame, i: int) -> tuple[dict[str, float], dict[str, float]]:
    """Parts and join wait of one session or task in seconds, those that are not 0."""
    return tuple(  # type: ignore[return-value]
        {part: ns / S for part, ns in zip(PARTS, row[i].tolist(), strict=True) if ns}
        for row in (blame.parts_ns, blame.join_ns)
    )


@pytest.fixture(params=WORLDS, ids=lambda make: make.__name__)
def world(request: pytest.FixtureRequest) -> World:
    make: Callable[[], World] = request.param
    return make()


def test_the_critical_path_is_the_one_found_by_hand(world: World) -> None:
    blame = session_blame(run_of(world))
    if not world.expected.path:
        assert len(blame) == 0
        return
    assert [names(world)[row] for row in blame.legs.row[::-1]] == world.expected.path.split()
    assert told(blame, 0) == (world.expected.parts, world.expected.join)
    assert sum(world.expected.parts.values()) == world.expected.makespan, "the figures by hand add up themselves"
    assert blame.makespan_ns.tolist() == [world.expected.makespan * S]


def test_the_parts_add_up(world: World) -> None:
    ended = sum(math.isfinite(x) for x in (world.expected.makespan, *world.expected.task_makespans))
    assert check_adds_up(run_of(world)) == ended


def test_slack_is_what_was_found_by_hand(world: World) -> None:
    slack = slack_s(run_of(world))
    if not world.expected.path:
        assert np.isnan(slack).all()
        return
    assert dict(zip(names(world), slack.tolist(), strict=True)) == {
        name: world.expected.slack.get(name, 0) for name in names(world)
    }


def test_tasks_and_their_latencies_are_those_found_by_hand(world: World) -> None:
    run, expected = run_of(world), world.expected
    of = tasks(run).of.tolist()
    found = tuple(" ".join(n for n, t in zip(names(world), of, strict=True) if t == i) for i in range(len(tasks(run))))
    assert found == expected.tasks
    assert sample(run, "task_makespan_s").values.tolist() == list(expected.task_makespans)
    assert sample(run, "ttfut_s").values.tolist() == list(expected.ttfut)
    assert sample(run, "ttfat_s").values.tolist() == list(expected.ttfat)
    assert sample(run, "makespan_s").values.tolist() == [expected.makespan]


def test_depths_are_those_found_by_hand(world: World) -> None:
    deeper = {name: int(depth) for name, depth in (word.split(":") for word in world.expected.depths.split())}
    assert depths(run_of(world)).tolist() == [deeper.get(name, 0) for name in names(world)]


def test_worlds_beside_one_another_are_what_each_is_alone() -> None:
    """Sessions share nothing: all of them in one run say what each says by itself."""
    worlds = [make() for make in WORLDS]
    run = run_of(*worlds)
    blame, at = session_blame(run), 0
    for world in worlds:
        if world.expected.path:
            assert told(blame, at) == (world.expected.parts, world.expected.join), world.name
            at += 1
    assert at == len(blame)
    every = [makespan for world in worlds for makespan in world.expected.task_makespans]
    assert sample(run, "task_makespan_s").values.tolist() == every
    assert check_adds_up(run) > len(worlds)


def test_a_task_is_blamed_from_its_own_first_call_on() -> None:
    """The second task waited for a subagent of the first: what that did before the task was due is not in it."""
    blame = task_blame(run_of(background()))
    assert told(blame, 0) == ({"prefill": 2, "decode": 10}, {"prefill": 1, "decode": 9})
    assert told(blame, 1) == ({"prefill": 1, "decode": 6, "tool": 1}, {"decode": 5})
    assert told(task_blame(run_of(human_pause())), 1)[0] == {"prefill": 2, "decode": 2, "network": 1}


def test_turns_count_the_calls_of_an_agent() -> None:
    assert turns(run_of(nested())).tolist() == [0, 0, 0, 1, 1]
    assert turns(run_of(chain(), chain())).tolist() == [0, 1, 0, 1]


def test_a_hand_over_goes_no_deeper_than_a_spawn() -> None:
    """A reviewer that goes on where main stopped is no subagent of it; whoever it spawns is one deeper."""
    world = World(
        "pipeline",
        [
            call("a", "0 1 2"),
            call("r", "3 4 5", "a+1:network", "reviewer"),
            call("s", "5 6 7", "r+0:spawn a+1:tool", "helper"),
        ],
        chain().expected,
    )
    assert depths(run_of(world)).tolist() == [0, 0, 1]


def test_a_session_begun_in_its_middle_has_neither_turns_nor_depths_nor_blame() -> None:
    rows, session = records(human_pause(), 0, calls_before=3)
    run = measured_records(rows, [session])
    assert turns(run).tolist() == depths(run).tolist() == [-1] * 4
    assert len(session_blame(run)) == 0
    assert np.isnan(slack_s(run)).all()
    assert np.isnan(sample(run, "makespan_s").values).all()
    # its first task was under way, the second was begun by the human before our eyes
    assert tasks(run).partial.tolist() == [True, False]
    assert sample(run, "task_makespan_s").values.tolist()[1] == 5
    assert explain(run).sessions.partial == explain(run).tasks.partial == 1


def test_what_the_end_of_the_run_cut_off_is_counted_and_has_no_value() -> None:
    """The first task ended before the run did, the second was in flight; its first token had come."""
    world = human_pause()
    world.calls[2] = call("t2", "15 15 15 16 - 17", "t1+10:human", status="censored")
    del world.calls[3]
    run = run_of(world._replace(status="censored"))
    assert sample(run, "makespan_s").censored == 1
    found = sample(run, "task_makespan_s")
    assert (found.values[0], found.censored) == (5, 1)
    assert np.isnan(found.values[1])
    early = sample(run, "ttfut_s")
    assert (early.values.tolist(), early.censored) == ([1, 1], 0)
    assert wasted(run).tolist() == [False, False, False]
    assert share(run, "wasted_time_share") == 0, "neither done nor wasted"


def test_a_run_that_was_killed_leaves_calls_without_a_session() -> None:
    rows, _ = records(human_pause())
    run = measured_records(rows[:2], [])
    assert sample(run, "makespan_s").censored == 1
    assert tasks(run).censored.tolist() == [True]
    assert len(session_blame(run)) == len(task_blame(run)) == 0
    assert check_adds_up(run) == 0


def test_a_run_without_calls_says_nothing() -> None:
    run = measured_records([], [])
    for metric in METRICS:
        found = metric.observe(run)
        assert found is None or (len(found.values) if isinstance(found, Sample) else len(found.part)) == 0, metric.name
    assert explain(run).sessions.ended == 0
    assert table(explain(run)) == []


def test_tasks_that_nobody_came_to_ask_for_have_no_value() -> None:
    """The first task fails, so the human never asks for the second: it is neither fast nor slow."""
    world = World(
        "two tasks",
        [call("a", "0 0 0 - - 4", status="timeout"), call("b", "4 - - - - -", "a+1:human", status="cancelled")],
        chain().expected,
        "failed",
    )
    run = run_of(world)
    assert tasks(run).failed.tolist() == [True, False]
    assert tasks(run).never_begun.tolist() == [False, True]
    values = sample(run, "task_makespan_s").values
    assert values[0] == INF
    assert np.isnan(values[1])
    assert sample(run, "ttfut_s").values[0] == INF


def test_work_for_a_branch_that_failed_is_wasted() -> None:
    """h0 answered the human. x failed; m0 and m1 worked for a join that never came: 3 + 2 + 3 of 10 s in flight.

    Tokens: 60 of each prompt were computed; h0 10 out; x 6, m0 and m1 10 each.
    """
    run = run_of(failed_branch())
    assert wasted(run).tolist() == [False, True, True, False, True, False]
    assert share(run, "wasted_time_share") == pytest.approx(0.8)
    assert share(run, "wasted_token_share") == pytest.approx((66 + 70 + 70) / (66 + 70 + 70 + 70))
    assert share(run_of(fan_out()), "wasted_time_share") == 0


def test_figures_are_of_what_was_due_in_the_window() -> None:
    second = chain()
    for made in second.calls:
        record = made.record
        for name in ("due_ns", "sent_ns", "admitted_ns", "first_ns", "last_ns", "done_ns"):
            setattr(record, name, getattr(record, name) + 100 * S)
    run = run_of(human_pause(), second, window=Window(10 * S, 200 * S))
    assert sample(run, "makespan_s").values.tolist() == [15]
    assert sample(run, "task_makespan_s").values.tolist() == [5, 15]
    assert share(run, "blame_tool_share") == pytest.approx(2 / 15)
    assert share(run, "task_blame_tool_share") == pytest.approx(2 / 20)
    assert share(run, "task_blame_network_share") == pytest.approx(1 / 20)
    assert sample(run, "slack_s").values.tolist() == [0, 0, 0, 0]
    whole = run.within(Window(0, 200 * S))
    assert sample(whole, "makespan_s").values.tolist() == [20, 15]


def test_blame_shares_are_of_all_makespan() -> None:
    run = run_of(fan_in(), nested())
    assert share(run, "blame_prefill_share") == pytest.approx(8 / 25)
    assert share(run, "blame_server_share") == pytest.approx((8 + 12) / 25)
    assert share(run, "blame_join_wait_share") == pytest.approx((3 + 9) / 25)
    parts = [share(run, f"blame_{part}_share") for part in PARTS]
    assert sum(parts) == pytest.approx(1)
    assert sample(run, "critical_calls").values.tolist() == [3, 5]


def test_what_a_faster_part_would_buy_is_what_was_found_by_hand() -> None:
    """fan-in: without the tools' waits j is due when b is done, at 7 instead of 9; b then binds it.

    Without the explorers' decode (b 3 s, c 1 s) b ends at 4 and c too, j is due at 8.
    """
    run = run_of(fan_in())
    assert what_if(run, "main", "tool", 0.0).saved_s.tolist() == [2]
    assert what_if(run, "main", "tool", 0.5).saved_s.tolist() == [1.5], "7.5 by b against 7 by c"
    assert what_if(run, "explore", "decode", 0.0).saved_s.tolist() == [1]
    assert what_if(run, "explore", "spawn", 0.0).saved_s.tolist() == [1]
    assert what_if(run, None, "prefill", 0.0).saved_s.tolist() == [3]
    assert what_if(run, "main", None, 0.0).saved_s.tolist() == [5], "a 2 s and j 3 s"
    assert what_if(run, "nobody", "decode", 0.0).saved_s.tolist() == [0]
    assert what_if_call(run, 2).saved_s.tolist() == [1], "c at no time: b binds the join, 1 s earlier"
    assert what_if_call(run, 1).saved_s.tolist() == [0], "b is not on the path"


def test_the_best_thing_to_speed_up_comes_first() -> None:
    """background: the watcher's decode is 9 s of the path, but main needs until 11: 2 s after m2 is done at 9 is the
    join without it; so 4 s are saved. Everything else saves less."""
    run = run_of(background())
    best = ranked(run)
    assert (best[0].role, best[0].part, best[0].saved_s.tolist()) == ("watcher", "decode", [4])
    assert [saving.mean_s for saving in best] == sorted((saving.mean_s for saving in best), reverse=True)
    assert all(saving.part != "human" for saving in best)


def test_lags_and_retries_are_no_fault_of_the_server() -> None:
    run = run_of(live())
    assert share(run, "blame_server_share") == pytest.approx((5 + 3 + 1) / 18)
    assert what_if(run, None, "lag", 0.0).saved_s.tolist() == [1]
    assert what_if(run, None, "retry", 0.0).saved_s.tolist() == [4]


def test_an_alarm_that_must_ring() -> None:
    """A session whose record says another end than its calls is found out, and named."""
    rows, session = records(chain(), 7)
    session.end_ns += 1
    with pytest.raises(AssertionError, match="session 7, session 0: parts do not add up"):
        check_adds_up(measured_records(rows, [session]))


def test_other_looks_at_a_run_share_what_was_worked_out() -> None:
    run = run_of(fan_in())
    first = tasks(run)
    some = run.looking_at(run.role.codes == run.role.words.index("explore"))
    assert tasks(some) is first
    assert sample(some, "slack_s").values.tolist() == [1, 0]


def test_the_explanation_is_json_and_fits_a_terminal() -> None:
    run = run_of(*(make() for make in WORLDS))
    told = explain(run)
    again = msgspec.json.decode(msgspec.json.encode(told), type=type(told))
    assert again == told
    assert sum(part.share for part in told.sessions.parts) == pytest.approx(1)
    assert sum(part.join_share for part in told.sessions.parts) == pytest.approx(told.sessions.join_wait_share)
    assert (told.sessions.ended, told.sessions.failed) == (11, 1)
    assert told.calls[0].on_path_s == 10, "the watcher of the background world: prefill 1 and decode 9"
    console = Console(width=80, record=True)
    for part in table(told):
        console.print(part)
    text = console.export_text()
    assert "critical path" in text
    assert "of sessions, 1 failed" in text
    longest = told.calls[0]
    assert f"call {longest.ordinal} of session {longest.instance} ({longest.agent}), 10.0 s, saves" in " ".join(
        text.split()
    )
    assert max(map(len, text.splitlines())) <= 80


def test_every_metric_says_what_it_means() -> None:
    docs = [metric.doc for metric in METRICS]
    assert all(len(doc) > 60 for doc in docs)
    assert len(set(docs)) == len(docs)
    assert {f"blame_{part}_share" for part in CODE} <= BY_NAME.keys()
