"""Where the time of sessions and tasks went, and what would shorten it, for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.metrics.frame import Bools
from workloom.metrics.measured import Measured
from workloom.metrics.text import duration
from workloom.metrics.workflow.parts import CODE, MEANING, PARTS, SERVER
from workloom.metrics.workflow.path import Blame, pieces, session_blame, task_blame
from workloom.metrics.workflow.slack import NEAR, near_critical_share, slack_s
from workloom.metrics.workflow.speedup import ranked, what_if_call
from workloom.metrics.workflow.tasks import tasks
from workloom.metrics.workflow.view import cut_off_sessions, workflow

if TYPE_CHECKING:
    from rich.console import RenderableType

FEW, SHOWN = 5, 3
"""Calls that are named, and those of them that a terminal shows."""


class PartOfMakespan(Struct, frozen=True):
    """A part of the critical paths of some sessions or tasks."""

    part: str
    means: str
    mean_s: float
    """A session, or a task."""
    share: float
    """Of all their makespan."""
    join_share: float
    """Of all their makespan, what of this part was done in subagents: join wait."""


class Blamed(Struct, frozen=True):
    """Those of the sessions (or tasks) due in the window that ended well, and how many have no makespan, and why."""

    ended: int
    failed: int
    censored: int
    partial: int
    """Begun in their middle."""
    never_begun: int = 0
    """Of tasks: not asked for any more, since an earlier one failed."""
    makespan_mean_s: float | None = None
    join_wait_share: float | None = None
    parts: list[PartOfMakespan] = []
    """The greatest first; parts that took no time are left out. They add up to the makespan."""


class Bought(Struct, frozen=True):
    """What would be saved if a part of the calls of a role took no time: seconds a session, share of all makespan."""

    role: str
    part: str
    saved_mean_s: float
    share: float


class HotCall(Struct, frozen=True):
    """A call that its session's critical path spends long on at the server."""

    instance: int
    ordinal: int
    agent: str
    on_path_s: float
    saved_s: float
    """By how much the session would end earlier if the server took no time for it."""


class Explanation(Struct, frozen=True):
    """The workflow of a run. Shares and means are of sessions and tasks due in the window that ended well."""

    sessions: Blamed
    tasks: Blamed
    bought: list[Bought] = []
    """What would save most, the best first."""
    calls: list[HotCall] = []
    slack_p50_s: float | None = None
    """Half of the calls could have ended that much later at no cost."""
    near_critical_share: float | None = None
    """Calls with slack of at most 1 % of their session's makespan."""


def explain(run: Measured) -> Explanation:
    """Blame, savings and slack of a run."""
    slack = slack_s(run)[run.due]
    slack = slack[~np.isnan(slack)]
    return Explanation(
        sessions=_sessions(run),
        tasks=_tasks(run),
        bought=[Bought(s.role or "", s.part or "", s.mean_s, s.share) for s in ranked(run)],
        calls=_hot_calls(run),
        slack_p50_s=float(np.median(slack)) if len(slack) else None,
        near_critical_share=near_critical_share(run),
    )


def table(explanation: Explanation) -> list[RenderableType]:
    """The same for a terminal of 80 columns: blame, then what would shorten it. Nothing where nothing ended."""
    from rich.text import Text

    out: list[RenderableType] = []
    for kind, blamed in (("session", explanation.sessions), ("task", explanation.tasks)):
        if left_out := _left_out(kind, blamed):
            out.append(Text(left_out, style="yellow"))
    if not explanation.sessions.ended and not explanation.tasks.ended:
        return out
    out.insert(0, _blame_table(explanation))
    if explanation.bought:
        out.append(_bought_table(explanation))
    if explanation.calls:
        out.append(Text(_hottest(explanation.calls), style="dim"))
    if explanation.slack_p50_s is not None and explanation.near_critical_share is not None:
        out.append(
            Text(
                f"Slack: half of the calls could have ended {duration(explanation.slack_p50_s)} later at no cost; "
                f"{explanation.near_critical_share:.0%} had less than {NEAR:.0%} of their session's makespan to spare.",
                style="dim",
            )
        )
    return out


