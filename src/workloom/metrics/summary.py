"""The numbers of a run, all of them derived from its records in one pass over its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from msgspec import Struct, structs

from workloom.metrics import calls as per_call
from workloom.metrics import sessions as per_session
from workloom.metrics.catalog import Sample, find
from workloom.metrics.delivery import output_in_window
from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.fairness import Spread, session_ttft_s, spread
from workloom.metrics.figure import Figure
from workloom.metrics.frame import Bools, Calls, Window
from workloom.metrics.headline import headline
from workloom.metrics.measured import Measured, measured, measured_records
from workloom.metrics.server import HitRate, ServerSide, Timeline, hit_rate, server_side, timeline
from workloom.metrics.stats import LEVELS, Floats, Stats, stats
from workloom.metrics.streams import streams
from workloom.metrics.tool import Tool, judge, seen
from workloom.metrics.uncertainty.stationary import IN_FLIGHT, Stationarity, stationarity
from workloom.metrics.workflow.explain import Explanation, explain
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.store import Run
from workloom.store.manifest import Manifest


class Tokens(Struct, frozen=True):
    """Tokens of the calls due in the window that were sent."""

    planned_prompt: int
    sent_prompt: int
    """By our own count."""
    prompt: int
    """By the server's, over the calls it counted."""
    cached: int
    """Prompt tokens from the server's prefix cache, over the calls it reported."""
    planned_output: int
    output: int
    """By the server's count, or where it gave none by the chunks."""
    reasoning: int = 0
    """Of the output, by the server's count."""


class Throughput(Struct, frozen=True):
    """What was delivered inside the window, whenever its calls were due, and that over the window's length.

    Output tokens count when their chunk came, prompt tokens when the first token came, calls and sessions when they
    ended well. None where the window has no length.
    """

    output_tokens: float
    prompt_tokens: float
    calls: int
    sessions: int
    output_tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    calls_per_s: float | None = None
    sessions_per_s: float | None = None


class Summary(Struct, frozen=True, kw_only=True):
    """The numbers of a run. In JSON an infinite figure is null, and `infinite` beside it says how many were."""

    format: int = 1
    run: Manifest | None
    window: Window
    calls: per_call.CallCounts
    sessions: per_session.SessionCounts
    latency: dict[str, Stats]
    """ttft_s, ttft_from_due_s, tbc_s, tpot_s, e2e_s, e2e_from_due_s, makespan_s, lag_s."""
    tokens: Tokens
    throughput: Throughput
    concurrency: per_session.Concurrency
    hits: HitRate
    engine_hit_rate: float | None
    """By the counters of the servers."""
    server: ServerSide | None = None
    """What the servers said of themselves."""
    timeline: Timeline | None = None
    """Sessions alive and calls in flight beside the servers' queues, KV use and hit rate, over the window."""
    errors: dict[str, per_call.Failures]
    """Failed calls by kind, most frequent first."""
    tool: Tool
    estimates: list[Estimate] = []
    """The main figures with their uncertainty."""
    withheld: list[str] = []
    """Percentiles of `latency` that the sample does not carry (`ttft_p99`): too few independent values lie beyond
    them, or too many were cut off. They are what came, and say nothing of what would have come."""
    workflow: Explanation | None = None
    """Where the time of sessions and tasks went, and what would shorten it."""
    stationarity: list[Stationarity] = []
    """Whether TTFT, E2E and the calls in flight had settled."""
    fairness: list[Spread] = []
    """How unequal the sessions were: p95 / p50 of mean TTFT, and of slowdown where it is known."""


def summarize(run: Run, window: Window | None = None, *, whole: bool = False) -> Summary:
    """The numbers of a run on disk: of its window, or of the `whole` of it from where the window begins."""
    return answers_of(measured(run, window=window, whole=whole))


def summarize_records(
    calls: Sequence[CallRecord],
    sessions: Iterable[SessionRecord] = (),
    samples: Iterable[ServerSample] = (),
    *,
    window: Window | None = None,
    manifest: Manifest | None = None,
) -> Summary:
    """The numbers of records in memory, without estimates and workflow."""
    return summary_of(measured_records(calls, sessions, samples, window=window, manifest=manifest))


def summary_json(run: Run) -> bytes:
    """The summary of a run as JSON: what `RunWriter.close(summarize=summary_json)` writes."""
    return encode(summarize(run))


