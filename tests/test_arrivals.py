"""Arrivals: processes whose burstiness is known, exact counts by hand, and real traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev, variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.model.arrivals import Arrivals, ArrivalsSection, Process, burstiness, counted, process
from workloom.model.facts import facts
from workloom.seeds import stream
from workloom.session import Call, Edge, Recorded, Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real traces in ../shared/data are absent")


def arrivals(sessions: Iterable[Session], *, common_clock: bool = True) -> Arrivals:
    section = ArrivalsSection(common_clock=common_clock)
    for row in facts(sessions):
        section.add(row)
    return section.result()


def session(name: str, at_s: float | None, *starts_s: float) -> Session:
    """A chain of calls of half a second."""
    calls = [
        Call(f"c{i}", 1, (Edge(f"c{i - 1}"),) if i else (), recorded=Recorded(start_s, None, start_s + 0.5))
        for i, start_s in enumerate(starts_s)
    ]
    return Session(name, tuple(calls), start_s=at_s)


def idcs(process: Process) -> list[float]:
    return [count.idc for count in process.counts]


def test_a_poisson_process_has_dispersion_1_and_burstiness_0() -> None:
    gaps = stream(11, "poisson").exponential(0.5, 100_000)
    told = process(np.cumsum(gaps))
    assert told.rate_per_s == pytest.approx(2.0, rel=0.02)
    assert told.burstiness == pytest.approx(0.0, abs=0.01)
    assert [count.window_s for count in told.counts] == [1, 10, 60, 300, 1800, 3600]
    assert idcs(told)[:3] == pytest.approx([1, 1, 1], abs=0.1)
    assert told.zero_gaps == 0


def test_a_steady_beat_has_dispersion_0_and_burstiness_minus_1() -> None:
    told = process(np.arange(0, 1000, 0.25))
    assert (told.gap_cv, told.burstiness, told.rate_per_s) == (0, -1, 4)
    assert [(count.window_s, count.windows, count.idc, count.peak_to_mean) for count in told.counts] == [
        (1, 999, 0, 1),
        (10, 99, 0, 1),
        (60, 16, 0, 1),
    ]


def test_clusters_have_more_of_both() -> None:
    rng = stream(11, "clusters")
    centres = np.cumsum(rng.exponential(20, 500))
    told = process((centres[:, None] + rng.exponential(1.0, (500, 10))).ravel())
    assert told.burstiness is not None and told.burstiness > 0.3
    assert told.counts[1].window_s == 10 and told.counts[1].idc > 4
    assert told.counts[0].peak_to_mean > 5


def test_counts_by_hand() -> None:
    told = counted([0.0, 0.5, 1.5, 3.0, 3.0, 4.2], 1.0)
    assert (told.windows, told.peak_to_mean) == (4, 2 / (5 / 4)), "2, 1, 0, 2; the arrival at 4.2 is in no full window"
    assert told.idc == pytest.approx(variance([2, 1, 0, 2]) / (5 / 4))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 5000).map(lambda n: n / 8), min_size=3, max_size=60), st.booleans())
def test_a_process_is_what_a_plain_count_gives(at_s: list[float], late: bool) -> None:
    at_s = [*at_s, max(at_s) + 50.0 * late]
    told = process(at_s)
    ordered = sorted(at_s)
    gaps = [b - a for a, b in pairwise(ordered)]
    assert told.arrivals == len(at_s) and told.span_s == sum(gaps)
    if mean(gaps):
        assert told.gap_cv == pytest.approx(pstdev(gaps) / mean(gaps))
        assert told.least_gap_s == min(gap for gap in gaps if gap)
    assert told.zero_gaps == pytest.approx(gaps.count(0) / len(gaps))
    assert [c.window_s for c in told.counts] == [w for w in (1, 10, 60, 300, 1800, 3600) if sum(gaps) >= 10 * w]
    for count in told.counts:
        places = Counter(int((t - ordered[0]) // count.window_s) for t in ordered)
        full = [places[place] for place in range(int(sum(gaps) // count.window_s))]
        assert count.windows == len(full)
        assert count.idc == pytest.approx(variance(full) / mean(full))
        assert count.peak_to_mean == pytest.approx(max(full) / mean(full))


def test_a_trace_without_a_common_clock_tells_gaps_within_sessions_only() -> None:
    told = arrivals(
        [session("s", 5.0, 0, 2, 3, 6), session("t", None, 0, 4), session("u", None, 0)], common_clock=False
    )
    assert (told.sessions, told.calls, told.without_start) == (None, None, 2)
    within = told.within_sessions
    assert (within.sessions, within.gap_s.n, within.gap_s.mean) == (2, 4, 2.5)
    assert within.cv_per_session.n == 1
    assert within.cv_per_session.mean == pytest.approx(pstdev([2, 1, 3]) / 2)
    assert within.gap_cv == pytest.approx(pstdev([2, 1, 3, 4]) / 2.5)
    assert within.burstiness == burstiness(within.gap_cv or 0)


def test_with_a_common_clock_sessions_and_calls_are_on_it() -> None:
    told = arrivals([session("s", 100.0, 0, 2), session("t", 60.0, 0, 1, 50), session("u", None, 0, 9)])
    assert told.sessions is not None and told.calls is not None
    assert (told.sessions.arrivals, told.sessions.span_s, told.sessions.rate_per_s) == (2, 40, 1 / 40)
    assert (told.calls.arrivals, told.calls.span_s) == (5, 50), "60, 61, 100, 102, 110"
    assert told.calls.gap_s.max == 39
    assert told.without_start == 1


def test_hours_of_the_day_need_dates_and_a_day() -> None:
    midnight = 1_700_006_400.0
    assert midnight % 86_400 == 0
    at_s = [midnight + 3600 * hour for hour in (0, 1, 1.5, 25)]
    hours = process(at_s).hours
    assert hours is not None and len(hours) == 24
    assert (hours[0], hours[1], sum(hours)) == (0.25, 0.75, 1)
    assert process(at_s[:3]).hours is None, "less than a day"
    assert process([t - midnight for t in at_s]).hours is None, "no dates"


def test_little_is_said_of_few_arrivals() -> None:
    assert process([]) == Process()
    one = process([3.0])
    assert (one.arrivals, one.rate_per_s, one.gap_cv, one.counts) == (1, None, None, ())
    together = process([3.0, 3.0, 3.0])
    assert (together.rate_per_s, together.burstiness, together.zero_gaps, together.least_gap_s) == (None, None, 1, None)


@real
def test_the_synthetic_mooncake_trace_is_poisson_and_the_recorded_one_ticks() -> None:
    poisson = arrivals(open_trace([str(DATA / "mooncake/synthetic_trace.jsonl")])).calls
    assert poisson is not None and poisson.arrivals == 3993
    assert poisson.burstiness == pytest.approx(0, abs=0.02)
    assert idcs(poisson)[:2] == pytest.approx([1.1, 1.2], abs=0.1)
    recorded = arrivals(open_trace([str(DATA / "mooncake/conversation_trace.jsonl")])).calls
    assert recorded is not None and recorded.arrivals == 12_031
    assert recorded.span_s == pytest.approx(3537, abs=1)
    assert recorded.zero_gaps is not None and recorded.zero_gaps > 0.9
    assert recorded.least_gap_s == pytest.approx(3, abs=0.01)


@real
def test_weka_has_no_common_clock() -> None:
    told = arrivals(open_trace([str(DATA / "weka")]), common_clock=False)
    assert (told.calls, told.within_sessions.sessions, told.within_sessions.gap_s.n) == (None, 52, 4600)
