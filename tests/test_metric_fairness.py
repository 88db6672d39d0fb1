"""Fairness: what Jain, Chiu and Hawe say of their index, and what its part in a bootstrap must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metric_runs import call, run_of

from workloom.metrics.catalog import Totals, catalog
from workloom.metrics.fairness import session_tokens_per_s, session_ttft_s, spread
from workloom.metrics.measured import Measured


def served(*tokens: int) -> Measured:
    """A session for each, of one call of a second that gave so many tokens."""
    return run_of([call(i, 0, 0, 0.5, 1, n) for i, n in enumerate(tokens)])


def jain(run: Measured) -> float:
    seen = catalog()["jain_index"].observe(run)
    assert isinstance(seen, Totals)
    return float(np.sum(seen.part) / np.sum(seen.whole))


def test_all_alike_is_1_and_all_for_one_of_n_is_one_nth() -> None:
    assert jain(served(7, 7, 7)) == pytest.approx(1)
    assert jain(served(1000, 1000, 0, 0)) == pytest.approx(0.5)
    assert jain(served(1000, 0, 0, 0, 0)) == pytest.approx(0.2)
    assert catalog()["jain_index"].observe(served(0, 0)) is None


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_it_is_the_definition_does_not_depend_on_scale_and_lies_between_one_nth_and_1(
    tokens: list[int], times: int
) -> None:
    index = jain(served(*tokens))
    assert index == pytest.approx(sum(tokens) ** 2 / (len(tokens) * sum(n * n for n in tokens)))
    assert 1 / len(tokens) <= index + 1e-12 and index <= 1 + 1e-12
    assert jain(served(*(times * n for n in tokens))) == pytest.approx(index)


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=20), st.integers(0, 19))
@settings(max_examples=20, deadline=None)
def test_a_session_that_counts_a_little_more_moves_it_as_the_index_itself_would_move(
    tokens: list[int], which: int
) -> None:
    assume(len(set(tokens)) > 1)
    seen = catalog()["jain_index"].observe(served(*tokens))
    assert isinstance(seen, Totals) and isinstance(seen.whole, np.ndarray)
    weights = np.ones(len(tokens))
    weights[which % len(tokens)] += 1e-6
    x = np.array(tokens, dtype=np.float64)
    truth = np.sum(weights * x) ** 2 / (np.sum(weights) * np.sum(weights * x * x))
    plain = np.sum(x) ** 2 / (len(x) * np.sum(x * x))
    told = np.sum(weights * seen.part) / np.sum(weights * seen.whole)
    assert (told - plain) / 1e-6 == pytest.approx((truth - plain) / 1e-6, rel=1e-3, abs=1e-4)


def test_the_service_rate_is_tokens_over_seconds_in_flight_a_failed_call_gives_none_and_costs_its_time() -> None:
    calls = [
        call(0, 0, 0, 1, 2, 10),
        call(0, 1, 5, 6, 7, 30),
        call(1, 0, 0, 1, 2, 10),
        call(1, 1, 2, 3, 4, 50, status="timeout"),
    ]
    rates = session_tokens_per_s(run_of(calls))
    assert (rates.session.tolist(), rates.values.tolist()) == ([0, 1], pytest.approx([40 / 4, 10 / 4]))
    ttft = session_ttft_s(run_of([*calls[:2], call(2, 0, 0, None, None, 5, status="error")]))
    assert (ttft.session.tolist(), ttft.values.tolist()) == ([0, 2], [1.0, float("inf")])


def test_the_spread_has_an_interval_where_there_are_enough_sessions() -> None:
    values = np.random.default_rng(3).lognormal(0, 0.5, 400)
    found = spread("session_ttft_s", values)
    assert found is not None and found.ratio is not None and found.low is not None and found.high is not None
    assert found.low < np.exp(0.5 * 1.645) < found.high, "the p95 / p50 of the distribution it was drawn from"
    assert found == spread("session_ttft_s", values), "to the byte"
    few = spread("session_ttft_s", values[:10])
    assert few is not None and few.ratio is not None and few.low is None
    broken = spread("session_ttft_s", np.array([1.0, np.inf, np.inf]))
    assert broken is not None and broken.ratio is None
    assert spread("session_ttft_s", np.array([np.nan])) is None