def encode(summary: Summary) -> bytes:
    """A summary as JSON; infinite figures become null."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def answers_of(run: Measured) -> Summary:
    """The numbers of what was measured, with their uncertainty and what they come from."""
    plain = summary_of(run)
    if not plain.calls.due:
        return plain
    slow = find("slowdown").observe(run)
    pairs = [("session_ttft_s", session_ttft_s(run).values)]
    if isinstance(slow, Sample):
        pairs.append(("slowdown", slow.values))
    found = [spread(name, values) for name, values in pairs]
    fairness = [each for each in found if each is not None]
    settled = [stationarity(run, name) for name in ("ttft_s", "e2e_s", IN_FLIGHT)]
    return structs.replace(
        plain,
        estimates=headline(run),
        withheld=_withheld(run, plain.sessions.due),
        workflow=explain(run),
        stationarity=settled,
        fairness=fairness,
    )


_CARRYING = ("ttft_s", "ttft_from_due_s", "tbc_s", "tpot_s", "e2e_s", "e2e_from_due_s", "makespan_s")
_CARRIED = 5000
"""So many sessions carry a p99 of anything: nobody need look."""


def _withheld(run: Measured, sessions: int) -> list[str]:
    """The percentiles beyond the middle of the latencies that there is too little data for."""
    if sessions > _CARRIED:
        return []
    asked = [Figure(name, level) for name in _CARRYING for level in LEVELS if level != "p50"]
    return [told.figure for told in estimates(run, asked) if told.value is None and told.values]


def summary_of(run: Measured) -> Summary:
    """The plain numbers of what was measured."""
    calls, sessions, samples, window, manifest = run.calls, run.sessions, run.samples, run.window, run.manifest
    due = window.holds(calls.due_ns) & ~calls.warmup
    flow = streams(run)
    tbc, carried, delivered, together = flow.gaps_stats, flow.carried, flow.delivered, flow.together
    session_counts = per_session.count(sessions, calls, window)
    call_counts = per_call.count(calls, window)
    cut, waiting = call_counts.censored, call_counts.waiting
    makespan_s = per_session.makespan_s(sessions)[window.holds(sessions.due_ns)]
    latency = {
        "ttft_s": stats(per_call.ttft_s(calls)[due], waiting),
        "ttft_from_due_s": stats(per_call.ttft_from_due_s(calls)[due], waiting),
        "tbc_s": tbc,
        "tpot_s": stats(per_call.tpot_s(calls, carried)[due], cut),
        "e2e_s": stats(per_call.e2e_s(calls)[due], cut),
        "e2e_from_due_s": stats(per_call.e2e_from_due_s(calls)[due], cut),
        "makespan_s": stats(makespan_s, session_counts.censored + session_counts.unfinished),
        "lag_s": stats(per_call.lag_s(calls)[due]),
    }
    side = server_side(samples, window)
    both = per_session.concurrency(calls, sessions, window)
    return Summary(
        run=manifest,
        window=window,
        calls=call_counts,
        sessions=session_counts,
        latency=latency,
        tokens=_tokens(calls, carried, due & np.isfinite(calls.sent_ns)),
        throughput=_throughput(calls, carried, delivered, call_counts.ended, session_counts.ended, window),
        concurrency=both,
        hits=hit_rate(calls, window),
        engine_hit_rate=None if side is None else side.hit_rate,
        server=side,
        timeline=None if side is None or not both.at_s else timeline(both, side),
        errors=per_call.errors(calls, window),
        tool=judge(manifest, latency["lag_s"], seen(calls, due, together, tbc.n)),
    )


def _tokens(calls: Calls, carried: Floats, mine: Bools) -> Tokens:
    def total(column: Floats) -> int:
        return int(np.nansum(column[mine]))

    return Tokens(
        planned_prompt=total(calls.planned_prompt_tokens),
        sent_prompt=total(calls.sent_prompt_tokens),
        prompt=total(calls.prompt_tokens),
        cached=total(calls.cached_tokens),
        planned_output=total(calls.planned_output_tokens),
        output=total(np.where(np.isnan(calls.output_tokens), carried, calls.output_tokens)),
        reasoning=total(calls.reasoning_tokens),
    )


def _throughput(
    calls: Calls, carried: Floats, delivered: Floats, ended: int, sessions_ended: int, window: Window
) -> Throughput:
    output = float(np.sum(output_in_window(calls, carried, delivered)))
    prompts = np.where(np.isnan(calls.prompt_tokens), calls.sent_prompt_tokens, calls.prompt_tokens)
    prompt = float(np.sum(prompts[window.holds(calls.first_ns)]))
    amounts = (output, prompt, ended, sessions_ended)
    seconds = window.seconds
    return Throughput(*amounts, *(amount / seconds if seconds > 0 else None for amount in amounts))
