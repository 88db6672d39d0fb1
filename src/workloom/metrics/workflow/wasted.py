"""Work that came to nothing: of calls that failed, and of calls whose result nobody ever got.

    a ──► b ──► c (failed) ─ ─ d (cancelled)        b and a only led to c: wasted as c is
    └───► e                                         e is an answer: then a was not for nothing

A result reaches somebody if the call is the last of its branch, or the next call waits for the human (who has read the
answer), or if a result of a call that waited for it does. What the end of the run cut off is neither work done nor
wasted: nobody knows what would have become of it, so it is in neither total.
"""

from __future__ import annotations

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Totals
from workloom.metrics.frame import CANCELLED, CENSORED, OK, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.tasks import HUMAN
from workloom.metrics.workflow.view import Workflow, workflow


def wasted(run: Measured) -> Bools:
    """Calls that were sent and came to nothing."""
    view = workflow(run)
    return view.once("wasted", np.ndarray, lambda: _wasted(view))


def wasted_token_share(run: Measured) -> Totals:
    """Tokens of wasted calls / tokens of all calls due in the window: prompt tokens that had to be prefilled (those
    not taken from the cache) and output tokens. Wasted are calls that failed and calls whose result reached nobody: no
    later call that goes back to them, however far, ended well as the last of its branch or before a human's message. A
    failed call's prompt counts once a token of its answer came; what the end of the run cut off counts in neither, and
    a call with a successor that was cut off is not wasted."""
    calls = run.calls
    computed = (calls.status == OK) | ~np.isnan(calls.first_ns)
    cached = np.where(np.isnan(calls.cached_tokens), 0.0, calls.cached_tokens)
    prefilled = np.where(computed, np.maximum(_known(run.prompt_tokens) - cached, 0.0), 0.0)
    return _share(run, prefilled + _known(run.output_tokens))


def wasted_time_share(run: Measured) -> Totals:
    """Seconds in flight (sent to done) of wasted calls / those of all calls due in the window. Wasted as for the share
    of tokens."""
    return _share(run, _known(run.calls.done_ns - run.calls.sent_ns) / NS)


def _wasted(view: Workflow) -> Bools:
    calls, edges = view.calls, view.edges
    parent = np.zeros(len(calls), dtype=np.bool_)
    parent[edges.parent] = True
    final = ~parent
    final[edges.parent[edges.gap == HUMAN]] = True
    reaches = (calls.status == CENSORED) | ((calls.status == OK) & final)
    none = np.zeros(len(calls), dtype=np.int64)
    edge = np.zeros(len(edges.child), dtype=np.int64)
    lost = view.dag.earliest(1 - reaches.astype(np.int64), edge, none) > 0  # 0 where it or any below it reaches
    found: Bools = calls.failed | ((calls.status == OK) & lost)
    return found


def _share(run: Measured, amounts: Floats) -> Totals:
    some = run.due & ~np.isin(run.calls.status, (CENSORED, CANCELLED))
    whole = amounts[some]
    return Totals(np.where(wasted(run)[some], whole, 0.0), whole, run.calls.instance[some])


def _known(values: Floats) -> Floats:
    return np.where(np.isnan(values), 0.0, values)
