"""The aggregate of a run: everything put together."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from workloom.answers.agentx import requests
from workloom.answers.agentx.columns import Columns, columns, window_of
from workloom.answers.agentx.identity import Gpus, Identity, given, gpus, known
from workloom.answers.agentx.series import metrics
from workloom.answers.agentx.server import KV_USAGE, fraction, server_metrics
from workloom.answers.agentx.shape import (
    P99,
    Additions,
    Aggregate,
    Counts,
    Dataset,
    RequestCache,
    RequestMetrics,
    TokenSums,
    Tool,
    WindowThroughput,
)
from workloom.answers.agentx.theoretical import share, theoretical
from workloom.answers.agentx.told import Told, told
from workloom.answers.agentx.validity import coverage, scenario_of, validity
from workloom.metrics.frame import Bools, Window
from workloom.metrics.samples import samples_of
from workloom.records import ServerSample
from workloom.store import Run
from workloom.store.manifest import Manifest

DIGITS = 5
"""Digits after the point of every figure in the JSON, as in the original."""
SCENARIO_TYPE = "agentic-coding"


def aggregate(run: Run, identity: Identity | None = None) -> Aggregate:
    """The aggregate of a run on disk. Figures are not rounded: :func:`encode` does that."""
    calls = columns(run)
    window = window_of(run, calls)
    mine = requests.profiled(calls, window)
    identity = known(identity or Identity(), run.manifest)
    shape = gpus(identity)
    found = requests.samples(calls, mine)
    accounting = requests.accounting(calls, window)
    rate, rate_from = theoretical(run, calls, mine)
    end_ns = max([float(window.end_ns), *calls.done_ns[mine & ~np.isnan(calls.done_ns)].tolist()])
    series = metrics(samples_of(run.batches(ServerSample)), Window(window.start_ns, int(end_ns)))
    counted = TokenSums(int(np.nansum(calls.input_tokens[mine])), int(np.nansum(calls.output_tokens[mine])))
    server, warnings = server_metrics(series, counted, accounting.records_profiled)
    pool = identity.kv_cache_pool_tokens
    if server.kv_cache.gpu_total_tokens is None:
        server.kv_cache.gpu_total_tokens = pool
    additions = _additions(run.manifest, told(run, window), calls, mine, window)
    additions.p99 = requests.p99(found)
    additions.theoretical_cache_hit_rate_from = rate_from
    additions.gpu_kv_usage_mean = fraction(series.mean(*KV_USAGE))
    return Aggregate(
        **_identity(identity, shape),
        dataset=_dataset(run.manifest),
        num_requests_total=accounting.records_total,
        num_requests_successful=accounting.records_profiled,
        request_accounting=accounting,
        request_metrics=RequestMetrics(
            qps=requests.qps(calls, mine),
            latency=requests.latency(found),
            tokens=requests.tokens(calls, mine),
            throughput=requests.throughput(requests.rates(calls, mine), shape.count),
            cache=RequestCache(rate),
        ),
        server_metrics=server,
        kv_cache_pool_tokens=server.kv_cache.gpu_total_tokens,
        warnings=[*warnings, *run.manifest.notes] or UNSET,
        workloom=additions,
    )


def encode(result: Any) -> bytes:
    """An aggregate (or another answer of this kind) as JSON, its figures rounded to 5 digits after the point."""
    return msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(result))), indent=2) + b"\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _identity(identity: Identity, shape: Gpus) -> dict[str, Any]:
    i = identity
    split = {name: UNSET for name in Aggregate.__struct_fields__ if name.startswith(("prefill_", "decode_"))}
    missing = {name: UNSET for name in ("pp", "dcp_size", "pcp_size", "num_prefill_gpu", "num_decode_gpu")}
    return {
        "hw": i.hw or "",
        "conc": i.conc or 0,
        "image": i.image,
        "recipe_fingerprint": given(i.recipe_fingerprint),
        "model": i.model or "",
        "infmax_model_prefix": i.infmax_model_prefix,
        "framework": i.framework or "",
        "precision": i.precision or "",
        "spec_decoding": i.spec_decoding,
        "disagg": i.disagg,
        "scenario_type": SCENARIO_TYPE,
        "is_multinode": i.is_multinode,
        "num_gpus": shape.count,
        "tp": shape.tp,
        "ep": shape.ep,
        "dp_attention": shape.dp_attention,
        **split,
        **missing,
        **shape.fields,
        "kv_offloading": i.kv_offloading,
        "kv_offload_backend": i.kv_offload_backend,
        "allocated_cpu_dram_gb": i.allocated_cpu_dram_gb,
        "router": given(i.router),
        "kv_p2p_transfer": given(i.kv_p2p_transfer),
    }


def _dataset(manifest: Manifest) -> Dataset:
    trace = (manifest.config.get("recipe") or {}).get("trace") or {}
    made = trace.get("generate") is not None
    return Dataset(
        source_type="workload" if made else "trace",
        loader=trace.get("format"),
        content_hash=trace.get("content_hash") or "",
        num_dataset_entries=trace.get("sessions") or 0,
    )


def _additions(manifest: Manifest, summary: Told, calls: Columns, mine: Bools, window: Window) -> Additions:
    scenario, overrides = scenario_of(manifest)
    run = ~calls.warmup
    failed = run & calls.failed & window.holds(calls.due_ns)
    due, moved = summary.calls, summary.throughput
    into, out = moved.prompt_tokens_per_s, moved.output_tokens_per_s
    reported = mine & ~np.isnan(calls.cached_tokens) & ~np.isnan(calls.prompt_tokens)
    planned = mine & ~np.isnan(calls.ideal_cached_tokens)
    return Additions(
        client_version=manifest.workloom,
        command=manifest.argv,
        scenario=scenario,
        overrides=overrides,
        seed=manifest.seed,
        plan_hash=manifest.plan_hash,
        corpus_hash=_dataset(manifest).content_hash,
        counts=Counts(
            due=due.due,
            ok=due.ok,
            failed=due.failed,
            cancelled=due.cancelled,
            censored=due.censored,
            ended=due.ended,
            after_window=int((run & (calls.due_ns >= window.end_ns)).sum()),
        ),
        failed_tokens=TokenSums(
            int(np.nansum(calls.sent_prompt_tokens[failed])), int(np.nansum(calls.output_tokens[failed]))
        ),
        p99=P99(),
        window_throughput=WindowThroughput(
            window.seconds, into, out, None if into is None or out is None else into + out
        ),
        theoretical_cache_hit_rate_from=None,
        ideal_cache_hit_rate=share(calls.ideal_cached_tokens[planned], calls.ideal_of_tokens[planned]),
        reported_cache_hit_rate=share(calls.cached_tokens[reported], calls.prompt_tokens[reported]),
        gpu_kv_usage_mean=None,
        skipped_wait_seconds=manifest.skipped_s,
        coverage=coverage(calls, window),
        tool=Tool(summary.tool.verdict, summary.tool.reasons),
        validity=validity(manifest, calls, window),
    )
