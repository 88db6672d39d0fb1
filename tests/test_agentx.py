"""AgentX from rows made by hand: definitions worked out on paper, the JSON to the letter, every rule broken once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wekafiles import document, request, save

from workloom.answers.agentx import Identity, aggregate, encode, identity_of, mvp, mvp_rows, rows
from workloom.answers.agentx.requests import interactivity
from workloom.answers.agentx.series import Metrics, metrics, parse
from workloom.answers.agentx.server import server_metrics
from workloom.answers.agentx.shape import Spread, TokenSums
from workloom.answers.simulated import Kept
from workloom.cli import app
from workloom.cli.agentx import NotValid, agentx
from workloom.clock import run_virtual
from workloom.drive.driver import drive
from workloom.drive.nominal import NominalBackend
from workloom.errors import UsageError
from workloom.metrics.frame import Window
from workloom.metrics.samples import samples as series_of
from workloom.plan import Closed, Limits, Recipe, TraceRef, make
from workloom.plan import document as plan_document
from workloom.records import CallRecord, ServerSample
from workloom.store import Manifest, Run, RunWriter, open_run
from workloom.traces import open_trace

S = 1_000_000_000
CANONICAL = Path(__file__).parents[1] / "src/workloom/data/canonical.jsonl"

V1: dict[str, Any] = {
    "scenario": {"name": "agentx-v1", "overrides": []},
    "recipe": {
        "trace": {"format": "weka", "content_hash": "abc", "sessions": 393},
        "load": {"type": "closed", "concurrency": 8},
        "start": {"low": 0.25, "high": 0.75, "by": "clock"},
        "waits": {"max_s": None, "time_scale": 1.0, "tree_idle_s": 300.0, "system_idle_s": 10.0},
        "context": {"policy": "stop"},
        "isolation": "play",
    },
    "server": {"model": "m", "output": "exact", "models": {}, "body": {}},
}


def call(number: int, sent_s: float, ttft_s: float = 0.1, e2e_s: float = 1.0, **fields: Any) -> CallRecord:
    """A call of 11 tokens out and 100 in, sent when it was due, its stream over with its last token."""

    def ns(seconds: float) -> int:
        return round(seconds * S)

    given = {
        "instance": number,
        "session": f"s{number}",
        "call": f"c{number}",
        "agent": "main",
        "model": "m",
        "status": "ok",
        "due_ns": ns(sent_s),
        "sent_ns": ns(sent_s),
        "first_ns": ns(sent_s + ttft_s),
        "last_ns": ns(sent_s + e2e_s),
        "done_ns": ns(sent_s + e2e_s),
        "planned_output_tokens": 11,
        "sent_prompt_tokens": 100,
        "output_tokens": 11,
    }
    return CallRecord(**{**given, **fields})


def failed(number: int, sent_s: float, kind: str, **fields: Any) -> CallRecord:
    gone: dict[str, Any] = {"status": "error", "error_kind": kind, "first_ns": None, "last_ns": None}
    return call(number, sent_s, **{**gone, "output_tokens": None, **fields})


def run_of(
    path: Path,
    calls: list[CallRecord],
    *,
    samples: list[ServerSample] | None = None,
    window_s: tuple[float, float] = (0, 1000),
    config: dict[str, Any] | None = None,
    plan: bytes = b"{}",
    status: Any = "finished",
) -> Run:
    manifest = Manifest(
        backend="http", config=V1 if config is None else config, window_start_ns=round(window_s[0] * S), argv=["w"]
    )
    writer = RunWriter.create(path, manifest, plan)
    for record in calls:
        writer.call(record)
    for sample in samples or []:
        writer.server(sample)
    return writer.close(status, window_end_ns=round(window_s[1] * S))


def latency(calls: list[CallRecord], path: Path) -> dict[str, Any]:
    return json.loads(encode(aggregate(run_of(path, calls))))["request_metrics"]["latency"]


# -- definitions


def test_interactivity_is_the_inverse_of_the_percentile_not_the_percentile_of_inverses(tmp_path: Path) -> None:
    # 10, 20 and 100 ms a token: p50 20, p75 60, p90 84, mean 43 1/3 ms.
    calls = [call(i, i, 0.5, 0.5 + 10 * itl) for i, itl in enumerate((0.010, 0.020, 0.100))]
    found = latency(calls, tmp_path / "r")
    assert found["itl"]["p90"] == 0.084
    assert found["tpot"] == found["itl"]
    intvty = found["intvty"]
    assert (intvty["mean"], intvty["p50"], intvty["p75"], intvty["p90"]) == (23.07692, 50.0, 16.66667, 11.90476)
    assert intvty["std"] == round(float(np.std([100, 50, 10])), 5), "of the inverses, of the population"


def test_normalized_interactivity_divides_each_request_by_its_own_tokens(tmp_path: Path) -> None:
    # 1 s for 50 tokens and 2 s for 50: 0.02 and 0.04 s a token, p90 0.038.
    calls = [call(0, 0, e2e_s=1.0, output_tokens=50), call(1, 1, e2e_s=2.0, output_tokens=50)]
    found = latency(calls, tmp_path / "r")["e2e_norm_intvty"]
    assert (found["mean"], found["p75"], found["p90"], found["std"]) == (33.33333, 28.57143, 26.31579, 12.5)


def test_the_full_response_ends_with_the_stream_and_the_other_latencies_with_the_last_token(tmp_path: Path) -> None:
    late = call(0, 0, 0.5, 1.5, done_ns=round(2.5 * S))
    found = latency([late], tmp_path / "r")
    assert found["ttft"]["p50"] == 0.5
    assert found["e2el"]["p50"] == 1.5
    assert found["itl"]["p50"] == 0.1
    assert found["full_response_itl"]["p50"] == 0.2
    assert found["full_response_intvty"]["p50"] == 5.0


def test_a_latency_of_0_is_no_value_as_in_the_original(tmp_path: Path) -> None:
    assert latency([call(0, 0, 0.0), call(1, 1, 0.4)], tmp_path / "r")["ttft"]["mean"] == 0.4


def test_p50_is_over_requests_not_over_gaps(tmp_path: Path) -> None:
    """Two short slow answers outvote a long fast one, though nearly all gaps are its own."""
    long = call(0, 0, 0.1, 0.1 + 0.01 * 1000, output_tokens=1001)
    short = [call(i, i, 0.1, 0.1 + 0.2, output_tokens=2) for i in (1, 2)]
    assert latency([long, *short], tmp_path / "r")["itl"]["p50"] == 0.2


def test_a_single_token_has_no_itl_and_an_empty_answer_no_ttft(tmp_path: Path) -> None:
    one = call(0, 0, 0.3, 0.3, output_tokens=1)
    none = call(1, 1, first_ns=None, last_ns=None, output_tokens=0)
    found = latency([one, none], tmp_path / "r")
    assert found["ttft"] == dict.fromkeys(("mean", "p50", "p75", "p90", "p95"), 0.3) | {"std": 0.0}
    assert found["itl"] == found["intvty"] == found["full_response_itl"] == {}
    assert found["e2e_norm_intvty"]["p50"] == round(1 / 0.3, 5)


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=50))
def test_a_slower_tail_is_never_a_higher_interactivity(seconds: list[float]) -> None:
    found = interactivity(np.array(seconds))
    levels = [found.p50, found.p75, found.p90, found.p95]
    assert levels == sorted(levels, reverse=True)
    assert found.p90 == pytest.approx(1 / float(np.percentile(seconds, 90)))


def test_qps_counts_whole_seconds_from_the_first_completion(tmp_path: Path) -> None:
    # Ends at 1.0, 1.2, 1.9 | 2.0 | none | 4.5, which is no whole second any more.
    ends = (1.0, 1.2, 1.9, 2.0, 4.5)
    found = aggregate(run_of(tmp_path / "r", [call(i, 0, e2e_s=end) for i, end in enumerate(ends)]))
    qps = found.request_metrics.qps
    assert (qps.window_seconds, qps.samples, qps.mean) == (1.0, 3, pytest.approx(4 / 3))
    assert (qps.p50, qps.p90) == (1.0, pytest.approx(2.6))


def test_throughput_is_from_the_first_start_to_the_last_end_drain_included(tmp_path: Path) -> None:
    """The window ends at 10 s and a request at 20: the drain is in the denominator, and in that of ours it is not."""
    calls = [call(0, 0, e2e_s=5), call(1, 8, e2e_s=12)]
    run = run_of(tmp_path / "r", calls, window_s=(0, 10))
    found = aggregate(run, Identity(tp=2, pcp_size=2, dcp_size=4)).request_metrics.throughput
    assert msgspec.to_builtins(found) == {
        "input": {"tokens_per_second": 10.0},
        "output": {"tokens_per_second": 1.1},
        "total": {"tokens_per_second": 11.1},
        "duration_seconds": 20.0,
        "per_gpu": {"total_tput_tps": 2.775, "output_tput_tps": 0.275, "input_tput_tps": 2.5},
    }
    assert aggregate(run).workloom.window_throughput.input_tokens_per_second == 20.0, "both first tokens came in it"


def test_what_the_server_counted_goes_before_what_was_sent(tmp_path: Path) -> None:
    found = aggregate(run_of(tmp_path / "r", [call(0, 0, prompt_tokens=140), call(1, 1)]))
    assert found.request_metrics.tokens.input.mean == 120


# -- what is a record


def test_every_row_is_accounted_for_and_a_failed_warmup_counts_twice(tmp_path: Path) -> None:
    calls = [
        call(0, 10),
        call(1, 6, phase="warmup"),
        failed(2, 2, "http_status", phase="warmup", http_status=503),
        failed(3, 11, "http_status", http_status=429),
        failed(4, 12, "context_overflow"),
        call(5, 13, status="timeout", last_ns=None),
        call(6, 14, status="cancelled", sent_ns=None, first_ns=None, last_ns=None, done_ns=None),
        call(7, 15, status="censored", done_ns=20 * S),
        call(8, 25),
    ]
    found = aggregate(run_of(tmp_path / "r", calls, window_s=(5, 20)))
    assert msgspec.to_builtins(found.request_accounting) == {
        "records_total": 6,
        "records_profiled": 1,
        "records_dropped_total": 5,
        "records_warmup_dropped": 2,
        "records_error_dropped": 4,
        "error_categories": {"context_overflow": 1, "http_429": 1, "http_503": 1, "timeout": 1},
    }
    assert (found.num_requests_total, found.num_requests_successful) == (6, 1)
    counts = found.workloom.counts
    assert (counts.failed, counts.cancelled, counts.censored, counts.after_window) == (3, 1, 1, 1)
    assert msgspec.to_builtins(found.workloom.failed_tokens) == {"input": 300, "output": 11}


# -- the JSON

TOP = (
    "hw conc image model infmax_model_prefix framework precision spec_decoding disagg scenario_type is_multinode "
    "num_gpus tp ep dp_attention pp dcp_size pcp_size kv_offloading kv_offload_backend allocated_cpu_dram_gb dataset "
    "num_requests_total num_requests_successful request_accounting request_metrics server_metrics "
    "kv_cache_pool_tokens warnings workloom"
)
NESTED = {
    "request_metrics": "qps latency tokens throughput cache",
    "request_metrics.latency": "ttft e2el itl tpot intvty e2e_norm_intvty full_response_itl full_response_intvty",
    "request_metrics.latency.ttft": "mean p50 p75 p90 p95 std",
    "request_metrics.qps": "window_seconds samples mean p50 p75 p90 p95 std",
    "request_metrics.tokens": "input output_actual output_expected",
    "request_metrics.throughput": "input output total duration_seconds per_gpu",
    "request_metrics.throughput.per_gpu": "total_tput_tps output_tput_tps input_tput_tps",
    "request_metrics.cache": "theoretical_cache_hit_rate",
    "server_metrics": "present adapter metric_count cache kv_cache kv_offload tokens sources",
    "server_metrics.cache": (
        "gpu_cache_hit_rate cpu_cache_hit_rate external_cache_hit_rate overall_cache_hit_rate prefix_cache_hits "
        "prefix_cache_queries external_prefix_cache_hits external_prefix_cache_queries cached_tokens_by_source "
        "frontend_cache_hit_rate router_kv_hit_rate router_shared_cache_hit_rate frontend_cached_tokens "
        "frontend_input_tokens"
    ),
    "server_metrics.kv_cache": "gpu_usage_pct gpu_total_tokens cpu_usage_pct cpu_used_tokens cpu_total_tokens",
    "server_metrics.kv_offload": (
        "bytes_gpu_to_cpu bytes_cpu_to_gpu time_gpu_to_cpu time_cpu_to_gpu bandwidth_gpu_to_cpu_bytes_per_second "
        "bandwidth_cpu_to_gpu_bytes_per_second"
    ),
    "server_metrics.tokens": "prompt_total generation_total requests_completed prompt_by_source",
    "server_metrics.tokens.prompt_by_source": "gpu_cache_hit cpu_or_external_cache_hit computed raw",
}


def test_the_names_their_nesting_and_their_order_are_those_of_the_original(tmp_path: Path) -> None:
    found = json.loads(encode(aggregate(run_of(tmp_path / "r", [call(0, 0), call(1, 2)]))))
    assert list(found) == TOP.split()
    for path, names in NESTED.items():
        inner = found
        for step in path.split("."):
            inner = inner[step]
        assert list(inner) == names.split(), path
    assert (found["scenario_type"], found["dp_attention"], found["conc"], found["model"]) == (
        "agentic-coding",
        "false",
        8,
        "m",
    )


def test_a_run_without_an_answer_has_empty_groups_not_zeros(tmp_path: Path) -> None:
    found = json.loads(encode(aggregate(run_of(tmp_path / "r", []))))["request_metrics"]
    assert found["qps"] == found["throughput"] == {}
    assert set(map(json.dumps, found["latency"].values())) == {"{}"}
    assert found["cache"] == {"theoretical_cache_hit_rate": None}


def test_tags_make_the_identity_and_several_nodes_have_fields_of_their_own(tmp_path: Path) -> None:
    tags = "is_multinode=true prefill_num_workers=2 prefill_tp=3 prefill_pcp_size=4 decode_num_workers=3 decode_tp=2"
    run = run_of(tmp_path / "r", [call(0, 0)])
    found = json.loads(encode(aggregate(run, identity_of([*tags.split(), "decode_pcp_size=5", "router=smg:0.2"]))))
    assert (found["num_gpus"], found["num_prefill_gpu"], found["num_decode_gpu"], found["tp"]) == (54, 24, 30, 5)
    assert "pp" not in found
    assert found["router"] == {"name": "smg", "version": "0.2"}
    alone = identity_of([*tags.replace("decode_num_workers=3", "decode_num_workers=0").split()])
    found = json.loads(encode(aggregate(run, alone)))
    assert (found["num_gpus"], found["decode_tp"], found["tp"]) == (24, 0, 3), "one kind of worker does both"


@pytest.mark.parametrize(("tag", "said"), [("tpp=2", "did you mean tp"), ("tp", "KEY=VALUE"), ("tp=x", "tp")])
def test_a_tag_that_is_none_is_refused(tag: str, said: str) -> None:
    with pytest.raises(UsageError, match="--tag") as fault:
        identity_of([tag])
    assert said in str(fault.value)


# -- the cache


class Nobody:
    def add(self, access: object) -> None:
        pass

    def forget(self, instance: int) -> None:
        pass


def test_the_theoretical_hit_rate_is_of_prompts_by_full_blocks_however_often_a_trace_is_played(tmp_path: Path) -> None:
    """0 of 3 blocks, 3 of 5 and 2 of 3. An engine holds the answer of 6 tokens too, which is no block of a prompt."""
    turns = [request(0, [0, 1, 2], 6), request(5, [0, 1, 2, 3, 4], extra=1), request(10, [0, 1, 9])]
    trace = save(tmp_path / "trace.json", document(turns))
    plan = make(Recipe(TraceRef((str(trace),)), Closed(1), Limits(sessions=2)))
    kept = Kept()
    run_virtual(lambda clock: drive(plan, NominalBackend(clock, Nobody()), clock, kept))
    assert len(kept.calls) == 6
    run = run_of(tmp_path / "r", kept.calls, plan=plan_document(plan))
    found = aggregate(run)
    assert found.workloom.theoretical_cache_hit_rate_from == "trace blocks"
    assert found.request_metrics.cache.theoretical_cache_hit_rate == 5 / 11
    held = [record.ideal_cached_tokens or 0 for record in kept.calls]
    by_rows = sum(held) / sum(record.ideal_prompt_tokens or 0 for record in kept.calls)
    assert found.workloom.ideal_cache_hit_rate == by_rows

    trace.unlink()
    found = aggregate(run)
    assert found.workloom.theoretical_cache_hit_rate_from == "records", "the trace is gone: the rows say nearly as much"
    assert found.request_metrics.cache.theoretical_cache_hit_rate == by_rows


def test_plays_share_the_scaffold_of_their_session_and_nothing_else(tmp_path: Path) -> None:
    """20 sessions in 24 slots come again and again; a cache that loses nothing shows what two plays have in common."""
    engine = ["--engine", "llama-3.1-8b-h100x1", "--kv-tokens", "inf", "--scenario", "agentx-v1", "--duration", "900"]
    out = str(tmp_path / "r")
    app(["run", str(CANONICAL), *engine, "--concurrency", "24", "-o", out], result_action="return_value")
    scaffolds = {
        session.id: sum(span.tokens for span in session.calls[0].spans if span.scope == "trace")
        for session in open_trace([CANONICAL])
    }
    first: dict[int, CallRecord] = {}
    for record in sorted(open_run(out).calls(), key=lambda record: record.due_ns):
        first.setdefault(record.instance, record)
    played: set[str] = set()
    again = 0
    for record in first.values():
        found, scaffold = record.cached_tokens or 0, scaffolds[record.session]
        assert found <= (scaffold if record.session in played else 0), f"{record.instance}/{record.call}"
        again += found > scaffold - 16
        played.add(record.session)
    assert again > 10, "the scaffold itself is found, all but its last block"


# -- the server


def grown(name: str, before: float, after: float) -> list[ServerSample]:
    return [ServerSample(0, name, before), ServerSample(5 * S, name, after)]


def series(samples: list[ServerSample], end_s: int = 10) -> Metrics:
    return metrics(series_of(samples), Window(0, end_s * S))


def test_vllm_says_where_prompt_tokens_came_from_and_only_growth_counts(tmp_path: Path) -> None:
    source = 'vllm:prompt_tokens_by_source_total{source="%s",engine="0"}'
    samples = [
        *grown("vllm:prompt_tokens_total{engine=0}", 1000, 2000),
        *grown("vllm:generation_tokens_total", 5, 55),
        *grown("vllm:prefix_cache_hits_total", 0, 400),
        *grown("vllm:prefix_cache_queries_total", 0, 1000),
        *grown(source % "local_cache_hit", 100, 700),
        *grown(source % "external_kv_transfer", 0, 100),
        *grown(source % "local_compute", 50, 350),
        *grown("vllm:kv_offload_bytes_gpu_to_cpu", 0, 80),
        *grown("vllm:kv_offload_time_gpu_to_cpu", 0, 4),
        ServerSample(0, "vllm:kv_cache_usage_perc", 1.0),  # before the window
        ServerSample(1 * S, "vllm:kv_cache_usage_perc", 0.9),
        ServerSample(2 * S, "vllm:kv_cache_usage_perc", 0.3),
    ]
    result = aggregate(run_of(tmp_path / "r", [call(0, 1)], samples=samples, window_s=(0.5, 1000)))
    found = result.server_metrics
    assert (found.present, found.adapter, found.metric_count) == (True, "vllm", 8)
    cache = found.cache
    assert (cache.gpu_cache_hit_rate, cache.external_cache_hit_rate, cache.overall_cache_hit_rate) == (0.6, 0.1, 0.7)
    assert (cache.prefix_cache_hits, cache.prefix_cache_queries) == (400, 1000)
    assert (found.tokens.prompt_total, found.tokens.generation_total) == (1000, 50)
    assert found.tokens.prompt_by_source.computed == 300
    assert found.kv_offload.bandwidth_gpu_to_cpu_bytes_per_second == 20
    assert (found.kv_cache.gpu_usage_pct, result.workloom.gpu_kv_usage_mean) == (0.9, pytest.approx(0.6))
    assert [source.id for source in found.sources] == ["combined", "combined|engine=0"]


def test_sglang_behind_dynamo_is_still_read_as_sglang() -> None:
    samples = [
        *grown("sglang:prompt_tokens_total", 0, 1000),
        *grown("sglang:cached_tokens_total{cache_source=device}", 0, 500),
        *grown("sglang:cached_tokens_total{cache_source=host}", 0, 250),
        *grown("dynamo_frontend_cached_tokens", 0, 700),
        *grown("dynamo_frontend_input_sequence_tokens", 0, 1000),
    ]
    found, warnings = server_metrics(series(samples), TokenSums(1, 2), 3)
    assert (found.adapter, warnings) == ("dynamo-sglang", [])
    cache = found.cache
    assert (cache.gpu_cache_hit_rate, cache.cpu_cache_hit_rate, cache.overall_cache_hit_rate) == (0.5, 0.25, 0.75)
    assert cache.frontend_cache_hit_rate == 0.7
    assert (found.tokens.prompt_total, found.tokens.generation_total, found.tokens.requests_completed) == (1000, 2, 3)


def test_vllm_tells_its_capacity_in_labels_and_newer_ones_the_way_of_offloading() -> None:
    samples = [
        *[ServerSample(S, "vllm:cache_config_info{num_gpu_blocks}", 100, replica) for replica in "01"],
        *[ServerSample(S, "vllm:cache_config_info{block_size}", 16, replica) for replica in "01"],
        *grown("vllm:kv_offload_total_bytes{transfer_type=GPU_to_CPU}", 0, 60),
        *grown("vllm:kv_offload_total_bytes{transfer_type=CPU_to_GPU}", 0, 9),
    ]
    found, _ = server_metrics(series(samples), TokenSums(0, 0), 0)
    assert found.kv_cache.gpu_total_tokens == 3200
    assert (found.kv_offload.bytes_gpu_to_cpu, found.kv_offload.bytes_cpu_to_gpu) == (60, 9)


def test_a_counter_that_restarts_and_replicas_add_up() -> None:
    samples = [ServerSample(at * S, "vllm:prompt_tokens", value) for at, value in ((0, 90), (1, 100), (2, 5), (3, 25))]
    other = [ServerSample(at * S, "vllm:prompt_tokens", value, "b") for at, value in ((0, 0), (4, 7), (99, 1000))]
    found, _ = server_metrics(series([*samples, *other]), TokenSums(0, 0), 0)
    assert found.tokens.prompt_total == 10 + 25 + 7


def test_an_unknown_engine_is_a_warning_and_the_requests_own_counts_stand_in(tmp_path: Path) -> None:
    result = aggregate(run_of(tmp_path / "r", [call(0, 0)], samples=grown("brandnew:tokens", 0, 3)))
    assert result.server_metrics.adapter == "unknown"
    assert result.server_metrics.tokens.prompt_total == 100
    assert "brandnew:tokens" in str(result.warnings)
    silent = aggregate(run_of(tmp_path / "s", [call(0, 0)]))
    assert (silent.server_metrics.present, silent.server_metrics.adapter) == (False, "none")
    assert silent.warnings == ["no server metrics were recorded"]


@given(st.lists(st.tuples(st.text(max_size=30), st.floats(allow_nan=True, allow_infinity=True)), max_size=8))
def test_no_name_and_no_value_of_a_metric_raises(pairs: list[tuple[str, float]]) -> None:
    prefixes = ("", "vllm:", "sglang:", "trtllm_", "atom:", "llamacpp:", "dynamo_")
    samples = [ServerSample(i * S, prefix + name, v) for i, (name, v) in enumerate(pairs) for prefix in prefixes]
    found, _ = server_metrics(series(samples, 100), TokenSums(1, 1), 1)
    assert found.present or not any(math.isfinite(value) for _, value in pairs)
    assert pairs or not found.present


def test_a_label_that_comes_into_sight_counts_from_zero_and_a_page_from_its_first_sample() -> None:
    """The first count of a source makes its line; what a server had counted before it was heard is not of the run."""
    source = "vllm:prompt_tokens_by_source{source=%s}"
    samples = [
        *[ServerSample(at * S, "up", value, "h:1") for at, value in ((0, 0), (2, 1))],
        *[ServerSample(at * S, source % "local_compute", value, "h:1/0") for at, value in ((2, 5000), (8, 5700))],
        ServerSample(4 * S, source % "local_cache_hit", 300, "h:1/0"),
    ]
    found, _ = server_metrics(series(samples), TokenSums(0, 0), 0)
    assert found.tokens.prompt_by_source.raw == {"local_cache_hit": 300, "local_compute": 700}
    assert (found.metric_count, found.cache.overall_cache_hit_rate) == (1, 0.3), "that it was up is no figure of its"


def test_a_server_that_was_never_up_said_nothing() -> None:
    found, warnings = server_metrics(series([ServerSample(S, "up", 0, "h:1")]), TokenSums(0, 0), 0)
    assert (found.present, found.adapter, found.metric_count) == (False, "none", 0)
    assert (found.tokens.prompt_total, found.tokens.generation_total) == (None, None), "nor did any request"
    assert warnings == ["no server metrics were recorded"]


def test_labels_are_read_quoted_or_not() -> None:
    assert parse('a_total{x="1,2",y=b}') == ("a", {"x": "1,2", "y": "b"})
    assert parse("plain") == ("plain", {})
    assert parse("info{size}") == ("info", {"size": ""})


# -- validity


def steady(**fields: Any) -> list[CallRecord]:
    """A call every 10 s for 1,000 s."""
    return [call(i, i * 10, **fields) for i in range(100)]


def codes(run: Run) -> list[str]:
    stamp = aggregate(run).workloom.validity
    assert stamp.valid == (not stamp.reasons)
    assert all("; expected " in reason for reason in stamp.reasons)
    return [reason.partition(":")[0] for reason in stamp.reasons]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The configuration of a valid run with one value changed."""
    config = json.loads(json.dumps(V1))
    *way, last = path.split(".")
    inner = config
    for step in way:
        inner = inner[step]
    inner[last] = value
    return config


