"""Blame as metrics: what share of the makespan of sessions, and of tasks, each part is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.frame import Bools
from workloom.metrics.measured import Measured
from workloom.metrics.workflow.parts import CODE, MEANING, PARTS, SERVER, Part
from workloom.metrics.workflow.path import Blame, session_blame, task_blame
from workloom.metrics.workflow.slack import slack_s as slack_of_calls_s
from workloom.metrics.workflow.tasks import tasks
from workloom.metrics.workflow.view import cut_off_sessions, workflow


def critical_calls(run: Measured) -> Sample:
    """Calls on the critical path of each session due in the window that ended well."""
    blame = session_blame(run)
    due = due_of_sessions(run, blame)
    calls = np.bincount(blame.legs.owner, minlength=len(blame)).astype(np.float64)
    return Sample(calls[due], blame.instance[due].astype(np.float64), censored=cut_off_sessions(run))


def slack_s(run: Measured) -> Sample:
    """Of each call due in the window, by how much it could have ended later without its session ending later, with all
    other durations and waits as they were: 0 on the critical path. Calls of sessions that failed, that the run cut off
    or that it began in their middle have none."""
    due, view = run.due, workflow(run)
    cut_off = due & ((view.place < 0) | np.append(run.sessions.censored, True)[view.place])
    return Sample(slack_of_calls_s(run)[due], run.calls.instance[due], censored=int(cut_off.sum()))


def due_of_sessions(run: Measured, blame: Blame) -> Bools:
    """Which of the sessions of a blame were due in the window."""
    return run.window.holds(run.sessions.due_ns[blame.index])


def metrics() -> tuple[Metric, ...]:
    """A share for every part, for the server's together and for join wait; of sessions, then of tasks."""
    found: list[Metric] = []
    for whose in ("session", "task"):
        for name, parts, means in _shares():
            before = "" if whose == "session" else "task_"
            observe = _share_of(whose, parts, means)
            title = f"{name.replace('_', ' ')} on the critical path of {whose}s"
            found.append(Metric(f"{before}blame_{name}_share", title, "share", "run", "neither", observe))
    return tuple(found)


def _shares() -> list[tuple[str, tuple[Part, ...] | None, str]]:
    """Name, the parts that it sums up (None: what subagents do, whatever it is) and what it means."""
    server = "the server: from when calls were sent to the end of their streams"
    join = "join wait: time that the path spends in subagents, which is what the root agent waits for. It is in the "
    join += "other parts too, by what the subagents did"
    each: list[tuple[str, tuple[Part, ...] | None, str]] = [(part, (part,), MEANING[part]) for part in PARTS]
    return [*each, ("server", SERVER, server), ("join_wait", None, join)]


def _share_of(whose: str, parts: tuple[Part, ...] | None, means: str) -> Callable[[Measured], Totals]:
    def observe(run: Measured) -> Totals:
        if whose == "session":
            blame = session_blame(run)
            due = due_of_sessions(run, blame)
        else:
            blame = task_blame(run)
            due = run.window.holds(tasks(run).due_ns[blame.index])
        codes = list(range(len(PARTS))) if parts is None else [CODE[part] for part in parts]
        table = blame.join_ns if parts is None else blame.parts_ns
        part = table[due][:, codes].sum(axis=1) / NS
        return Totals(part, blame.makespan_ns[due] / NS, blame.instance[due].astype(np.float64))

    observe.__doc__ = (
        f"Share of the makespan of {whose}s due in the window that ended well which their critical path spends on "
        f"{means}. The parts of a makespan add up to it exactly."
    )
    return observe
