"""How long sessions and tasks took, and how much longer than on an unloaded server."""

from __future__ import annotations

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Sample
from workloom.metrics.frame import Bools
from workloom.metrics.measured import Measured
from workloom.metrics.sessions import makespan_s as session_makespan_s
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.ideal import ideal_s
from workloom.metrics.workflow.tasks import Tasks, tasks
from workloom.metrics.workflow.view import cut_off_sessions


def makespan_s(run: Measured) -> Sample:
    """Of each session due in the window, from when its first call was due to the end of its last. A failed session
    counts as infinite; one that the run cut off has none, and neither has one that it began in its middle."""
    return _of_sessions(run, session_makespan_s(run.sessions))


def slowdown(run: Measured) -> Sample | None:
    """Of each session, its makespan / the unloaded ideal: the same waits, every call alone on a replica whose cache
    forgets nothing. 1 is as fast as the server can; a failed session counts as infinite. Simulated runs know their
    server; of a live one there is no ideal to compare with."""
    ideal = ideal_s(run)
    if ideal is None:
        return None
    took = session_makespan_s(run.sessions)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(np.isinf(took), np.inf, np.where(ideal > 0, took / ideal, np.nan))
    return _of_sessions(run, ratio)


def task_makespan_s(run: Measured) -> Sample:
    """Of each task due in the window, from when its first call was due to the end of the last of all its calls, those
    of background subagents too. A task with a failed call counts as infinite. One that the run cut off has none (of a
    session that was cut off the last one); neither has the one that a session begun in its middle goes on or begins
    with, or one that was never begun since an earlier task failed. A call that waits for calls of several tasks is of
    the latest of them."""
    every = tasks(run)
    took = np.where(every.ok, (every.done_ns - every.due_ns) / NS, np.nan)
    return _of_tasks(run, every, np.where(every.failed, np.inf, took))


def ttfat_s(run: Measured) -> Sample:
    """Time to first answer token: of each task, from when its first call was due to the first token of its last call.
    The last call is the last to be done with a first token of the agents the human talks to: those as deep as the call
    that opens the task (a subagent that goes on in the background answers nobody). Infinite, absent and cut off as the
    task's makespan."""
    every = tasks(run)
    took = np.where(every.ok, (every.answer_ns - every.due_ns) / NS, np.nan)
    return _of_tasks(run, every, np.where(every.failed, np.inf, took))


def ttfut_s(run: Measured) -> Sample:
    """Time to first user-facing token: of each task, from when its first call was due to the first token of any call of
    the agents that the human talks to, as for TTFAT. Whether that token is text, reasoning or a tool call is not known.
    Where none came a failed task counts as infinite; a task that was cut off has the one that came."""
    every = tasks(run)
    came = (every.first_ns - every.due_ns) / NS
    came = np.where(every.partial | every.never_begun, np.nan, came)
    return _of_tasks(run, every, np.where(every.failed & np.isnan(came), np.inf, came))


def _of_sessions(run: Measured, values: Floats) -> Sample:
    sessions = run.sessions
    due = run.window.holds(sessions.due_ns)
    return Sample(values[due], sessions.instance[due], censored=cut_off_sessions(run))


def _of_tasks(run: Measured, every: Tasks, values: Floats) -> Sample:
    due: Bools = run.window.holds(every.due_ns)
    cut_off = int((due & every.censored & np.isnan(values)).sum())
    return Sample(values[due], every.instance[due], censored=cut_off)
