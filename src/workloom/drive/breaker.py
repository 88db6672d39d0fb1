"""When a run is hopeless: a target that answers nothing, or fails more often than was allowed."""

from __future__ import annotations

from collections import deque

from workloom.clock import NS
from workloom.records import CallRecord

LAST_CALLS = 100
PATIENCE_NS = 5 * NS
"""A server that is gone refuses a hundred calls in a tenth of a second, and may be back in a second."""
MOST_CALLS = 2_000
"""Failed calls in a row that are enough in virtual time, which may never move on."""


class Breaker:
    """Looks at the last 100 calls that ended; opens when `max_failed` of them, or more, failed, and did so for 5 s.

    With the share at 1 it opens when every one of them failed: such a run would only write failures.
    """

    def __init__(self, max_failed: float, virtual: bool) -> None:
        self._max_failed = max_failed
        self._virtual = virtual
        self._last: deque[bool] = deque(maxlen=LAST_CALLS)
        self._failed = 0
        self._in_a_row = 0
        self._since_ns: int | None = None
        """Since when as many of the last calls failed as are too many."""
        self._said = ""

    def trips(self, record: CallRecord) -> str | None:
        """Count a call; why the run should end now, if it should."""
        if record.status not in ("ok", "error", "timeout") or record.error_kind == "context_overflow":
            return None  # a call that is too long says nothing about the server
        if len(self._last) == LAST_CALLS:
            self._failed -= self._last[0]
        failed = record.status != "ok"
        if failed:
            self._said = (record.error or record.status).partition("\n")[0]
        self._last.append(failed)
        self._failed += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if len(self._last) < LAST_CALLS or self._failed < self._max_failed * LAST_CALLS:
            self._since_ns = None
            return None
        now_ns = record.done_ns or record.due_ns
        if self._since_ns is None:
            self._since_ns = now_ns
        enough = self._virtual and self._in_a_row >= MOST_CALLS
        if now_ns - self._since_ns < PATIENCE_NS and not enough:
            return None
        return f"{self._failed} of the last {LAST_CALLS} calls failed; the last: {self._said}"
