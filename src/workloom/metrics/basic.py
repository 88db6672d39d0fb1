"""The metrics of calls: what one call felt like, how many went wrong, what was delivered."""

from __future__ import annotations

import numpy as np

from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.chunks import gaps_by_call_s
from workloom.metrics.frame import CANCELLED, CENSORED, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats


def _of_due(run: Measured, values: Floats, cut_off: Bools) -> Sample:
    """One value a call due in the window; `cut_off`: rows that have none because the run ended first."""
    due = run.due
    return Sample(values[due], run.calls.instance[due], censored=int(np.count_nonzero(due & cut_off)))


def ttft_s(run: Measured) -> Sample:
    """From sent to the first chunk with content, reasoning or a tool call. A failed call counts as infinite, an answer
    without any content has none."""
    cut_off = (run.calls.status == CENSORED) & np.isnan(run.calls.first_ns)
    return _of_due(run, per_call.ttft_s(run.calls), cut_off)


def ttft_from_due_s(run: Measured) -> Sample:
    """TTFT counted from when the call was due: what the user felt, our own lag included."""
    cut_off = (run.calls.status == CENSORED) & np.isnan(run.calls.first_ns)
    return _of_due(run, per_call.ttft_from_due_s(run.calls), cut_off)


def e2e_s(run: Measured) -> Sample:
    """From sent to the last chunk with content, reasoning or a tool call. A failed call counts as infinite."""
    return _of_due(run, per_call.e2e_s(run.calls), run.calls.status == CENSORED)


def e2e_from_due_s(run: Measured) -> Sample:
    """E2E counted from when the call was due."""
    return _of_due(run, per_call.e2e_from_due_s(run.calls), run.calls.status == CENSORED)


def tpot_s(run: Measured) -> Sample:
    """Per call, (last - first) / (tokens - 1): absent for an answer of one token."""
    return _of_due(run, per_call.tpot_s(run.calls, run.carried), run.calls.status == CENSORED)


def tbc_s(run: Measured) -> Sample:
    """The gaps between the chunks of a call, pooled over all gaps of all calls. Chunks that one read brought stand at
    one instant: their gaps are 0, and count."""
    values: list[Floats] = [np.empty(0)]
    owners: list[Floats] = [np.empty(0)]
    row = 0
    for piece in run.pieces():
        for gaps, call in gaps_by_call_s(piece, run.due[row : row + piece.calls]):
            values.append(gaps)
            owners.append(run.calls.instance[row + call])
        row += piece.calls
    return Sample(np.concatenate(values), np.concatenate(owners))


def errors(run: Measured) -> Totals:
    """Failed calls (errors and time-outs) / calls sent, of those due in the window. Calls that were never sent because
    what they depend on failed are in neither."""
    due = run.due & (run.calls.status != CANCELLED)
    return Totals(run.calls.failed[due].astype(np.float64), np.ones(int(due.sum())), run.calls.instance[due])


METRICS = (
    Metric("ttft_s", "TTFT", "s", "call", "lower", ttft_s, ("ttfc",), "TTFC; AIPerf: time to first token"),
    Metric("ttft_from_due_s", "TTFT from due", "s", "call", "lower", ttft_from_due_s, ("ttfc_from_due",)),
    Metric("tbc_s", "TBC", "s", "gap", "lower", tbc_s, ("itl",), "ITL, inter-token latency of one chunk a token"),
    Metric("tpot_s", "TPOT", "s", "call", "lower", tpot_s),
    Metric("e2e_s", "E2E", "s", "call", "lower", e2e_s, (), "request latency"),
    Metric("e2e_from_due_s", "E2E from due", "s", "call", "lower", e2e_from_due_s),
    Metric("errors", "errors", "share", "run", "lower", errors, ("error_rate", "error_share"), of_calls=True),
)
