"""AgentX's aggregate, agentx-mvp's percentiles and TRIE's figures against the same worked out by hand.

:mod:`agentx_by_hand` was written from the definitions alone, by somebody who had not read the product's computation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import agentx_by_hand as by_hand
import pytest

from workloom import seeds
from workloom.answers import agentx
from workloom.answers import trie as trie_figures
from workloom.cli import app
from workloom.plan import Closed, Recipe, TraceRef, document, make
from workloom.records import CallRecord, ChunkRun, ServerSample, SessionRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import Manifest, Run, RunWriter, open_run
from workloom.traces import native, open_trace

REPOSITORY = Path(__file__).parents[1]
CANONICAL = REPOSITORY / "src/workloom/data/canonical.jsonl"
WEKA = REPOSITORY.parent / "shared/data/weka"
NS = 1_000_000_000
TAGS = ["hw=h100", "model=m", "framework=vllm", "precision=bf16"]


def differences(mine: Any, theirs: Any, where: str = "", digits: float = 1.01e-5) -> list[str]:
    """Where two JSON values are not the same: to 5 digits behind the point, and 9 in all."""
    if isinstance(mine, dict):
        if not isinstance(theirs, dict):
            return [f"{where}: expected {mine}, found {theirs}"]
        missing = [f"{where}.{name}: missing" for name in mine if name not in theirs]
        return missing + [
            found
            for name in mine
            if name in theirs
            for found in differences(mine[name], theirs[name], f"{where}.{name}")
        ]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        both = enumerate(zip(mine, theirs, strict=True))
        return [found for i, (a, b) in both for found in differences(a, b, f"{where}[{i}]")]
    if isinstance(mine, int | float) and isinstance(theirs, int | float):
        return [] if abs(mine - theirs) <= digits + 1e-9 * abs(mine) else [f"{where}: {mine} by hand, not {theirs}"]
    return [] if mine == theirs else [f"{where}: {mine} by hand, not {theirs}"]


def names(value: Any, where: str = "") -> set[str]:
    """The path of every leaf."""
    if isinstance(value, dict) and value:
        return {leaf for name, inner in value.items() for leaf in names(inner, f"{where}.{name}")}
    return {where}


def check(
    run: Run, trace: Path | None, *, tags: list[str] | None = None, gpus: int = 1, adapter: str | None = None
) -> Any:
    """Assert that all three answers are what the rows say; return the aggregate."""
    hand = by_hand.ByHand(run.path)
    identity = agentx.identity_of([*TAGS, *(tags or ["tp=1"])])
    found = json.loads(agentx.encode(agentx.aggregate(run, identity)))
    mine = by_hand.aggregate(hand, trace, gpus, adapter)
    assert differences(mine, found) == []
    assert names(found["request_metrics"]) == names(mine["request_metrics"])
    assert names(found["request_accounting"]) == names(mine["request_accounting"])
    assert differences(by_hand.mvp(hand), json.loads(agentx.encode(agentx.mvp(run, identity)))) == []
    assert differences(by_hand.trie(hand, gpus), json.loads(trie_figures.encode(trie_figures.trie(run, gpus)))) == []
    return found


def test_the_comparison_can_fail() -> None:
    assert differences({"a": {"b": 1.0}, "c": [1, None]}, {"a": {"b": 1.000004}, "c": [1, None], "d": 5}) == []
    assert differences({"a": 1.0}, {"a": 1.00003}) == [".a: 1.0 by hand, not 1.00003"]
    assert differences({"a": {"b": None}}, {"a": {"b": 0.0}}) == [".a.b: None by hand, not 0.0"]
    assert differences({"a": {"b": 1}}, {"a": {}}) == [".a.b: missing"]


# -- simulated runs


def simulated(path: Path, trace: Path, scenario: str, *more: str) -> Run:
    engine = ["--engine", "llama-3.1-8b-h100x1", "--scenario", scenario]
    app(["run", str(trace), *engine, *more, "-o", str(path)], result_action="return_value")
    return open_run(path)


@pytest.mark.parametrize(
    ("scenario", "more"),
    [
        ("agentx-v1", ("--concurrency", "4", "--duration", "1000")),
        ("agentx-v1", ("--concurrency", "24", "--duration", "900", "--seed", "7")),
        ("agentx-mvp", ("--concurrency", "16")),
        ("trie", ("--concurrency", "8", "--duration", "900")),
    ],
)
def test_simulated_runs_say_what_their_rows_say(tmp_path: Path, scenario: str, more: tuple[str, ...]) -> None:
    run = simulated(tmp_path / "run", CANONICAL, scenario, *more)
    assert len(by_hand.ByHand(run.path).profiled()) > 100
    check(run, CANONICAL, adapter="vllm")


def test_the_weka_corpus_hits_as_its_blocks_say(tmp_path: Path) -> None:
    """Prompts are compared in workloom's own format, which the reader of hashed traces writes."""
    if not WEKA.is_dir():
        pytest.skip(f"the traces are not here: {WEKA.name}")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for trace in sorted(WEKA.glob("trace_*.json"), key=lambda path: path.stat().st_size)[:16]:
        (corpus / trace.name).symlink_to(trace)
    run = simulated(tmp_path / "run", corpus, "agentx-v1", "--concurrency", "4", "--duration", "1000")
    reading = open_trace([corpus])
    native.write(tmp_path / "weka.jsonl", reading.header, reading)
    assert reading.header.block_tokens
    assert len(by_hand.ByHand(run.path).profiled()) > 20
    check(run, tmp_path / "weka.jsonl", adapter="vllm")


