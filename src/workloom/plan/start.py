"""Where a session begins when a run opens in the middle of its workload, as a real system is found.

    recorded   |---- a ----|  wait  |-- b --|      wait      |--- c ---|
    t*                                          ^
    before     a, b (done; b's prompt is prefilled)      c is due when the rest of its wait is over

A session from its start says nothing of the load in the middle of it: contexts are short, and all slots move in step.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from workloom.model.facts import Pace
from workloom.session import Call, Session


class Start(Struct, frozen=True):
    """The first session of each slot begins at a share of itself drawn evenly from `low` to `high`.

    clock: of its recorded time, from the first call's start to the last one's end (by waits and a pace where the trace
    does not tell). index: of its calls, in their order.
    """

    low: float = 0.0
    high: float = 0.0
    by: Literal["clock", "index"] = "clock"


class Warmup(Struct, frozen=True):
    """What goes before the measured window; its calls are rows of the phase `warmup`.

    Slots that begin inside a session have its state prefilled: one call of one output token for each context that is
    still in use. Then `calls_per_slot` more calls of one token, which advance the session; then a quiet pause; then the
    load goes on for `settle_s` before the window opens.
    """

    calls_per_slot: int = 0
    pause_s: float = 0.0
    settle_s: float = 0.0
    max_s: float = 1800.0
    """Prefills and one-token calls that take longer in all are cut off."""
    max_failed: float = 0.1
    """The run ends when more than this share of the slots could not be warmed up."""


class Opening(NamedTuple):
    """How far a session is when the run begins."""

    before: frozenset[str]
    """Calls taken as done: with every call all that it waits for."""
    prefill: tuple[str, ...]
    """Those whose context the rest goes on from, in order."""
    rest_s: dict[str, float]
    """Of calls that wait for such ones (or have nothing to wait for): the seconds that are left of it, waits capped."""
    skipped_s: float
    """Seconds that the cap left out of these."""


def open_session(session: Session, start: Start, share: float, max_wait_s: float | None = None) -> Opening:
    """The state of a session at a share (0 to 1) of itself; one call at least is left to do.

    A capped wait keeps the share of it that is left: were the rest of a wait capped, every slot that begins in a long
    one would have its first call due at the same instant.
    """
    times = timeline(session)
    skipped = _Skipped(max_wait_s)
    if start.by == "index":
        at = share * len(session.calls)
        whole = min(int(at), len(session.calls) - 1)
        before = {call.id for call in session.calls[:whole]}
        left = 1 - (at - whole)
        rest_s = {
            call.id: max(
                (skipped.left_s(e.wait_s, left * e.wait_s) for e in call.after if e.call in before), default=0.0
            )
            for call in session.calls[whole:]
        }
    else:
        first = min(begin for begin, _ in times.values())
        now_s = first + share * (max(end for _, end in times.values()) - first)
        before = _begun(session, times, now_s)
        rest_s = {
            call.id: _left_s(call, before, times, now_s, skipped) for call in session.calls if call.id not in before
        }
    used = {call.inherit.call for call in session.calls if call.inherit is not None and call.id not in before}
    prefill = tuple(call.id for call in session.calls if call.id in used and call.id in before)
    return Opening(frozenset(before), prefill, rest_s, skipped.seconds)


class _Skipped:
    """Caps waits, and counts what that left out."""

    def __init__(self, max_wait_s: float | None) -> None:
        self.max_wait_s = max_wait_s
        self.seconds = 0.0

    def left_s(self, wait_s: float, left_s: float) -> float:
        """Of a wait of which so much is left (more than all of it: the call before is still in flight)."""
        left_s = max(0.0, left_s)
        if self.max_wait_s is None or wait_s <= self.max_wait_s:
            return left_s
        share = min(1.0, left_s / wait_s)
        self.seconds += (wait_s - self.max_wait_s) * share
        return self.max_wait_s * share + max(0.0, left_s - wait_s)


def _begun(session: Session, times: dict[str, tuple[float, float]], now_s: float) -> set[str]:
    """Calls that had begun, but for the last one where that would be all."""
    begun: set[str] = set()
    for call in session.calls:
        if times[call.id][0] < now_s and all(edge.call in begun for edge in call.after):
            begun.add(call.id)
    if len(begun) == len(session.calls):
        last = max(range(len(session.calls)), key=lambda i: (times[session.calls[i].id][0], i))
        begun.discard(session.calls[last].id)
    return begun


def _left_s(
    call: Call, before: set[str], times: dict[str, tuple[float, float]], now_s: float, skipped: _Skipped
) -> float:
    if not call.after:
        left = max(0.0, times[call.id][0] - now_s)
        return skipped.left_s(left, left)
    over = [edge for edge in call.after if edge.call in before]
    return max((skipped.left_s(e.wait_s, times[e.call][1] + e.wait_s - now_s) for e in over), default=0.0)


def timeline(session: Session, pace: Pace | None = None) -> dict[str, tuple[float, float]]:
    """When each call began and ended, in seconds: as recorded where every call has a start, else by waits and a pace.

    No call begins before what it waits for has ended.
    """
    pace = pace or Pace()
    recorded = all(call.recorded is not None and call.recorded.start_s is not None for call in session.calls)
    times: dict[str, tuple[float, float]] = {}
    for call in session.calls:
        begin = max((times[edge.call][1] + edge.wait_s for edge in call.after), default=0.0)
        told = call.recorded
        if recorded and told is not None and told.start_s is not None:
            begin = max(told.start_s, max((times[edge.call][0] for edge in call.after), default=told.start_s))
        if told is not None and told.start_s is not None and told.end_s is not None and told.end_s > told.start_s:
            lasted = told.end_s - told.start_s
        else:
            lasted = pace.call_s(call.span_tokens + call.fresh_tokens, call.answer_tokens)
        times[call.id] = (begin, begin + lasted)
    return times
