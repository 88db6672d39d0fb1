"""Goodput: what ended well per second and kept every limit. A failed call keeps none.

A limit is about one call, task or session. The promise "p95 of TTFT at most 0.75 s" over a run asks of each call that
its TTFT be at most 0.75 s. Of gaps a call has many: "p95 of TBC at most 75 ms" asks that at most 5 % of the call's own
gaps be longer, "mean" that their mean is not, "max" that none is. A call without the figure (an answer without content
has no TTFT, one of a single token no TPOT) keeps its limit: there was nothing to wait for.

A task keeps the limits when it ended well, each of its calls kept those of calls, and it those of tasks; a session
likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.errors import UsageError
from workloom.metrics.catalog import Metric, Of, Sample, Totals, find
from workloom.metrics.chunks import gaps_by_call_s
from workloom.metrics.delivery import ended
from workloom.metrics.frame import CENSORED, OK, Bools, Window
from workloom.metrics.given import Limit
from workloom.metrics.groups import rows_of
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.tasks import Tasks, tasks

__all__ = [
    "METRICS",
    "Goodput",
    "Limit",
    "Rate",
    "goodput",
    "goodput_calls_per_s",
    "goodput_sessions_per_s",
    "goodput_tasks_per_s",
    "meets",
    "met_share",
]


class Rate(Struct, frozen=True):
    """Of one kind of thing, those that ended well in the window: how many, and how many of them kept every limit."""

    ended: int
    good: int
    per_s: float | None
    """Of the good ones, over the seconds of the window."""
    share: float | None
    """Good ones / all that were due in the window and had an outcome: failed ones are in it, those cut off are not."""


class Goodput(Struct, frozen=True):
    """Calls, tasks and sessions that kept every limit."""

    calls: Rate
    tasks: Rate
    sessions: Rate
    broken: dict[str, int]
    """Calls that ended well in the window and broke a limit, by limit."""


def meets(run: Measured, limits: Sequence[Limit]) -> Bools:
    """For every row whether it ended well and kept every limit on calls, whatever it was due."""
    good: Bools = run.calls.status == OK
    for limit in limits:
        if find(limit.metric).of in ("call", "gap"):
            good &= _kept(run, limit)
    return good


def _kept(run: Measured, limit: Limit) -> Bools:
    """Rows that keep one limit on calls."""
    rows = ~run.calls.warmup
    if limit.of:
        rows &= rows_of(run, limit.of)
    kept = np.ones(len(run.calls), dtype=np.bool_)
    if find(limit.metric).of == "gap":
        kept[rows] = _gaps_kept(run, limit, rows)[rows]
        return kept
    looked = _everything(run).looking_at(rows)
    observed = find(limit.metric).observe(looked)
    if observed is None:
        return kept
    if not isinstance(observed, Sample) or len(observed.values) != int(looked.due.sum()):
        raise UsageError(f"{limit.metric} is not one value a call, so no limit of calls", found=limit.metric)
    kept[looked.due] = limit.kept(observed.values)
    return kept


def _everything(run: Measured) -> Measured:
    """The same run over all of its time: a call that ended in the window may have been due before it."""
    other = run.within(Window(-(1 << 62), 1 << 62))
    other.__dict__["carried"] = run.carried
    return other


def _gaps_kept(run: Measured, limit: Limit, rows: Bools) -> Bools:
    calls = len(run.calls)
    long, total, n = np.zeros(calls), np.zeros(calls), np.zeros(calls)
    row = 0
    for piece in run.pieces():
        part = slice(row, row + piece.calls)
        for gaps, call in gaps_by_call_s(piece, rows[part]):
            long[part] += np.bincount(call, weights=~limit.kept(gaps), minlength=piece.calls)
            total[part] += np.bincount(call, weights=gaps, minlength=piece.calls)
            n[part] += np.bincount(call, minlength=piece.calls)
        row += piece.calls
    statistic = limit.statistic or "p95"
    if statistic == "mean":
        with np.errstate(invalid="ignore", divide="ignore"):
            return limit.kept(total / n)
    beyond = 0.0 if statistic == "max" else 1 - float(statistic[1:]) / 100
    few: Bools = long <= beyond * n + 1e-9
    return few


def _tasks_good(run: Measured, limits: Sequence[Limit], good: Bools) -> tuple[Tasks, Bools]:
    """The tasks of a run, and which of them ended well and kept every limit."""
    found = tasks(run)
    bad = found.of[(found.of >= 0) & ~good]
    kept = found.ok & (np.bincount(bad, minlength=len(found)) == 0)
    for limit in limits:
        if find(limit.metric).of == "task":
            end_ns = {"task_makespan_s": found.done_ns, "ttfat_s": found.answer_ns, "ttfut_s": found.first_ns}
            kept &= limit.kept((_of_unit(limit, end_ns) - found.due_ns) / NS)
    return found, kept


def _of_unit(limit: Limit, end_ns: dict[str, Floats]) -> Floats:
    found = end_ns.get(limit.metric)
    if found is None:
        kind = find(limit.metric).of
        raise UsageError(f"goodput does not judge a {kind} by this", expected=", ".join(end_ns), found=limit.metric)
    return found


def _sessions_good(run: Measured, limits: Sequence[Limit], good: Bools) -> Bools:
    sessions = run.sessions
    bad = np.unique(run.calls.instance[~good & ~run.calls.warmup])
    kept = sessions.ok & ~np.isin(sessions.instance, bad)
    for limit in limits:
        if find(limit.metric).of == "session":
            kept &= limit.kept((_of_unit(limit, {"makespan_s": sessions.end_ns}) - sessions.due_ns) / NS)
    return kept


def goodput_calls_per_s(run: Measured, limits: Sequence[Limit] | None = None) -> Totals | None:
    """Calls that ended well in the window and kept every limit / its seconds; never more than `calls_per_s`. The
    limits are those of the SLOs (`--slo`); without any there is no goodput."""
    if (limits := _limits(run, limits)) is None:
        return None
    there = ended(run) | run.due
    good = ended(run) & meets(run, limits)
    at_ns = np.where(good, run.calls.done_ns, run.calls.due_ns)
    return _per_s(run, good[there], run.calls.instance[there], at_ns[there])


def goodput_tasks_per_s(run: Measured, limits: Sequence[Limit] | None = None) -> Totals | None:
    """Tasks that ended well in the window and kept every limit, each of their calls included / its seconds."""
    if (limits := _limits(run, limits)) is None:
        return None
    found, kept = _tasks_good(run, limits, meets(run, limits))
    inside = run.window.holds(found.done_ns)
    there = inside | run.window.holds(found.due_ns)
    at_ns = np.where(inside, found.done_ns, found.due_ns)
    return _per_s(run, (kept & inside)[there], found.instance[there], at_ns[there])


def goodput_sessions_per_s(run: Measured, limits: Sequence[Limit] | None = None) -> Totals | None:
    """Sessions that ended well in the window and kept every limit, each of their calls included / its seconds."""
    if (limits := _limits(run, limits)) is None:
        return None
    kept = _sessions_good(run, limits, meets(run, limits))
    inside = run.window.holds(run.sessions.end_ns)
    there = inside | run.window.holds(run.sessions.due_ns)
    at_ns = np.where(inside, run.sessions.end_ns, run.sessions.due_ns)
    return _per_s(run, (kept & inside)[there], run.sessions.instance[there], at_ns[there])


def _limits(run: Measured, limits: Sequence[Limit] | None) -> Sequence[Limit] | None:
    """Those that are asked for, else those that the run was given; None: nothing was promised."""
    return (run.given.limits or None) if limits is None else limits


def _per_s(run: Measured, good: Bools, instance: Floats, at_ns: Floats) -> Totals | None:
    seconds = run.window.seconds
    return Totals(good.astype(np.float64), seconds, instance, at_ns) if seconds > 0 else None


def met_share(run: Measured, limits: Sequence[Limit], of: Of = "call") -> Totals:
    """Of the calls (tasks, sessions) due in the window that had an outcome, those that ended well and kept every limit.
    What the end of the run cut off is in neither."""
    good = meets(run, limits)
    if of == "call":
        rows = run.due & (run.calls.status != CENSORED)
        return _share(good[rows], run.calls.instance[rows])
    if of == "task":
        found, kept = _tasks_good(run, limits, good)
        there = run.window.holds(found.due_ns) & ~found.censored & ~found.partial & ~found.never_begun
        return _share(kept[there], found.instance[there])
    kept = _sessions_good(run, limits, good)
    there = run.window.holds(run.sessions.due_ns) & ~run.sessions.censored
    return _share(kept[there], run.sessions.instance[there])


def _share(good: Bools, instance: Floats) -> Totals:
    return Totals(good.astype(np.float64), np.ones(len(good)), instance)


def goodput(run: Measured, limits: Sequence[Limit]) -> Goodput:
    """Counts and rates of all three."""
    good = meets(run, limits)
    found, tasks_kept = _tasks_good(run, limits, good)
    sessions_kept = _sessions_good(run, limits, good)
    over = ended(run)
    tasks_over = found.ok & run.window.holds(found.done_ns)
    sessions_over = run.sessions.ok & run.window.holds(run.sessions.end_ns)
    broken = {_said(limit): int((over & ~_kept(run, limit)).sum()) for limit in limits if _on_calls(limit)}
    return Goodput(
        _rate(run, over, good, met_share(run, limits, "call")),
        _rate(run, tasks_over, tasks_kept, met_share(run, limits, "task")),
        _rate(run, sessions_over, sessions_kept, met_share(run, limits, "session")),
        broken,
    )


def _on_calls(limit: Limit) -> bool:
    return find(limit.metric).of in ("call", "gap")


def _said(limit: Limit) -> str:
    name = find(limit.metric).short + (f"_{limit.statistic}" if limit.statistic else "")
    of = f"[{','.join(f'{key}={value}' for key, value in limit.of)}]" if limit.of else ""
    return f"{name}{of}{'<' if limit.strict else '<='}{limit.at_most:g}"


def _rate(run: Measured, over: Bools, kept: Bools, share: Totals) -> Rate:
    n, seconds = int((over & kept).sum()), run.window.seconds
    met = float(share.part.mean()) if len(share.part) else None
    return Rate(int(over.sum()), n, n / seconds if seconds > 0 else None, met)


def good_calls(run: Measured) -> Totals | None:
    """SLO attainment of calls: of those due in the window that had an outcome, the ones that ended well and kept every
    limit. What the end of the run cut off is in neither; failed calls and those that were never sent keep none."""
    return met_share(run, run.given.limits, "call") if run.given.limits else None


def good_tasks(run: Measured) -> Totals | None:
    """SLO attainment of tasks: of those due in the window that had an outcome, the ones that ended well and kept every
    limit, as did each of their calls."""
    return met_share(run, run.given.limits, "task") if run.given.limits else None


METRICS = (
    Metric(
        *("goodput_calls_per_s", "goodput in calls", "1/s", "run", "higher", goodput_calls_per_s, ("goodput",)),
        also="AIPerf, vLLM: request goodput, where a limit on TPOT stands for the gaps",
        of_calls=True,
    ),
    Metric("goodput_tasks_per_s", "goodput in tasks", "1/s", "run", "higher", goodput_tasks_per_s),
    Metric("goodput_sessions_per_s", "goodput in sessions", "1/s", "run", "higher", goodput_sessions_per_s),
    Metric(
        *("good_call_share", "calls that kept every SLO", "share", "run", "higher", good_calls, ("attainment",)),
        of_calls=True,
    ),
    Metric("good_task_share", "tasks that kept every SLO", "share", "run", "higher", good_tasks),
)
