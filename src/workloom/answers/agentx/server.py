"""The server's own figures in AgentX's words: an adapter for each engine, found by the prefix of its metrics.

An engine nobody knows gives a result without its figures and a warning, never an error.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TypeVar

from workloom.answers.agentx.series import Labelled, Metrics
from workloom.answers.agentx.shape import PromptBySource, ServerMetrics, Source, TokenSums
from workloom.drive.scrape.families import UP

T = TypeVar("T", int, float)

ENGINES = {
    "sglang:": "sglang",
    "vllm:": "vllm",
    "trtllm_": "trtllm",
    "atom:": "atom",
    "atom_": "atom",
    "llamacpp:": "llamacpp",
}
DYNAMO = "dynamo_"
GPU = "gpu:"
"""Figures of this machine's GPUs, which no server told."""
KV_USAGE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "trtllm_kv_cache_utilization",
    "atom:kv_cache_usage_ratio",
    "atom_kv_cache_usage_ratio",
    "llamacpp:kv_cache_usage_ratio",
    "dynamo_component_gpu_cache_usage_percent",
)
"""Gauges of the share of KV cache in use."""


def server_metrics(metrics: Metrics, counted: TokenSums, completed: int) -> tuple[ServerMetrics, list[str]]:
    """The server's figures, and warnings. `counted`: tokens of the `completed` requests by their own counts, which
    stand in where the server has no counter."""
    names = [name for name in metrics.names if name != UP and not name.startswith(GPU)]
    out = ServerMetrics(present=bool(names), metric_count=len(names))
    warnings = [] if names else ["no server metrics were recorded"]
    engine = next((name for prefix, name in ENGINES.items() if _has(metrics, prefix)), None)
    if engine is not None:
        ADAPTERS[engine](metrics, out)
    if _has(metrics, DYNAMO):
        _dynamo(metrics, out)
        engine = f"dynamo-{engine or 'vllm'}"
    if names and engine is None:
        seen = ", ".join(sorted(names)[:5])
        warnings.append(f"the server's metrics are of no engine that is known: {seen}")
    out.adapter = engine or ("unknown" if names else "none")
    out.cache.overall_cache_hit_rate = _first(out.cache.overall_cache_hit_rate, out.cache.frontend_cache_hit_rate)
    tokens = out.tokens
    if completed:
        tokens.prompt_total = _first(tokens.prompt_total, counted.input)
        tokens.generation_total = _first(tokens.generation_total, counted.output)
    tokens.requests_completed = completed
    return out, warnings


def fraction(value: float | None) -> float | None:
    """A share of 1, also where a gauge says percent."""
    return value / 100 if value is not None and value > 1 else value


