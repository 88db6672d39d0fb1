"""Tests and intervals of two runs by exchanging their sessions: by hand, by brute force, and how often they hold."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom import seeds
from workloom.answers.compare.gate import gate, held
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import figure
from workloom.metrics.stats import Floats
from workloom.metrics.uncertainty import permute
from workloom.metrics.uncertainty.contrast import Contrast, contrast
from workloom.metrics.uncertainty.difference import contrasted, differences

NEVER = (None, None)


def sample(seed: int, sessions: int = 20, each: int = 5) -> Sample:
    """Heavy-tailed values; those of a session are alike."""
    rng = seeds.stream(seed, "sample")
    scale = np.repeat(rng.lognormal(0, 0.5, sessions), each)
    return Sample(scale * rng.lognormal(0, 0.7, sessions * each), np.repeat(np.arange(float(sessions)), each))


def times(of: Sample, ratio: float, noise: float = 0.0, seed: int = 0) -> Sample:
    draws = seeds.stream(seed, "noise").normal(size=len(of.values))
    return Sample(of.values * ratio * np.exp(noise * draws), of.session)


def contrasting(name: str, a: Sample | Totals, b: Sample | Totals, *, paired: bool = True) -> Contrast:
    made = contrast(figure(name), a, b, NEVER, paired=paired)
    assert made is not None
    return made


# --- signs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=10))
def test_a_few_signs_are_gone_through_one_by_one(apart: list[int]) -> None:
    sums = [abs(sum(s * x for s, x in zip(signs, apart, strict=True))) for signs in product((1, -1), repeat=len(apart))]
    assert permute.of_signs(np.array(apart, dtype=float)) == np.mean([total >= abs(sum(apart)) for total in sums])


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.7, 1.2, 3.0])
def test_many_signs_have_the_tail_that_going_through_them_has(shift: float) -> None:
    values = seeds.stream(1, "signs").normal(size=18) + shift
    sums = np.zeros(1)
    for each in values[1:]:
        sums = np.concatenate([sums + each, sums - each])
    exact = np.mean(np.abs(sums + values[0]) >= abs(values.sum())) / 2
    exact += np.mean(np.abs(sums - values[0]) >= abs(values.sum())) / 2
    assert permute.of_signs(values) == pytest.approx(exact, rel=0.15)


def test_twenty_sessions_that_all_say_the_same_say_it_once_in_half_a_million() -> None:
    assert permute.of_signs(np.arange(1.0, 21.0)) == 2.0**-19
    assert permute.of_signs(np.zeros(20)) == 1.0


# --- blocks of strangers


def test_blocks_dealt_out_by_chance_are_like_all_ways_to_deal_them() -> None:
    """5 blocks a side: 252 ways, of which the draws see each about 40 times."""
    rng = seeds.stream(2, "blocks")
    a, b = rng.normal(0, 1, 5), rng.normal(1.5, 1, 5)
    every = np.concatenate([a, b])

    def student(chosen: tuple[int, ...]) -> float:
        one, other = every[list(chosen)], np.delete(every, list(chosen))
        return abs(other.mean() - one.mean()) / np.sqrt(one.var(ddof=1) / 5 + other.var(ddof=1) / 5)

    found = [student(chosen) for chosen in combinations(range(10), 5)]
    exact = np.mean([each >= student((0, 1, 2, 3, 4)) - 1e-9 for each in found])
    assert permute.of_blocks(a, b, seed=0) == pytest.approx(exact, abs=0.02)
    assert permute.of_blocks(a, b, seed=0) == permute.of_blocks(a, b, seed=0)


# --- two runs under a null


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["ttft_mean", "ttft_p50", "ttft_p95"]), st.floats(0.2, 5))
def test_what_all_sessions_add_is_nothing_whatever_the_null(seed: int, name: str, ratio: float) -> None:
    made = contrasting(name, sample(seed), sample(seed + 5000))
    a, b = made.apart(ratio, 0.0)
    assert a.sum() + b.sum() == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["ttft_mean", "ttft_p50", "ttft_p95"]), st.floats(0.5, 2))
def test_who_is_a_and_who_is_b_does_not_matter(seed: int, name: str, ratio: float) -> None:
    a, b = sample(seed), sample(seed + 5000)
    forth, back = contrasting(name, a, b).p_value(ratio), contrasting(name, b, a).p_value(1 / ratio)
    assert forth[0] == pytest.approx(back[0], rel=1e-6) and forth[1] == -back[1]


@pytest.mark.parametrize("name", ["ttft_mean", "ttft_p50", "ttft_p95", "e2e_p50"])
def test_the_interval_holds_the_ratio_and_is_what_the_test_does_not_refuse(name: str) -> None:
    a = sample(3, sessions=40)
    b = times(a, 3.0, noise=0.2)
    told = differences(a, b, figure(name), paired=True)
    assert told.low is not None and told.high is not None and told.difference is not None
    assert told.ratio is not None and told.ratio_low is not None and told.ratio_high is not None
    assert 1 < told.ratio_low < told.ratio < told.ratio_high and told.ratio_low < 3 < told.ratio_high
    assert 0 < told.low < told.difference < told.high
    made = contrasting(name, a, b)
    for end, outside in ((told.ratio_low, 0.999), (told.ratio_high, 1.001)):
        assert made.p_value(end * outside)[0] <= 0.05
    assert made.p_value(told.ratio)[0] > 0.3


def test_twenty_sessions_that_are_all_slower_are_told_and_not_cannot_tell() -> None:
    """The fault this was made for: TTFT 27 times as long in every one of 20 sessions, and "cannot tell"."""
    a = sample(4)
    for name in ("ttft_p95", "ttft_p50", "ttft_mean", "tbc_p50", "tbc_p95", "tpot_mean"):
        told = differences(a, times(a, 27.0, noise=0.3), figure(name), paired=True)
        assert told.p_value is not None and told.p_value < 0.005, name
        assert (told.low is None) == name.startswith(("tbc", "tpot"))


def test_neighbours_that_share_a_queue_are_believed_less() -> None:
    """Differences that come in runs of five: as many sessions, fewer witnesses."""
    rng = seeds.stream(5, "queue")
    shared, alone = np.repeat(rng.normal(0.5, 1, 8), 5), rng.normal(0.5, 1, 40)

    def p_value(by: Floats) -> tuple[float, float]:
        by = (by - by.mean()) / by.std() + 0.35
        session = np.arange(40.0)
        a, b = Totals(np.full(40, 10.0), np.ones(40), session), Totals(10 + by, np.ones(40), session)
        return contrasting("errors", a, b).p_value()[0], permute.of_signs(by)

    tested, as_if_alone = p_value(shared)
    assert as_if_alone < 0.05 < tested
    tested, as_if_alone = p_value(alone)
    assert tested == pytest.approx(as_if_alone, rel=1.0)


def test_failures_are_compared_as_failures() -> None:
    """A mean among failures is infinite: that is shown by how many sessions failed, not by one call that did."""
    a = sample(6)
    one, many = a.values.copy(), a.values.copy()
    one[7], many[::5] = np.inf, np.inf
    told = differences(a, Sample(one, a.session), figure("e2e_mean"), paired=True)
    assert told.difference == np.inf and told.p_value == 1.0
    told = differences(a, Sample(many, a.session), figure("e2e_mean"), paired=True)
    assert told.difference == np.inf and told.p_value == 2.0**-19


def test_strangers_of_few_sessions_are_not_dealt_out() -> None:
    for sessions, within in ((19, None), (39, 0.2), (60, 0.1)):
        a, b = sample(7, sessions), times(sample(8, sessions), 50.0)
        told = differences(a, b, figure("tbc_p50"), paired=False)
        assert told.low is None and (told.p_value is None) == (within is None)
        assert within is None or (told.p_value is not None and told.p_value < 0.05 and told.within == within)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(2.0, "fail"), (1.25, "not enough data"), (1.0, "not enough data"), (0.8, "pass")]
)
def test_a_gate_without_an_interval_asks_for_its_own_null(ratio: float, verdict: str) -> None:
    """20 sessions carry no interval of gaps. Within 10 % of what is allowed nothing is shown."""
    a = sample(9)
    found, made = contrasted(
        a, times(a, ratio, noise=0.05), figure("tbc_p50"), paired=True, level=0.95, seed=0, begun=NEVER
    )
    told = held(gate("tbc_p50:+20%"), found, made)
    assert found.low is None and told.verdict == verdict
    assert ("by the test alone" in told.why) == (verdict != "not enough data")


def test_intervals_of_pairs_hold_what_they_say() -> None:
    """300 pairs of 12 sessions: 95 % hold, give or take chance."""
    for name in ("ttft_mean", "ttft_p50"):
        held_it = 0
        for seed in range(150):
            a = sample(seed, sessions=12)
            made = contrasting(name, a, times(a, 1.3, noise=0.5, seed=seed + 1))
            truth = 1.3 * (np.exp(0.125) if name == "ttft_mean" else 1.0)
            held_it += made.p_value(truth)[0] > 0.05
        assert 135 <= held_it <= 150, (name, held_it)