def test_a_run_to_the_letter_is_valid(tmp_path: Path) -> None:
    assert codes(run_of(tmp_path / "r", steady())) == []


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("scenario", None, "no_scenario"),
        ("scenario.name", "trie", "no_scenario"),
        ("scenario.overrides", ["--max-idle"], "unsafe_override"),
        ("recipe.start", None, "start_ratio"),
        ("recipe.start.high", 1.0, "start_ratio"),
        ("recipe.waits.max_s", 60.0, "delays_changed"),
        ("recipe.waits.time_scale", 2.0, "delays_changed"),
        ("recipe.waits.tree_idle_s", None, "idle_cap"),
        ("recipe.waits.system_idle_s", 60.0, "idle_cap"),
        ("recipe.context.policy", "cut", "input_truncation"),
        ("server.output", "cap", "ignore_eos"),
        ("server.body.ignore_eos", None, "ignore_eos"),
        ("server.models.sub", "small", "several_models"),
        ("recipe.isolation", "none", "cache_bust"),
    ],
)
def test_every_lock_is_checked(tmp_path: Path, path: str, value: Any, code: str) -> None:
    config = changed(path, value)
    assert codes(run_of(tmp_path / "r", steady(), config=config)) == [code]


def test_what_happened_in_the_run_is_checked(tmp_path: Path) -> None:
    assert codes(run_of(tmp_path / "a", steady(), status="interrupted")) == ["run_cancelled"]
    assert codes(run_of(tmp_path / "b", steady(), window_s=(0, 899))) == ["too_short"]
    assert codes(run_of(tmp_path / "c", steady()[:94])) == ["insufficient_profile_metric_coverage"]
    bad = [failed(100 + i, i, "disconnect") for i in range(12)]
    assert codes(run_of(tmp_path / "d", [*steady(), *bad[:11]])) == [], "11 of 111"
    assert codes(run_of(tmp_path / "e", [*steady(), *bad])) == ["error_rate_exceeded"]
    long = [failed(200 + i, i, "context_overflow") for i in range(2)]
    one = failed(200, 0, "context_overflow")
    assert codes(run_of(tmp_path / "k", [*steady(), *bad[:11], one])) == [], "an overflow is in a tally of its own"
    slow = [call(300 + i, i, status="timeout", last_ns=None) for i in range(12)]
    assert codes(run_of(tmp_path / "l", [*steady(), *slow])) == ["error_rate_exceeded"], "no answer in time is none"
    most = [*steady(), *slow[:11], *long]
    assert codes(run_of(tmp_path / "m", most)) == ["context_overflow_rate_exceeded"], "2 of 113"
    many = [*steady(), *[call(400 + i, i) for i in range(90)], *slow[:10]]
    assert codes(run_of(tmp_path / "n", [*many, *long])) == [], "2 of 202: time-outs are responses too"
    assert codes(run_of(tmp_path / "f", [*steady()[1:], *long[:1]])) == [], "1 of 100"
    assert codes(run_of(tmp_path / "g", [*steady(), *long])) == ["context_overflow_rate_exceeded"]
    broken = failed(0, 0, "connect", phase="warmup")
    assert codes(run_of(tmp_path / "h", [*steady(), broken])) == ["warmup_root_error"]
    child = failed(0, 0, "connect", phase="warmup", agent="sub", ordinal=3)
    assert codes(run_of(tmp_path / "i", [*steady(), child])) == [], "only roots abort"
    assert codes(run_of(tmp_path / "j", []))[:1] == ["no_request_completed"]