# -- rows written by hand


def hand_trace(path: Path, block_tokens: int | None) -> Path:
    """Two sessions that begin with one scaffold; each goes on, forks, and cuts back its history."""

    def session(name: str) -> Session:
        scaffold = Span("system", 1000, scope="trace")
        calls = [
            Call("c0", 130, spans=(scaffold,), fresh=(Part("user", 333),)),
            Call("c1", 77, (Edge("c0"),), inherit=Inherit("c0"), fresh=(Part("tool", 901),)),
            Call("c2", 5, (Edge("c1"),), inherit=Inherit("c1", 1200), fresh=(Part("tool", 64),)),
            Call("c3", 64, agent="sub", spans=(scaffold, Span("brief", 200)), fresh=(Part("user", 10),)),
            Call("c4", 1, agent="sub", spans=(scaffold, Span("brief", 150)), fresh=(Part("user", 10),)),
            Call("c5", 40, (Edge("c1"),), inherit=Inherit("c1"), fresh=(Part("report", 15),)),
            Call("c6", 40, (Edge("c5"),), inherit=Inherit("c5"), fresh=(Part("tool", 15),)),
            Call("c7", 900, (Edge("c6"),), inherit=Inherit("c6"), fresh=(Part("tool", 8000),)),
        ]
        return Session(name, tuple(calls))

    native.write(path, Header(block_tokens=block_tokens), [session("a"), session("b")])
    return path


def write(
    path: Path,
    trace: Path,
    calls: list[CallRecord],
    sessions: list[SessionRecord] | None = None,
    samples: list[ServerSample] | None = None,
    *,
    window_s: tuple[float, float | None] = (100.0, 200.0),
) -> Run:
    """A run of these rows, measured from 100 s to 200 s."""
    plan = make(Recipe(trace=TraceRef((str(trace),)), load=Closed(concurrency=4)))
    config = {"recipe": json.loads(document(plan))["recipe"]}
    with RunWriter.create(path, Manifest(backend="http", plan_hash=plan.hash, config=config), document(plan)) as writer:
        for call in calls:
            writer.call(call)
        for each in sessions or []:
            writer.session(each)
        for sample in samples or []:
            writer.server(sample)
        begin, end = window_s
        ended = None if end is None else round(end * NS)
        return writer.close(window_start_ns=round(begin * NS), window_end_ns=ended)


def row(
    ordinal: int, due_s: float, *, instance: int = 0, prompt: int | None = 1333, output: int | None = 130, **more: Any
) -> CallRecord:
    """An answer that begins 0.25 s after it was asked for, at 50 tokens/s, and ends 0.125 s after its last token."""
    sent_ns = round((due_s + 0.001) * NS)
    first_ns = sent_ns + NS // 4
    last_ns = first_ns + max((output or 1) - 1, 0) * NS // 50
    told: dict[str, Any] = {
        "instance": instance,
        "session": "ab"[instance % 2],
        "call": f"c{ordinal % 8}",
        "agent": "sub" if ordinal % 8 in (3, 4) else "main",
        "model": "m",
        "status": "ok",
        "due_ns": round(due_s * NS),
        "ordinal": ordinal,
        "sent_ns": sent_ns,
        "first_ns": first_ns,
        "last_ns": last_ns,
        "done_ns": last_ns + NS // 8,
        "planned_prompt_tokens": 1333,
        "planned_output_tokens": 130,
        "sent_prompt_tokens": 1340,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "chunks": [ChunkRun(first_ns, NS / 50, 0.0, max(output or 1, 1), 1)],
    }
    return CallRecord(**{**told, **more})


