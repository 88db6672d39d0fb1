"""How much of the work was new: reuse of prompts, hits of the cache, tokens prefilled again; and KV held over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.delivery import ended
from workloom.metrics.frame import CENSORED, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.server import server_side
from workloom.metrics.stats import Floats
from workloom.metrics.streams import ended_ns, streams
from workloom.metrics.workflow.tasks import tasks


def prompt_reuse_ratio(run: Measured) -> Totals | None:
    """Mean over the calls due in the window of 1 - fresh / prompt, both by the plan: fresh is what is neither inherited
    from an earlier call nor a named span. What the workload lets a cache do, whatever the server did."""
    calls = run.calls
    there = run.due & np.isfinite(calls.planned_fresh_tokens) & (calls.planned_prompt_tokens > 0)
    if not there.any():
        return None
    reused = 1 - calls.planned_fresh_tokens[there] / calls.planned_prompt_tokens[there]
    return Totals(reused, np.ones(len(reused)), calls.instance[there])


def hit_rate(run: Measured) -> Totals | None:
    """Cached prompt tokens / prompt tokens by the usage of the answers, over the calls due in the window that were sent
    and report both."""
    rows = _reported(run)
    if not rows.any():
        return None
    return Totals(run.calls.cached_tokens[rows], run.calls.prompt_tokens[rows], run.calls.instance[rows])


def ideal_hit_rate(run: Measured) -> Totals | None:
    """What an infinite cache of prompts and answers would have held when each call was sent / prompt tokens, by the
    plan; over the calls that report what was cached (if none does: over all that were sent)."""
    calls = run.calls
    rows = _sent(run) & np.isfinite(calls.ideal_cached_tokens)
    reported = _reported(run)
    if reported.any():
        rows &= reported
    if not rows.any():
        return None
    whole = np.where(calls.ideal_prompt_tokens > 0, calls.ideal_prompt_tokens, calls.sent_prompt_tokens)
    return Totals(calls.ideal_cached_tokens[rows], whole[rows], calls.instance[rows])


def reprefilled_share(run: Measured) -> Totals | None:
    """Of the prompt tokens that were prefilled, those that an infinite cache would have held: prefilled again. It holds
    what was evicted, what is lost to the granularity of blocks and the last token (always recomputed), and answers that
    the template does not let a prompt match; the rest of the prefill is fresh: nothing could have held it. What a
    preempted call prefills again is not in it: no answer reports that."""
    return _again(run, 1.0)


def eviction_share(run: Measured) -> Totals | None:
    """Of the prompt tokens that were prefilled, whole blocks that an infinite cache would have held: recomputation
    caused by eviction (or by a cache that was emptied, or a router that chose another replica). Needs the size of a
    block: of the engine that was simulated, or by the server's own word. Answers that the template keeps from matching
    are in it too. Preemption is not: look at the server's count of preemptions."""
    block = _block_tokens(run)
    return None if block is None else _again(run, block)


def _again(run: Measured, block: float) -> Totals | None:
    calls = run.calls
    rows = _reported(run) & np.isfinite(calls.ideal_cached_tokens)
    if not rows.any():
        return None
    prefilled = calls.prompt_tokens[rows] - calls.cached_tokens[rows]
    could = np.floor(calls.ideal_cached_tokens[rows] / block) * block
    again = np.clip(could - calls.cached_tokens[rows], 0.0, prefilled)
    return Totals(again, prefilled, calls.instance[rows])


def _block_tokens(run: Measured) -> float | None:
    engine = run.manifest.config.get("engine") if run.manifest is not None else None
    said = engine.get("block_tokens") if isinstance(engine, Mapping) else None
    if isinstance(said, int | float) and said > 0:
        return float(said)
    sizes = [series.values[-1] for (name, _), series in run.samples.items() if name.endswith("block_tokens")]
    return float(sizes[0]) if sizes and min(sizes) == max(sizes) > 0 else None


def preemptions_ratio(run: Measured) -> Totals | None:
    """Times that servers put a running request back to wait for want of KV blocks / calls that ended well in the
    window; by the servers' own counters. What it had computed is computed again, unseen by hit rates."""
    side = server_side(run.samples, run.window)
    if side is None or "preemptions" not in side.growth:
        return None
    there = ended(run) | run.due
    sessions, each = np.unique(run.calls.instance[there], return_inverse=True)
    if not ended(run).any():
        return None
    rows = np.bincount(each, minlength=len(sessions))
    part = side.growth["preemptions"] / len(sessions) / rows[each]  # nobody says whose: every session bears its part
    return Totals(part, ended(run)[there].astype(np.float64), run.calls.instance[there])


