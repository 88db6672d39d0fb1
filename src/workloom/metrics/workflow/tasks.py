"""Tasks, turns and depths of the calls of a run.

    main   t0 ──► t1 ──► t2 ··human··► t3 ──► t4        task 0: t0 t1 t2 a0 a1    task 1: t3 t4
                  └─spawn─► a0 ──► a1 ──────────┘       (t4 waits for a1 too: it is of the later task)

A task is a call entered by a human edge (or a call without edges) and all calls up to the next such, subagents with
their spawner. A call that waits for calls of several tasks is of the latest of them. So which calls make a task is
settled by the DAG, as in :mod:`workloom.model.facts`, and not by what happened to end last: two runs of one plan have
the same tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workloom.metrics.frame import CANCELLED, CENSORED, ERROR, Bools, Ints
from workloom.metrics.measured import GAPS, Edges, Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.dag import Dag, last_of
from workloom.metrics.workflow.view import Workflow, workflow

HUMAN, SPAWN = GAPS.index("human"), GAPS.index("spawn")


@dataclass
class Tasks:
    """Every task of a run, in the order of the calls that open them."""

    of: Ints
    """The task of each row; -1 of the warm-up."""
    opens: Ints
    """Row of the call that opens each task."""
    instance: Floats
    """The session that each belongs to."""
    due_ns: Floats
    """When its first call was due."""
    first_ns: Floats
    """The first token that any call of the agent the human talks to gave; nan where none came."""
    answer_ns: Floats
    """The first token of the last such call."""
    last: Ints
    """Row of the call that was done last."""
    done_ns: Floats
    never_begun: Bools
    """Its first call was never sent, since something before it failed."""
    failed: Bools
    """One of its calls failed, or was never sent since another did."""
    censored: Bools
    """The run ended before it did."""
    partial: Bools
    """It began before its session's part of the run."""

    def __len__(self) -> int:
        return len(self.opens)

    @cached_property
    def ok(self) -> Bools:
        """All of it is there, and went well."""
        ok: Bools = ~(self.never_begun | self.failed | self.censored | self.partial)
        return ok


def tasks(run: Measured) -> Tasks:
    """The tasks of a run; those that are due in the window or not."""
    view = workflow(run)
    return view.once("tasks", Tasks, lambda: _tasks(view))


def turns(run: Measured) -> Ints:
    """The number of each call among those of its agent in its session, from 0.

    -1 where it is not known: in a session that the run began in its middle (the earlier calls have no row) or that has
    no record, and in the warm-up.
    """
    view = workflow(run)
    found = np.full(len(run.calls), -1, dtype=np.int64)
    agents, _ = _agents(view)
    rows = view.rows
    order = np.argsort(agents, kind="stable")
    ordered = agents[order]
    heads = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(np.append(heads, len(ordered)))
    found[rows[order]] = np.arange(len(ordered)) - np.repeat(heads, lengths)
    found[~view.whole] = -1
    return found


def depths(run: Measured) -> Ints:
    """How many agents are above that of each call: 0 of a root agent, one more than its spawner of a spawned one.

    An agent's first call tells: one that is entered from another agent's call by any other edge than a spawn (a
    hand-over) is as deep as that one. -1 where it is not known, as for :func:`turns`.
    """
    view = workflow(run)
    return np.where(view.whole, depths_seen(view), -1)


def depths_seen(view: Workflow) -> Ints:
    """Depths as the rows tell them: an agent whose first call has no row counts from the first that has."""
    rows, edges = view.rows, view.edges
    agents, first = _agents(view)
    of_row = np.full(len(view.calls), -1, dtype=np.int64)
    of_row[rows] = agents
    enters = first[of_row[edges.child]] == edges.child
    enters &= of_row[edges.parent] != of_row[edges.child]
    above = np.arange(len(first))
    deeper = np.zeros(len(first), dtype=np.int64)
    for spawns in (False, True):  # a spawn edge counts for more than another
        some = np.flatnonzero(enters & ((edges.gap == SPAWN) == spawns))[::-1]  # the first of several is written last
        mine = of_row[edges.child[some]]
        above[mine], deeper[mine] = of_row[edges.parent[some]], int(spawns)
    while (above[above] != above).any():  # every round doubles how far up each looks; of roots `deeper` is 0
        deeper = deeper + deeper[above]
        above = above[above]
    depth = np.full(len(view.calls), -1, dtype=np.int64)
    depth[rows] = deeper[agents]
    return depth