def test_a_long_answer_at_the_end_shows_that_the_server_lives(tmp_path: Path) -> None:
    last = call(100, 900, 0.1, 90, status="censored")
    assert codes(run_of(tmp_path / "r", [*steady()[:80], last])) == []


# -- the earlier protocol, and the command


def test_the_earlier_protocol_has_its_own_locks_and_percentiles(tmp_path: Path) -> None:
    config = changed("scenario.name", "agentx-mvp")
    waits = {"max_s": 60.0, "time_scale": 1.0, "tree_idle_s": None, "system_idle_s": None}
    config["recipe"] |= {"start": {"low": 0.0, "high": 0.7, "by": "index"}, "waits": waits, "isolation": "before"}
    run = run_of(tmp_path / "r", steady(), config=config)
    found = mvp(run)
    assert (found.validity.valid, found.validity.reasons) == (True, [])
    assert found.num_requests_successful == 100
    assert found.intvty.p99 == pytest.approx(1 / 0.09)
    assert mvp_rows(found)[1][0][0].startswith("TTFT")
    broken = run_of(tmp_path / "s", steady(), config=changed("scenario.name", "agentx-mvp"))
    assert {reason.partition(":")[0] for reason in mvp(broken).validity.reasons} == {
        "start_ratio",
        "delays_changed",
        "idle_cap",
        "cache_bust",
    }


