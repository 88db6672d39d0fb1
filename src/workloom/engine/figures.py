"""What an engine counts, under the names that vLLM gives it: a metrics page and the records of a run say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from workloom.engine.engine import Engine
from workloom.engine.link import PS_PER_S


class Figure(NamedTuple):
    """A counter, by the values of its label if it has one."""

    name: str
    """Without `vllm:` and `_total`."""
    about: str
    values: dict[str, float]
    label: str | None = None


def counters(engine: Engine, prompts_ahead: int = 0, generated_ahead: int = 0) -> Iterator[Figure]:
    """Queries and hits rise when a call is admitted, the others when it ends.

    `prompts_ahead` and `generated_ahead`: tokens of calls that are not over, to be counted already. As vLLM has it the
    prefix cache is the GPU's own; what tiers give is external to it.
    """
    gauges = engine.gauges()[""]
    local = gauges.hits_tokens - gauges.external_hits_tokens
    yield _one(
        "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", gauges.queries_tokens
    )
    yield _one("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", local)
    yield _one("num_preemptions", "Cumulative number of preemption from the engine.", gauges.preemptions)
    yield _one("prompt_tokens", "Number of prefill tokens processed.", gauges.prompt_tokens + prompts_ahead)
    yield _one("generation_tokens", "Number of generation tokens processed.", gauges.generated_tokens + generated_ahead)
    yield _one("prompt_tokens_cached", "Number of cached prompt tokens.", gauges.cached_tokens)
    sources = {
        "local_compute": gauges.prompt_tokens - gauges.cached_tokens,
        "local_cache_hit": gauges.cached_tokens - gauges.external_tokens,
        "external_kv_transfer": gauges.external_tokens,
    }
    yield Figure("prompt_tokens_by_source", "Number of prompt tokens by source.", {**sources}, "source")
    if engine.tiers is not None:
        yield from _of_tiers(engine)


def _of_tiers(engine: Engine) -> Iterator[Figure]:
    gauges, about = engine.gauges()[""], "External prefix cache {}, in terms of number of {} tokens."
    yield _one("external_prefix_cache_queries", about.format("queries", "queried"), gauges.external_queries_tokens)
    yield _one("external_prefix_cache_hits", about.format("hits", "cached"), gauges.external_hits_tokens)
    assert engine.tiers is not None
    tiers = engine.tiers.tiers
    both = {"GPU_to_CPU": [tier.writes for tier in tiers], "CPU_to_GPU": [tier.reads for tier in tiers]}
    moved: dict[str, float] = {way: sum(link.bytes for link in links) for way, links in both.items()}
    took = {way: sum(link.busy_ps for link in links) / PS_PER_S for way, links in both.items()}
    yield Figure("kv_offload_total_bytes", "Number of bytes offloaded by KV connector", moved, "transfer_type")
    yield Figure("kv_offload_total_time", "Total time of KV offload operations, seconds", took, "transfer_type")


def _one(name: str, about: str, value: int) -> Figure:
    return Figure(name, about, {"": value})
