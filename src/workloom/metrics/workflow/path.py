"""The critical path of sessions and tasks: the chain of waits and calls that their makespan is made of.

    explore        spawn ├─queue─┬──prefill──┬────decode────┐
    main   ─decode──┬────┘                                  └─ tool ─┬─queue─┬─prefill─┬─decode─┬─end┐
           ────┬────┘ another branch, done earlier: slack, not on the path                           done
                    ◄──────────── join wait ───────────────►

    from the last done, backwards    the call's own time, down to when it was due
                                     the wait of the edge that bound it, down to the end of that parent
                                     and so on from there

Each leg ends where the next begins, so every nanosecond from the first due to the last done is counted once, and the
parts add up to the makespan exactly, in integers (:func:`check_adds_up`).

**Join wait.** There are two readings of the same legs. By what the path did: tool, queue, prefill, decode, ... of
whichever agent. By whose time it was: the root agent's own, and *join wait*, all time the path spent in subagents,
which is what the root agent waits for. A leg is of the agent of its call: the wait for being spawned is in it, the wait
between the report of the last subagent and the root's next call is the root's own. Join wait is a sum over the same
parts, so `Blame` keeps it beside them and either reading adds up.

Of several edges the one bound a call that says when it was due: its parent's end and its wait give just that instant
(of equals the last; if none does, since idle time was capped, the latest). The path of a task stops where it was due.

A branch that was done before the one that bound the join is on no path: what it could have taken longer is its slack.

Only sessions that began at their first call and ended well have a path, and tasks all of which went well. A session
with a failed call has an infinite makespan, one that was cut off or begun in its middle has none: no blame either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloom.metrics.frame import Bools, Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.parts import CODE, PARTS, WAIT_OF_GAP, Piece
from workloom.metrics.workflow.tasks import depths_seen, tasks
from workloom.metrics.workflow.view import Workflow, workflow


@dataclass(slots=True)
class Legs:
    """Calls on critical paths, the last first: leg i is call `row[i]` with the wait before it, on the path of
    `owner[i]` (a session or a task), and lasts from `since_ns` to `until_ns`."""

    owner: Ints
    row: Ints
    edge: Ints
    """The edge that bound the call; -1 without."""
    since_ns: Ints
    until_ns: Ints

    def __len__(self) -> int:
        return len(self.row)


@dataclass(slots=True)
class Blame:
    """What makespans are made of, in nanoseconds."""

    index: Ints
    """Of sessions or of tasks: which."""
    instance: Ints
    """The session that each is, or belongs to."""
    makespan_ns: Ints
    parts_ns: NDArray[np.int64]
    """(sessions or tasks, PARTS): by what the path did; a row adds up to the makespan."""
    join_ns: NDArray[np.int64]
    """The same shape: of these, what was done in subagents. A row adds up to the join wait."""
    legs: Legs

    def __len__(self) -> int:
        return len(self.index)


def session_blame(run: Measured) -> Blame:
    """The critical path of every session that has a makespan, whenever it was due."""

    view = workflow(run)

    def make() -> Blame:
        index = np.flatnonzero(view.ended)
        sessions = view.sessions
        return _blame(view, index, sessions.instance[index], view.last[index], sessions.due_ns[index])

    return view.once("session_blame", Blame, make)


def task_blame(run: Measured) -> Blame:
    """The critical path of every task that went well, from when its first call was due; whenever that was.

    Where a task waited for a call of an earlier one, what that one did before this task was due is not in it.
    """

    view = workflow(run)

    def make() -> Blame:
        every = tasks(run)
        index = np.flatnonzero(every.ok)
        return _blame(view, index, every.instance[index], every.last[index], every.due_ns[index])

    return view.once("task_blame", Blame, make)


def walk(view: Workflow, ends: Ints, floors_ns: Ints) -> Legs:
    """From the end of each of some rows back to an instant before: all paths at once, a leg of each a round."""
    at, bound, parent = view.marks, view.bound, view.edges.parent
    owner, row = np.arange(len(ends)), ends
    until = at.done[row]
    found: list[Legs] = [Legs(*(np.empty(0, dtype=np.int64) for _ in range(5)))]
    while len(row):
        edge = bound[row]
        floor = floors_ns[owner]
        enters = np.where(edge >= 0, at.done[parent[edge]] if len(parent) else 0, floor)
        since = np.minimum(np.maximum(enters, floor), until)
        found.append(Legs(owner, row, edge, since, until))
        on = (edge >= 0) & (since > floor)
        owner, row, until = owner[on], parent[edge[on]], since[on]
    columns = zip(*((leg.owner, leg.row, leg.edge, leg.since_ns, leg.until_ns) for leg in found), strict=True)
    return Legs(*(np.concatenate(column) for column in columns))


def pieces(view: Workflow, legs: Legs) -> Iterator[Piece]:
    """What the legs are made of: their wait, then the call's own time."""
    due = np.clip(view.marks.due[legs.row], legs.since_ns, legs.until_ns)
    gap = np.append(WAIT_OF_GAP[view.edges.gap], CODE["unnamed"])[legs.edge]
    yield Piece(gap, due - legs.since_ns)
    yield from view.marks.own_between(legs.row, np.maximum(legs.since_ns, due), legs.until_ns)


def check_adds_up(run: Measured) -> int:
    """Raise AssertionError, with the session named, unless the parts of every session and task are whole, none is
    below 0 and they add up to its makespan; how many were looked at.

    A session's makespan is taken from its own record, a task's from the calls that are its first and its last.
    """
    sessions, every = run.sessions, tasks(run)
    blames = (session_blame(run), task_blame(run))
    expected = (sessions.end_ns - sessions.due_ns, every.done_ns - every.due_ns)
    for kind, blame, makespan_ns in zip(("session", "task"), blames, expected, strict=True):
        for faulty, what in (
            (blame.parts_ns.sum(axis=1) != makespan_ns[blame.index], "parts do not add up to its makespan"),
            ((blame.parts_ns < 0).any(axis=1), "a part is negative"),
            ((blame.join_ns > blame.parts_ns).any(axis=1) | (blame.join_ns < 0).any(axis=1), "join wait is no part"),
        ):
            if faulty.any():
                i = int(np.flatnonzero(faulty)[0])
                told = dict(zip(PARTS, blame.parts_ns[i].tolist(), strict=True))
                where = f"session {int(blame.instance[i])}, {kind} {int(blame.index[i])}"
                raise AssertionError(f"{where}: {what}, {makespan_ns[blame.index[i]]:.0f} ns: {told}")
    return sum(len(blame) for blame in blames)


def _blame(view: Workflow, index: Ints, instance: Floats, ends: Ints, due_ns: Floats) -> Blame:
    floors = due_ns.astype(np.int64)
    legs = walk(view, ends, floors)
    joins = depths_seen(view)[legs.row] > 0
    everyone = np.ones(len(legs), dtype=np.bool_)
    return Blame(
        index,
        instance.astype(np.int64),
        view.marks.done[ends] - floors,
        _table(view, legs, everyone, len(index)),
        _table(view, legs, joins, len(index)),
        legs,
    )


def _table(view: Workflow, legs: Legs, some: Bools, owners: int) -> NDArray[np.int64]:
    """Nanoseconds of each owner and part. Floats add integers up exactly to 2^53 ns, 104 days."""
    width = len(PARTS)
    total = np.zeros(owners * width)
    for part, ns in pieces(view, legs):
        total += np.bincount(legs.owner[some] * width + part[some], ns[some], owners * width)
    return total.astype(np.int64).reshape(owners, width)