def test_the_command_prints_writes_and_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path / "good", steady())
    out = tmp_path / "agg.json"
    agentx(str(tmp_path / "good"), str(out), ["hw=h200", "tp=8"], False, True, False)
    assert json.loads(out.read_text())["hw"] == "h200"
    printed = capsys.readouterr().out
    assert "E2E-norm. intvty" in printed and "valid" in printed
    run_of(tmp_path / "bad", steady(), config={})
    with pytest.raises(NotValid, match="no_scenario"):
        agentx(str(tmp_path / "bad"), None, None, False, True, True)
    assert json.loads(capsys.readouterr().out)["workloom"]["validity"]["valid"] is False
    run_of(tmp_path / "earlier", steady(), config=changed("scenario.name", "agentx-mvp"))
    with pytest.raises(NotValid) as caught:
        agentx(str(tmp_path / "earlier"), None, None, False, True, False)
    assert "--scenario agentx-mvp`" in (caught.value.hint or "")


def test_rows_of_a_run_without_figures_say_so(tmp_path: Path) -> None:
    lines, table = rows(aggregate(run_of(tmp_path / "r", [])))
    assert dict(lines)["requests"] == "0 profiled of 0 records"
    assert set(table[0][1:]) == {"-"}
    assert msgspec.to_builtins(Spread()) == {}
