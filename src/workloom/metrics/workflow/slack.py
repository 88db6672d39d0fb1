"""Slack: by how much a call could have ended later without its session ending later.

The classic backward pass of the critical path method, with the durations and waits of the run itself:

    late end of a call = the earliest, over the calls that wait for it, of (their late end - what they took - the wait)
    slack = late end - done        0 on the critical path
"""

from __future__ import annotations

import numpy as np

from workloom.clock import NS
from workloom.metrics.frame import Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.view import Workflow, workflow

NEAR = 0.01
"""A call is near-critical whose slack is at most this share of its session's makespan."""


def slack_s(run: Measured) -> Floats:
    """Slack of every call in seconds; nan in sessions that failed, were cut off or begun in their middle."""
    view = workflow(run)
    return np.where(view.in_ended, slack_ns(view) / NS, np.nan)


def slack_ns(view: Workflow) -> Ints:
    """Slack of every row; it says nothing outside `view.in_ended`."""
    at = view.marks
    ends = np.append(at.done[view.last] if len(view.last) else view.last, 0)
    limit = np.where(view.in_ended, ends[view.place], at.done)
    return view.dag.earliest(limit, view.wait_ns, at.took) - at.done


def near_critical_share(run: Measured) -> float | None:
    """Share of the calls due in the window whose slack is at most 1 % of their session's makespan."""
    view = workflow(run)
    makespan = np.append((run.sessions.end_ns - run.sessions.due_ns) / NS, np.nan)[view.place]
    there = view.in_ended & run.due
    return float((slack_s(run)[there] <= NEAR * makespan[there]).mean()) if there.any() else None
