"""What it would buy if some of the work took less: the run's DAGs again, with other durations.

    due = the latest of (done + wait) over the edges        as the driver does it
    done = due + what the call took, less what is saved

Only the path inside each session is worked out again. How long calls stood in the server's queue stays as it was,
though they might queue less behind a faster one; the tasks of the human and the tools stay the same. So a saving is
what the DAG alone lets through: a lower bound where queues are long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Sample
from workloom.metrics.frame import Bools, Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.parts import OWN, PARTS, SERVER, WAIT_OF_GAP, WAITS, Part, of_part
from workloom.metrics.workflow.path import pieces, session_blame
from workloom.metrics.workflow.view import Workflow, workflow


@dataclass(slots=True)
class Saving:
    """What each session would end earlier if a part of a role's calls took `factor` of what it took."""

    role: str | None
    """None: every role."""
    part: Part | None
    """None: all that calls spend at the server."""
    factor: float
    saved_s: Floats
    makespan_s: Floats
    session: Floats
    """Instances; sessions due in the window that ended well."""

    @property
    def mean_s(self) -> float:
        """Seconds a session, on average; nan without sessions."""
        return float(self.saved_s.mean()) if len(self.saved_s) else float("nan")

    @property
    def share(self) -> float:
        """Of all makespan."""
        whole = float(self.makespan_s.sum())
        return float(self.saved_s.sum()) / whole if whole else float("nan")

    def sample(self) -> Sample:
        """For an estimate with its uncertainty."""
        return Sample(self.saved_s, self.session)


def what_if(run: Measured, role: str | None = None, part: Part | None = None, factor: float = 0.5) -> Saving:
    """Makespans if a part of the calls of a role took `factor` of what it took; 0: no time at all."""
    some = np.ones(len(run.calls), dtype=np.bool_)
    if role is not None:
        some = run.role.codes == run.role.words.index(role) if role in run.role.words else ~some
    return _saving(run, some, role, part, factor)


def what_if_call(run: Measured, row: int, factor: float = 0.0) -> Saving:
    """The same of one call: all that it spends at the server."""
    some = np.zeros(len(run.calls), dtype=np.bool_)
    some[row] = True
    return _saving(run, some, None, None, factor)


def ends(view: Workflow, some: Bools, parts: tuple[Part, ...], factor: float) -> Ints:
    """When every row would be done if these parts of some rows took `factor` of what they took."""
    at, wait, took = view.marks, view.wait_ns, view.marks.took
    own = tuple(part for part in parts if part in OWN)
    if own:
        less = of_part(at.own(), own, len(took))
        took = took - np.where(some, np.rint((1 - factor) * less).astype(np.int64), 0)
    if any(part in WAITS for part in parts):
        wanted = np.isin(WAIT_OF_GAP, [PARTS.index(part) for part in parts])[view.edges.gap] & some[view.edges.child]
        wait = wait - np.where(wanted, np.rint((1 - factor) * wait).astype(np.int64), 0)
    return view.dag.latest(at.due, wait, took)


def ranked(run: Measured, *, factor: float = 0.0, most: int = 8) -> list[Saving]:
    """What would save most of all makespan, the best first: each role and part of its time, but waits for the human.

    A saving is at most what its part has of the critical path, since that path, with the part shortened, is still
    there. So parts are looked at from the greatest share of the path down, until none can be among the best.
    """
    view, blame = workflow(run), session_blame(run)
    due = run.window.holds(run.sessions.due_ns[blame.index])
    roles, width = max(len(run.role.words), 1), len(PARTS)
    legs = blame.legs
    total = np.zeros(roles * width)
    counted = due[legs.owner] if len(legs) else np.empty(0, dtype=np.bool_)
    for part, ns in pieces(view, legs):
        key = run.role.codes[legs.row] * width + part
        total += np.bincount(key[counted], ns[counted], roles * width)
    found: list[Saving] = []
    for key in np.argsort(-total, kind="stable").tolist():
        bound_s = total[key] * (1 - factor) / NS
        if PARTS[key % width] == "human":
            continue
        if not bound_s or (len(found) >= most and float(found[most - 1].saved_s.sum()) >= bound_s):
            break
        found.append(what_if(run, run.role.words[key // width], PARTS[key % width], factor))
        found.sort(key=lambda saving: -float(saving.saved_s.sum()))
    return found[:most]


def _saving(run: Measured, some: Bools, role: str | None, part: Part | None, factor: float) -> Saving:
    view, sessions = workflow(run), run.sessions
    done = ends(view, some, SERVER if part is None else (part,), factor)
    rows = np.flatnonzero(view.in_ended)
    last = np.zeros(len(sessions), dtype=np.int64)
    np.maximum.at(last, view.place[rows], done[rows])
    counted = view.ended & run.window.holds(sessions.due_ns)
    saved_s = (sessions.end_ns - last)[counted] / NS
    makespan_s = (sessions.end_ns - sessions.due_ns)[counted] / NS
    return Saving(role, part, factor, saved_s, makespan_s, sessions.instance[counted])
