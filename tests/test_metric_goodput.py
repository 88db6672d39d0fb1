"""Goodput: a story of calls that kept their promises and calls that did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_runs import S, call, edge, run_of, session

from workloom.errors import UsageError
from workloom.metrics.catalog import Totals, catalog
from workloom.metrics.delivery import calls_per_s, sessions_per_s
from workloom.metrics.given import Given
from workloom.metrics.goodput import (
    Limit,
    goodput,
    goodput_calls_per_s,
    goodput_sessions_per_s,
    goodput_tasks_per_s,
    meets,
    met_share,
)
from workloom.metrics.measured import Measured
from workloom.records import ChunkRun

FAST = Limit("ttft_s", 1.0)


def rate(seen: Totals | None) -> float:
    assert seen is not None
    return float(np.sum(seen.part) / np.sum(seen.whole))


def story() -> Measured:
    """Session 0: a task of two calls, both soon; a human comes back after 10 s, and the third call is slow. Session 1:
    one call that is soon. Session 2: one that fails after a first token that was soon."""
    calls = [
        call(0, 0, 0, 0.5, 1, 3),
        call(0, 1, 2, 2.9, 3, 3, after=[edge(0, 1, "tool")]),
        call(0, 2, 13, 14.5, 15, 3, after=[edge(1, 10, "human")]),
        call(1, 0, 0, 1.0, 2, 3),
        call(2, 0, 0, 0.1, 2, 3, status="timeout"),
    ]
    ended = [session(0, 0, 15, calls=3), session(1, 0, 2), session(2, 0, 2, "failed")]
    return run_of(calls, ended, window=(0, 20))


def test_a_call_keeps_a_limit_or_not_and_a_failed_one_never_does() -> None:
    run = story()
    assert meets(run, [FAST]).tolist() == [True, True, False, True, False]
    assert meets(run, [Limit("ttft_s", 1.0, strict=True)]).tolist() == [True, True, False, False, False]
    assert meets(run, []).tolist() == [True, True, True, True, False], "without a limit all that ended well are good"
    assert rate(goodput_calls_per_s(run, [FAST])) == pytest.approx(3 / 20)


def test_a_task_is_good_when_all_of_its_calls_are_and_it_keeps_its_own_limits() -> None:
    run = story()
    assert rate(goodput_tasks_per_s(run, [FAST])) == pytest.approx(2 / 20), "the first task of 0, and that of 1"
    assert rate(goodput_tasks_per_s(run, [FAST, Limit("task_makespan_s", 2.5)])) == pytest.approx(1 / 20)
    assert rate(goodput_sessions_per_s(run, [FAST])) == pytest.approx(1 / 20)
    assert rate(goodput_sessions_per_s(run, [Limit("makespan_s", 15.0)])) == pytest.approx(2 / 20)
    assert rate(met_share(run, [FAST], "task")) == pytest.approx(2 / 4)
    assert rate(met_share(run, [FAST], "session")) == pytest.approx(1 / 3)


def test_all_of_it_with_counts() -> None:
    told = goodput(story(), [FAST, Limit("e2e_s", 1.5)])
    assert (told.calls.ended, told.calls.good, told.calls.per_s) == (4, 2, pytest.approx(0.1))
    assert told.calls.share == pytest.approx(2 / 5), "the failed one is in it"
    assert told.broken == {"ttft<=1": 1, "e2e<=1.5": 2}
    assert (told.tasks.ended, told.tasks.good, told.sessions.good) == (3, 1, 0)


def test_without_a_promise_there_is_no_goodput_and_with_one_it_is_a_metric() -> None:
    assert catalog()["goodput_tasks_per_s"].observe(story()) is None
    promised = replace(story(), given=Given(limits=(FAST,)))
    assert rate(catalog()["goodput_calls_per_s"].observe(promised)) == pytest.approx(3 / 20)  # type: ignore[arg-type]
    assert rate(catalog()["good_call_share"].observe(promised)) == pytest.approx(3 / 5)  # type: ignore[arg-type]
    assert rate(catalog()["good_task_share"].observe(promised)) == pytest.approx(2 / 4)  # type: ignore[arg-type]


def test_a_limit_on_one_role_lets_the_others_be() -> None:
    calls = [call(0, 0, 0, 5, 6, 3), call(1, 0, 0, 5, 6, 3, agent="explore:1")]
    run = run_of(calls)
    assert meets(run, [Limit("ttft_s", 1, of=(("agent", "explore"),))]).tolist() == [True, False]


def test_of_gaps_a_call_is_judged_by_its_own() -> None:
    """20 gaps: 19 of 10 ms and one of 1 s. 5 % of them are longer than 75 ms: as many as p95 allows."""
    chunks = [ChunkRun(0, 0.01 * S, 0.0, 20, 1), ChunkRun(round(1.19 * S), 0.0, 0.0, 1, 1)]
    run = run_of([call(0, 0, 0, 0, 1.19, 21, chunks=chunks), call(0, 1, 3, 4, 4, 1)])
    assert meets(run, [Limit("tbc_s", 0.075)]).tolist() == [True, True]
    assert meets(run, [Limit("tbc_s", 0.075, statistic="p96")]).tolist() == [False, True]
    assert meets(run, [Limit("tbc_s", 0.075, statistic="max")]).tolist() == [False, True]
    assert meets(run, [Limit("tbc_s", 0.0596, statistic="mean")]).tolist() == [True, True], "1.19 s / 20 = 59.5 ms"
    assert meets(run, [Limit("tbc_s", 0.0594, statistic="mean")]).tolist() == [False, True]


def test_what_is_no_limit_of_a_task_is_refused() -> None:
    with pytest.raises(UsageError, match="goodput does not judge a session"):
        goodput(story(), [Limit("slowdown", 2)])


spans = st.tuples(st.integers(0, 20), st.integers(1, 30), st.integers(1, 30), st.sampled_from(["ok", "ok", "error"]))


@given(st.lists(spans, max_size=15), st.integers(1, 30), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_it_is_never_above_throughput_and_a_tighter_limit_never_helps(
    calls: list[tuple[int, int, int, str]], ttft: int, e2e: int
) -> None:
    made = [call(i, 0, d, d + f, d + f + g, 2, status=status) for i, (d, f, g, status) in enumerate(calls)]
    ended = [session(i, d, d + f + g, "ok" if s == "ok" else "failed") for i, (d, f, g, s) in enumerate(calls)]
    run = run_of(made, ended, window=(5, 30))
    limits = [Limit("ttft_s", float(ttft)), Limit("e2e_s", float(e2e))]
    for good, whole in ((goodput_calls_per_s, calls_per_s), (goodput_sessions_per_s, sessions_per_s)):
        loose, tight = good(run, limits[:1]), good(run, limits)
        throughput = whole(run)
        assert rate(tight) <= rate(loose) <= rate(throughput) == rate(good(run, []))
    expected = [s == "ok" and f <= ttft and f + g <= e2e for _, f, g, s in calls]
    assert meets(run, limits).tolist() == expected
