"""When a run knows enough: its figures are looked at again and again, and the window ends once all are known well.

The looks come at numbers of sessions that have ended, never at times, so a seeded simulated run ends at the same
instant each time. How far the next look is away is read from the last: an interval that is twice as wide as asked for
needs about four times the sessions.

A run that looks often ends where its interval happens to be narrow, and such intervals hold the true value less often
than they say. So there are few looks, none before FIRST sessions, and what was reached must be reached once more, when
CONFIRM times as many sessions have ended. docs/how-long.md has what remains of the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from workloom.drive.driver import Control, Sink
from workloom.errors import UsageError
from workloom.execute.goals import Goal, goals, worst
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.estimate import Estimate, estimate
from workloom.metrics.frame import CENSORED, Window
from workloom.metrics.measured import Measured, measured
from workloom.metrics.sessions import Sessions
from workloom.metrics.uncertainty.enough import sessions_needed
from workloom.plan import Plan
from workloom.records import CallRecord, SessionRecord
from workloom.store import open_run
from workloom.store.run import write_whole

FIRST = 40
"""Sessions that have ended at the first look."""
CONFIRM = 1.1
"""What was reached must be reached again with so many times the sessions."""
GROWTH = (1.1, 2.0)
"""The next look comes at so many times the sessions, at least and at most."""
BLIND = 1.25
"""The same where there was no interval to judge by."""
UNTIL = "until.json"
"""The file of a run directory that says how it was ended."""

Verdict = Literal["reached", "not reached", "cannot be reached"]


class Check(Struct, frozen=True):
    """One look at a run that goes. `never`: goals that no number of sessions will reach, as things are."""

    at_ns: int
    sessions: int
    """That had ended."""
    calls: int
    """Due in the window, and ended."""
    estimates: list[Estimate]
    times: float | None
    """How many times as wide as asked for the worst interval is; 1 or less: all are reached. None: one has none."""
    never: list[str] = []

    @property
    def reached(self) -> bool:
        return self.times is not None and self.times <= 1


class Until(Struct):
    """How a run was ended that went on until it knew enough: its goals, its looks, and what came of them."""

    goals: list[str]
    verdict: Verdict = "not reached"
    checks: list[Check] = []

    def say(self) -> str:
        """In words, as a note of the run."""
        what = f"until {', '.join(self.goals)}: {self.verdict}"
        if not self.checks:
            return f"{what}: the run ended before its first look, at {FIRST} sessions"
        last = self.checks[-1]
        return f"{what} after {last.sessions:,} sessions and {last.calls:,} calls at {last.at_ns / 1e9:,.1f} s"


class Pace:
    """Decides when to look and what a look means."""

    def __init__(self, asked: Sequence[Goal]) -> None:
        self.next = FIRST
        self._least = max((sessions_needed(goal.figure) for goal in asked), default=FIRST)
        self.until = Until([goal.say() for goal in asked])
        self._before: Check | None = None

    def heard(self, check: Check) -> bool:
        """Take a look into account; True when the window is to end."""
        before, self._before = self._before, check
        self.until.checks.append(check)
        if check.never and before is not None and before.never:
            self.until.verdict = "cannot be reached"
            return True
        if check.reached and before is not None and before.reached:
            self.until.verdict = "reached"
            return True
        self.next = max(check.sessions + 1, math.ceil(check.sessions * self._growth(check)))
        return False

    def _growth(self, check: Check) -> float:
        if check.reached:
            return CONFIRM
        low, high = GROWTH
        if check.times is not None:
            return min(max(check.times**2, low), high)
        return min(max(self._least / check.sessions, BLIND), high)


def look(run: Measured, asked: Sequence[Goal], sessions: int) -> Check:
    """What the goals' figures are known to by now. `sessions`: how many have ended."""
    run = with_alive(run)
    estimates: list[Estimate] = []
    never = []
    for goal in asked:
        try:
            found = estimate(run, goal.figure)
        except UsageError as fault:  # no call of that role yet
            estimates.append(Estimate(goal.figure.say(), None, why=f"not enough data: {fault.what}"))
            continue
        estimates.append(found)
        if found.value is None or math.isinf(found.value):
            why = _lost(goal, goal.figure.observe(run), found.sessions)
            never += [f"{goal.figure.say()}: {why}"] if why else []
    times, ended = worst(asked, estimates), int((run.due & (run.calls.status != CENSORED)).sum())
    return Check(run.window.end_ns, sessions, ended, estimates, None if math.isinf(times) else times, never)