def _sent(run: Measured) -> Bools:
    return run.due & np.isfinite(run.calls.sent_ns)


def _reported(run: Measured) -> Bools:
    return _sent(run) & np.isfinite(run.calls.cached_tokens) & np.isfinite(run.calls.prompt_tokens)


def held_token_s(run: Measured) -> Floats:
    """KV-seconds of every row; nan of a call that was never sent or was cut off by the end of the run."""
    calls = run.calls
    begin_ns = np.where(np.isnan(calls.admitted_ns), calls.sent_ns, calls.admitted_ns)
    prompt = run.prompt_tokens * (ended_ns(calls) - begin_ns) / NS
    return prompt + np.nan_to_num(streams(run).held_token_s)


def kv_token_s(run: Measured) -> Sample:
    """KV-seconds: tokens of the KV cache that a call holds, times the seconds it holds them. The whole prompt from when
    the server began to compute it (where it does not say: from sent) to the end of the call, and each token of the
    answer from when it came; exact from the chunks. A prefix that calls share counts for each of them. Failed calls
    count for as long as they lasted; calls that the run cut off have none."""
    cut_off = run.calls.status == CENSORED
    due = run.due
    values = held_token_s(run)[due]
    return Sample(values, run.calls.instance[due], censored=int(np.count_nonzero(due & cut_off)))


def session_kv_token_s(run: Measured) -> Sample:
    """KV-seconds of a session: the sum over its calls, whether they ended well or not; of sessions due in the window
    that came to their end and were not begun in their middle."""
    sessions = run.sessions
    rows = np.flatnonzero(~run.calls.warmup & np.isin(run.calls.instance, sessions.instance))
    order = np.argsort(sessions.instance, kind="stable")
    at = order[np.searchsorted(sessions.instance[order], run.calls.instance[rows])]
    sums = np.bincount(at, weights=np.nan_to_num(held_token_s(run)[rows]), minlength=len(sessions))
    due = run.window.holds(sessions.due_ns) & sessions.whole
    there, cut_off = due & ~sessions.censored, int((due & sessions.censored).sum())
    return Sample(sums[there].astype(np.float64), sessions.instance[there], censored=cut_off)


def task_kv_token_s(run: Measured) -> Sample:
    """KV-seconds of a task: the sum over its calls, whether they ended well or not; of tasks due in the window that
    came to their end, and of which all calls are in the run."""
    found = tasks(run)
    rows = np.flatnonzero(found.of >= 0)
    sums = np.bincount(found.of[rows], weights=np.nan_to_num(held_token_s(run)[rows]), minlength=len(found))
    due = run.window.holds(found.due_ns) & ~found.partial & ~found.never_begun
    there, cut_off = due & ~found.censored, int((due & found.censored).sum())
    return Sample(sums[there].astype(np.float64), found.instance[there].astype(np.float64), censored=cut_off)


METRICS = (
    Metric(
        *("prompt_reuse_ratio", "prompt reuse", "share", "run", "neither", prompt_reuse_ratio, ("prompt_reuse",)),
        of_calls=True,
    ),
    Metric(
        *("hit_rate", "prefix hit rate", "share", "run", "higher", hit_rate, ("prefix_hit_rate",)),
        also="TRIE: cache hit rate. AgentX: from the server's counters, over the whole run.",
        of_calls=True,
    ),
    Metric(
        *("ideal_hit_rate", "ideal hit rate", "share", "run", "neither", ideal_hit_rate),
        also="AgentX: theoretical cache hit rate, of hashed prompts by full blocks, without answers. TRIE: eligible "
        "cache hit rate, against the prompt and answer of the request before.",
        of_calls=True,
    ),
    Metric(
        *("reprefilled_share", "prefilled again", "share", "run", "lower", reprefilled_share, ("reprefilled",)),
        of_calls=True,
    ),
    Metric(
        *("eviction_share", "prefilled again, whole blocks", "share", "run", "lower", eviction_share),
        of_calls=True,
    ),
    Metric("preemptions_ratio", "preemptions a call", "ratio", "run", "lower", preemptions_ratio, ("preemptions",)),
    Metric("kv_token_s", "KV-seconds a call", "token-s", "call", "lower", kv_token_s),
    Metric("session_kv_token_s", "KV-seconds a session", "token-s", "session", "lower", session_kv_token_s),
    Metric("task_kv_token_s", "KV-seconds a task", "token-s", "task", "lower", task_kv_token_s),
)
