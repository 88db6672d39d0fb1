"""What servers said of themselves, over a window: counters that restart, gauges with holes, several replicas."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serverpages import PAGES

from workloom.clock import NS
from workloom.drive.scrape.page import read
from workloom.metrics import sessions as per_session
from workloom.metrics.frame import Window, calls
from workloom.metrics.samples import HOLD_NS, Level, Series, growth, highest, quantile, rising, samples
from workloom.metrics.server import ServerSide, engine_hit_rate, server_side, timeline
from workloom.records import CallRecord, ServerSample, SessionRecord


def said(at_s: float, name: str, value: float, replica: str = "r") -> ServerSample:
    return ServerSample(round(at_s * NS), name, value, replica)


def window(start_s: float, end_s: float) -> Window:
    return Window(round(start_s * NS), round(end_s * NS))


def series(*points: tuple[float, float]) -> Series:
    return Series(np.array([at for at, _ in points]) * NS, np.array([value for _, value in points], dtype=float))


TEN_S = Window(0, 10 * NS)


def side_of(told: list[ServerSample], over: Window = TEN_S, points: int = 10) -> ServerSide:
    side = server_side(told, over, points)
    assert side is not None
    return side


def pages(family: str, at_s: float, replica: str = "h:1", times: float = 1.0) -> list[ServerSample]:
    """What a scrape of a family's page keeps, every value multiplied."""
    return [
        said(at_s, row.name, row.value * times, replica + (row.engine and f"/{row.engine}"))
        for row in read(PAGES[family]).rows
    ]


def twice(family: str, replica: str = "h:1") -> list[ServerSample]:
    """A page, and one on which all has doubled: counters grew by what the page says."""
    doubled = {(s.name, s.replica): s.value for s in pages(family, 9, replica, 2)}
    return pages(family, 0, replica) + [said(9, name, value, of) for (name, of), value in doubled.items()]


# --- counters


def test_a_counter_grows_from_the_last_sample_before_the_window_to_the_last_in_it() -> None:
    counter = series((0, 100), (1, 200), (2, 400), (9, 999))
    assert growth(counter, window(1, 3), 0).amount == 200
    assert growth(counter, window(1.5, 9), 0).amount == 799
    assert growth(counter, window(10, 20), 0).amount == 0


def test_a_counter_that_falls_has_restarted_and_what_it_shows_is_new() -> None:
    counter = series((0, 100), (1, 150), (2, 30), (3, 40), (4, 5))
    assert growth(counter, window(0, 5), 0) == (50 + 30 + 10 + 5, 2)
    assert growth(counter, window(0, 1), 0) == (50, 0)
    assert growth(counter, window(2, 3), 0) == (10, 0)


def test_a_window_that_begins_before_anything_was_heard_counts_from_the_first_sample() -> None:
    assert growth(series((5, 1000), (6, 1300)), window(0, 10), heard_ns=5 * NS).amount == 300


def test_a_label_that_comes_into_sight_later_stood_at_zero_before() -> None:
    late = series((5, 7), (6, 9))
    assert growth(late, window(0, 10), heard_ns=0).amount == 9
    assert growth(late, window(5.5, 10), heard_ns=0).amount == 2
    assert growth(late, window(0, 3), heard_ns=0).amount == 0


counters = st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 50), st.booleans()), min_size=1, max_size=20)


@given(counters, st.lists(st.floats(0, 60), min_size=3, max_size=3))
def test_growth_is_what_was_added_and_windows_add_up(moves: list[tuple[float, int, bool]], cuts: list[float]) -> None:
    at, value, added = 0.0, 0, 0
    points = [(0.0, 0.0)]
    for gap, amount, restart in moves:
        at += gap
        restart = restart and amount < value
        value = amount if restart else value + amount
        added += amount
        points.append((at, float(value)))
    counter = series(*points)
    start, middle, end = sorted(cuts)
    assert growth(counter, window(0, at + 1), 0).amount == added
    parts = [growth(counter, window(*pair), 0) for pair in ((start, middle), (middle, end), (start, end))]
    assert parts[0].amount + parts[1].amount == parts[2].amount
    assert parts[0].restarts + parts[1].restarts == parts[2].restarts
    assert all(part.amount >= 0 for part in parts)
    rates = rising(counter, np.linspace(0, at, 8) * NS, 0)
    assert rates.sum() == pytest.approx(added) and (rates >= 0).all()