def failed(ordinal: int, due_s: float, kind: str, instance: int = 0, **more: Any) -> CallRecord:
    """A call that failed before its first token."""
    given = {"status": "error", "error_kind": kind, "error": "as told", **more}
    return row(ordinal, due_s, instance=instance, prompt=None, output=None, first_ns=None, last_ns=None, **given)


def end(instance: int, due_s: float, end_s: float, calls: int, **more: Any) -> SessionRecord:
    told = {"status": "ok", "calls_ok": calls, **more}
    times = (round(due_s * NS), round(due_s * NS), round(end_s * NS))
    return SessionRecord(instance, "ab"[instance % 2], told.pop("status"), *times, calls, **told)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return hand_trace(tmp_path / "hand.jsonl", 64)


def test_errors_are_counted_by_what_they_were_and_only_where_they_belong(tmp_path: Path, trace: Path) -> None:
    calls = [
        row(0, 10.0, phase="warmup", output=1),
        failed(1, 20.0, "connect", phase="warmup"),
        failed(2, 30.0, "", phase="warmup", status="timeout", error_kind=None),
        row(3, 99.9),  # settling
        row(4, 100.0),
        row(5, 199.999),
        row(6, 200.0),
        failed(7, 150.0, "http_status", http_status=500),
        failed(8, 151.0, "http_status", http_status=429),
        failed(9, 152.0, "http_status", http_status=500),
        failed(10, 153.0, "context_overflow", http_status=400),
        failed(11, 154.0, "truncated"),
        failed(12, 155.0, "empty"),
        failed(13, 156.0, "", status="timeout", error_kind=None),
        failed(14, 157.0, "", status="cancelled", error_kind=None, sent_ns=None, done_ns=None),
        failed(15, 158.0, "", status="censored", error_kind=None, done_ns=None),
        failed(16, 201.0, "connect"),
        failed(17, 99.0, "connect"),
    ]
    found = check(write(tmp_path / "run", trace, calls), trace)
    assert found["request_accounting"] == {
        "records_total": 12,
        "records_profiled": 2,
        "records_dropped_total": 10,
        "records_warmup_dropped": 3,
        "records_error_dropped": 9,
        "error_categories": {
            "connect": 1,
            "timeout": 2,
            "http_500": 2,
            "http_429": 1,
            "context_overflow": 1,
            "truncated": 1,
            "empty": 1,
        },
    }


def test_answers_of_one_token_none_and_without_usage(tmp_path: Path, trace: Path) -> None:
    calls = [
        row(0, 110.0, output=1),
        row(1, 112.0, output=0),
        row(2, 114.5, output=None),
        row(3, 115.0, prompt=None),
        row(4, 116.25, output=2, planned_output_tokens=0),
        row(5, 117.0, output=0, first_ns=None, last_ns=None, chunks=[]),
        row(6, 119.0, output=77, cached_tokens=1000),
        row(7, 130.0, output=900, prompt=1),
    ]
    check(write(tmp_path / "run", trace, calls), trace, tags=["tp=4", "pp=2", "pcp_size=3"], gpus=24)


def test_a_run_that_never_came_to_its_end_is_measured_to_its_last_instant(tmp_path: Path, trace: Path) -> None:
    calls = [row(0, 99.0), row(1, 110.0), row(2, 300.0, instance=1), failed(3, 350.0, "connect", done_ns=351 * NS)]
    found = check(write(tmp_path / "run", trace, calls, window_s=(100.0, None)), trace)
    assert found["num_requests_successful"] == 2


def test_several_nodes_share_the_throughput_among_all_their_gpus(tmp_path: Path, trace: Path) -> None:
    tags = ["is_multinode=true", "prefill_num_workers=3", "prefill_tp=4", "decode_num_workers=2", "decode_tp=8"]
    check(write(tmp_path / "run", trace, [row(at, 110.0 + at) for at in range(5)]), trace, tags=tags, gpus=28)


