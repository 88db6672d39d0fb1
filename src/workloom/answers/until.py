"""Runs that go on until their figures are known well: the plan that has no end of its own, and how it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from workloom.errors import UsageError, nearest
from workloom.execute.goals import OPTION, Goal, goals, half_width
from workloom.execute.until import Verdict, read_until
from workloom.metrics.estimate import Estimate, estimate
from workloom.metrics.measured import Measured
from workloom.metrics.uncertainty.enough import needed
from workloom.plan import Plan

LIVE_S = 3600.0
"""The most that a live run takes where nobody says how long it may go on."""
SIMULATED_CALLS = 1_000_000
"""The same of a simulated one, which costs CPU by its calls."""


def until_known(plan: Plan, texts: Sequence[str], *, live: bool) -> Plan:
    """The plan that goes on until those goals are reached, over and over through its sessions; its hash says so.

    Its own limits are the most it may take; a plan without any gets one. Raises UsageError.
    """
    asked = goals(texts)
    _require_roles(plan, asked)
    limits = replace(plan.recipe.limits, until=tuple(goal.say() for goal in asked))
    if limits.duration_s is None and limits.sessions is None and limits.calls is None:
        limits = replace(limits, duration_s=LIVE_S) if live else replace(limits, calls=SIMULATED_CALLS)
    return Plan(replace(plan.recipe, limits=limits), plan.source)


def _require_roles(plan: Plan, asked: Sequence[Goal]) -> None:
    """A role that the workload does not have would be waited for in vain."""
    roles = [value for goal in asked for key, value in goal.figure.of if key == "agent"]
    if not roles:
        return
    there = {call.agent.partition(":")[0] for i in range(len(plan.source)) for call in plan.source[i].calls}
    for role in roles:
        if role not in there:
            close = nearest(role, sorted(there))
            raise UsageError(
                "no call of the workload is of this agent",
                where=OPTION,
                expected=", ".join(sorted(there)),
                found=role,
                hint=f"did you mean {close}?" if close else None,
            )


def most(plan: Plan) -> str:
    """What such a run may take at most, in words."""
    limits = plan.recipe.limits
    told = [
        f"{limits.duration_s:g} s" if limits.duration_s is not None else "",
        f"{limits.sessions:,} sessions" if limits.sessions is not None else "",
        f"{limits.calls:,} calls" if limits.calls is not None else "",
    ]
    return " or ".join(word for word in told if word)


class Known(Struct, frozen=True):
    """How well one figure is known at the end of a run. Half widths are in the unit of the metric."""

    goal: str
    estimate: Estimate
    half_width: float | None
    wanted: float | None
    """None where the figure has no value."""
    sessions_needed: int | None = None
    """Sessions that a run would need in all, where this one was not enough and says enough to tell."""
    values_needed: int | None = None
    why: str = ""
    """Why that cannot be told."""


class Ended(Struct, frozen=True):
    """How a run that had goals ended. `stopped_s`: the instant of the last look, in the time of the run."""

    verdict: Verdict
    goals: list[Known]
    sessions: int
    """That had begun in the window, ended or not, and calls due in it."""
    calls: int
    window_s: float
    stopped_s: float | None = None
    looks: int = 0
    recycled: float = 1.0
    """How often each session of the workload was given out, on average; 1 at the least."""
    never: list[str] = []
    """Goals that no number of sessions would have reached, and why."""


def ended(path: Path, run: Measured, workload_sessions: int) -> Ended | None:
    """How the run at `path`, measured, ended; None where it had no goals."""
    until = read_until(path)
    if until is None:
        return None
    asked = goals(until.goals)
    instances = run.sessions.instance
    begun = int(run.window.holds(run.sessions.start_ns).sum())
    last = until.checks[-1] if until.checks else None
    return Ended(
        until.verdict,
        [known(run, goal) for goal in asked],
        begun,
        int(run.due.sum()),
        run.window.seconds,
        last.at_ns / 1e9 if last is not None else None,
        len(until.checks),
        max(1.0, (float(instances.max()) + 1) / workload_sessions) if len(instances) else 1.0,
        last.never if last is not None and until.verdict == "cannot be reached" else [],
    )


def known(run: Measured, goal: Goal) -> Known:
    """How well a figure is known, and what it would take to know it as well as asked."""
    name = goal.say()
    try:
        found = estimate(run, goal.figure)
    except UsageError as fault:
        return Known(name, Estimate(goal.figure.say(), None, why=f"not enough data: {fault.what}"), None, None)
    wide = half_width(found)
    wanted = goal.wanted(found) if found.value is not None else None
    if found.value == 0 and goal.relative and wide:
        return Known(name, found, wide, wanted, why="of 0 no share can be reached: ask for a width in its own unit")
    if goal.reached(found) or not found.value or math.isinf(found.value):
        return Known(name, found, wide, wanted)
    relative = goal.half_width if goal.relative else goal.half_width / abs(found.value)
    takes = needed(found, relative)
    return Known(name, found, wide, wanted, takes.sessions, takes.values, takes.why)


def read_verdict(path: Path) -> Verdict | None:
    """What came of the goals of the run at `path`; None where it had none."""
    until = read_until(path)
    return None if until is None else until.verdict
