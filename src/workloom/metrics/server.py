"""The server's side: how much came from its prefix cache, how full it was, and what it says its latencies were.

Figures have our names (:mod:`workloom.drive.scrape.families` says what each means and what every server calls it). A
router's count of what its engines count too is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from workloom.drive.scrape.families import COUNTERS, GAUGES, HISTOGRAMS
from workloom.metrics.frame import Calls, Window
from workloom.metrics.samples import Samples
from workloom.metrics.samples import samples as series_of
from workloom.metrics.sessions import POINTS, Concurrency
from workloom.metrics.side import Gauge, Replica, ServerLatency, ServerSeries, Side, share
from workloom.records import ServerSample


class HitRate(Struct, frozen=True):
    """Cached tokens / prompt tokens, over the calls due in the window that were sent."""

    reported: float | None = None
    """By the usage of the answers, over the calls that have both counts."""
    reported_calls: int = 0
    unreported_calls: int = 0
    """Ended well, and the server did not say."""
    ideal: float | None = None
    """What an infinite cache would have held, by the plan, over the calls that reported (if none did: all sent)."""
    ideal_calls: int = 0


def hit_rate(calls: Calls, window: Window) -> HitRate:
    """The hit rate of the calls due in the window."""
    sent = window.holds(calls.due_ns) & ~calls.warmup & np.isfinite(calls.sent_ns)
    reported = sent & np.isfinite(calls.cached_tokens) & np.isfinite(calls.prompt_tokens)
    planned = sent & np.isfinite(calls.ideal_cached_tokens)
    if reported.any():  # the two stand side by side, so they are over the same calls
        planned &= reported
    of = np.where(calls.ideal_prompt_tokens > 0, calls.ideal_prompt_tokens, calls.sent_prompt_tokens)
    return HitRate(
        reported=share(calls.cached_tokens[reported].sum(), calls.prompt_tokens[reported].sum()),
        reported_calls=int(reported.sum()),
        unreported_calls=int((sent & (calls.status == 0) & ~reported).sum()),
        ideal=share(calls.ideal_cached_tokens[planned].sum(), of[planned].sum()),
        ideal_calls=int(planned.sum()),
    )


def engine_hit_rate(samples: Iterable[ServerSample] | Samples, window: Window) -> float | None:
    """By the counters of the engines: growth of hits / growth of queries over the window, replicas summed."""
    said = samples if isinstance(samples, dict) else series_of(samples)
    grown = Side(said, window).growths(("prefix_hits_tokens", "prefix_queries_tokens"))
    hits, queries = (sum(grown.get(figure, {}).values()) for figure in ("prefix_hits_tokens", "prefix_queries_tokens"))
    return share(hits, queries)


class ServerSide(Struct, frozen=True):
    """What the servers said of themselves over the window, replicas together."""

    families: list[str] = []
    replicas: list[Replica] = []
    heard_s: float = 0.0
    """How much of the window the server that was heard least answered the scrapes for."""
    restarts: int = 0
    """How often a replica's counters began anew in the window."""
    growth: dict[str, float] = {}
    """Growth of counters over the window, summed over replicas."""
    gauges: dict[str, Gauge] = {}
    """Summed over replicas where a sum means something (running, waiting, capacities, power); else the mean of means
    and the highest of all."""
    hit_rate: float | None = None
    external_hit_rate: float | None = None
    """Of the tokens looked up outside the GPU."""
    prompt_sources: dict[str, float] = {}
    """Shares of the prompt tokens: computed, local (the GPU's prefix cache), external."""
    acceptance_rate: float | None = None
    """Accepted / drafted tokens."""
    acceptance_length: float | None = None
    """Tokens per verification: 1 + accepted / drafts; by the server's own mean where it counts no drafts."""
    offload_store_bytes_per_s: float | None = None
    """While it moved: bytes / time of the moves."""
    offload_load_bytes_per_s: float | None = None
    latency: dict[str, ServerLatency] = {}
    """ttft_s, itl_s, e2e_s and queue_s by the server's own clock, from arrival."""
    series: ServerSeries = ServerSeries()


