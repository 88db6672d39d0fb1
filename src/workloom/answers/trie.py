"""The headline metrics of Applied Compute's harness (TRIE): per trace, and of the whole workload over time.

A trace is a session instance. TRIE's are chains; of a DAG

    the first request       is the call that stands first in the session
    the final request       is the last to be done of the root agent, the agent of the first request
    the previous request    of a call is the one before it of the same agent; an agent's first call has none

A turn counts when its request ended well in the measured window, also of a trace that never came to its end. A trace
counts when it was due in the window and all of it ran and ended well, from its first call on, if need be after the
window; one that began in the middle is left out and counted. E2E of a request is from sent to its last token.
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct

from workloom.answers.agentx.columns import Columns, columns, window_of
from workloom.answers.agentx.theoretical import share
from workloom.clock import NS
from workloom.metrics.frame import Bools, Ints, Window, chunks_of
from workloom.metrics.stats import Floats
from workloom.records import CallRecord
from workloom.store import Run

WARM_SHARE = 0.20
"""Of the wall time, dropped before the steady state."""
LAST_S = 30.0
LEVELS = (50, 90, 95, 99)
HEADINGS = ["", "mean", "min", "p50", "p90", "p95", "p99", "max", "n"]
RATE_HEADINGS = ["", "overall", "last 30 s", "steady state", "steady/GPU"]


class Spread(Struct, frozen=True):
    """Figures of `n` values; None of none. Percentiles are linear between ranks."""

    n: int = 0
    mean: float | None = None
    min: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class Traces(Struct, frozen=True):
    """One value a trace, but `output_tokens_per_turn`: one a turn."""

    count: int
    began_in_the_middle: int
    """Left out: they began beyond their first call."""
    unfinished: int
    """Left out: cut off by the end of the run, or failed."""
    e2e_s: Spread
    """From when the first request was due to the end of the last one."""
    ttft_s: Spread
    """Of the first request: from sent to its first token."""
    ttfat_s: Spread
    """From when the first request was due to the first token of the final request."""
    tpot_s: Spread
    """Mean over requests of (e2e - ttft) / (tokens - 1); requests of one token have none."""
    decode_tokens_per_s: Spread
    """Mean over requests of (tokens - 1) / (e2e - ttft)."""
    itl_s: Spread
    """Mean over all gaps between the chunks of the trace."""
    output_tokens_per_turn: Spread
    output_tokens_per_trace: Spread
    cache_hit_rate: Spread
    """Cached / prompt tokens, by the usage of the answers, over the requests whose answers tell."""
    eligible_cache_hit_rate: Spread
    """Cached / eligible tokens, over the same: of request i those of the previous one, prompt and answer; of a first
    one 0. What another session left in the cache is cached and not eligible: with a scaffold it may be above 1."""


class Rate(Struct, frozen=True):
    """What was done, over time: each the difference of two points of the cumulative curve over their distance.

    overall: the whole window. last_30s: its last 30 s. steady_state: without the first 20 % of it: the headline. None
    where the window is too short.
    """

    overall: float | None = None
    last_30s: float | None = None
    steady_state: float | None = None
    steady_state_per_gpu: float | None = None


class Workload(Struct, frozen=True):
    """Per second. Prompt tokens by the client's accounting: all but what is new since the previous request is cached.

    A request counts at its end, a trace at the end of its last request.
    """

    seconds: float
    gpus: int
    traces: Rate
    prompt_tokens: Rate
    cached_prompt_tokens: Rate
    uncached_prompt_tokens: Rate
    completion_tokens: Rate


class Trie(Struct, frozen=True):
    """The answer. The two rates are over all turns that count, of all traces."""

    client_version: str
    command: list[str]
    corpus_hash: str
    turns: int
    failed: int
    """Requests of the window that failed."""
    cache_hit_rate: float | None
    eligible_cache_hit_rate: float | None
    traces: Traces
    workload: Workload


def trie(run: Run, gpus: int | None = None) -> Trie:
    """The metrics of a run on disk. `gpus`: how many served it (default: those of the simulated engine, else 1)."""
    calls = columns(run)
    window = window_of(run, calls)
    chunks = _chunks(run)
    eligible = eligible_tokens(calls)
    turn = calls.ok & ~calls.warmup
    ended = turn & window.holds(calls.done_ns)
    whole, middle, unfinished = _whole(run, calls, window)
    config = run.manifest.config
    count = gpus or int((config.get("engine") or {}).get("gpus") or 1)
    told = ended & ~np.isnan(calls.cached_tokens)
    return Trie(
        client_version=run.manifest.workloom,
        command=run.manifest.argv,
        corpus_hash=((config.get("recipe") or {}).get("trace") or {}).get("content_hash") or "",
        turns=int(ended.sum()),
        failed=int((calls.failed & ~calls.warmup & window.holds(calls.due_ns)).sum()),
        cache_hit_rate=share(calls.cached_tokens[told], calls.input_tokens[told]),
        eligible_cache_hit_rate=share(calls.cached_tokens[told], eligible[told]),
        traces=_traces(calls, turn & whole, eligible, chunks, middle, unfinished),
        workload=_workload(calls, ended, eligible, whole & turn, window, count),
    )


def encode(found: Trie) -> bytes:
    """The answer as JSON."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def eligible_tokens(calls: Columns) -> Floats:
    """Prompt + answer of the previous request of the same agent in the same trace; 0 of its first."""
    order = np.lexsort((calls.ordinal, calls.agent.code, calls.instance))
    held = (calls.input_tokens + np.nan_to_num(calls.output_tokens))[order]
    instance, agent = calls.instance[order], calls.agent.code[order]
    follows = np.zeros(len(order), dtype=np.bool_)
    follows[1:] = (instance[1:] == instance[:-1]) & (agent[1:] == agent[:-1])
    out = np.zeros(len(order))
    out[order[1:]] = np.where(follows[1:], held[:-1], 0.0)
    return out