def test_leaving_out_equal_values_changes_nothing() -> None:
    full = series((0, 5), (1, 5), (2, 5), (3, 9), (4, 9))
    short = series((0, 5), (2, 5), (3, 9), (4, 9))
    for over in (window(0.5, 2.5), window(1, 3), window(2, 4)):
        assert growth(full, over, 0) == growth(short, over, 0)
    edges = np.array([0, 1, 2, 3, 4.0]) * NS
    assert rising(full, edges, 0).tolist() == rising(short, edges, 0).tolist()


def test_the_engines_hit_rate_is_of_the_window_whatever_the_engine_is() -> None:
    told = [said(0, "vllm:prefix_cache_queries", 100), said(0, "vllm:prefix_cache_hits_total", 90)]
    told += [said(5, "vllm:prefix_cache_queries_total", 300), said(5, "vllm:prefix_cache_hits", 240)]
    told += [said(9, "vllm:prefix_cache_queries", 999), said(9, "vllm:prefix_cache_hits", 240)]
    assert engine_hit_rate(told, window(0, 6)) == 0.75
    assert engine_hit_rate(samples(told), window(0, 6)) == 0.75
    assert engine_hit_rate(twice("llamacpp"), window(0, 10)) == 0.4
    assert engine_hit_rate(twice("sglang"), window(0, 10)) == 0.56
    assert engine_hit_rate(twice("trtllm"), window(0, 10)) == pytest.approx(1 / 3)
    assert engine_hit_rate(twice("atom"), window(0, 10)) == 0.9
    assert engine_hit_rate([], window(0, 6)) is None


# --- gauges


def test_a_gauges_mean_is_over_time_and_not_over_samples() -> None:
    gauge = Level(series((0, 10), (1, 2), (3, 2)))
    edges = np.array([0, 4]) * float(NS)
    assert gauge.means(edges)[0] == pytest.approx((10 * 1 + 2 * 3) / 4)
    assert gauge.means(np.array([0, 1, 2, 3, 4.0]) * NS).tolist() == pytest.approx([10, 2, 2, 2])


def test_a_gauge_that_is_not_heard_is_unknown_and_not_what_it_was() -> None:
    hold_s = HOLD_NS / NS
    gauge = Level(series((0, 4), (20, 8)))
    assert gauge.covered(np.array([0, 30]) * float(NS))[0] == 2 * HOLD_NS
    assert gauge.means(np.array([0, 30]) * float(NS))[0] == 6
    assert np.isnan(gauge.means(np.array([10, 15]) * float(NS))[0])
    assert np.isnan(gauge.at(np.array([hold_s + 1]) * NS)[0]) and gauge.at(np.array([1.0]) * NS)[0] == 4
    assert np.isnan(gauge.at(np.array([-1.0]) * NS)[0])


gauge_points = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=12, unique_by=lambda p: p[0]
)