def _lost(goal: Goal, observed: Sample | Totals | None, sessions: int) -> str:
    """Why more sessions cannot help; empty where they can. One failure makes a mean infinite for good, and a percentile
    is when clearly more fail than lie beyond it: by three standard errors of the share, as if a session were a value.
    """
    if observed is None:
        return "this run cannot say"
    if isinstance(observed, Totals) or not np.isinf(observed.values).any():
        return ""
    level = goal.figure.quantile
    if level is None:
        return "a call that failed makes it infinite for good"
    there = observed.values[~np.isnan(observed.values)]
    failed = float(np.mean(np.isinf(there)))
    clear = failed - 3 * math.sqrt(failed * (1 - failed) / max(sessions, 1)) > 1 - level
    return f"{failed:.0%} of the values are failures, so it is infinite" if clear else ""


def recorded(path: Path, window: Window) -> Measured:
    """What the journal of a run that goes holds by now, as seen in a window."""
    return measured(open_run(path), window=window)


def with_alive(run: Measured) -> Measured:
    """The run with the sessions that still go, as far as they have calls: cut off, as if the run ended here.

    A run that goes has no rows of them, and those that have ended are the short ones.
    """
    calls, ended = run.calls, run.sessions
    alive = np.setdiff1d(calls.instance[~calls.warmup], ended.instance)
    if not len(alive):
        return run
    mine = np.isin(calls.instance, alive) & ~calls.warmup
    rows = np.searchsorted(alive, calls.instance[mine])
    began = np.full(len(alive), np.inf)
    np.minimum.at(began, rows, calls.due_ns[mine])
    whole = np.zeros(len(alive), dtype=np.bool_)
    whole[rows[calls.ordinal[mine] == 0]] = True
    no = np.zeros(len(alive), dtype=np.bool_)
    added = Sessions(alive, began, began, np.full(len(alive), run.window.end_ns, dtype=float), no, no, ~no, whole)
    joined = [np.concatenate([getattr(ended, f.name), getattr(added, f.name)]) for f in fields(Sessions)]
    order = np.argsort(joined[0], kind="stable")
    return replace(run, sessions=Sessions(*(column[order] for column in joined)))


class Watching:
    """A sink that passes everything on, and looks when it is time: for runs in virtual time, where looking takes none.

    `see` gives what was recorded in a window.
    """

    def __init__(
        self,
        sink: Sink,
        control: Control,
        asked: Sequence[Goal],
        now: Callable[[], int],
        see: Callable[[Window], Measured],
    ) -> None:
        self.pace = Pace(asked)
        self.call: Callable[[CallRecord], None] = sink.call
        self._sink, self._control, self._asked, self._now, self._see = sink, control, asked, now, see
        self._sessions = 0
        self._over = False

    def session(self, record: SessionRecord) -> None:
        """Pass it on, and look if it is the one to look at."""
        self._sink.session(record)
        self._sessions += 1
        start_ns, at_ns = self._control.window_start_ns, self._now()
        if self._over or self._sessions < self.pace.next or start_ns is None or start_ns >= at_ns:
            return
        check = look(self._see(Window(start_ns, at_ns)), self._asked, self._sessions)
        if self.pace.heard(check):
            self._over = True
            self._control.close(at_ns)


def goals_of(plan: Plan) -> tuple[Goal, ...]:
    """What a plan says must be known; nothing of most plans."""
    return goals(plan.recipe.limits.until or ())


def write_until(path: Path, until: Until) -> None:
    """Keep it in the run directory at `path`."""
    write_whole(path / UNTIL, msgspec.json.format(msgspec.json.encode(until), indent=1) + b"\n")


def read_until(path: Path) -> Until | None:
    """How the run at `path` was ended; None of a run without goals, or one that was killed."""
    try:
        return msgspec.json.decode((path / UNTIL).read_bytes(), type=Until)
    except FileNotFoundError:
        return None