def _whole(run: Run, calls: Columns, window: Window) -> tuple[Bools, int, int]:
    """Which calls belong to traces that ran whole and well; traces that began in the middle, and that did not end."""
    good: list[int] = []
    middle = unfinished = 0
    told = set()
    for session in run.sessions():
        told.add(session.instance)
        if not window.start_ns <= session.due_ns < window.end_ns:
            continue
        if session.status != "ok":
            unfinished += 1
        elif session.calls_before:
            middle += 1
        else:
            good.append(session.instance)
    started = np.unique(calls.instance[window.holds(calls.due_ns)]).tolist()
    unfinished += sum(instance not in told for instance in started)
    return np.isin(calls.instance, good), middle, unfinished


def _chunks(run: Run) -> Floats:
    """Chunks of every call."""
    parts = [np.empty(0)]
    for batch in run.batches(CallRecord, ["chunks"]):
        piece = chunks_of(batch)
        parts.append(np.bincount(piece.call, weights=piece.count, minlength=piece.calls).astype(np.float64))
    return np.concatenate(parts)


def _traces(calls: Columns, mine: Bools, eligible: Floats, chunks: Floats, middle: int, unfinished: int) -> Traces:
    rows = np.flatnonzero(mine)
    rows = rows[np.lexsort((calls.ordinal[rows], calls.instance[rows]))]
    instances, begin, trace = np.unique(calls.instance[rows], return_index=True, return_inverse=True)
    count = len(instances)
    first = rows[begin]
    start_ns = calls.due_ns[first]
    last_done_ns = _per(trace, calls.done_ns[rows], count, np.fmax, -np.inf)
    root = calls.agent.code[rows] == calls.agent.code[first][trace]
    final = _last(trace, np.where(root, calls.done_ns[rows], -np.inf), count)
    latency = (calls.last_ns[rows] - calls.first_ns[rows]) / NS
    gaps = calls.output_tokens[rows] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where((gaps > 0) & (latency > 0), latency / gaps, np.nan)
    told = ~np.isnan(calls.cached_tokens[rows])
    held, prompt, could = (
        _sum(trace, np.where(told, column[rows], 0.0), count)
        for column in (calls.cached_tokens, calls.input_tokens, eligible)
    )
    return Traces(
        count=count,
        began_in_the_middle=middle,
        unfinished=unfinished,
        e2e_s=spread((last_done_ns - start_ns) / NS),
        ttft_s=spread((calls.first_ns[first] - calls.sent_ns[first]) / NS),
        ttfat_s=spread((calls.first_ns[rows][final] - start_ns) / NS),
        tpot_s=spread(_mean(trace, tpot, count)),
        decode_tokens_per_s=spread(_mean(trace, 1 / tpot, count)),
        itl_s=spread(_ratio(_sum(trace, latency, count, True), _sum(trace, np.maximum(chunks[rows] - 1, 0), count))),
        output_tokens_per_turn=spread(calls.output_tokens[rows]),
        output_tokens_per_trace=spread(_sum(trace, calls.output_tokens[rows], count)),
        cache_hit_rate=spread(_ratio(held, prompt)),
        eligible_cache_hit_rate=spread(_ratio(held, could)),
    )


def _workload(calls: Columns, ended: Bools, eligible: Floats, whole: Bools, window: Window, gpus: int) -> Workload:
    done, prompt = calls.done_ns[ended], calls.input_tokens[ended]
    cached = np.minimum(eligible[ended], prompt)
    instances, trace = np.unique(calls.instance[whole], return_inverse=True)
    trace_done = _per(trace, calls.done_ns[whole], len(instances), np.fmax, -np.inf)
    in_time = trace_done[window.holds(trace_done)]

    def rate(at_ns: Floats, amounts: Floats) -> Rate:
        return _rate(at_ns, np.nan_to_num(amounts), window, gpus)

    return Workload(
        seconds=window.seconds,
        gpus=gpus,
        traces=rate(in_time, np.ones(len(in_time))),
        prompt_tokens=rate(done, prompt),
        cached_prompt_tokens=rate(done, cached),
        uncached_prompt_tokens=rate(done, prompt - cached),
        completion_tokens=rate(done, calls.output_tokens[ended]),
    )


