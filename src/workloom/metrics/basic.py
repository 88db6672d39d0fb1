"""The metrics of calls: what one call felt like, how many went wrong, what was delivered."""

from __future__ import annotations

import numpy as np

from workloom.clock import NS
from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.frame import CANCELLED, CENSORED, OK, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.streams import streams


def _of_due(run: Measured, values: Floats, cut_off: Bools) -> Sample:
    """One value a call due in the window; `cut_off`: rows that have none because the run ended first."""
    due = run.due
    cut = int(np.count_nonzero(due & cut_off))
    return Sample(values[due], run.calls.instance[due], censored=cut, at_ns=run.calls.due_ns[due])


def ttft_s(run: Measured) -> Sample:
    """From sent to the first chunk with content, reasoning or a tool call; an answer without any content has none.
    An error counts as infinite, a time-out if no first token had come (SLOs take every failed call as infinite). A
    call that the run cut off has the first token that came."""
    cut_off = (run.calls.status == CENSORED) & np.isnan(run.calls.first_ns)
    return _of_due(run, per_call.ttft_s(run.calls), cut_off)


def ttft_from_due_s(run: Measured) -> Sample:
    """TTFT counted from when the call was due: what the user felt, our own lag included. Failed and cut-off calls as
    for TTFT."""
    cut_off = (run.calls.status == CENSORED) & np.isnan(run.calls.first_ns)
    return _of_due(run, per_call.ttft_from_due_s(run.calls), cut_off)


def e2e_s(run: Measured) -> Sample:
    """From sent to the last chunk with content, reasoning or a tool call. A failed call counts as infinite."""
    return _of_due(run, per_call.e2e_s(run.calls), run.calls.status == CENSORED)


def e2e_from_due_s(run: Measured) -> Sample:
    """E2E counted from when the call was due."""
    return _of_due(run, per_call.e2e_from_due_s(run.calls), run.calls.status == CENSORED)


def tpot_s(run: Measured) -> Sample:
    """Per call, (last - first) / (tokens - 1): absent for an answer of one token. A failed call counts as infinite
    if its plan has more than one token."""
    return _of_due(run, per_call.tpot_s(run.calls, run.carried), run.calls.status == CENSORED)


def tbc_s(run: Measured) -> Sample:
    """The gaps between the chunks of a call, pooled over all gaps of all calls. Chunks that one read brought stand at
    one instant: their gaps are 0, and count. Of failed and cut-off calls the gaps are in it that came."""
    return streams(run).gaps


def lag_s(run: Measured) -> Sample:
    """Dispatch lag: from due to sent, less what a new connection took: what the tool itself added. Of every call that
    was sent, and sent once."""
    return _of_due(run, per_call.lag_s(run.calls), np.zeros(len(run.calls), dtype=np.bool_))


def queue_s(run: Measured) -> Sample | None:
    """From sent to when the server began to compute it: its front end and its waiting queue. Known where the server
    says when it began (simulated engines do). A call that failed before its first token is infinite; one that failed
    after it, without being told when it began, has none."""
    return _told(run, run.calls.admitted_ns - run.calls.sent_ns, run.calls.admitted_ns)


def prefill_s(run: Measured) -> Sample | None:
    """From when the server began to compute a call to its first token, what it waited for in between included (chunks
    of other prompts, preemptions). Known where the server says when it began. A call that failed before its first token
    is infinite."""
    return _told(run, run.calls.first_ns - run.calls.admitted_ns, run.calls.first_ns)


def _told(run: Measured, took_ns: Floats, end_ns: Floats) -> Sample | None:
    """Of a stage that ends at an instant; None where no call of the run says when it was admitted."""
    calls = run.calls
    if not np.isfinite(calls.admitted_ns[run.due]).any():
        return None
    never = calls.failed & np.isnan(took_ns) & np.isnan(calls.first_ns)  # a first token came: it had begun, unsaid when
    values = np.where(never, np.inf, took_ns / NS)
    return _of_due(run, values, (calls.status == CENSORED) & np.isnan(end_ns))


def user_tokens_per_s(run: Measured) -> Sample:
    """Interactivity: output tokens a second that the reader of one call sees, 1 / TPOT of the call: 0 of a failed one,
    absent for an answer of one token, or whose tokens all came at one instant. A percentile of it is of this figure: p5
    is the slow tail."""
    with np.errstate(divide="ignore"):
        rates = 1 / per_call.tpot_s(run.calls, run.carried)
    return _of_due(run, np.where(np.isfinite(rates), rates, np.where(run.calls.failed, 0.0, np.nan)), _cut(run))