def server_side(samples: Iterable[ServerSample] | Samples, window: Window, points: int = POINTS) -> ServerSide | None:
    """What the servers said over the window; None when nothing known was said."""
    said = samples if isinstance(samples, dict) else series_of(samples)
    side = Side(said, window)
    if not side.figures:
        return None
    grown = side.growths(COUNTERS)
    total = {figure: sum(by.values()) for figure, by in grown.items()}
    total |= _sources(total)
    gauges = {figure: side.gauge(figure) for figure in GAUGES if figure in side.figures}
    gauges |= _capacity(gauges)
    drafts, accepted = total.get("drafts", 0.0), total.get("accepted_tokens", 0.0)
    length = gauges.get("acceptance_length", Gauge()).mean
    rate = gauges.get("acceptance_rate", Gauge()).mean
    return ServerSide(
        families=sorted({family for by in side.figures.values() for family, _ in by}),
        replicas=side.replicas(grown),
        heard_s=float(side.heard_s()),
        restarts=sum(side.restarts.values()),
        growth=total,
        gauges=gauges,
        hit_rate=share(total.get("prefix_hits_tokens"), total.get("prefix_queries_tokens")),
        external_hit_rate=share(total.get("external_hits_tokens"), total.get("external_queries_tokens")),
        prompt_sources=_shares(total),
        acceptance_rate=share(accepted, total["draft_tokens"]) if "draft_tokens" in total else rate,
        acceptance_length=1 + accepted / drafts if drafts > 0 else length,
        offload_store_bytes_per_s=share(total.get("offload_store_bytes"), total.get("offload_store_s")),
        offload_load_bytes_per_s=share(total.get("offload_load_bytes"), total.get("offload_load_s")),
        latency={figure: side.latency(figure) for figure in HISTOGRAMS if figure in side.figures},
        series=side.series(points),
    )


class Timeline(Struct, frozen=True):
    """The run's own concurrency beside the server's figures: points of equal parts of the window."""

    at_s: list[float]
    sessions: list[float]
    """Session trees alive."""
    calls: list[float]
    """Calls in flight, by the client."""
    running: list[float | None]
    waiting: list[float | None]
    kv_usage: list[float | None]
    hit_rate: list[float | None]


def timeline(concurrency: Concurrency, side: ServerSide) -> Timeline:
    """Join the two; both must be over the same window with as many points."""
    series = side.series
    if [round(at, 6) for at in concurrency.at_s] != [round(at, 6) for at in series.at_s]:
        raise ValueError("the concurrency and the server's series are not over the same window")
    return Timeline(
        concurrency.at_s,
        concurrency.sessions,
        concurrency.calls,
        series.running,
        series.waiting,
        series.kv_usage,
        series.hit_rate,
    )


def _capacity(gauges: dict[str, Gauge]) -> dict[str, Gauge]:
    """Tokens that fit into the KV cache, where a server says blocks and their size."""
    blocks, each = gauges.get("kv_capacity_blocks", Gauge()).mean, gauges.get("block_tokens", Gauge()).mean
    if "kv_capacity_tokens" in gauges or blocks is None or each is None:
        return {}
    return {"kv_capacity_tokens": Gauge(blocks * each, blocks * each)}


def _sources(total: dict[str, float]) -> dict[str, float]:
    """What was computed, where a server counts only all prompt tokens and the cached ones."""
    if "computed_tokens" in total or not {"prompt_tokens", "local_hit_tokens"} <= total.keys():
        return {}
    cached = total["local_hit_tokens"] + total.get("external_hit_tokens", 0.0)
    return {"computed_tokens": max(0.0, total["prompt_tokens"] - cached)}


def _shares(total: dict[str, float]) -> dict[str, float]:
    amounts = {
        name: total[figure]
        for name, figure in (
            ("computed", "computed_tokens"),
            ("local", "local_hit_tokens"),
            ("external", "external_hit_tokens"),
        )
        if figure in total
    }
    whole = sum(amounts.values())
    return {name: amount / whole for name, amount in amounts.items()} if "computed" in amounts and whole > 0 else {}
