"""The frontier: an interval over runs that wander about a limit, found with few runs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloom.answers.frontier import Limit, Series, miss, search, spread
from workloom.errors import UsageError

LIMITS = [Limit("lag", 1.0), Limit("failed", 0.02)]


def rising(edge: float) -> Series:
    """A figure that reaches its limit at a rate."""
    return Series(lambda rate: {"lag": rate / edge, "failed": 0.0})


def listed(holds: list[bool]) -> Series:
    """Holds or not at 1.0, 2.0, 3.0, ..."""
    return Series(lambda rate: {"lag": 0.5 if holds[round(rate) - 1] else 2.0, "failed": 0.0})


def test_a_sharp_edge_is_found_on_the_grid_with_few_runs() -> None:
    asked: list[float] = []

    def measure(rate: float) -> dict[str, float]:
        asked.append(rate)
        return {"lag": rate / 5.23, "failed": 0.0}

    found = search(Series(measure), LIMITS, 1.0, 9.0, 0.1)
    assert (found.holds, found.breaks) == (5.2, 5.3)
    assert found.interval == (5.2, 5.2)
    assert found.limited_by == ("lag",)
    assert len(asked) == len(set(asked)) <= 13


def test_where_the_figures_wander_the_answer_is_an_interval() -> None:
    """As in the picture of the module: 4.5 holds, 5.0 does not, 5.5 holds again."""
    found = search(listed([True, True, False, True, False, False, False, False]), LIMITS, 1.0, 8.0, 1.0)
    assert (found.holds, found.breaks) == (4.0, 3.0)
    assert found.interval == (2.0, 4.0)


def test_no_edge_in_sight_is_no_interval() -> None:
    always, never = (search(rising(edge), LIMITS, 1.0, 4.0, 0.5) for edge in (100.0, 0.01))
    assert (always.holds, always.breaks, always.interval) == (4.0, None, None)
    assert (never.holds, never.breaks, never.interval) == (None, 1.0, None)
    assert spread([always]) is None and spread([]) is None


def test_a_figure_that_is_not_there_breaks_its_limit() -> None:
    assert not Limit("lag", 1.0).kept({})
    assert not Limit("lag", 1.0).kept({"lag": math.nan})
    assert not Limit("lag", 1.0).kept({"lag": math.inf})


def test_limits_are_asked_of_runs_that_were_made() -> None:
    runs: list[float] = []

    def measure(rate: float) -> dict[str, float]:
        runs.append(rate)
        return {"lag": rate / 5.0, "failed": 0.0}

    series = Series(measure)
    frontiers = [search(series, [Limit("lag", at)], 1.0, 9.0, 0.5) for at in (0.9, 1.0, 1.1)]
    assert [f.holds for f in frontiers] == [4.5, 5.0, 5.5]
    assert spread(frontiers) == (4.5, 5.5)
    assert len(runs) == len(set(runs))


def test_by_how_much_an_interval_misses() -> None:
    assert miss((5.0, 6.0), 5.5) == 0.0
    assert miss((5.0, 6.0), 6.3) == pytest.approx(0.3 / 6.3)
    assert miss((5.0, 6.0), 4.0) == pytest.approx(0.25)


def test_a_search_that_is_none_is_refused() -> None:
    for low, high, step in ((1.0, 1.0, 0.1), (0.0, 2.0, 0.1), (1.0, 2.0, 0.0)):
        with pytest.raises(UsageError):
            search(rising(1.5), LIMITS, low, high, step)


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(1, 3))
def test_an_interval_lies_between_rates_that_were_tried(holds: list[bool], beside: int) -> None:
    """What it calls holding held, what it calls breaking broke, and nothing it tried says otherwise."""
    found = search(listed(holds), LIMITS, 1.0, float(len(holds)), 1.0, beside=beside)
    tried = {probe.rate: not probe.broken for probe in found.probes}
    assert all(held == holds[round(rate) - 1] for rate, held in tried.items())
    assert found.holds == max((rate for rate, held in tried.items() if held), default=None)
    assert found.breaks == min((rate for rate, held in tried.items() if not held), default=None)
    if found.interval is not None:
        low, high = found.interval
        assert 1.0 <= low <= high == found.holds
        assert all(held for rate, held in tried.items() if rate < (found.breaks or 0.0))


@given(st.integers(1, 29), st.integers(2, 30))
def test_a_monotone_edge_is_exact(edge: int, size: int) -> None:
    holds = [place < edge for place in range(size)]
    found = search(listed(holds), LIMITS, 1.0, float(size), 1.0)
    assert found.holds == min(edge, size)
    assert found.breaks == (edge + 1 if edge < size else None)