def _rate(at_ns: Floats, amounts: Floats, window: Window, gpus: int) -> Rate:
    """Slopes of a cumulative curve over parts of the window."""
    seconds = window.seconds
    if seconds <= 0:
        return Rate()

    def since(begin_s: float) -> float:
        return float(amounts[at_ns >= window.start_ns + begin_s * NS].sum()) / (seconds - begin_s)

    steady = since(WARM_SHARE * seconds)
    return Rate(since(0.0), since(seconds - LAST_S) if seconds >= LAST_S else None, steady, steady / gpus)


def spread(values: Floats) -> Spread:
    """Figures of the values that are there."""
    there = values[np.isfinite(values)]
    if not len(there):
        return Spread()
    p50, p90, p95, p99 = np.percentile(there, LEVELS).tolist()
    low, high = float(there.min()), float(there.max())
    return Spread(len(there), float(there.mean()), low, p50, p90, p95, p99, high)


def _sum(trace: Ints, values: Floats, count: int, skip: bool = False) -> Floats:
    """The sum of each trace's values; nan where one is missing, unless it is to be skipped."""
    weights = np.nan_to_num(values) if skip else values
    return np.bincount(trace, weights=weights, minlength=count).astype(np.float64)


def _mean(trace: Ints, values: Floats, count: int) -> Floats:
    """The mean of each trace's values that are there."""
    return _ratio(_sum(trace, values, count, True), _sum(trace, np.isfinite(values).astype(np.float64), count))


def _ratio(part: Floats, whole: Floats) -> Floats:
    out: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return out


def _per(trace: Ints, values: Floats, count: int, best: np.ufunc, start: float) -> Floats:
    out = np.full(count, start)
    best.at(out, trace, values)
    return out


def _last(trace: Ints, values: Floats, count: int) -> Ints:
    """The row of each trace's highest value; the later of equal ones."""
    order = np.lexsort((values, trace))
    ends = np.searchsorted(trace[order], np.arange(count), side="right") - 1
    return order[ends]


def rows(result: Trie) -> tuple[list[tuple[str, str]], list[list[str]], list[list[str]]]:
    """Names and values; per trace under HEADINGS; rates of the workload under RATE_HEADINGS."""
    t, w = result.traces, result.workload
    lines = [
        ("traces", f"{t.count:,} whole; {t.began_in_the_middle:,} began in the middle, {t.unfinished:,} did not end"),
        ("turns", f"{result.turns:,} ended in {w.seconds:,.0f} s, {result.failed:,} failed"),
        ("cache hit rate", _percent(result.cache_hit_rate)),
        ("eligible cache hit rate", _percent(result.eligible_cache_hit_rate) + _above(result.eligible_cache_hit_rate)),
    ]
    per_trace = [
        _spread("E2E, s", t.e2e_s),
        _spread("TTFT (first request), s", t.ttft_s),
        _spread("TTFAT, s", t.ttfat_s),
        _spread("TPOT, s", t.tpot_s),
        _spread("decode, tok/s", t.decode_tokens_per_s),
        _spread("ITL, s", t.itl_s),
        _spread("output tokens per turn", t.output_tokens_per_turn),
        _spread("output tokens per trace", t.output_tokens_per_trace),
        _spread("cache hit rate", t.cache_hit_rate),
        _spread("eligible cache hit rate", t.eligible_cache_hit_rate),
    ]
    rates = [
        _rates("traces/s", w.traces),
        _rates("prompt tok/s", w.prompt_tokens),
        _rates("  cached", w.cached_prompt_tokens),
        _rates("  uncached", w.uncached_prompt_tokens),
        _rates("completion tok/s", w.completion_tokens),
    ]
    return lines, per_trace, rates


def _spread(name: str, found: Spread) -> list[str]:
    figures = (found.mean, found.min, found.p50, found.p90, found.p95, found.p99, found.max)
    return [name, *(_number(figure) for figure in figures), f"{found.n:,}"]


def _rates(name: str, rate: Rate) -> list[str]:
    figures = (rate.overall, rate.last_30s, rate.steady_state, rate.steady_state_per_gpu)
    return [name, *(_number(figure) for figure in figures)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _above(rate: float | None) -> str:
    """What a rate of more than all that is eligible means."""
    return " (above 100 %: sessions share a scaffold, which is cached and not eligible)" if rate and rate > 1 else ""


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
