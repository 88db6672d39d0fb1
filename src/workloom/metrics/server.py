"""How much of the prompts came from the server's prefix cache: by its calls, by its own counters, and at best."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from workloom.metrics.frame import Calls, Window
from workloom.records import ServerSample

QUERIES = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries")
HITS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits")


class HitRate(Struct, frozen=True):
    """Cached tokens / prompt tokens, over the calls due in the window that were sent."""

    reported: float | None = None
    """By the usage of the answers, over the calls that have both counts."""
    reported_calls: int = 0
    unreported_calls: int = 0
    """Ended well, and the server did not say."""
    ideal: float | None = None
    """What an infinite cache would have held, by the plan, over the calls that have that count."""
    ideal_calls: int = 0


def hit_rate(calls: Calls, window: Window) -> HitRate:
    """The hit rate of the calls due in the window."""
    sent = window.holds(calls.due_ns) & np.isfinite(calls.sent_ns)
    reported = sent & np.isfinite(calls.cached_tokens) & np.isfinite(calls.prompt_tokens)
    planned = sent & np.isfinite(calls.ideal_cached_tokens)
    return HitRate(
        reported=_share(calls.cached_tokens[reported].sum(), calls.prompt_tokens[reported].sum()),
        reported_calls=int(reported.sum()),
        unreported_calls=int((sent & (calls.status == 0) & ~reported).sum()),
        ideal=_share(calls.ideal_cached_tokens[planned].sum(), calls.sent_prompt_tokens[planned].sum()),
        ideal_calls=int(planned.sum()),
    )


def engine_hit_rate(samples: Iterable[ServerSample], window: Window) -> float | None:
    """By the counters of the engine: growth of hits / growth of queries over the window, replicas summed."""
    first: dict[tuple[str, str], float] = {}
    last: dict[tuple[str, str], float] = {}
    for sample in samples:
        if sample.name in QUERIES or sample.name in HITS:
            key = (sample.name, sample.replica)
            if sample.at_ns <= window.start_ns or key not in first:
                first[key] = sample.value
            if sample.at_ns <= window.end_ns:
                last[key] = sample.value
    growth = {key: last[key] - first[key] for key in last}
    hits = sum(value for (name, _), value in growth.items() if name in HITS)
    return _share(hits, sum(value for (name, _), value in growth.items() if name in QUERIES))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None