@given(gauge_points, st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_means_are_those_of_looking_every_tenth_of_a_second(
    points: list[tuple[int, int]], ends: tuple[int, int]
) -> None:
    start, end = min(ends), max(ends) + 1
    points = sorted(points)
    gauge = Level(series(*[(float(at), float(value)) for at, value in points]))
    seen = []
    for tick in range(start * 10, end * 10):
        before = [(at, value) for at, value in points if at * 10 <= tick]
        if before and tick < before[-1][0] * 10 + HOLD_NS / NS * 10:
            seen.append(before[-1][1])
    mean = gauge.means(np.array([start, end]) * float(NS))[0]
    assert np.isnan(mean) if not seen else mean == pytest.approx(np.mean(seen))
    peak = highest([gauge], window(start, end), added=True)
    assert peak == (max(seen) if seen else None)


def test_requests_of_replicas_add_up_at_every_instant_and_shares_do_not() -> None:
    told = [said(at, "vllm:num_requests_running", value, "a") for at, value in ((0, 5), (1, 1), (2, 1), (3, 1))]
    told += [said(at + 0.5, "vllm:num_requests_running", value, "b") for at, value in ((0, 1), (1, 5), (2, 1), (3, 1))]
    told += [said(at, "vllm:kv_cache_usage_perc", 0.2, "a") for at in range(4)]
    told += [said(at, "vllm:kv_cache_usage_perc", 0.6, "b") for at in range(4)]
    side = side_of(told, window(0, 4), 4)
    running, usage = side.gauges["running"], side.gauges["kv_usage"]
    assert running.peak == 6, "the two peaks of 5 were not at one time"
    assert running.mean == pytest.approx((5 + 1 + 1 + 1) / 4 + (1 + 5 + 1 + 0.5) / 3.5)
    assert (usage.mean, usage.peak) == (pytest.approx(0.4), 0.6)
    assert side.series.kv_usage == pytest.approx([0.4] * 4)
    assert [replica.replica for replica in side.replicas] == ["a", "b"]
    assert side.replicas[1].gauges["running"].peak == 5


# --- histograms


def test_quantiles_lie_evenly_within_buckets() -> None:
    bounds, counts = np.array([0.1, 1.0, np.inf]), np.array([4.0, 8.0, 10.0])
    assert quantile(bounds, counts, 0.2) == pytest.approx(0.05)
    assert quantile(bounds, counts, 0.6) == pytest.approx(0.55)
    assert quantile(bounds, counts, 0.99) == 1.0, "how far beyond the last bound, nobody knows"
    assert quantile(bounds, np.zeros(3), 0.5) is None and quantile(np.empty(0), np.empty(0), 0.5) is None


@given(st.lists(st.floats(0.001, 4.9), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], level: float) -> None:
    bounds = np.array([0.01, 0.1, 0.5, 1, 2.5, 5, np.inf])
    counts = np.array([sum(value <= bound for value in values) for bound in bounds], dtype=float)
    true = sorted(values)[max(0, int(np.ceil(level * len(values))) - 1)]
    got = quantile(bounds, counts, level)
    assert got is not None
    bucket = int(np.searchsorted(bounds, true, side="left"))
    assert (bounds[bucket - 1] if bucket else 0) - 1e-9 <= got <= bounds[bucket] + 1e-9


def test_the_servers_own_latency_is_of_the_window_only() -> None:
    base = "vllm:time_to_first_token_seconds"

    def histogram(at_s: float, counts: list[float], total_s: float) -> list[ServerSample]:
        told = [
            said(at_s, f"{base}_bucket{{le={le}}}", count)
            for le, count in zip(("0.1", "1", "inf"), counts, strict=True)
        ]
        return [*told, said(at_s, f"{base}_count", counts[-1]), said(at_s, f"{base}_sum", total_s)]

    told = histogram(0, [100, 100, 100], 5.0) + histogram(5, [100, 110, 110], 11.0) + histogram(9, [500, 510, 510], 99)
    latency = side_of(told, window(1, 6)).latency["ttft_s"]
    assert (latency.count, latency.mean_s) == (10, pytest.approx(0.6))
    assert latency.p50_s == pytest.approx(0.55)


# --- families


def test_vllm_over_a_window() -> None:
    side = side_of(twice("vllm"))
    assert side.families == ["vllm"] and [r.replica for r in side.replicas] == ["h:1/0", "h:1/1"]
    assert side.hit_rate == pytest.approx(700 / 1500)
    assert side.prompt_sources == {"computed": 0.25, "local": 0.7, "external": 0.05}
    assert (side.acceptance_rate, side.acceptance_length) == (0.6, 2.8)
    assert side.growth["requests"] == 11
    assert side.offload_store_bytes_per_s == 2048 and side.growth["offload_load_bytes"] == 1024
    assert side.offload_load_bytes_per_s is None, "it does not say how long that took"
    assert side.gauges["waiting"].peak == 2 and side.gauges["running"].peak == 16
    assert side.latency["ttft_s"].count == 10 and side.latency["ttft_s"].mean_s == 0.65


def test_sglang_over_a_window() -> None:
    side = side_of(twice("sglang"))
    assert side.prompt_sources == {"computed": 0.44, "local": 0.4, "external": pytest.approx(0.16)}
    assert side.acceptance_length is not None and side.acceptance_rate is None
    assert side.growth["preemptions"] == 2 and side.growth["generation_tokens"] == 80
    assert side.gauges["kv_capacity_tokens"].peak == 800_000


def test_tensorrt_llm_and_llama_cpp_over_a_window() -> None:
    trt = side_of(twice("trtllm"))
    assert (trt.hit_rate, trt.acceptance_rate) == (pytest.approx(1 / 3), 0.75)
    assert trt.latency["ttft_s"].mean_s == 0.25
    llama = side_of(twice("llamacpp"))
    assert (llama.hit_rate, llama.prompt_sources) == (0.4, {"computed": 0.6, "local": 0.4})
    assert (llama.growth["generation_tokens"], llama.growth["decode_s"]) == (5000, 2.5)
    assert llama.gauges["waiting"].peak == 24 and llama.latency == {}


def test_dynamo_is_counted_once_by_its_frontend_or_by_its_engines() -> None:
    front, worker = twice("dynamo_frontend", "f:1"), twice("dynamo_component", "w:2")
    alone = side_of(front + worker)
    assert alone.families == ["dynamo_component", "dynamo_frontend"]
    assert (alone.hit_rate, alone.growth["requests"]) == (0.75, 21)
    assert alone.gauges["running"].peak == 18 and alone.gauges["kv_usage"].peak == 0.7
    assert alone.latency["ttft_s"].mean_s == pytest.approx(0.2)
    with_engine = side_of(front + worker + twice("vllm", "w:2"))
    assert with_engine.growth["requests"] == 11 and with_engine.hit_rate == pytest.approx(700 / 1500)
    assert with_engine.latency["ttft_s"].count == 10


def test_two_kinds_of_engines_add_up() -> None:
    both = side_of(twice("vllm", "a:1") + twice("llamacpp", "b:1"))
    assert both.growth["prefix_queries_tokens"] == 1500 + 1000
    assert both.hit_rate == pytest.approx(1100 / 2500)


def test_nothing_known_is_none_and_a_simulated_run_has_counters_only() -> None:
    assert server_side([], window(0, 1)) is None
    assert server_side([said(0, "my_engine:requests", 1.0)], window(0, 1)) is None
    side = side_of([said(0, "vllm:prefix_cache_queries", 0, ""), said(9, "vllm:prefix_cache_queries", 50, "")])
    assert (side.growth, side.hit_rate, side.heard_s) == ({"prefix_queries_tokens": 50}, None, 0.0)


def test_a_window_without_length_is_no_fault() -> None:
    side = side_of(twice("vllm"), Window(NS, NS))
    assert (side.hit_rate, side.series.at_s) == (None, [])


def test_a_replica_that_restarts_is_told() -> None:
    told = [said(at, "llamacpp:prompt_tokens", value) for at, value in ((0, 500), (2, 700), (4, 10), (6, 40))]
    told += [said(at, "llamacpp:prompt_tokens_cached", value) for at, value in ((0, 50), (2, 60), (4, 1), (6, 2))]
    side = side_of(told)
    assert side.restarts == 1 and side.growth["computed_tokens"] == 240


def test_the_summary_is_json_without_infinite_figures() -> None:
    text = msgspec.json.encode(side_of(twice("vllm")))
    assert msgspec.json.decode(text, type=ServerSide) == side_of(twice("vllm"))
    assert b"Infinity" not in text and b"NaN" not in text


# --- beside the run


def test_the_servers_figures_stand_beside_the_sessions_of_the_same_window() -> None:
    over = window(0, 10)
    ended = [
        SessionRecord(i, f"s{i}", "ok", due_ns=i * NS, start_ns=i * NS, end_ns=(i + 5) * NS, calls=1) for i in range(5)
    ]
    sent = [CallRecord(i, f"s{i}", "c", "a", "m", "ok", i * NS, sent_ns=i * NS, done_ns=(i + 5) * NS) for i in range(5)]
    told = [said(at, "vllm:num_requests_running", float(min(at + 1, 10 - at))) for at in range(10)]
    told += [said(at, "vllm:prefix_cache_queries", 100.0 * at) for at in range(11)]
    told += [said(at, "vllm:prefix_cache_hits", 100.0 * max(0, at - 5)) for at in range(11)]
    concurrency = per_session.concurrency(calls(sent), per_session.sessions(ended), over, points=10)
    both = timeline(concurrency, side_of(told, over, 10))
    assert both.sessions == pytest.approx([1, 2, 3, 4, 5, 4, 3, 2, 1, 0])
    assert both.running == pytest.approx([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    assert both.hit_rate == pytest.approx([0] * 5 + [1] * 5)
    assert both.waiting == [] and len(both.at_s) == 10
    with pytest.raises(ValueError, match="same window"):
        timeline(concurrency, side_of(told, window(0, 9), 10))


def test_points_without_a_server_are_holes() -> None:
    told = [said(at, "vllm:num_requests_running", 2.0) for at in (0, 1, 2)]
    told += [said(at, "vllm:num_requests_running", 4.0) for at in (8, 9)]
    told += [said(at, "up", float(at not in (3, 4, 5, 6, 7))) for at in range(10)]
    series = side_of(told, window(0, 10), 10).series
    assert series.running == [2, 2, 2, 2, 2, None, None, None, 4, 4]
    assert side_of(told).heard_s == pytest.approx(5)
