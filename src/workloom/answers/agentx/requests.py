"""Figures of the profiled requests, by the definitions of AgentX.

A request is profiled when it is no warm-up, was due in the measured window and ended well. Of each:

    ttft                first token - sent                         (a token: content, reasoning or a tool call)
    e2el                last token - sent
    itl, tpot           (e2el - ttft) / (OSL - 1): one mean a request (AIPerf's inter_token_latency), so its p50 is the
                        median over requests, not over gaps; absent for one token
    full_response_itl   (end of the stream - sent - ttft) / (OSL - 1)
    OSL                 output tokens, reasoning included, by the server's count or else by the chunks
    ISL                 prompt tokens by the server's count, or else what was sent

A time of 0 or less is left out, as in the original. Percentiles are linear between ranks, as numpy's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workloom.answers.agentx.columns import Columns
from workloom.answers.agentx.shape import (
    P99,
    Accounting,
    Latency,
    PerGpu,
    Qps,
    Rate,
    Spread,
    Throughput,
    Tokens,
)
from workloom.clock import NS
from workloom.metrics.frame import Bools, Window
from workloom.metrics.stats import Floats

LEVELS = {"p50": 50, "p75": 75, "p90": 90, "p95": 95}


@dataclass(slots=True)
class Samples:
    """One value a request, seconds; of `e2e_per_token` seconds per output token."""

    ttft: Floats
    e2el: Floats
    itl: Floats
    e2e_per_token: Floats
    full_response_itl: Floats


def profiled(calls: Columns, window: Window) -> Bools:
    """Which calls are the original's successful profiling records."""
    return calls.ok & ~calls.warmup & window.holds(calls.due_ns)


def accounting(calls: Columns, window: Window) -> Accounting:
    """The rows that the original would have: those of the warm-up, and those of the window that came to an end.

    Calls that were never sent, were cut off by the end of the run, or were due after the window are none of them.
    """
    ended = calls.ok | calls.failed
    records = ended & (calls.warmup | window.holds(calls.due_ns))
    good = int(profiled(calls, window).sum())
    failed = np.flatnonzero(records & calls.failed).tolist()
    total = int(records.sum())
    return Accounting(
        records_total=total,
        records_profiled=good,
        records_dropped_total=total - good,
        records_warmup_dropped=int((records & calls.warmup).sum()),
        records_error_dropped=len(failed),
        error_categories=dict(sorted(Counter(calls.category(row) for row in failed).items())),
    )


def samples(calls: Columns, mine: Bools) -> Samples:
    """The latencies of some requests; a value of 0 or less, or none, is left out."""
    sent, tokens = calls.sent_ns[mine], calls.output_tokens[mine]
    ttft = (calls.first_ns[mine] - sent) / NS
    e2el = (calls.last_ns[mine] - sent) / NS
    whole = (calls.done_ns[mine] - sent) / NS
    gaps = np.where(tokens > 1, tokens - 1, np.nan)
    return Samples(
        ttft=_above_0(ttft),
        e2el=_above_0(e2el),
        itl=_above_0((e2el - ttft) / gaps),
        e2e_per_token=_above_0(np.where(e2el > 0, e2el, np.nan) / np.where(tokens > 0, tokens, np.nan)),
        full_response_itl=_above_0((whole - ttft) / gaps),
    )


def latency(found: Samples) -> Latency:
    """Distributions of all latencies, and of the interactivities that are their inverses."""
    return Latency(
        ttft=spread(found.ttft),
        e2el=spread(found.e2el),
        itl=spread(found.itl),
        tpot=spread(found.itl),
        intvty=interactivity(found.itl),
        e2e_norm_intvty=interactivity(found.e2e_per_token),
        full_response_itl=spread(found.full_response_itl),
        full_response_intvty=interactivity(found.full_response_itl),
    )