def _blame_table(explanation: Explanation) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    sessions, task = explanation.sessions, explanation.tasks
    told = Table(title="critical path", title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    told.add_column("part")
    for name in ("a session", "share", "a task", "share", "in subagents"):
        told.add_column(name, justify="right")
    of_tasks = {part.part: part for part in task.parts}
    of_sessions = {part.part: part for part in sessions.parts}
    for part in dict.fromkeys([*of_sessions, *of_tasks]):
        cells = []
        for found in (of_sessions.get(part), of_tasks.get(part)):
            cells += ["-", "-"] if found is None else [duration(found.mean_s), f"{found.share:.1%}"]
        held = of_sessions.get(part)
        told.add_row(part.replace("_", " "), *cells, "-" if held is None else f"{held.join_share:.1%}")
    whole = []
    for blamed in (sessions, task):
        whole += ["-", "-"] if blamed.makespan_mean_s is None else [duration(blamed.makespan_mean_s), "100%"]
    joins = "-" if sessions.join_wait_share is None else f"{sessions.join_wait_share:.1%}"
    told.add_section()
    told.add_row("makespan", *whole, joins, style="bold")
    return told


def _bought_table(explanation: Explanation) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = "what it would buy if it took no time"
    told = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    told.add_column("role")
    told.add_column("part")
    told.add_column("a session", justify="right")
    told.add_column("of makespan", justify="right")
    for bought in explanation.bought:
        part = bought.part.replace("_", " ")
        told.add_row(bought.role, part, duration(bought.saved_mean_s), f"{bought.share:.1%}")
    return told


def _hottest(calls: list[HotCall]) -> str:
    """The single calls that paths are at the server longest with, and what each would buy."""
    said = [
        f"call {call.ordinal} of session {call.instance} ({call.agent}), {duration(call.on_path_s)}, "
        f"saves {duration(call.saved_s)}"
        for call in calls[:SHOWN]
    ]
    return f"Calls longest at the server on a path, and what the session would save without: {'; '.join(said)}."


def _left_out(kind: str, blamed: Blamed) -> str:
    """Why some have no makespan, with their counts."""
    whys = {
        "failed": blamed.failed,
        "cut off by the end of the run": blamed.censored,
        "begun in their middle": blamed.partial,
        "never begun": blamed.never_begun,
    }
    said = ", ".join(f"{n:,} {why}" for why, n in whys.items() if n)
    return f"Not in the critical paths: of {kind}s, {said}." if said else ""


def _sessions(run: Measured) -> Blamed:
    sessions, blame = run.sessions, session_blame(run)
    due = run.window.holds(sessions.due_ns)
    return _blamed(
        blame,
        due[blame.index],
        failed=int((due & sessions.failed).sum()),
        censored=cut_off_sessions(run),
        partial=int((due & sessions.ok & ~sessions.whole).sum()),
    )


def _tasks(run: Measured) -> Blamed:
    every, blame = tasks(run), task_blame(run)
    due = run.window.holds(every.due_ns)
    return _blamed(
        blame,
        due[blame.index],
        failed=int((due & every.failed).sum()),
        censored=int((due & every.censored).sum()),
        partial=int((due & every.partial).sum()),
        never_begun=int((due & every.never_begun).sum()),
    )


def _blamed(blame: Blame, some: Bools, *, failed: int, censored: int, partial: int, never_begun: int = 0) -> Blamed:
    ended = int(some.sum())
    makespan = float(blame.makespan_ns[some].sum())
    if not makespan:
        return Blamed(ended, failed, censored, partial, never_begun)
    whole, joins = blame.parts_ns[some].sum(axis=0).tolist(), blame.join_ns[some].sum(axis=0).tolist()
    parts = [
        PartOfMakespan(part, MEANING[part], whole[i] / NS / ended, whole[i] / makespan, joins[i] / makespan)
        for i, part in enumerate(PARTS)
        if whole[i]
    ]
    parts.sort(key=lambda part: -part.share)
    join_share = sum(joins) / makespan
    return Blamed(ended, failed, censored, partial, never_begun, makespan / NS / ended, join_share, parts)


def _hot_calls(run: Measured) -> list[HotCall]:
    view, blame = workflow(run), session_blame(run)
    legs = blame.legs
    served = np.zeros(len(legs), dtype=np.int64)
    server = np.isin(np.arange(len(PARTS)), [CODE[part] for part in SERVER])
    for part, ns in pieces(view, legs):
        served += np.where(server[part], ns, 0)
    if len(legs):
        served *= run.window.holds(run.sessions.due_ns[blame.index])[legs.owner]
    found = []
    for leg in np.argsort(-served, kind="stable")[:FEW].tolist():
        row = int(legs.row[leg])
        if not served[leg]:
            break
        saved_s = float(what_if_call(run, row).saved_s.sum())
        agent = run.agent.words[run.agent.codes[row]]
        instance, ordinal = int(run.calls.instance[row]), int(run.calls.ordinal[row])
        found.append(HotCall(instance, ordinal, agent, float(served[leg]) / NS, saved_s))
    return found
