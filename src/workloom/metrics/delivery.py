"""What was delivered in the window, and per second of it: throughputs, in all and per GPU.

As in the summary, and whenever calls were due: output tokens count when their chunk came, prompt tokens when the first
token came, calls and sessions when they ended well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Metric, Totals
from workloom.metrics.frame import OK, Bools, Calls
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.streams import streams


def output_in_window(calls: Calls, carried: Floats, delivered: Floats) -> Floats:
    """Output tokens of each call that came in the window. A server's own count of a call's tokens is spread over its
    chunks: an event need not be one token."""
    counted = np.where(np.isnan(calls.output_tokens) | (carried == 0), carried, calls.output_tokens)
    return np.divide(delivered * counted, carried, out=np.zeros_like(carried), where=carried > 0)


def _per_s(run: Measured, amounts: Floats, at_ns: Floats) -> Totals | None:
    """What calls add, and when, over the seconds of the window. Sessions that were due in it but added nothing count as
    well."""
    seconds = run.window.seconds
    if seconds <= 0:
        return None
    there = (amounts > 0) if run.only is None else (amounts > 0) & run.only
    there |= run.due
    return Totals(
        amounts[there], seconds, run.calls.instance[there], np.where(amounts > 0, at_ns, run.calls.due_ns)[there]
    )


def output_tokens_per_s(run: Measured) -> Totals | None:
    """Output tokens whose chunk came in the window / its seconds, reasoning included. Where the server counted a call's
    tokens itself, its count is spread evenly over the call's chunks."""
    flow = streams(run)
    start_ns, end_ns = (
        np.clip(at, run.window.start_ns, run.window.end_ns) for at in (run.calls.first_ns, run.calls.last_ns)
    )
    return _per_s(run, output_in_window(run.calls, flow.carried, flow.delivered), (start_ns + end_ns) / 2)


def prompt_tokens_per_s(run: Measured) -> Totals | None:
    """Prompt tokens of calls whose first token came in the window / its seconds, cached ones included."""
    first = run.window.holds(run.calls.first_ns)
    return _per_s(run, np.where(first, run.prompt_tokens, 0.0), run.calls.first_ns)


def uncached_tokens_per_s(run: Measured) -> Totals | None:
    """Prompt tokens that the server did not take from its cache, of calls whose first token came in the window / its
    seconds. Over the calls that report what was cached; none if none does."""
    computed = np.where(run.window.holds(run.calls.first_ns), run.calls.prompt_tokens - run.calls.cached_tokens, np.nan)
    return _per_s(run, np.nan_to_num(computed), run.calls.first_ns) if np.isfinite(computed).any() else None


def calls_per_s(run: Measured) -> Totals | None:
    """Calls that ended well in the window / its seconds."""
    return _per_s(run, ended(run).astype(np.float64), run.calls.done_ns)


def ended(run: Measured) -> Bools:
    """Rows that ended well in the window, whenever they were due."""
    calls = run.calls
    well: Bools = (calls.status == OK) & ~calls.warmup & run.window.holds(calls.done_ns)
    return well if run.only is None else well & run.only


def sessions_per_s(run: Measured) -> Totals | None:
    """Sessions that ended well in the window / its seconds."""
    sessions, seconds = run.sessions, run.window.seconds
    if seconds <= 0:
        return None
    well = sessions.ok & run.window.holds(sessions.end_ns)
    there = well | run.window.holds(sessions.due_ns)
    at_ns = np.where(well, sessions.end_ns, sessions.due_ns)[there]
    return Totals(well[there].astype(np.float64), seconds, sessions.instance[there], at_ns)


def _per_gpu(whole: Callable[[Measured], Totals | None], run: Measured) -> Totals | None:
    found, gpus = whole(run), run.gpus
    if found is None or gpus is None:
        return None
    assert isinstance(found.whole, float)
    return Totals(found.part, found.whole * gpus, found.session, found.at_ns)


def output_tokens_per_s_per_gpu(run: Measured) -> Totals | None:
    """Output tokens/s over the number of GPUs: those of the engine or fleet that was simulated, or `--gpus`. Unknown
    for a live server nobody described, and for a fleet whose size changes."""
    return _per_gpu(output_tokens_per_s, run)


def prompt_tokens_per_s_per_gpu(run: Measured) -> Totals | None:
    """Prompt tokens/s over the number of GPUs."""
    return _per_gpu(prompt_tokens_per_s, run)


def calls_per_s_per_gpu(run: Measured) -> Totals | None:
    """Calls that ended well/s over the number of GPUs."""
    return _per_gpu(calls_per_s, run)


def sessions_per_s_per_gpu(run: Measured) -> Totals | None:
    """Sessions that ended well/s over the number of GPUs."""
    return _per_gpu(sessions_per_s, run)


def tpot_throughput_tokens_per_s(run: Measured) -> Totals | None:
    """TPOT throughput: 1 / mean TPOT, over the calls due in the window that ended well: the decode speed of one stream.
    Failed calls have no TPOT of their own here: look at the errors beside it."""
    tpot = per_call.tpot_s(run.calls, run.carried)
    there = run.due & np.isfinite(tpot) & (tpot > 0)
    return Totals(np.ones(int(there.sum())), tpot[there], run.calls.instance[there]) if there.any() else None


METRICS = (
    Metric(
        *("output_tokens_per_s", "output throughput", "tokens/s", "run", "higher", output_tokens_per_s),
        aliases=("output_throughput",),
        also="completion tok/s (TRIE), whose steady state is the slope behind the first 20 % of the wall time; ours is "
        "the measured window. AgentX divides the tokens of successful calls by last end - first start, ramp and drain "
        "included.",
        of_calls=True,
    ),
    Metric(
        *("prompt_tokens_per_s", "prompt throughput", "tokens/s", "run", "higher", prompt_tokens_per_s),
        also="TRIE: total prompt tok/s; AgentX: input throughput",
        of_calls=True,
    ),
    Metric(
        *("uncached_tokens_per_s", "computed prompt tokens", "tokens/s", "run", "neither", uncached_tokens_per_s),
        also="TRIE: uncached prompt tok/s, by the client's own accounting: everything but the new tokens is cached.",
        of_calls=True,
    ),
    Metric(
        *("calls_per_s", "calls", "1/s", "run", "higher", calls_per_s, ("requests_per_s", "qps")),
        also="AIPerf: request throughput",
        of_calls=True,
    ),
    Metric("sessions_per_s", "sessions", "1/s", "run", "higher", sessions_per_s, ("traces_per_s",), "TRIE: trace/s"),
    Metric(
        *("output_tokens_per_s_per_gpu", "output throughput a GPU", "tokens/s", "run", "higher"),
        output_tokens_per_s_per_gpu,
        also="TRIE: steady state/GPU of completion tok/s. AgentX: output_tput_per_gpu, GPUs = tp*pp*pcp",
        of_calls=True,
    ),
    Metric(
        *("prompt_tokens_per_s_per_gpu", "prompt throughput a GPU", "tokens/s", "run", "higher"),
        prompt_tokens_per_s_per_gpu,
        of_calls=True,
    ),
    Metric(
        *("calls_per_s_per_gpu", "calls a GPU", "1/s", "run", "higher", calls_per_s_per_gpu),
        of_calls=True,
    ),
    Metric("sessions_per_s_per_gpu", "sessions a GPU", "1/s", "run", "higher", sessions_per_s_per_gpu),
    Metric(
        *("tpot_throughput_tokens_per_s", "TPOT throughput", "tokens/s", "run", "higher", tpot_throughput_tokens_per_s),
        aliases=("tpot_throughput",),
        of_calls=True,
    ),
)
