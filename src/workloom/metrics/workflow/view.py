"""What the metrics of the workflow share: which rows and sessions there are, what bound each call, what it took.

Worked out once a run, each part when somebody first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from workloom.metrics.frame import Bools, Calls, Ints
from workloom.metrics.measured import Coded, Edges, Measured
from workloom.metrics.sessions import Sessions, unfinished
from workloom.metrics.workflow.dag import Dag, last_of
from workloom.metrics.workflow.parts import Marks, marks

T = TypeVar("T")


def workflow(run: Measured) -> Workflow:
    """The shared ground of a run; it does not depend on the window, nor on which calls are looked at."""
    kept = run.__dict__.get("workflow")
    if kept is None:
        kept = run.__dict__["workflow"] = Workflow(run.calls, run.edges, run.sessions, run.agent)
    assert isinstance(kept, Workflow)
    return kept


def cut_off_sessions(run: Measured) -> int:
    """Sessions due in the window that the end of the run cut off; those of a run that was killed have no record."""
    sessions = run.sessions
    _, since_ns = unfinished(sessions, run.calls)
    due = run.window.holds(sessions.due_ns)
    return int((due & sessions.censored).sum()) + int(run.window.holds(since_ns).sum())


@dataclass
class Workflow:
    """Rows are calls, as in :class:`Measured`; places are sessions, as in its `sessions`."""

    calls: Calls
    edges: Edges
    sessions: Sessions
    agent: Coded
    _once: dict[str, object] = field(default_factory=dict)

    def once(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """What is made when somebody first asks for it, and kept: larger things that other modules make of this."""
        kept = self._once.get(name)
        if kept is None:
            kept = self._once[name] = make()
        assert isinstance(kept, kind)
        return kept

    @cached_property
    def dag(self) -> Dag:
        """Every edge between two rows."""
        return Dag(len(self.calls), self.edges.child, self.edges.parent)

    @cached_property
    def marks(self) -> Marks:
        """The instants of every row."""
        return marks(self.calls)

    @cached_property
    def rows(self) -> Ints:
        """All but those of the warm-up."""
        return np.flatnonzero(~self.calls.warmup)

    @cached_property
    def place(self) -> Ints:
        """The session of each row; -1 of one that has no record, or of the warm-up."""
        found = np.full(len(self.calls), -1, dtype=np.int64)
        instances = self.sessions.instance
        if len(instances):
            order = np.argsort(instances, kind="stable")
            wanted = self.calls.instance[self.rows]
            at = np.minimum(np.searchsorted(instances[order], wanted), len(order) - 1)
            found[self.rows] = np.where(instances[order][at] == wanted, order[at], -1)
        return found

    @cached_property
    def whole(self) -> Bools:
        """Rows of sessions that began at their first call (one without a record is not known to have)."""
        whole: Bools = (self.place >= 0) & np.append(self.sessions.whole, False)[self.place]
        return whole

    @cached_property
    def ended(self) -> Bools:
        """Sessions that began at their first call and ended well: they have a makespan, and blame for it."""
        there = np.zeros(len(self.sessions), dtype=np.bool_)
        there[self.place[self.place >= 0]] = True
        ended: Bools = self.sessions.ok & self.sessions.whole & there
        return ended

    @cached_property
    def in_ended(self) -> Bools:
        """Rows of such sessions."""
        inside: Bools = (self.place >= 0) & np.append(self.ended, False)[self.place]
        return inside

    @cached_property
    def last(self) -> Ints:
        """Of each session, the row that was done last; -1 where it has none."""
        rows = np.flatnonzero(self.place >= 0)
        return last_of(len(self.sessions), self.place[rows], self.marks.done[rows], rows)

    @cached_property
    def bound(self) -> Ints:
        """Of each row, the edge that it waited for last; -1 without edges.

        That is the edge whose (parent's end + wait) is when the call was due, the last of equals. Caps on idle time
        move calls up: where no edge says when it was due, it is the one that says the latest.
        """
        edges, at = self.edges, self.marks
        says = at.done[edges.parent] + self._wait_ns
        told = says == at.due[edges.child]
        most = np.iinfo(np.int64).max
        return last_of(len(self.calls), edges.child, np.where(told, most, says), np.arange(len(says)))

    @cached_property
    def wait_ns(self) -> Ints:
        """Of each edge, how long the call would have had to wait for it alone: at most until it was due.

        With these (parent's end + wait), at the latest over its edges, is just when the call was due, also where a cap
        on idle time had moved it up.
        """
        edges, at = self.edges, self.marks
        due = at.due[edges.child]
        waits = np.minimum(self._wait_ns, due - at.done[edges.parent])
        says = np.full(len(self.calls), np.iinfo(np.int64).min, dtype=np.int64)
        np.maximum.at(says, edges.child, at.done[edges.parent] + waits)
        unexplained: Ints = due - says[edges.child]
        alone: Ints = waits + unexplained
        return alone

    @cached_property
    def _wait_ns(self) -> Ints:
        return self.edges.wait_ns.astype(np.int64)
