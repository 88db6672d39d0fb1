"""What a whole session felt like, and how much was going on at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.metrics.frame import CENSORED, Bools, Calls, Window, batches, floats
from workloom.metrics.stats import Floats
from workloom.records import SessionRecord

if TYPE_CHECKING:
    import pyarrow as pa

POINTS = 100
"""Points in a series over the window."""


@dataclass(slots=True)
class Sessions:
    """Session trees that ended or were cut off; instants as in :class:`workloom.metrics.frame.Calls`."""

    instance: Floats
    due_ns: Floats
    start_ns: Floats
    end_ns: Floats
    ok: Bools
    failed: Bools
    censored: Bools
    whole: Bools
    """Begun at their first call, not in their middle."""

    def __len__(self) -> int:
        return len(self.due_ns)


def sessions_of(tables: Iterable[pa.RecordBatch]) -> Sessions:
    """The columns of all batches."""
    names = ("instance", "due_ns", "start_ns", "end_ns")
    parts: list[list[Floats]] = [[] for _ in names]
    words: list[str] = []
    before: list[Floats] = [np.empty(0)]
    for batch in tables:
        for part, name in zip(parts, names, strict=True):
            part.append(floats(batch.column(name)))
        words += batch.column("status").to_pylist()
        known = "calls_before" in batch.schema.names
        before.append(floats(batch.column("calls_before")) if known else np.zeros(batch.num_rows))
    instance, due_ns, start_ns, end_ns = (np.concatenate(part) if part else np.empty(0) for part in parts)
    status = np.array(words, dtype=object)
    ok, failed, censored = (np.asarray(status == word, dtype=np.bool_) for word in ("ok", "failed", "censored"))
    whole = np.concatenate(before) == 0
    return Sessions(instance, due_ns, start_ns, end_ns, ok=ok, failed=failed, censored=censored, whole=whole)


def sessions(records: Iterable[SessionRecord]) -> Sessions:
    """Records as columns."""
    return sessions_of(batches(SessionRecord, records))


def makespan_s(sessions: Sessions) -> Floats:
    """From when the first call of the session was due to the end of its last; infinite if it failed, nan if cut off.

    A session that the run began in its middle has none.
    """
    measured = np.where(sessions.ok & sessions.whole, (sessions.end_ns - sessions.due_ns) / NS, np.nan)
    return np.where(sessions.failed & sessions.whole, np.inf, measured)


class SessionCounts(Struct, frozen=True):
    """`due` = ok + failed + censored + unfinished."""

    due: int
    """Due in the window."""
    ok: int
    failed: int
    censored: int
    """Cut off by the end of the run."""
    unfinished: int
    """Calls were recorded but no end: the run was killed, or is going."""
    ended: int
    """Ended well in the window, whenever they were due."""


def count(sessions: Sessions, calls: Calls, window: Window) -> SessionCounts:
    """What became of the sessions due in the window."""
    due = window.holds(sessions.due_ns)
    _, first_due_ns = unfinished(sessions, calls)
    open_ended = int(window.holds(first_due_ns).sum())
    return SessionCounts(
        due=int(due.sum()) + open_ended,
        ok=int((due & sessions.ok).sum()),
        failed=int((due & sessions.failed).sum()),
        censored=int((due & sessions.censored).sum()),
        unfinished=open_ended,
        ended=int((sessions.ok & window.holds(sessions.end_ns)).sum()),
    )


def unfinished(sessions: Sessions, calls: Calls) -> tuple[Floats, Floats]:
    """Instances that have calls but no session record, and when the first of their calls was due."""
    missing = ~np.isin(calls.instance, sessions.instance)
    instances, where = np.unique(calls.instance[missing], return_inverse=True)
    first_due_ns = np.full(len(instances), np.inf)
    np.minimum.at(first_due_ns, where, calls.due_ns[missing])
    return instances, first_due_ns


class Concurrency(Struct, frozen=True):
    """What was going on at once: calls in flight (sent to done) and session trees alive (start to end).

    Means are over time. A point of the series is the mean over its part of the window, which begins at `at_s`.
    """

    calls_mean: float | None = None
    calls_max: int = 0
    sessions_mean: float | None = None
    sessions_max: int = 0
    at_s: list[float] = []
    calls: list[float] = []
    sessions: list[float] = []


def concurrency(calls: Calls, sessions: Sessions, window: Window, points: int = POINTS) -> Concurrency:
    """Concurrency over the window. What the end of the run cut off lasts until that end."""
    last_ns = float(max(calls.end_ns, window.end_ns, np.max(sessions.end_ns, initial=0.0)))
    _, since_ns = unfinished(sessions, calls)
    in_flight = _Steps(calls.sent_ns, _end_ns(calls, last_ns))
    alive = _Steps(
        np.concatenate([sessions.start_ns, since_ns]),
        np.concatenate([sessions.end_ns, np.full(len(since_ns), last_ns)]),
    )
    if window.end_ns <= window.start_ns:
        return Concurrency()
    edges = np.linspace(window.start_ns, window.end_ns, points + 1)
    return Concurrency(
        calls_mean=float(in_flight.means(edges[[0, -1]])[0]),
        calls_max=in_flight.most(window),
        sessions_mean=float(alive.means(edges[[0, -1]])[0]),
        sessions_max=alive.most(window),
        at_s=[round(edge / NS, 9) for edge in edges[:-1].tolist()],
        calls=in_flight.means(edges).tolist(),
        sessions=alive.means(edges).tolist(),
    )


def _end_ns(calls: Calls, last_ns: float) -> Floats:
    """When each call left the air: at the end of its stream, or of the run, or when it was last heard of."""
    heard_ns = np.fmax(calls.sent_ns, calls.last_ns)
    without = np.where(calls.status == CENSORED, last_ns, heard_ns)
    return np.where(np.isnan(calls.done_ns), without, calls.done_ns)


class _Steps:
    """How many of some intervals [start, end) hold an instant, as a step function."""

    def __init__(self, starts_ns: Floats, ends_ns: Floats) -> None:
        there = np.isfinite(starts_ns) & np.isfinite(ends_ns)
        starts, ends = starts_ns[there], np.maximum(ends_ns[there], starts_ns[there])
        self.at_ns, where = np.unique(np.concatenate([starts, ends]), return_inverse=True)
        change = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
        self.level = np.cumsum(np.bincount(where, weights=change, minlength=len(self.at_ns)))
        self.area = np.concatenate([[0.0], np.cumsum(self.level[:-1] * np.diff(self.at_ns))]) if len(starts) else None

    def means(self, edges_ns: Floats) -> Floats:
        """The mean level between each two neighbouring edges."""
        if self.area is None:
            return np.zeros(len(edges_ns) - 1)
        means: Floats = np.diff(np.interp(edges_ns, self.at_ns, self.area)) / np.diff(edges_ns)
        return np.maximum(means, 0.0)  # rounding may leave a hair below

    def most(self, window: Window) -> int:
        """The highest level in the window."""
        begin = int(np.searchsorted(self.at_ns, window.start_ns, side="right")) - 1
        end = int(np.searchsorted(self.at_ns, window.end_ns, side="right"))
        return int(np.max(self.level[max(begin, 0) : end], initial=0.0))
