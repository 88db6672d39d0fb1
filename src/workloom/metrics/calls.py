"""What one call felt like. A figure is nan where a call has none, and infinite where the call failed.

Latency stands side by side from when the call was *sent* (what the server did) and from when it was *due* (what the
user felt, the tool's own lag included). A call that failed (error, time-out) has infinite latency, or a failing server
would look fast. A cancelled call was never sent and a censored one was cut off by the end of the run: neither has an
end, both are counted. The first token of a call that timed out or was censored came when it came: its TTFT is known.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.metrics.frame import CANCELLED, CENSORED, OK, TIMEOUT, Calls, Window
from workloom.metrics.stats import Floats


def ttft_s(calls: Calls) -> Floats:
    """TTFT: from sent to the first chunk with content, reasoning or a tool call; an answer without any has none."""
    return _to_first_s(calls, calls.sent_ns)


def ttft_from_due_s(calls: Calls) -> Floats:
    """TTFT counted from when the call was due."""
    return _to_first_s(calls, calls.due_ns)


def e2e_s(calls: Calls) -> Floats:
    """E2E: from sent to the last chunk with content, reasoning or a tool call; an answer without any has none."""
    return _latency(calls, calls.sent_ns, calls.last_ns)


def e2e_from_due_s(calls: Calls) -> Floats:
    """E2E counted from when the call was due."""
    return _latency(calls, calls.due_ns, calls.last_ns)


def tpot_s(calls: Calls, output_tokens: Floats | None = None) -> Floats:
    """TPOT: (last - first) / (tokens - 1), absent for an answer of one token (a failed one is judged by its plan).

    `output_tokens` for calls whose server did not count them: what their chunks carried.
    """
    counted = calls.output_tokens
    if output_tokens is not None:
        counted = np.where(np.isnan(counted), output_tokens, counted)
    tokens = np.where(calls.failed, calls.planned_output_tokens, counted)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_token = _latency(calls, calls.first_ns, calls.last_ns) / (tokens - 1)
    return np.where(tokens > 1, per_token, np.nan)


def lag_s(calls: Calls) -> Floats:
    """Dispatch lag: sent - due, what the tool itself added, without what a new connection took; of every call that was
    sent, and sent once."""
    lag: Floats = np.where(calls.retries > 0, np.nan, (calls.sent_ns - calls.due_ns - calls.connect_ns) / NS)
    return lag


def _to_first_s(calls: Calls, begin_ns: Floats) -> Floats:
    """To the first token of every call that had one, but of an errored one; infinite for the other failed ones."""
    measured = np.where(np.isin(calls.status, (OK, TIMEOUT, CENSORED)), (calls.first_ns - begin_ns) / NS, np.nan)
    return np.where(calls.failed & np.isnan(measured), np.inf, measured)


def _latency(calls: Calls, begin_ns: Floats, end_ns: Floats) -> Floats:
    """End - begin of calls that went well, infinite for failed ones, nan for the others and for instants not there."""
    measured = np.where(calls.status == OK, (end_ns - begin_ns) / NS, np.nan)
    return np.where(calls.failed, np.inf, measured)


class CallCounts(Struct, frozen=True):
    """`due` = ok + failed + cancelled + censored: calls belong to the window by when they were due."""

    recorded: int
    """In the whole run, warm-up and drain included."""
    due: int
    """Due in the window."""
    ok: int
    failed: int
    """Error or time-out."""
    cancelled: int
    """Never sent: a call they depend on failed."""
    censored: int
    """Sent or due, and cut off by the end of the run."""
    waiting: int
    """Of the censored ones: no token had come yet."""
    empty: int
    """Of the ok ones: no content came, so they have no TTFT and no E2E."""
    ended: int
    """Ended well in the window, whenever they were due."""
    retried: int = 0
    """Sent again after they had failed, as was asked for; how often in all is `retries`."""
    retries: int = 0
    warmup: int = 0
    """Of the recorded ones: sent before the window, to put contexts into the server's cache."""
    warmup_failed: int = 0


def count(calls: Calls, window: Window) -> CallCounts:
    """What became of the calls due in the window, and how many ended in it."""
    due = window.holds(calls.due_ns) & ~calls.warmup
    ok = calls.status == OK
    return CallCounts(
        recorded=len(calls),
        due=int(due.sum()),
        ok=int((due & ok).sum()),
        failed=int((due & calls.failed).sum()),
        cancelled=int((due & (calls.status == CANCELLED)).sum()),
        censored=int((due & (calls.status == CENSORED)).sum()),
        waiting=int((due & (calls.status == CENSORED) & np.isnan(calls.first_ns)).sum()),
        empty=int((due & ok & np.isnan(calls.first_ns)).sum()),
        ended=int((ok & ~calls.warmup & window.holds(calls.done_ns)).sum()),
        retried=int((due & (calls.retries > 0)).sum()),
        retries=int(calls.retries[due].sum()),
        warmup=int(calls.warmup.sum()),
        warmup_failed=int((calls.warmup & ~ok).sum()),
    )


class Failures(Struct, frozen=True):
    """The failed calls of one kind."""

    calls: int
    share_of_sent: float
    """Of all calls due in the window but the cancelled ones."""
    message: str
    """The most frequent one that came with them: its first line, cut; empty where none did."""


def errors(calls: Calls, window: Window) -> dict[str, Failures]:
    """Failed calls due in the window by kind, the most frequent first; a time-out is a kind of its own."""
    due = window.holds(calls.due_ns) & ~calls.warmup
    sent = int((due & (calls.status != CANCELLED)).sum())
    groups: dict[str, list[int]] = {}
    for row in np.flatnonzero(due & calls.failed).tolist():
        unnamed = "timeout" if calls.status[row] == TIMEOUT else "unknown"
        groups.setdefault(calls.error_kinds[calls.error_kind[row]] or unnamed, []).append(calls.message[row])
    told = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return {kind: Failures(len(found), len(found) / sent, _most_frequent(calls, found)) for kind, found in told}


def _most_frequent(calls: Calls, found: list[int]) -> str:
    numbers = Counter(calls.messages[message] for message in found)
    del numbers[""]
    return max(numbers, key=numbers.__getitem__, default="")
