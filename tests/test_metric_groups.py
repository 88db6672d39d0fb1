"""Kinds of calls: roles, models, turns and depths, and figures of each."""

from __future__ import annotations

import pytest
from metric_runs import call, edge, run_of, session

from workloom.errors import UsageError
from workloom.metrics.figure import figure
from workloom.metrics.groups import breakdown, bucket, kinds, rows_of
from workloom.metrics.measured import Measured


def spawning() -> Measured:
    """main: two turns; after the first it spawns two explorers, one of which has two turns."""
    calls = [
        call(0, 0, 0, 1, 2, 3),
        call(0, 1, 2, 4, 5, 3, agent="explore-1", model="small", after=[edge(0, 0, "spawn")]),
        call(0, 2, 2, 3, 4, 3, agent="explore-2", model="small", after=[edge(0, 0, "spawn")]),
        call(0, 3, 5, 6, 7, 3, agent="explore-1", model="small", after=[edge(1, 0, "tool")]),
        call(0, 4, 7, 11, 12, 3, after=[edge(2, 0, "none"), edge(3, 0, "none"), edge(0, 0, "tool")]),
    ]
    return run_of(calls, [session(0, 0, 12, calls=5)], window=(0, 20))


def test_buckets_double() -> None:
    assert [bucket(n) for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 1000)] == [
        *("0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "8-15", "16-31", "512-1023")
    ]


def test_a_role_is_an_agents_name_without_its_number() -> None:
    run = spawning()
    assert run.role.words == ["main", "explore"] and kinds(run, "agent") == ["main", "explore"]
    assert rows_of(run, [("agent", "explore")]).tolist() == [False, True, True, True, False]
    with pytest.raises(UsageError, match="did you mean explore"):
        rows_of(run, [("agent", "explorer")])


def test_turns_count_within_an_agent_and_depths_from_the_root() -> None:
    run = spawning()
    assert rows_of(run, [("turn", "0")]).tolist() == [True, True, True, False, False]
    assert rows_of(run, [("depth", "1")]).tolist() == [False, True, True, True, False]
    assert rows_of(run, [("turn", "1"), ("depth", "0")]).tolist() == [False, False, False, False, True]
    assert rows_of(run, [("turn", "0-7")]).all() and rows_of(run, [("turn", "1+")]).sum() == 2
    assert kinds(run, "turn") == ["0", "1"] and kinds(run, "depth") == ["0", "1"]
    with pytest.raises(UsageError, match="a turn is a number or a range"):
        rows_of(run, [("turn", "first")])


@pytest.mark.parametrize("by", ["agent", "model", "turn", "depth"])
def test_a_breakdown_holds_every_call_once(by: str) -> None:
    run = spawning()
    groups = breakdown(run, by, [figure("ttft_mean"), figure("errors"), figure("calls_per_s")])  # type: ignore[arg-type]
    assert sum(group.calls for group in groups) == 5
    whole = sum((group.estimates[0].value or 0) * group.calls for group in groups)
    assert whole == pytest.approx(1 + 2 + 1 + 1 + 4), "the sum of all TTFTs"
    assert sum(group.estimates[2].value or 0 for group in groups) == pytest.approx(5 / 20)


def test_a_figure_that_is_none_of_calls_cannot_be_broken_down() -> None:
    with pytest.raises(UsageError, match="makespan is no figure of calls"):
        breakdown(spawning(), "agent", [figure("makespan_p50")])
