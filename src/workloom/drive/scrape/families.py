"""What servers call their figures: one table a family, from our names to theirs.

A table's entry is `theirs`, `theirs{label}` (all values of the label, kept apart and summed), `theirs{label=value}` or
`theirs{label=begins*}`. `a + b` adds (what comes behind the first may be missing), `a | b` takes the first that is
there: names changed between versions. Counters are named without the `_total` some write and others don't.

Sources: the engines' pages as in docs of vLLM 0.17-0.32, SGLang 0.5.9-0.5.23, TensorRT-LLM 1.3, llama.cpp of August
2026, Dynamo 1.0-1.6, ATOM as AgentX reads it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

COUNTERS = {
    "prefix_queries_tokens": "Prompt tokens looked up in the prefix cache.",
    "prefix_hits_tokens": "Of these, found (in any tier, where the server does not tell them apart).",
    "external_queries_tokens": "Prompt tokens looked up in a cache outside the GPU.",
    "external_hits_tokens": "Of these, found.",
    "preemptions": "Running requests put back to wait for want of KV blocks (SGLang: retracted).",
    "prompt_tokens": "Prompt tokens of requests, cached ones included.",
    "generation_tokens": "Tokens generated.",
    "computed_tokens": "Prompt tokens that were computed.",
    "local_hit_tokens": "Prompt tokens taken from the GPU's prefix cache.",
    "external_hit_tokens": "Prompt tokens brought in from elsewhere: host memory, storage, another engine.",
    "requests": "Requests finished, in whatever way.",
    "drafts": "Steps in which tokens were drafted.",
    "draft_tokens": "Tokens drafted.",
    "accepted_tokens": "Of these, accepted.",
    "offload_store_bytes": "KV bytes moved from the GPU to the next tier.",
    "offload_load_bytes": "KV bytes moved back.",
    "offload_store_s": "Time that took.",
    "offload_load_s": "Time that took.",
    "offload_store_tokens": "The same in tokens.",
    "offload_load_tokens": "The same in tokens.",
    "prefill_s": "Time spent on prompts (llama.cpp only).",
    "decode_s": "Time spent on generating (llama.cpp only).",
    "energy_j": "Energy of the GPUs of this machine.",
}
GAUGES = {
    "running": "Requests in execution. Of Dynamo's frontend: all in flight.",
    "waiting": "Requests that wait for execution. Of Dynamo's frontend: those without a first token.",
    "kv_usage": "Share of the KV cache in use, 0..1. Whether reusable blocks count differs between engines.",
    "host_kv_usage": "The same of the tier in host memory.",
    "acceptance_length": "Tokens per verification, by the server's own running mean.",
    "acceptance_rate": "Accepted / drafted, likewise.",
    "hit_rate": "Prefix hit rate, by the server's own running mean.",
    "host_kv_used_tokens": "Tokens in host memory.",
    "host_kv_capacity_tokens": "Tokens that fit there.",
    "kv_capacity_tokens": "Tokens that fit into the KV cache.",
    "kv_capacity_blocks": "Blocks of the KV cache.",
    "block_tokens": "Tokens in a block.",
    "power_w": "Power drawn by the GPUs of this machine.",
}
HISTOGRAMS = {
    "ttft_s": "Time to first token, from arrival at the server.",
    "itl_s": "Gap between tokens.",
    "e2e_s": "From arrival to the last token.",
    "queue_s": "Time in the waiting queue.",
}
ADDED = {"running", "waiting", "kv_capacity_tokens", "kv_capacity_blocks", "power_w"} | {
    name for name in GAUGES if name.startswith("host_kv_") and name.endswith("_tokens")
}
"""Gauges whose sum over replicas means something; of the others the mean and the highest do."""


class Family(NamedTuple):
    """One kind of server. `prefixes`: the first is the one we keep, the others are how exporters spell it."""

    prefixes: tuple[str, ...]
    figures: dict[str, str]
    replica: tuple[str, ...] = ()
    """Labels that tell the engines on one page apart."""
    tier: int = 0
    """0 an engine, 1 and 2 those who stand before engines: counted only where no engine says the same."""


_VLLM = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "kv_usage": "kv_cache_usage_perc | gpu_cache_usage_perc",
    "host_kv_usage": "kv_offload_cpu_cache_usage_perc | cpu_kv_cache_usage_perc | cpu_cache_usage_perc",
    "kv_capacity_blocks": "cache_config_info{num_gpu_blocks}",
    "block_tokens": "cache_config_info{block_size}",
    "prefix_queries_tokens": "prefix_cache_queries | gpu_prefix_cache_queries",
    "prefix_hits_tokens": "prefix_cache_hits | gpu_prefix_cache_hits",
    "external_queries_tokens": "external_prefix_cache_queries",
    "external_hits_tokens": "external_prefix_cache_hits",
    "preemptions": "num_preemptions",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generation_tokens",
    "computed_tokens": "prompt_tokens_by_source{source=local_compute}",
    "local_hit_tokens": "prompt_tokens_by_source{source=local_cache_hit} | prompt_tokens_cached",
    "external_hit_tokens": "prompt_tokens_by_source{source=external_kv_transfer}",
    "requests": "request_success{finished_reason}",
    "drafts": "spec_decode_num_drafts",
    "draft_tokens": "spec_decode_num_draft_tokens",
    "accepted_tokens": "spec_decode_num_accepted_tokens",
    "offload_store_bytes": "kv_offload_total_bytes{transfer_type=GPU_to_CPU} | kv_offload_store_bytes"
    " | kv_offload_bytes_gpu_to_cpu",
    "offload_load_bytes": "kv_offload_total_bytes{transfer_type=CPU_to_GPU} | kv_offload_load_bytes"
    " | kv_offload_bytes_cpu_to_gpu",
    "offload_store_s": "kv_offload_total_time{transfer_type=GPU_to_CPU} | kv_offload_store_time"
    " | kv_offload_time_gpu_to_cpu",
    "offload_load_s": "kv_offload_total_time{transfer_type=CPU_to_GPU} | kv_offload_load_time"
    " | kv_offload_time_cpu_to_gpu",
    "ttft_s": "time_to_first_token_seconds",
    "itl_s": "inter_token_latency_seconds | time_per_output_token_seconds",
    "e2e_s": "e2e_request_latency_seconds",
    "queue_s": "request_queue_time_seconds",
}
_SGLANG = {
    "running": "num_running_reqs",
    "waiting": "num_queue_reqs",
    "kv_usage": "token_usage",
    "hit_rate": "cache_hit_rate",
    "kv_capacity_tokens": "max_total_num_tokens",
    "host_kv_used_tokens": "hicache_host_used_tokens",
    "host_kv_capacity_tokens": "hicache_host_total_tokens",
    "prefix_queries_tokens": "prompt_tokens",
    "prefix_hits_tokens": "cached_tokens{cache_source} | cached_tokens",
    "preemptions": "num_retracted_requests | num_retractions_sum",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generation_tokens",
    "local_hit_tokens": "cached_tokens{cache_source=device} | cached_tokens{cache_source=total} | cached_tokens",
    "external_hit_tokens": "cached_tokens{cache_source=host} + cached_tokens{cache_source=storage*}"
    " | cached_tokens{cache_source=storage*}",
    "requests": "num_requests",
    "acceptance_length": "spec_accept_length",
    "acceptance_rate": "spec_accept_rate",
    "offload_store_bytes": "hicache_backup_bytes",
    "offload_store_s": "hicache_backup_duration_seconds_sum",
    "offload_load_s": "load_back_duration_seconds_sum",
    "offload_store_tokens": "hicache_backup_tokens",
    "offload_load_tokens": "load_back_tokens",
    "ttft_s": "time_to_first_token_seconds",
    "itl_s": "inter_token_latency_seconds | time_per_output_token_seconds",
    "e2e_s": "e2e_request_latency_seconds",
    "queue_s": "queue_time_seconds",
}
_TRTLLM = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting | num_queued_requests",
    "kv_usage": "kv_cache_utilization",
    "hit_rate": "kv_cache_hit_rate",
    "kv_capacity_blocks": "kv_cache_max_blocks",
    "block_tokens": "kv_cache_tokens_per_block",
    "prefix_queries_tokens": "prompt_tokens",
    "prefix_hits_tokens": "prompt_cached_tokens | prompt_tokens_cached",
    "prompt_tokens": "prompt_tokens",
    "local_hit_tokens": "prompt_cached_tokens | prompt_tokens_cached",
    "generation_tokens": "generation_tokens",
    "requests": "request_success{finished_reason} | request_success | num_requests_completed",
    "draft_tokens": "spec_decode_num_draft_tokens | spec_decode_drafted_tokens",
    "accepted_tokens": "spec_decode_num_accepted_tokens | spec_decode_accepted_tokens",
    "acceptance_length": "spec_decode_acceptance_length",
    "ttft_s": "time_to_first_token_seconds",
    "itl_s": "inter_token_latency_seconds | time_per_output_token_seconds",
    "e2e_s": "e2e_request_latency_seconds",
    "queue_s": "request_queue_time_seconds",
}
_LLAMACPP = {  # prompt_tokens are those it computed; the cached ones are a counter of their own
    "running": "requests_processing",
    "waiting": "requests_deferred",
    "kv_usage": "kv_cache_usage_ratio",
    "prefix_queries_tokens": "prompt_tokens + prompt_tokens_cached",
    "prefix_hits_tokens": "prompt_tokens_cached",
    "prompt_tokens": "prompt_tokens + prompt_tokens_cached",
    "generation_tokens": "tokens_predicted",
    "computed_tokens": "prompt_tokens",
    "local_hit_tokens": "prompt_tokens_cached",
    "drafts": "spec_decode_num_drafts",
    "draft_tokens": "spec_decode_num_draft_tokens",
    "accepted_tokens": "spec_decode_num_accepted_tokens",
    "prefill_s": "prompt_seconds",
    "decode_s": "tokens_predicted_seconds",
}
_ATOM = {
    "running": "requests_running",
    "waiting": "requests_waiting",
    "kv_usage": "kv_cache_usage_ratio",
    "prefix_queries_tokens": "prefix_cache_full_tokens",
    "prefix_hits_tokens": "prefix_cache_cached_tokens",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generation_tokens",
    "offload_store_tokens": "lmcache_saved_tokens",
    "offload_load_tokens": "lmcache_loaded_tokens",
}
_DYNAMO_FRONTEND = {
    "running": "inflight_requests | active_requests",
    "waiting": "queued_requests",
    "kv_capacity_blocks": "model_total_kv_blocks",
    "block_tokens": "model_kv_cache_block_size",
    "prefix_queries_tokens": "input_sequence_tokens_sum",
    "prefix_hits_tokens": "cached_tokens_sum",
    "prompt_tokens": "input_sequence_tokens_sum",
    "generation_tokens": "output_tokens | output_sequence_tokens_sum",
    "requests": "requests",
    "ttft_s": "time_to_first_token_seconds",
    "itl_s": "inter_token_latency_seconds",
    "e2e_s": "request_duration_seconds",
}
_DYNAMO_COMPONENT = {
    "running": "inflight_requests{dynamo_endpoint=generate}",
    "kv_usage": "gpu_cache_usage_percent | kvstats_gpu_cache_usage_percent",
    "hit_rate": "kv_cache_hit_rate | kvstats_gpu_prefix_cache_hit_rate",
    "kv_capacity_blocks": "total_blocks | kvstats_total_blocks",
    "requests": "requests{dynamo_endpoint=generate}",
}
_GPU = {"power_w": "power_w", "energy_j": "energy_j"}

FAMILIES: dict[str, Family] = {
    "vllm": Family(("vllm:", "ray_vllm:", "ray_vllm_", "vllm_"), _VLLM, ("engine",)),
    "sglang": Family(("sglang:", "sglang_"), _SGLANG, ("dp_rank",)),
    "trtllm": Family(("trtllm_", "trtllm:"), _TRTLLM),
    "llamacpp": Family(("llamacpp:", "llamacpp_"), _LLAMACPP),
    "atom": Family(("atom:", "atom_"), _ATOM, ("engine",)),
    "dynamo_frontend": Family(("dynamo_frontend_",), _DYNAMO_FRONTEND, tier=1),
    "dynamo_component": Family(("dynamo_component_",), _DYNAMO_COMPONENT, ("worker_id",), tier=2),
    "gpu": Family(("gpu:",), _GPU),
}
UP = "up"
"""1 at every scrape that brought a page of a known server, 0 at every one that did not; as Prometheus has it."""
RANKS = ("tp_rank", "pp_rank", "moe_ep_rank", "ep_rank", "attn_cp_rank")
"""Labels under which several processes of one engine say the same figure: the highest counts, not the sum."""
IN_LABELS = {"vllm:cache_config_info": ("block_size", "num_gpu_blocks")}
"""Pages that hide numbers in labels: kept as `name{label}` with the label as value."""


class Term(NamedTuple):
    """Kept names that a figure is summed from: this one, or all that begin so."""

    name: str
    begins: bool

    def holds(self, kept: str) -> bool:
        return kept.startswith(self.name) if self.begins else kept == self.name


def _term(prefix: str, text: str) -> Term:
    base, _, label = text.strip().rstrip("}").partition("{")
    if not label or f"{prefix}{base}" in IN_LABELS:
        return Term(f"{prefix}{text.strip()}", False)
    if label.endswith("*"):
        return Term(f"{prefix}{base}{{{label[:-1]}", True)
    return Term(f"{prefix}{base}{{{label}}}", False) if "=" in label else Term(f"{prefix}{base}{{{label}=", True)


@cache
def terms(family: str, figure: str) -> tuple[tuple[Term, ...], ...]:
    """The alternatives for a figure, each a sum of terms; none when the family has no such figure."""
    known = FAMILIES[family]
    text = known.figures.get(figure)
    if text is None:
        return ()
    return tuple(tuple(_term(known.prefixes[0], part) for part in sums.split(" + ")) for sums in text.split(" | "))


def family_of(kept: str) -> str | None:
    """Whose figure a kept name is."""
    return next((name for name, family in FAMILIES.items() if kept.startswith(family.prefixes[0])), None)


def find(family: str, figure: str, kept: list[str]) -> list[str]:
    """Which of the kept names a figure is summed from; of histograms their name without `_bucket` and so on."""
    for sums in terms(family, figure):
        first, *rest = ([name for name in kept if term.holds(name)] for term in sums)
        if first:
            return sorted(set(first).union(*rest))
    return []


GONE = "gone"
"""Simulated: 1 from when a replica of a fleet went."""