def prompt_tokens(run: Measured) -> Sample:
    """Length of the prompt of each call that was sent: by the server's count, or where it gave none by ours."""
    sent = np.isfinite(run.calls.sent_ns)
    return _of_due(run, np.where(sent, run.prompt_tokens, np.nan), np.zeros(len(sent), dtype=np.bool_))


def output_tokens(run: Measured) -> Sample:
    """Length of each answer that came whole, reasoning included: by the server's count, or where it gave none by the
    chunks."""
    return _of_due(run, np.where(run.calls.status == OK, run.output_tokens, np.nan), _cut(run))


def errors(run: Measured) -> Totals:
    """Failed calls (errors and time-outs) / calls but the cancelled ones, of those due in the window. A cancelled call
    was never sent, because what it depends on failed. One that was refused (too long for the context) never left,
    and counts as failed."""
    due = run.due & (run.calls.status != CANCELLED)
    failed = run.calls.failed[due].astype(np.float64)
    return Totals(failed, np.ones(len(failed)), run.calls.instance[due], run.calls.due_ns[due])


def completed(run: Measured) -> Totals:
    """Calls that ended well / calls that were due in the window: failed ones, those that were never sent because what
    they depend on failed, and those that the end of the run cut off are missing from it."""
    due = run.due
    ok = (run.calls.status[due] == OK).astype(np.float64)
    return Totals(ok, np.ones(len(ok)), run.calls.instance[due], run.calls.due_ns[due])


def _cut(run: Measured) -> Bools:
    cut: Bools = run.calls.status == CENSORED
    return cut


METRICS = (
    Metric(
        *("ttft_s", "TTFT", "s", "call", "lower", ttft_s, ("ttfc",)),
        also="TTFC; AIPerf, vLLM: time to first token (TTFT). TRIE: TTFT of the first request of a trace only.",
    ),
    Metric("ttft_from_due_s", "TTFT from due", "s", "call", "lower", ttft_from_due_s, ("ttfc_from_due",)),
    Metric(
        *("tbc_s", "TBC", "s", "gap", "lower", tbc_s, ("itl",)),
        also="ITL, inter-token latency, where a chunk is a token. AIPerf's and AgentX's `itl` is one mean a call: our "
        "TPOT. AIPerf's inter-chunk latency is ours.",
    ),
    Metric(
        *("tpot_s", "TPOT", "s", "call", "lower", tpot_s),
        also="AIPerf: inter_token_latency; AgentX: itl and tpot. AgentX's full_response_itl counts to the end of the "
        "stream instead of the last token. TRIE: TPOT, a mean over the requests of a trace.",
    ),
    Metric("e2e_s", "E2E", "s", "call", "lower", e2e_s, (), "AIPerf: request latency; AgentX: e2el."),
    Metric("e2e_from_due_s", "E2E from due", "s", "call", "lower", e2e_from_due_s),
    Metric("lag_s", "dispatch lag", "s", "call", "lower", lag_s, ("dispatch_lag",)),
    Metric(
        *("queue_s", "server queue", "s", "call", "lower", queue_s),
        also="vLLM: request_queue_time, without its front end.",
    ),
    Metric("prefill_s", "prefill", "s", "call", "lower", prefill_s, (), "vLLM: request_prefill_time."),
    Metric(
        *("user_tokens_per_s", "tokens/s a user", "tokens/s", "call", "higher", user_tokens_per_s, ("interactivity",)),
        also="AIPerf: output token throughput per user. AgentX: intvty_q = 1 / percentile_q(itl), the percentile taken "
        "before the inversion: its p90 is our p10; e2e_norm_intvty divides E2E by the tokens, TTFT included. TRIE: "
        "decode TPS, a mean over the requests of a trace.",
    ),
    Metric("prompt_tokens", "prompt length", "tokens", "call", "neither", prompt_tokens, ("isl",), "AIPerf: ISL"),
    Metric("output_tokens", "answer length", "tokens", "call", "neither", output_tokens, ("osl",), "AIPerf: OSL"),
    Metric("errors", "errors", "share", "run", "lower", errors, ("error_rate", "error_share"), of_calls=True),
    Metric("completed_share", "completed", "share", "run", "higher", completed, ("completed",), of_calls=True),
)
