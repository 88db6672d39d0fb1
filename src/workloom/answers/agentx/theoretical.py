"""The hit rate of an infinite cache, as AgentX counts it: from the trace, turn by turn, whatever the server did."""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct

from workloom.answers.agentx.columns import Columns
from workloom.errors import WorkloomError
from workloom.metrics.frame import Bools
from workloom.metrics.stats import Floats
from workloom.model.reuse import reuse
from workloom.model.workload.opening import open_sessions
from workloom.plan import Recipe, make
from workloom.store import Run


class _Document(Struct):
    """Of plan.json what is needed. That the trace is still the same is checked by its content."""

    recipe: Recipe


def theoretical(run: Run, calls: Columns, mine: Bools) -> tuple[float | None, str | None]:
    """Hits / total over some calls, and what it was computed from:

    trace blocks    prompts only, by full blocks of the trace's block size: blocks that earlier prompts of the trace
                    begin with / full blocks of the prompt. AgentX's own definition. Needs the trace where the plan
                    found it.
    trace tokens    the same by tokens, of a trace that knows no blocks
    records         the trace is not there (any more): `ideal_cached_tokens` / `ideal_prompt_tokens` of the rows, by
                    token; answers that histories repeat count as held, so it may be a little higher

    Calls are taken in the trace's order, and count as often as they were played: AIPerf counts the same for each
    request and sums over those that ended well. A play before does not count, though it leaves its scaffold in the
    cache (isolation `play`); what a trace declares for all its sessions does, whatever the isolation.
    """
    by_trace = _by_trace(run, calls, mine)
    if by_trace is not None:
        return by_trace
    known = mine & ~np.isnan(calls.ideal_cached_tokens)
    rate = share(calls.ideal_cached_tokens[known], calls.ideal_of_tokens[known])
    return rate, None if rate is None else "records"


def share(part: Floats, whole: Floats) -> float | None:
    """Sum / sum; None of nothing."""
    total = float(np.nansum(whole))
    return float(np.nansum(part)) / total if total > 0 else None


def _by_trace(run: Run, calls: Columns, mine: Bools) -> tuple[float | None, str | None] | None:
    """From the sessions of the plan; None where they cannot be had."""
    rows = np.flatnonzero(mine).tolist()
    if not rows:
        return None
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    try:
        recipe = msgspec.json.decode(run.plan_json, type=_Document).recipe
        trace = recipe.trace
        sessions = trace.generate if trace.generate is not None else recipe.limits.sessions
        reading = open_sessions(
            trace.paths, format=trace.format, skip_bad=trace.skip_bad, seed=recipe.seed, sessions=sessions
        )
        source = make(recipe, reading).source
        size = reading.header.block_tokens or 1
        for row in reuse(source[i] for i in range(len(source))):
            counts[row.session, row.call.id] = (row.held_by_prompts // size, row.prompt_tokens // size)
    except (WorkloomError, msgspec.MsgspecError):  # moved, changed or not to be read: the rows say nearly the same
        return None
    try:
        pairs = np.array([counts[calls.session[row], calls.call[row]] for row in rows], dtype=np.float64)
    except KeyError:  # rows of another trace
        return None
    return share(pairs[:, 0], pairs[:, 1]), "trace blocks" if size > 1 else "trace tokens"