@pytest.mark.parametrize("block_tokens", [None, 1, 64, 700])
def test_theoretical_hits_are_whole_blocks_of_the_trace(tmp_path: Path, block_tokens: int | None) -> None:
    trace = hand_trace(tmp_path / "hand.jsonl", block_tokens)
    calls = [row(at, 110.0 + at + 10 * instance, instance=instance) for instance in (0, 1, 2) for at in range(8)]
    found = check(write(tmp_path / "run", trace, [*calls, row(3, 10.0, instance=3)]), trace)
    assert 0.3 < found["request_metrics"]["cache"]["theoretical_cache_hit_rate"] < 0.9


@pytest.mark.parametrize(
    "ends_s",
    [
        [],
        [110.0],
        [110.0, 110.0],
        [110.0, 110.4, 110.75],
        [110.0, 111.0],
        [110.0, 112.999],
        [110.0, 110.1, 113.0, 119.5],
    ],
)
def test_rates_by_the_second_of_few_ends(tmp_path: Path, trace: Path, ends_s: list[float]) -> None:
    calls = [row(at, 101.0 + at, output=20, done_ns=round(end_s * NS)) for at, end_s in enumerate(ends_s)]
    check(write(tmp_path / "run", trace, calls), trace)


@pytest.mark.parametrize("seed", range(12))
def test_any_rows(tmp_path: Path, trace: Path, seed: int) -> None:
    """Whatever can stand in a run, at random: both do the same with it."""
    draw = seeds.stream(seed, "agentx rows")
    calls, ends = [], []
    for instance in range(12):
        due_s, whole, count = float(draw.uniform(60, 180)), True, int(draw.integers(1, 9))
        began_s, last_s = due_s, due_s
        for at in range(count):
            phase = "warmup" if due_s < 90 else "run"
            kind = draw.choice(["ok", "ok", "ok", "ok", "odd", "failed", "late"] if seed % 3 else ["ok", "ok", "odd"])
            tokens = int(draw.integers(1, 300))
            more: dict[str, Any] = {"phase": phase, "target": str(draw.choice(["http://a", "http://b"]))}
            if kind == "failed":
                whole = False
                what = str(draw.choice(["connect", "disconnect", "malformed", "context_overflow"]))
                calls.append(failed(at, due_s, what, instance, **more))
            else:
                if kind == "odd":
                    tokens = int(draw.integers(0, 3))
                if seed % 2:
                    more["cached_tokens"] = int(draw.integers(0, 1300))
                calls.append(
                    row(at, due_s, instance=instance, output=tokens, prompt=int(draw.integers(1, 5000)), **more)
                )
            done_ns = calls[-1].done_ns
            assert done_ns is not None
            last_s = done_ns / NS
            due_s = last_s + float(draw.exponential(3.0))
        status = "ok" if whole else "failed"
        ends.append(end(instance, began_s, last_s, count, status=status, calls_before=int(draw.integers(0, 4) == 3)))
    check(write(tmp_path / "run", trace, calls, ends), trace)


# -- the form


SCHEMA = """
hw conc image model infmax_model_prefix framework precision spec_decoding disagg scenario_type is_multinode tp ep
dp_attention pp dcp_size pcp_size kv_offloading kv_offload_backend allocated_cpu_dram_gb dataset kv_cache_pool_tokens
num_requests_total num_requests_successful request_accounting.records_total request_accounting.records_profiled
request_accounting.records_dropped_total request_accounting.records_warmup_dropped
request_accounting.records_error_dropped request_accounting.error_categories request_metrics.qps.window_seconds
request_metrics.qps.samples request_metrics.throughput.input.tokens_per_second
request_metrics.throughput.output.tokens_per_second request_metrics.throughput.total.tokens_per_second
request_metrics.throughput.duration_seconds request_metrics.throughput.per_gpu.total_tput_tps
request_metrics.throughput.per_gpu.input_tput_tps request_metrics.throughput.per_gpu.output_tput_tps
request_metrics.cache.theoretical_cache_hit_rate server_metrics.present server_metrics.adapter
server_metrics.metric_count server_metrics.sources server_metrics.cache.gpu_cache_hit_rate
server_metrics.cache.cpu_cache_hit_rate server_metrics.cache.external_cache_hit_rate
server_metrics.cache.overall_cache_hit_rate server_metrics.cache.prefix_cache_hits
server_metrics.cache.prefix_cache_queries server_metrics.cache.external_prefix_cache_hits
server_metrics.cache.external_prefix_cache_queries server_metrics.cache.cached_tokens_by_source
server_metrics.kv_cache.gpu_usage_pct server_metrics.kv_cache.gpu_total_tokens server_metrics.kv_cache.cpu_usage_pct
server_metrics.tokens.prompt_total server_metrics.tokens.generation_total server_metrics.tokens.requests_completed
server_metrics.tokens.prompt_by_source.gpu_cache_hit server_metrics.tokens.prompt_by_source.cpu_or_external_cache_hit
server_metrics.tokens.prompt_by_source.computed server_metrics.tokens.prompt_by_source.raw
"""
"""What must be there, by path; kv_offload has its three figures each way, and every group of figures its six."""


