"""The summary of the earlier protocol (agentx-mvp): the same definitions, at P50, P75, P90 and P99.

Its protocol: each slot starts uniformly in the first 70 % of its session, waits are capped at 60 s, the state before
the start is prefilled, 5 s of quiet, then 1,800 s of measurement, at least 900.
"""

from __future__ import annotations

from msgspec import Struct

from workloom.answers.agentx import requests
from workloom.answers.agentx.columns import columns, window_of
from workloom.answers.agentx.identity import Identity, gpus, known
from workloom.answers.agentx.shape import Validity
from workloom.answers.agentx.theoretical import theoretical
from workloom.answers.agentx.validity import scenario_of, validity
from workloom.metrics.stats import Floats
from workloom.store import Run


class Four(Struct):
    """Percentiles; None of no values."""

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class MvpSummary(Struct):
    """Seconds and tokens per second; a `*_tput_tps` is over the time from the first start to the last end."""

    scenario: str | None
    measured_seconds: float
    num_requests_total: int
    num_requests_successful: int
    ttft: Four
    e2el: Four
    itl: Four
    intvty: Four
    e2e_norm_intvty: Four
    duration_seconds: float | None
    input_tput_tps: float | None
    output_tput_tps: float | None
    total_tput_tps: float | None
    total_tput_per_gpu_tps: float | None
    theoretical_cache_hit_rate: float | None
    client_version: str
    corpus_hash: str
    validity: Validity


def mvp(run: Run, identity: Identity | None = None) -> MvpSummary:
    """The summary of a run on disk."""
    calls = columns(run)
    window = window_of(run, calls)
    mine = requests.profiled(calls, window)
    found = requests.samples(calls, mine)
    shape = gpus(known(identity or Identity(), run.manifest))
    rows = requests.accounting(calls, window)
    speed = requests.rates(calls, mine)
    trace = (run.manifest.config.get("recipe") or {}).get("trace") or {}
    return MvpSummary(
        scenario=scenario_of(run.manifest)[0],
        measured_seconds=window.seconds,
        num_requests_total=rows.records_total,
        num_requests_successful=rows.records_profiled,
        ttft=_four(found.ttft),
        e2el=_four(found.e2el),
        itl=_four(found.itl),
        intvty=_inverse(_four(found.itl)),
        e2e_norm_intvty=_inverse(_four(found.e2e_per_token)),
        duration_seconds=None if speed is None else speed.seconds,
        input_tput_tps=None if speed is None else speed.input,
        output_tput_tps=None if speed is None else speed.output,
        total_tput_tps=None if speed is None else speed.total,
        total_tput_per_gpu_tps=None if speed is None or not shape.count else speed.total / shape.count,
        theoretical_cache_hit_rate=theoretical(run, calls, mine)[0],
        client_version=run.manifest.workloom,
        corpus_hash=trace.get("content_hash") or "",
        validity=validity(run.manifest, calls, window),
    )


def _four(values: Floats) -> Four:
    return Four(*(requests.level(values, percent) for percent in (50, 75, 90, 99)))


def _inverse(four: Four) -> Four:
    """1 / each: the percentile is taken before it is inverted."""
    return Four(*(None if not value else 1 / value for value in (four.p50, four.p75, four.p90, four.p99)))