def _vllm(metrics: Metrics, out: ServerMetrics) -> None:
    cache, kv, offload = out.cache, out.kv_cache, out.kv_offload
    _totals(out, metrics.growth("vllm:prompt_tokens"), metrics.growth("vllm:generation_tokens"))
    cache.prefix_cache_hits = metrics.growth("vllm:prefix_cache_hits")
    cache.prefix_cache_queries = metrics.growth("vllm:prefix_cache_queries")
    cache.external_prefix_cache_hits = metrics.growth("vllm:external_prefix_cache_hits")
    cache.external_prefix_cache_queries = metrics.growth("vllm:external_prefix_cache_queries")
    cache.gpu_cache_hit_rate = _ratio(cache.prefix_cache_hits, cache.prefix_cache_queries)
    external = _ratio(cache.external_prefix_cache_hits, cache.external_prefix_cache_queries)
    cache.external_cache_hit_rate = cache.cpu_cache_hit_rate = external
    sources = metrics.growth_by("vllm:prompt_tokens_by_source", "source")
    if sources:
        local, moved = sources.get("local_cache_hit"), sources.get("external_kv_transfer")
        every = sum(sources.values())
        if every > 0:
            cache.gpu_cache_hit_rate = _first(_ratio(local, every), cache.gpu_cache_hit_rate)
            cache.external_cache_hit_rate = _first(_ratio(moved, every), cache.external_cache_hit_rate)
            cache.cpu_cache_hit_rate = cache.external_cache_hit_rate
            cache.overall_cache_hit_rate = ((local or 0.0) + (moved or 0.0)) / every
        out.tokens.prompt_by_source = PromptBySource(local, moved, sources.get("local_compute"), sources)
    else:
        cache.overall_cache_hit_rate = cache.gpu_cache_hit_rate
    kv.gpu_usage_pct = fraction(metrics.peak("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))
    kv.cpu_usage_pct = fraction(metrics.peak("vllm:cpu_kv_cache_usage_perc"))
    kv.gpu_total_tokens = _capacity(metrics)
    offload.bytes_gpu_to_cpu = _moved(metrics, "bytes", "gpu_to_cpu")
    offload.bytes_cpu_to_gpu = _moved(metrics, "bytes", "cpu_to_gpu")
    offload.time_gpu_to_cpu = _moved(metrics, "time", "gpu_to_cpu")
    offload.time_cpu_to_gpu = _moved(metrics, "time", "cpu_to_gpu")
    offload.bandwidth_gpu_to_cpu_bytes_per_second = _ratio(offload.bytes_gpu_to_cpu, offload.time_gpu_to_cpu)
    offload.bandwidth_cpu_to_gpu_bytes_per_second = _ratio(offload.bytes_cpu_to_gpu, offload.time_cpu_to_gpu)
    out.sources = _sources(metrics)


def _moved(metrics: Metrics, what: str, way: str) -> float | None:
    """KV moved between GPU and CPU: a counter for each way, or (newer) one with the way as a label."""
    by_label = metrics.growth_by(f"vllm:kv_offload_total_{what}", "transfer_type")
    found = {name.lower(): value for name, value in by_label.items()}.get(way)
    return _first(metrics.growth(f"vllm:kv_offload_{what}_{way}"), found)


def _capacity(metrics: Metrics) -> int | None:
    """Tokens of KV cache of all engines: blocks times their size, which vLLM tells in labels of an info metric."""
    info = "vllm:cache_config_info"
    blocks, size = metrics.sum_of_peaks(info, has="num_gpu_blocks"), metrics.peak(info, has="block_size")
    return None if blocks is None or size is None else _whole(blocks * size)


def _sglang(metrics: Metrics, out: ServerMetrics) -> None:
    cache, kv = out.cache, out.kv_cache
    prompt = metrics.growth("sglang:prompt_tokens")
    _totals(out, prompt, metrics.growth("sglang:generation_tokens"))
    held = metrics.growth_by("sglang:cached_tokens", "cache_source")
    device, host = held.get("device"), held.get("host")
    cache.gpu_cache_hit_rate = _ratio(device, prompt)
    cache.cpu_cache_hit_rate = cache.external_cache_hit_rate = _ratio(host, prompt)
    parts = {source: tokens for source, tokens in held.items() if source != "total"} or held
    cache.overall_cache_hit_rate = _ratio(sum(parts.values()) if parts else None, prompt)
    if cache.overall_cache_hit_rate is None:
        cache.overall_cache_hit_rate = fraction(metrics.mean("sglang:cache_hit_rate"))
    cache.cached_tokens_by_source = held
    kv.gpu_usage_pct = fraction(metrics.peak("sglang:token_usage"))
    kv.gpu_total_tokens = _whole(metrics.sum_of_peaks("sglang:max_total_num_tokens"))
    kv.cpu_used_tokens = metrics.peak("sglang:hicache_host_used_tokens")
    kv.cpu_total_tokens = metrics.peak("sglang:hicache_host_total_tokens")
    kv.cpu_usage_pct = _ratio(kv.cpu_used_tokens, kv.cpu_total_tokens)
    computed = metrics.growth("sglang:realtime_tokens", where=lambda s: s.labels.get("mode") == "prefill_compute")
    out.tokens.prompt_by_source = PromptBySource(device, host, computed, held)


def _trtllm(metrics: Metrics, out: ServerMetrics) -> None:
    cache, kv = out.cache, out.kv_cache
    prompt, cached = metrics.growth("trtllm_prompt_tokens"), metrics.growth("trtllm_prompt_cached_tokens")
    _totals(out, prompt, metrics.growth("trtllm_generation_tokens"))
    rate = fraction(metrics.mean("trtllm_kv_cache_hit_rate"))
    cache.gpu_cache_hit_rate = cache.overall_cache_hit_rate = _first(rate, _ratio(cached, prompt))
    kv.gpu_usage_pct = fraction(metrics.peak("trtllm_kv_cache_utilization"))
    kv.cpu_usage_pct = fraction(metrics.peak("trtllm_kv_cache_host_utilization"))
    blocks, size = metrics.sum_of_peaks("trtllm_kv_cache_max_blocks"), metrics.peak("trtllm_kv_cache_tokens_per_block")
    kv.gpu_total_tokens = None if blocks is None or size is None else _whole(blocks * size)
    out.kv_offload.bytes_gpu_to_cpu = metrics.growth("trtllm_kv_cache_offload_bytes")
    out.kv_offload.bytes_cpu_to_gpu = metrics.growth("trtllm_kv_cache_onboard_bytes")
    if cached is not None:
        cache.cached_tokens_by_source = {"device": cached}
        computed = None if prompt is None else max(prompt - cached, 0.0)
        out.tokens.prompt_by_source = PromptBySource(cached, None, computed, {"device": cached})


def _atom(metrics: Metrics, out: ServerMetrics) -> None:
    def growth(name: str) -> float | None:
        return metrics.growth(f"atom:{name}", f"atom_{name}")

    cache = out.cache
    _totals(out, growth("prompt_tokens"), growth("generation_tokens"))
    cache.prefix_cache_hits, cache.prefix_cache_queries = (
        growth("prefix_cache_cached_tokens"),
        growth("prefix_cache_full_tokens"),
    )
    cache.external_prefix_cache_hits = growth("lmcache_loaded_tokens")
    cache.external_prefix_cache_queries = cache.prefix_cache_queries
    cache.gpu_cache_hit_rate = _ratio(cache.prefix_cache_hits, cache.prefix_cache_queries)
    cache.overall_cache_hit_rate = cache.gpu_cache_hit_rate  # what LMCache loads may be in the same counter
    external = _ratio(cache.external_prefix_cache_hits, cache.prefix_cache_queries)
    cache.cpu_cache_hit_rate = cache.external_cache_hit_rate = external
    out.kv_cache.gpu_usage_pct = fraction(metrics.peak("atom:kv_cache_usage_ratio", "atom_kv_cache_usage_ratio"))


def _llamacpp(metrics: Metrics, out: ServerMetrics) -> None:
    """llama.cpp counts the prompt tokens it computed; those from its cache stand beside them, in newer versions."""
    computed, cached = metrics.growth("llamacpp:prompt_tokens"), metrics.growth("llamacpp:prompt_tokens_cached")
    prompt = None if computed is None else computed + (cached or 0.0)
    _totals(out, prompt, metrics.growth("llamacpp:tokens_predicted"))
    out.cache.gpu_cache_hit_rate = out.cache.overall_cache_hit_rate = _ratio(cached, prompt)
    out.kv_cache.gpu_usage_pct = fraction(metrics.peak("llamacpp:kv_cache_usage_ratio"))
    if cached is not None:
        out.tokens.prompt_by_source = PromptBySource(cached, None, computed, {"cached": cached})


def _dynamo(metrics: Metrics, out: ServerMetrics) -> None:
    """What Dynamo's front end and router say, beside the engine's own figures, which are kept."""
    cache, tokens = out.cache, out.tokens
    cache.frontend_cached_tokens = metrics.growth(*_either("dynamo_frontend_cached_tokens"))
    cache.frontend_input_tokens = metrics.growth(*_either("dynamo_frontend_input_sequence_tokens"))
    cache.frontend_cache_hit_rate = _ratio(cache.frontend_cached_tokens, cache.frontend_input_tokens)
    cache.router_kv_hit_rate = fraction(metrics.mean("dynamo_component_router_kv_hit_rate"))
    cache.router_shared_cache_hit_rate = fraction(metrics.mean("dynamo_component_router_shared_cache_hit_rate"))
    tokens.prompt_total = _first(_whole(cache.frontend_input_tokens), tokens.prompt_total)
    output = ("dynamo_frontend_output_tokens", *_either("dynamo_frontend_output_sequence_tokens"))
    generated = _whole(metrics.growth(*output))
    tokens.generation_total = _first(generated, tokens.generation_total)
    usage = fraction(metrics.peak("dynamo_component_gpu_cache_usage_percent"))
    out.kv_cache.gpu_usage_pct = _first(out.kv_cache.gpu_usage_pct, usage)


ADAPTERS: dict[str, Callable[[Metrics, ServerMetrics], None]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
    "atom": _atom,
    "llamacpp": _llamacpp,
}


def _sources(metrics: Metrics) -> list[Source]:
    """One entry for each worker or data-parallel rank of vLLM."""
    names = ("prompt_tokens", "generation_tokens", "prefix_cache_hits", "prefix_cache_queries", "kv_cache_usage_perc")
    ids = {_id(series) for name in names for series in metrics.families.get(f"vllm:{name}", [])}
    out = []
    for mine in sorted(ids):

        def is_mine(series: Labelled, mine: str = mine) -> bool:
            return _id(series) == mine

        hits = metrics.growth("vllm:prefix_cache_hits", where=is_mine)
        queries = metrics.growth("vllm:prefix_cache_queries", where=is_mine)
        usage = metrics.peak("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", where=is_mine)
        out.append(
            Source(
                id=mine,
                role=mine.partition("|")[0],
                prompt_tokens=metrics.growth("vllm:prompt_tokens", where=is_mine),
                generation_tokens=metrics.growth("vllm:generation_tokens", where=is_mine),
                prefix_cache_hit_rate=_ratio(hits, queries),
                gpu_kv_cache_usage_pct=fraction(usage),
            )
        )
    return out


ROLES = {"prefill": "prefill", "backend": "decode", "decode": "decode", "frontend": "router", "router": "router"}


def _id(series: Labelled) -> str:
    labels = series.labels
    component = labels.get("dynamo_component") or labels.get("component") or ""
    parts = [ROLES.get(component, "combined"), series.replica]
    parts += [f"{key}={labels[key]}" for key in ("worker_id", "dp_rank", "engine") if key in labels]
    return "|".join(part for part in parts if part)


def _either(name: str) -> tuple[str, str]:
    """A counter, or a histogram of what one request had."""
    return name, f"{name}_sum"


def _totals(out: ServerMetrics, prompt: float | None, generated: float | None) -> None:
    out.tokens.prompt_total, out.tokens.generation_total = _whole(prompt), _whole(generated)


def _has(metrics: Metrics, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in metrics.names)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _whole(value: float | None) -> int | None:
    return None if value is None or not isfinite(value) else round(value)


def _first(one: T | None, other: T | None) -> T | None:
    return other if one is None else one