def test_keys_and_nesting_are_those_of_the_schema(tmp_path: Path, trace: Path) -> None:
    run = write(tmp_path / "run", trace, [row(at, 110.0 + at, output=20) for at in range(8)])
    found = json.loads(agentx.encode(agentx.aggregate(run, agentx.identity_of([*TAGS, "tp=8"]))))
    six = ("mean", "p50", "p75", "p90", "p95", "std")
    times = ["ttft", "e2el", "itl", "tpot", "intvty", "e2e_norm_intvty", "full_response_itl", "full_response_intvty"]
    groups = ["qps", *(f"latency.{time}" for time in times), *("tokens.input", "tokens.output_actual")]
    wanted = [
        *SCHEMA.split(),
        *(f"request_metrics.{group}.{name}" for group in [*groups, "tokens.output_expected"] for name in six),
    ]
    for way in ("gpu_to_cpu", "cpu_to_gpu"):
        told = (f"bytes_{way}", f"time_{way}", f"bandwidth_{way}_bytes_per_second")
        wanted += [f"server_metrics.kv_offload.{name}" for name in told]
    assert sorted(f".{path}" for path in wanted if f".{path}" not in names(found) | containers(found)) == []
    figures = {path for path in names(found["request_metrics"], "request_metrics")}
    assert figures == {path for path in wanted if path.startswith("request_metrics.")}
    assert found["scenario_type"] == "agentic-coding"
    assert b": NaN" not in agentx.encode(agentx.aggregate(run))


def containers(value: Any, where: str = "") -> set[str]:
    """The path of every group."""
    if not isinstance(value, dict):
        return set()
    return {where}.union(*(containers(inner, f"{where}.{name}") for name, inner in value.items()))


# -- servers' own figures


def counted(name: str, replica: str, *points: tuple[float, float]) -> list[ServerSample]:
    return [ServerSample(round(at_s * NS), name, value, replica) for at_s, value in points]


def test_counters_of_several_servers_that_begin_anew(tmp_path: Path, trace: Path) -> None:
    """From the last sample before the window to the last profiled end; what was counted before a restart stays."""
    calls = [row(0, 110.0), row(1, 199.0, output=1000), row(2, 150.0, instance=1, target="http://b:1/v1")]
    a, b, vllm = "a:1", "b:1", "vllm:"
    samples = [
        *counted(f"{vllm}prompt_tokens", a, (50, 10), (99.5, 400), (100.5, 500), (150, 900), (160, 100), (219.0, 700)),
        *counted(f"{vllm}prompt_tokens", b, (50, 0), (130, 77), (219.4, 99), (240, 10_000)),
        *counted(f"{vllm}generation_tokens", a, (50, 1), (210, 2000)),
        *counted(f"{vllm}prefix_cache_hits", a, (50, 0), (100, 30), (180, 630)),
        *counted(f"{vllm}prefix_cache_hits", b, (50, 0), (180, 100)),
        *counted(f"{vllm}prefix_cache_queries", a, (50, 0), (100, 100), (180, 900)),
        *counted(f"{vllm}prefix_cache_queries", b, (50, 0), (180, 400)),
        *counted(f"{vllm}external_prefix_cache_hits", a, (50, 0), (180, 50)),
        *counted(f"{vllm}external_prefix_cache_queries", a, (50, 0), (180, 300)),
        *counted(f"{vllm}kv_cache_usage_perc", a, (50, 0.99), (99, 0.9), (120, 0.5), (190, 0.4), (250, 0.98)),
        *counted(f"{vllm}kv_cache_usage_perc", b, (50, 0.1), (140, 0.625)),
        *counted(f"{vllm}num_requests_running", a, (50, 3.0)),
        *counted(f"{vllm}kv_offload_bytes_gpu_to_cpu", a, (50, 0.0), (120, 5e9), (190, 8e9)),
        *counted(f"{vllm}kv_offload_time_gpu_to_cpu", a, (50, 0.0), (120, 0.5), (190, 1.25)),
    ]
    found = check(write(tmp_path / "run", trace, calls, samples=samples), trace, adapter="vllm")
    assert (
        found["server_metrics"]["tokens"]["prompt_total"] == 500 + 100 + 600 + 77
    )  # the last profiled call ends at 219.356
    assert found["server_metrics"]["kv_cache"]["gpu_usage_pct"] == 0.625