def p99(found: Samples) -> P99:
    """The 99th percentiles; of an interactivity 1 / that of its latency."""
    of = {name: level(values, 99) for name, values in _by_name(found).items()}
    inverse = {name: None if not value else 1 / value for name, value in of.items()}
    return P99(
        ttft=of["ttft"],
        e2el=of["e2el"],
        itl=of["itl"],
        tpot=of["itl"],
        intvty=inverse["itl"],
        e2e_norm_intvty=inverse["e2e_per_token"],
        full_response_itl=of["full_response_itl"],
        full_response_intvty=inverse["full_response_itl"],
    )


def spread(values: Floats) -> Spread:
    """Mean, percentiles and population standard deviation."""
    if not len(values):
        return Spread()
    return Spread(mean=float(values.mean()), **_percentiles(values), std=float(values.std()))


def interactivity(seconds: Floats) -> Spread:
    """1 / the figure of the seconds per token: the percentile is taken before it is inverted."""
    if not len(seconds):
        return Spread()
    inverse = {name: 1 / value for name, value in _percentiles(seconds).items()}
    return Spread(mean=1 / float(seconds.mean()), **inverse, std=float((1 / seconds).std()))


def level(values: Floats, percent: float) -> float | None:
    """One percentile; None of no values."""
    return float(np.percentile(values, percent)) if len(values) else None


def qps(calls: Columns, mine: Bools) -> Qps:
    """Completions in each whole second after the first of them. Fewer than two, or all at once: no figures."""
    ends = np.sort(calls.done_ns[mine])
    ends = ends[~np.isnan(ends)]
    if len(ends) < 2 or ends[-1] <= ends[0]:
        return Qps()
    since = ends - ends[0]
    seconds = int(since[-1] // NS)
    if not seconds:
        return Qps(1.0, 0, mean=len(ends) / (float(since[-1]) / NS))
    counts = np.bincount((since // NS).astype(np.int64), minlength=seconds)[:seconds].astype(np.float64)
    return Qps(1.0, seconds, mean=float(counts.mean()), **_percentiles(counts), std=float(counts.std()))


def tokens(calls: Columns, mine: Bools) -> Tokens:
    """Tokens of a request: in, out, and what the plan asked for."""
    return Tokens(
        input=spread(_there(calls.input_tokens[mine])),
        output_actual=spread(_there(calls.output_tokens[mine])),
        output_expected=spread(_there(calls.planned_output_tokens[mine])),
    )


class Rates(NamedTuple):
    """Tokens per second over `seconds`, from the first start to the last end of some requests."""

    seconds: float
    input: float
    output: float

    @property
    def total(self) -> float:
        return self.input + self.output


def rates(calls: Columns, mine: Bools) -> Rates | None:
    """Tokens over the time from the first start to the last end; None where that has no length."""
    sent, done = _there(calls.sent_ns[mine]), _there(calls.done_ns[mine])
    seconds = float(done.max() - sent.min()) / NS if len(sent) and len(done) else 0.0
    if seconds <= 0:
        return None
    into, out = (float(np.nansum(column[mine])) for column in (calls.input_tokens, calls.output_tokens))
    return Rates(seconds, into / seconds, out / seconds)


def throughput(found: Rates | None, gpus: int) -> Throughput:
    """The rates as the aggregate tells them; an empty object where there are none."""
    if found is None:
        return Throughput()
    each = PerGpu(found.total / gpus, found.output / gpus, found.input / gpus) if gpus else PerGpu()
    return Throughput(Rate(found.input), Rate(found.output), Rate(found.total), found.seconds, each)


def _percentiles(values: Floats) -> dict[str, float]:
    found = np.percentile(values, list(LEVELS.values())).tolist()
    return dict(zip(LEVELS, found, strict=True))


def _by_name(found: Samples) -> dict[str, Floats]:
    return {
        "ttft": found.ttft,
        "e2el": found.e2el,
        "itl": found.itl,
        "e2e_per_token": found.e2e_per_token,
        "full_response_itl": found.full_response_itl,
    }


def _there(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _above_0(values: Floats) -> Floats:
    return values[values > 0]