def _agents(view: Workflow) -> tuple[Ints, Ints]:
    """For every row but the warm-up's the number of its agent, of all agents of all sessions; the first row of each."""
    rows = view.rows
    words = max(len(view.agent.words), 1)
    _, first, agents = np.unique(
        view.calls.instance[rows].astype(np.int64) * words + view.agent.codes[rows],
        return_index=True,
        return_inverse=True,
    )
    return agents.reshape(-1).astype(np.int64), rows[first]


def _tasks(view: Workflow) -> Tasks:
    calls, at, rows = view.calls, view.marks, view.rows
    of, opens = _numbers(view)
    n, mine = len(opens), of[rows]

    def any_of(flags: Bools) -> Bools:
        found = np.zeros(n, dtype=np.bool_)
        found[mine[flags[rows]]] = True
        return found

    last = last_of(n, mine, at.done[rows], rows)
    first_ns, answer_ns = _tokens(view, of, opens)
    root = np.ones(len(calls), dtype=np.bool_)
    root[view.edges.child] = False
    partial = root[opens] & ~view.whole[opens] & (view.place[opens] >= 0)  # whatever became of it: none has a makespan
    never_begun = (calls.status[opens] == CANCELLED) & ~partial
    failed = any_of(calls.failed | (calls.status == CANCELLED)) & ~(partial | never_begun)
    cut_off = any_of(calls.status == CENSORED) | (_cut_off(view, opens) & ~_followed(view.edges, of, n))
    censored = cut_off & ~(partial | failed | never_begun)
    return Tasks(
        of=of,
        opens=opens,
        instance=calls.instance[opens],
        due_ns=calls.due_ns[opens],
        first_ns=first_ns,
        answer_ns=answer_ns,
        last=last,
        done_ns=at.done[last].astype(np.float64),
        never_begun=never_begun,
        failed=failed,
        censored=censored,
        partial=partial,
    )


def _numbers(view: Workflow) -> tuple[Ints, Ints]:
    """The task of every row, and the row that opens each task."""
    edges, rows = view.edges, view.rows
    opens = np.zeros(len(view.calls), dtype=np.bool_)
    opens[rows] = True
    opens[edges.child] = False
    opens[edges.child[edges.gap == HUMAN]] = True
    number = np.where(opens, np.cumsum(opens) - 1, -1)
    inside = ~opens[edges.child]
    dag = Dag(len(view.calls), edges.child[inside], edges.parent[inside], view.dag.level)
    return dag.latest(
        number, np.zeros(len(dag.child), dtype=np.int64), np.zeros(len(number), dtype=np.int64)
    ), np.flatnonzero(opens)


def _tokens(view: Workflow, of: Ints, opens: Ints) -> tuple[Floats, Floats]:
    """Per task, of the calls of the agent that the human talks to: the first token, and that of the last call."""
    calls, depth = view.calls, depths_seen(view)
    talks = (of >= 0) & ~np.isnan(calls.first_ns) & (calls.status != ERROR)
    talks[talks] = depth[talks] == depth[opens[of[talks]]]
    rows = np.flatnonzero(talks)
    first_ns = np.full(len(opens), np.inf)
    np.minimum.at(first_ns, of[rows], calls.first_ns[rows])
    final = last_of(len(opens), of[rows], view.marks.done[rows], rows)
    answer_ns = np.where(final >= 0, calls.first_ns[final], np.nan) if len(calls) else np.empty(0)
    return np.where(np.isinf(first_ns), np.nan, first_ns), answer_ns


def _cut_off(view: Workflow, rows: Ints) -> Bools:
    """Which of some rows are of sessions that were cut off, or that have no record since the run was."""
    cut_off: Bools = (view.place[rows] < 0) | np.append(view.sessions.censored, True)[view.place[rows]]
    return cut_off


def _followed(edges: Edges, of: Ints, tasks: int) -> Bools:
    """Tasks that another came after."""
    followed = np.zeros(tasks, dtype=np.bool_)
    followed[of[edges.parent[edges.gap == HUMAN]]] = True
    return followed