def test_prompt_tokens_by_source_say_the_hit_rates(tmp_path: Path, trace: Path) -> None:
    samples = []
    for replica, scale in (("a:1/0", 1.0), ("a:1/1", 3.0)):
        for source, grown in (("local_cache_hit", 600), ("external_kv_transfer", 150), ("local_compute", 250)):
            name = f"vllm:prompt_tokens_by_source{{source={source}}}"
            samples += counted(name, replica, (90, 5.0), (190, 5.0 + scale * grown))
        samples += counted("vllm:prompt_tokens", replica, (90, 0.0), (190, scale * 1000))
        samples += counted("vllm:prefix_cache_hits", replica, (90, 0.0), (190, scale * 610))
        samples += counted("vllm:prefix_cache_queries", replica, (90, 0.0), (190, scale * 1000))
    run = write(tmp_path / "run", trace, [row(0, 110.0), row(1, 120.0)], samples=samples)
    found = check(run, trace, adapter="vllm")
    assert found["server_metrics"]["cache"]["overall_cache_hit_rate"] == 0.75


def test_sglang_by_its_own_names(tmp_path: Path, trace: Path) -> None:
    samples = [
        *counted("sglang:prompt_tokens", "a:1", (90, 100), (190, 2100)),
        *counted("sglang:generation_tokens", "a:1", (90, 100), (190, 400)),
        *counted("sglang:cached_tokens{cache_source=device}", "a:1", (90, 10), (190, 910)),
        *counted("sglang:cached_tokens{cache_source=host}", "a:1", (90, 0), (150, 300)),
        *counted("sglang:token_usage", "a:1", (90, 0.3), (150, 0.75), (180, 0.1)),
        *counted("sglang:realtime_tokens{mode=prefill_compute}", "a:1", (90, 20), (190, 820)),
        *counted("sglang:max_total_num_tokens", "a:1", (90, 500_000), (150, 500_000)),
        *counted("sglang:hicache_host_used_tokens", "a:1", (90, 1000), (150, 4000), (190, 2000)),
        *counted("sglang:hicache_host_total_tokens", "a:1", (90, 16_000), (150, 16_000)),
    ]
    run = write(tmp_path / "run", trace, [row(0, 110.0), row(1, 120.0)], samples=samples)
    found = check(run, trace, adapter="sglang")
    assert found["server_metrics"]["kv_cache"]["cpu_usage_pct"] == 0.25


def test_a_counter_that_comes_into_sight_late_stood_at_zero(tmp_path: Path, trace: Path) -> None:
    """Labels do, with their first count, in the middle of a run: so :func:`workloom.metrics.samples.steps`."""
    samples = [
        *counted("vllm:prompt_tokens", "a:1", (90, 0), (190, 1000)),
        *counted("vllm:external_prefix_cache_hits", "a:1", (150, 300), (160, 450)),
    ]
    check(write(tmp_path / "run", trace, [row(0, 110.0)], samples=samples), trace, adapter="vllm")


def test_hit_rates_of_a_trace_are_over_the_calls_that_have_a_count(tmp_path: Path, trace: Path) -> None:
    """As those of the run as a whole are."""
    calls = [row(0, 110.0), row(1, 115.0, cached_tokens=1000), row(2, 120.0, cached_tokens=1200)]
    run = write(tmp_path / "run", trace, calls, [end(0, 110.0, 130.0, 3)])
    check(run, trace)
