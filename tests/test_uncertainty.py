"""Intervals by hand, what they keep when the data is turned about, and when there are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workloom import seeds
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.estimate import Estimate, of_observed
from workloom.metrics.figure import figure
from workloom.metrics.frame import Window
from workloom.metrics.uncertainty import blocks, quantile
from workloom.metrics.uncertainty.between import between
from workloom.metrics.uncertainty.difference import differences
from workloom.metrics.uncertainty.enough import needed
from workloom.metrics.uncertainty.ratio import Begun, below, of_totals, of_values

Floats = NDArray[np.float64]


def sessions(count: int, seed: int = 1, *, calls: int = 5, own: float = 0.5, busy: float = 0.0) -> Sample:
    """So many sessions of calls whose values are lognormal: each session has an effect of its own, and neighbours
    share how busy it is."""
    rng = seeds.stream(seed, "test")
    of = np.repeat(np.arange(count), rng.integers(1, 2 * calls, count))
    load = np.zeros(count)
    for k in range(1, count):
        load[k] = 0.7 * load[k - 1] + rng.normal() * 0.51**0.5
    logs = own * rng.normal(size=count)[of] + busy * load[of] + 0.7 * rng.normal(size=len(of))
    return Sample(np.exp(logs), of.astype(np.float64))


def test_the_standard_error_of_a_mean_is_that_of_its_sessions_not_of_its_calls() -> None:
    """Sessions (1, 3), (5), (2, 4, 6): the mean is 21 / 6 = 3.5; contributions (4 - 7, 5 - 3.5, 12 - 10.5) / 6."""
    made = of_values(np.array([1.0, 3, 5, 2, 4, 6]), np.array([0.0, 0, 1, 2, 2, 2]), None)
    assert made.value == 3.5
    assert made.apart.tolist() == pytest.approx([-0.5, 0.25, 0.25])
    assert blocks.error_of(made.apart) == pytest.approx((3 / 2 * (0.25 + 2 * 0.0625)) ** 0.5)
    assert made.spread == pytest.approx(np.var([1, 3, 5, 2, 4, 6]))


def test_a_stretch_of_time_is_shared_out_by_when_the_next_session_came() -> None:
    """Due at 10, 30 and 60 s of 100 s: the first has 30 s of it, what was before it included."""
    begun = Begun(np.arange(3.0), np.array([10.0, 30, 60]) * 1e9, Window(0, 100 * 10**9))
    made = of_totals(Totals(np.array([6.0, 6, 8]), 100.0, np.arange(3.0)), begun)
    assert made is not None and made.value == pytest.approx(0.2)
    assert made.whole.tolist() == pytest.approx([30, 30, 40])
    assert np.allclose(made.apart, 0)


def test_a_throughput_is_what_came_in_each_piece_of_time() -> None:
    """100 tokens in each of 400 pieces scatter by nothing; all in the last half, by as much as blocks differ."""
    window, session = Window(0, 400 * 10**9), np.arange(400.0)
    begun = Begun(session, session * 1e9, window)
    even = of_totals(Totals(np.full(400, 100.0), 400.0, session, (session + 0.5) * 1e9), begun, timed=True)
    assert even is not None and even.value == 100 and even.sessions == 400
    assert blocks.spread(even, 0.95).half == pytest.approx(0, abs=1e-12)
    late = of_totals(Totals(np.full(400, 100.0), 400.0, session, (200 + session / 2) * 1e9), begun, timed=True)
    assert late is not None and late.value == 100 and late.part[:200].sum() == 0
    lost = np.full(400, np.nan)
    unknown = of_totals(Totals(np.full(400, 100.0), 400.0, session, lost), begun, timed=True)
    assert unknown is not None and unknown.value == 100


def test_blocks_that_are_alike_tell_less() -> None:
    """By hand: (1, 1, 1, 1, 1, -1, -1, -1, -1, -1) has the lag-1 correlation 0.7; with the bias of ten blocks taken out
    (10 x 0.7 + 1) / 6 is over 0.9, the most that is believed. Then the variance is 19 times as large."""
    apart = np.array([1.0] * 5 + [-1.0] * 5)[:, None]
    alone, freedom = blocks.errors_of_blocks(apart, alike=False)
    assert (alone[0], freedom[0]) == (pytest.approx((10 / 9 * 10) ** 0.5), 9)
    wider, fewer = blocks.errors_of_blocks(apart, alike=True)
    assert (wider[0] / alone[0]) ** 2 == pytest.approx(19) and fewer[0] == 3
    turns = np.array([1.0, -1.0] * 5)[:, None]
    assert blocks.errors_of_blocks(turns, alike=True)[0][0] == pytest.approx(alone[0])


def test_a_run_must_be_many_times_as_long_as_a_session_for_what_follows_the_load() -> None:
    sample = sessions(120)
    begun = Begun(np.arange(120.0), np.arange(120.0) * 1e9, Window(0, 120 * 10**9), lives=11.0)
    told = of_observed(figure("tpot_mean"), sample, begun=begun)
    assert told.value is not None and not told.enough and "11.0 times as long as a session, 20 needed" in told.why
    begun.lives = 20.0
    assert of_observed(figure("tpot_mean"), sample, begun=begun).enough
    begun.lives = 2.0
    assert of_observed(figure("ttft_mean"), sample, begun=begun).enough


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99]))
def test_quantiles_are_numpys(values: list[float], level: float) -> None:
    ordered = np.sort(np.array(values))
    assert quantile.of_sorted(ordered, None, level) == pytest.approx(np.quantile(ordered, level), rel=1e-12, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=30), st.sampled_from([0.5, 0.95]))
def test_a_weight_is_as_many_values(pairs: list[tuple[int, int]], level: float) -> None:
    pairs = sorted(pairs)
    values, weights = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    again = quantile.of_sorted(np.repeat(values, weights.astype(int)), None, level)
    assert quantile.of_sorted(values, weights, level) == pytest.approx(again)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_share_below_a_quantile_is_its_level(values: list[int], level: float) -> None:
    """Also where many values are equal to it."""
    of = np.arange(len(values)) // 3 * 1.0
    array = np.sort(np.array(values, dtype=np.float64))
    ratio = below(array, of, None, float(np.quantile(array, level, method="inverted_cdf")), level)
    assert ratio.value == pytest.approx(level)
    assert abs(ratio.apart.sum()) < 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(60, 200), st.sampled_from(["ttft_mean", "ttft_p50", "ttft_p95"]), st.integers(0, 10**6))
def test_intervals_scale_and_do_not_mind_the_order_of_rows(count: int, name: str, seed: int) -> None:
    sample = sessions(count, seed)
    plain = of_observed(figure(name), sample)
    order = seeds.stream(seed, "order").permutation(len(sample.values))
    mixed = of_observed(figure(name), Sample(sample.values[order], sample.session[order]))
    doubled = of_observed(figure(name), Sample(2 * sample.values, sample.session))
    for a, b, times in ((plain, mixed, 1), (plain, doubled, 2)):
        assert (a.low is None) == (b.low is None) and b.value == pytest.approx(times * (a.value or 0))
        if a.low is not None and a.high is not None and a.value is not None:
            assert a.low <= a.value <= a.high
            assert (b.low, b.high) == (pytest.approx(times * a.low), pytest.approx(times * a.high))


def test_the_same_seed_gives_the_same_interval_to_the_byte() -> None:
    first, again, other = (of_observed(figure("ttft_mean"), sessions(80), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_intervals_hold_what_they_say() -> None:
    """300 times 120 sessions of a known world, in which busy times outlast sessions: each covers in 95 % of cases, but
    for chance (three standard errors: 3.8 %)."""
    own, busy = 0.5, 0.3
    total = (own**2 + busy**2 + 0.49) ** 0.5
    true = {"ttft_mean": np.exp(total**2 / 2), "ttft_p50": 1.0, "ttft_p95": np.exp(1.6448536 * total)}
    for name, value in true.items():
        told = [of_observed(figure(name), sessions(120, seed, own=own, busy=busy)) for seed in range(300)]
        held = [e.low <= value <= e.high for e in told if e.low is not None and e.high is not None]
        assert len(held) > 250
        assert 0.91 <= np.mean(held) <= 0.99, name


def test_what_tells_as_much_is_the_number_of_sessions_where_their_calls_are_equal() -> None:
    rng = seeds.stream(3, "test")
    own = rng.normal(size=2000)
    equal = of_observed(figure("ttft_mean"), Sample(np.repeat(own, 5), np.repeat(np.arange(2000.0), 5)))
    apart = of_observed(figure("ttft_mean"), Sample(rng.normal(size=10_000), np.repeat(np.arange(2000.0), 5)))
    assert equal.effective is not None and 1000 < equal.effective < 2200
    assert apart.effective is not None and 5000 < apart.effective <= 10_000


def test_failures_are_infinite_and_so_may_be_an_end() -> None:
    sample = sessions(120)
    values = sample.values.copy()
    values[seeds.stream(4, "failures").random(len(values)) < 0.04] = np.inf
    told = of_observed(figure("ttft_p95"), Sample(values, sample.session))
    assert told.value is not None and np.isfinite(told.value) and told.high == np.inf and told.low is not None
    assert np.isfinite(told.low) and told.why == "the interval has no upper end: failures are among it"
    values[::10] = np.inf
    for name in ("ttft_p95", "ttft_mean"):  # JSON has null for what is infinite, so it is said in words
        broken = of_observed(figure(name), Sample(values, sample.session))
        assert broken.value == broken.high == np.inf and broken.why == "the value is infinite: failures are among it"
    assert broken.low == np.inf
    few = of_observed(figure("ttft_p50"), Sample(np.full(50, np.inf), np.arange(50.0) % 5))
    assert few.value == np.inf and few.low is None and few.why.startswith("not enough data: 5 sessions")
    assert few.why.endswith("the value is infinite: failures are among it")


def test_too_few_sessions_have_a_value_and_no_interval() -> None:
    few = of_observed(figure("ttft_mean"), sessions(7))
    assert few.value is not None and not few.enough
    assert few.why == "not enough data: 7 sessions, 60 needed for a mean"
    tail = of_observed(figure("ttft_p95"), sessions(50, calls=20))
    assert tail.value is not None and tail.why == "not enough data: 50 sessions, 60 needed for a p95"
    assert "400 needed for a p95 of gaps" in of_observed(figure("tbc_p95"), sessions(100, calls=20)).why


def test_a_p99_that_the_sample_cannot_carry_has_no_value() -> None:
    told = of_observed(figure("ttft_p99"), sessions(20))
    assert told.value is None and "effective values beyond a p99" in told.why
    assert of_observed(figure("ttft_p99"), sessions(1500)).enough


def test_makespans_are_refused_over_a_fifth_cut_off() -> None:
    sample = sessions(100, calls=1)
    n = len(sample.values)
    kept = of_observed(figure("makespan_p50"), Sample(sample.values, sample.session, censored=n // 4))
    assert kept.value is not None and kept.enough
    told = of_observed(figure("makespan_p50"), Sample(sample.values, sample.session, censored=n // 4 + 2))
    assert told.value is None and "were cut off" in told.why and "--max-wait" in told.why


def test_the_largest_value_and_nothing_at_all_have_no_interval() -> None:
    assert "largest value" in of_observed(figure("ttft_max"), sessions(100)).why
    assert of_observed(figure("ttft_p50"), None).why == "not enough data: this run cannot say"
    assert of_observed(figure("ttft_p50"), Sample(np.array([np.nan]), np.array([0.0]))).why.endswith("no value")


def test_between_runs_it_is_students_interval() -> None:
    """1, 2, 3: the mean is 2, its standard error 1 / sqrt(3), t with 2 degrees of freedom 4.3027."""
    told = between([Estimate("errors", value, values=10, sessions=5) for value in (1.0, 2.0, 3.0)])
    assert told.value == 2 and told.runs == 3 and told.sessions == 15
    assert told.high == pytest.approx(2 + 4.30265 / 3**0.5, rel=1e-5)
    assert told.low == pytest.approx(2 - 4.30265 / 3**0.5, rel=1e-5)
    two = between([Estimate("errors", 1.0), Estimate("errors", 2.0)])
    assert two.value == 1.5 and not two.enough and "2 runs, 3 needed" in two.why
    lost = between([*[Estimate("errors", 1.0)] * 3, Estimate("errors", None, why="not enough data: x")])
    assert lost.enough and "1 of 4 runs have no value" in lost.why


def test_runs_without_a_failure_are_no_proof_that_there_is_none() -> None:
    none = of_observed(figure("errors"), Totals(np.zeros(100), np.ones(100), np.arange(100.0)))
    told = between([none] * 3)
    assert none.high is not None and none.high > 0.02
    assert (told.value, told.low) == (0, 0) and told.high == pytest.approx(none.high)


def test_four_times_the_data_halve_an_interval() -> None:
    told = needed(Estimate("ttft_mean", 10.0, 9.0, 11.0, values=500, sessions=100), 0.05)
    assert (told.sessions, told.values) == (400, 2000)
    assert needed(Estimate("ttft_mean", 10.0, why="not enough data: x"), 0.05).why == "not enough data: x"


def test_two_runs_apart_add_their_squares() -> None:
    """Whatever the intervals: the lower limit of b - a is sqrt((b - b low)^2 + (a high - a)^2) below it."""
    a, b = sessions(100, 1), sessions(100, 2)
    one, other = (of_observed(figure("ttft_mean"), sample) for sample in (a, b))
    told = differences(a, b, figure("ttft_mean"), paired=False)
    assert one.value and one.high and one.low and other.value and other.low and other.high
    by = other.value - one.value
    assert told.difference == pytest.approx(by)
    assert told.low == pytest.approx(by - ((other.value - other.low) ** 2 + (one.high - one.value) ** 2) ** 0.5)
    assert told.high == pytest.approx(by + ((other.high - other.value) ** 2 + (one.value - one.low) ** 2) ** 0.5)
    assert told.low is not None and told.high is not None and told.p_value is not None
    assert (told.p_value < 0.05) == (told.low > 0 or told.high < 0)


def test_pairs_show_what_runs_apart_cannot() -> None:
    a = sessions(100)
    noise = np.exp(0.01 * seeds.stream(9, "noise").normal(size=len(a.values)))
    b = Sample(a.values * 1.03 * noise, a.session)
    for name in ("ttft_mean", "ttft_p50"):
        paired = differences(a, b, figure(name), paired=True)
        apart = differences(a, b, figure(name), paired=False)
        assert paired.ratio_low is not None and paired.ratio_low > 1 and paired.pairs == 100
        assert apart.ratio_low is not None and apart.ratio_low < 1
    same = differences(a, a, figure("ttft_p50"), paired=True)
    assert same.difference == 0 and same.p_value == 1 and same.ratio_low == same.ratio_high == 1


def test_runs_of_one_world_seldom_differ() -> None:
    found = [
        differences(sessions(80, 2 * k), sessions(80, 2 * k + 1), figure("ttft_p50"), paired=False) for k in range(100)
    ]
    differ = sum(told.p_value < 0.05 for told in found if told.p_value is not None)
    assert differ <= 9, f"{differ} of {len(found)}"


def test_a_run_that_fails_is_worse_by_more_than_any_number() -> None:
    a = sessions(100)
    broken = a.values.copy()
    broken[::3] = np.inf
    told = differences(a, Sample(broken, a.session), figure("ttft_p95"), paired=True)
    assert told.difference == np.inf and told.p_value is not None and told.p_value <= 0.05 + 1e-12
    both = differences(Sample(broken, a.session), Sample(broken, a.session), figure("ttft_p95"), paired=True)
    assert both.p_value is None and "both are infinite" in both.why


def test_no_failure_in_100_sessions_leaves_room_for_3_percent() -> None:
    none = Totals(np.zeros(300), np.ones(300), np.repeat(np.arange(100.0), 3))
    told = of_observed(figure("errors"), none)
    assert (told.value, told.low) == (0, 0) and told.high == pytest.approx(1 - 0.05**0.01)
    every = of_observed(figure("errors"), Totals(np.ones(300), np.ones(300), none.session))
    assert every.high == 1 and every.low == pytest.approx(0.05**0.01)
    same = differences(none, none, figure("errors"), paired=True)
    assert same.difference == 0 and same.p_value == 1 and same.low is not None and same.low < 0
    all_ = Totals(np.ones(300), np.ones(300), none.session)
    worse = differences(none, all_, figure("errors"), paired=True)  # each is known to 3 %, so is their difference
    assert worse.low == pytest.approx(1 - 2**0.5 * (1 - 0.05**0.01)) and worse.p_value is not None
    assert worse.high == 1 and worse.p_value < 0.001


def test_no_good_call_in_150_sessions_leaves_room_for_some_a_second() -> None:
    """Two calls a session, 100 s: were a share p of the sessions good, 3 calls x p a second would be."""
    begun = Begun(np.arange(150.0), np.arange(150) * 0.6e9, Window(0, 100 * 10**9), 30.0)
    none = Totals(np.zeros(300), 100.0, np.repeat(np.arange(150.0), 2), np.arange(300) * 0.3e9)
    told = of_observed(figure("calls_per_s"), none, begun=begun)
    assert (told.value, told.low) == (0, 0) and told.high == pytest.approx(3 * (1 - 0.05 ** (1 / 150)))


@pytest.mark.parametrize("sessions", [12, 20, 60])
@pytest.mark.parametrize("busy", [2, 5])
def test_a_difference_that_may_be_chance_has_0_in_its_interval(sessions: int, busy: int) -> None:
    """All that a run brought came of a few of its sessions: p values jump, and fall steadily to neither side."""
    for seed in range(12):
        rng = seeds.stream(seed, "few")
        due_ns = np.sort(rng.random(sessions)) * 1e11
        begun = Begun(np.arange(float(sessions)), due_ns, Window(0, 10**11), 30.0)
        part = np.zeros(sessions)
        part[rng.choice(sessions, busy, False)] = 1000.0
        a, b = (Totals(each, 100.0, begun.session) for each in (part, np.zeros(sessions)))
        told = differences(a, b, figure("calls_per_s"), paired=True, begun=(begun, begun))
        assert told.p_value == 2.0 ** (1 - busy) or told.low is None
        if told.low is not None and told.high is not None and told.p_value is not None and told.p_value > 0.05:
            assert told.low <= 0 <= told.high
            assert told.low > -100 * 10 * busy  # of the figure: what ends farther off is withheld


def test_sessions_that_are_all_but_equal_have_a_narrow_interval() -> None:
    """One odd session of 120: a draw without it has no error of its own, and its t would be beyond all bounds."""
    part = np.full(120, 0.9)
    part[37] = 0.2
    told = of_observed(figure("prompt_reuse_ratio"), Totals(part, np.ones(120), np.arange(120.0)))
    assert told.value is not None and told.low is not None and told.high is not None
    error = 0.7 / 120
    assert told.value - 6 * error < told.low < told.value < told.high < told.value + 6 * error
    part[:] = 0.9 + 1e-15 * seeds.stream(1, "rounding").normal(size=120)
    same = of_observed(figure("prompt_reuse_ratio"), Totals(part, np.ones(120), np.arange(120.0)))
    assert same.low == pytest.approx(0.9, abs=1e-12) and same.high == pytest.approx(0.9, abs=1e-12)


values_of_sessions = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1e-12)), min_size=120, max_size=160
)


@settings(max_examples=20, deadline=None)
@given(values_of_sessions, st.sampled_from([1e-6, 3.0, 1e9]), st.booleans())
def test_an_interval_is_finite_about_its_value_and_grows_with_confidence(
    values: list[float], times: float, timed: bool
) -> None:
    """Whatever the values: of means, quantiles and shares."""
    array, session = np.array(values), np.arange(float(len(values)))
    at_ns = session * 1e9 if timed else None
    for name in ("e2e_mean", "e2e_p50", "e2e_p90", "tpot_mean", "makespan_mean"):
        told = [of_observed(figure(name), Sample(array, session, at_ns=at_ns), level=x) for x in (0.5, 0.9, 0.95, 0.99)]
        scaled = of_observed(figure(name), Sample(array * times, session, at_ns=at_ns))
        _well_made(told, most=np.inf)
        given_here = told[2]
        assert given_here.enough == scaled.enough
        if given_here.low is not None and given_here.high is not None and scaled.low is not None and scaled.high:
            assert scaled.low == pytest.approx(times * given_here.low, rel=1e-6, abs=1e-9 * times)
            assert scaled.high == pytest.approx(times * given_here.high, rel=1e-6, abs=1e-9 * times)
    shares = Totals(array, np.ones(len(array)), session, at_ns)
    _well_made([of_observed(figure("hit_rate"), shares, level=x) for x in (0.5, 0.9, 0.95, 0.99)], most=1.0)


def _well_made(told: list[Estimate], most: float) -> None:
    last: Estimate | None = None
    for one in told:
        if one.low is None or one.high is None:
            continue
        assert one.value is not None and np.isfinite([one.low, one.high]).all()
        assert 0 <= one.low <= one.value <= one.high <= most
        if last is not None and last.low is not None and last.high is not None:
            assert one.low <= last.low + 1e-15 and last.high <= one.high * (1 + 1e-12) + 1e-15
        last = one


@given(st.floats(0.001, 1000), st.integers(60, 100))
def test_equal_sessions_have_an_interval_without_width(value: float, count: int) -> None:
    session = np.repeat(np.arange(float(count)), 3)
    for name in ("e2e_mean", "e2e_p50", "makespan_p50"):
        told = of_observed(figure(name), Sample(np.full(3 * count, value), session))
        assert told.low == pytest.approx(value, rel=1e-9) and told.high == pytest.approx(value, rel=1e-9)
