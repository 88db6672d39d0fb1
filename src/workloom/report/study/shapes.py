"""Graph shapes: how sessions branch, how deep and wide they are, and how much of a prompt is history."""

from __future__ import annotations

from workloom.answers.characterize import Characterization
from workloom.model.distribution import Distribution
from workloom.report.figure import Axis
from workloom.report.page import Section
from workloom.report.study.parts import NOT_KNOWN, Figures, Measure, Row, Sample, amounts, cdf, compare, grouped, spread
from workloom.report.study.words import Found, counted, lead, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

TITLE = "Graph shapes"

MOTIF_NAMES = {
    "single_call": "single call",
    "chain": "chain",
    "fan_out_fan_in": "fan-out and fan-in",
    "nested_subagent": "nested subagent",
    "retry_loop": "retry loop",
    "subagent_joined": "subagent, joined",
    "subagent_fire_and_forget": "subagent, fire and forget",
    "agent_loop": "agent loop",
}


def section(found: Found) -> Section:
    """What the graphs of calls look like."""
    return Section(
        "shapes",
        TITLE,
        lead(answer(found), _expansion(found), _children(found), _history(found)),
        (key(found), *_motifs(found)),
        (*_figures(found), *_motif_figure(found)),
    )


def answer(found: Found) -> str:
    """How long sessions are, and how many branch."""
    return lead(_length(found), _branching(found))


def _length(found: Found) -> str:
    if len(found) > 1:
        return say("The median session has ", side(found, lambda c: c.shapes.calls_per_session.p50, noun="call"), ".")
    d = found[0].shapes.calls_per_session
    if d.p50 is None or d.p90 is None or d.max is None:
        return ""
    if d.quantiles[0] == d.max:
        return f"{'Its one' if d.n == 1 else 'Every'} session has {counted(d.max, 'call')}."
    most = f", nine in ten at most {said(d.p90)}" if d.n >= 10 else ""
    return f"Half of the sessions have at most {counted(d.p50, 'call')}{most}; the longest has {said(d.max)}."


def _branching(found: Found) -> str:
    if len(found) > 1:
        shares = side(found, lambda c: c.shapes.branching_share, "share")
        return say("The share of sessions that branch is ", shares, ".")
    told = found[0].shapes
    share, width = told.branching_share, told.width.max or 0
    if share is None or told.calls_per_session.max == 1:
        return ""
    if not share:
        return "None branches: all are chains."
    who = f"{said(share, 'share')} branch"
    if share == 1:
        who = "It branches" if told.sessions == 1 else "All branch"
    return f"{who}; {f'at most {said(width)}' if width > 1 else 'no two'} calls can run side by side."


def _expansion(found: Found) -> str:
    means = side(found, lambda c: c.shapes.calls_per_task.mean, noun="call")
    if len(found) > 1:
        return say("On average one human message (or the start of a session) leads to ", means, ".")
    median = side(found, lambda c: c.shapes.calls_per_task.p50)
    return say(
        "One human message (or the start of a session) leads to ", means, " on average, ", median, " at the median."
    )


def _children(found: Found) -> str:
    if not any(c.shapes.subagents for c in found):
        return "There are no subagents."
    if len(found) > 1:
        mean = side(found, lambda c: c.shapes.subagents_per_session.mean, noun="subagent")
        return say("On average a session has ", mean, ".")
    joined = found[0].motifs.motifs["subagent_joined"].count
    waited = "" if joined is None else f", of which others wait for {said(joined)}"
    spawned, length = found[0].shapes.subagents, found[0].shapes.calls_per_subagent.p50
    return f"Subagents: {said(spawned)}{waited}; the median one makes {counted(length or 0, 'call')}."


def _history(found: Found) -> str:
    mean = side(found, lambda c: c.shapes.inherited_ratio.mean, "share")
    keeps = side(found, lambda c: c.shapes.inherits_prompt_share, "share")
    if len(found) > 1:
        return say("Of a prompt with a history before it, the share that is inherited is on average ", mean, ".")
    return say(
        *("Where there is a history, ", mean, " of a prompt is inherited on average, and "),
        *(keeps, " of these calls keep all of the prompt before them."),
    )


def key(found: Found) -> Table:
    """The graphs in short."""
    return compare(
        "Tasks, depth, width, history",
        found,
        [
            Row("tasks (human messages, or starts)", lambda c: c.shapes.tasks),
            Row("calls per session, p50", lambda c: c.shapes.calls_per_session.p50),
            Row("calls per session, p90", lambda c: c.shapes.calls_per_session.p90),
            Row("calls per task, mean", lambda c: c.shapes.calls_per_task.mean),
            Row("depth: calls on the longest path, p50", lambda c: c.shapes.depth.p50),
            Row("width: calls side by side, largest", lambda c: c.shapes.width.max),
            Row("sessions that branch", lambda c: c.shapes.branching_share, "share"),
            Row("subagents", lambda c: c.shapes.subagents),
            Row("prompt that is history, mean", lambda c: c.shapes.inherited_ratio.mean, "share"),
            Row("calls that keep all of the prompt before", lambda c: c.shapes.inherits_prompt_share, "share"),
        ],
    )


def numbers(found: Found) -> tuple[Table, ...]:
    """All distributions."""
    counts = [
        Measure("calls per session", lambda c: c.shapes.calls_per_session),
        Measure("calls per task", lambda c: c.shapes.calls_per_task),
        Measure("tasks per session", lambda c: c.shapes.tasks_per_session),
        Measure("depth", lambda c: c.shapes.depth),
        Measure("width", lambda c: c.shapes.width),
        Measure("fan-out of a call", lambda c: c.shapes.fan_out),
        Measure("fan-in of a call", lambda c: c.shapes.fan_in),
        Measure("largest fan-out of a session", lambda c: c.shapes.fan_out_max),
        Measure("largest fan-in of a session", lambda c: c.shapes.fan_in_max),
        Measure("subagents per session", lambda c: c.shapes.subagents_per_session),
        Measure("nesting of a subagent", lambda c: c.shapes.nesting),
        Measure("calls per subagent", lambda c: c.shapes.calls_per_subagent),
    ]
    note = (
        "Depth: calls on the longest path, which no server can do at once. Width: the most calls at one depth. "
        "Fan-out: calls that wait for a call; fan-in: calls that it waits for. Nesting: agents above a subagent."
    )
    shares = [Measure("prompt that is history", lambda c: c.shapes.inherited_ratio)]
    return (
        *spread("Graphs in numbers", found, counts, note=note),
        *spread("History", found, shares, "share", note="Inherited tokens / prompt tokens, of calls with a history."),
        _counts(found),
    )


def _motifs(found: Found) -> tuple[Table, ...]:
    """How many sessions show each motif, with the rules."""
    rules = found[0].motifs.rules
    columns = (
        Column("motif", align="left"),
        *(Column(c.label, "share") for c in found),
        Column("rule", align="left"),
    )
    rows = tuple((told, *(_share(c, name) for c in found), rules[name]) for name, told in MOTIF_NAMES.items())
    return (Table("Motifs: sessions that show them", columns, rows),)


def _share(c: Characterization, name: str) -> Cell:
    share = c.motifs.motifs[name].share
    return NOT_KNOWN if share is None else share


def _counts(found: Found) -> Table:
    def row(name: str, told: str) -> Row:
        def count(c: Characterization) -> Cell:
            known = c.motifs.motifs[name].count
            return NOT_KNOWN if known is None else known

        return Row(told, count)

    return compare("Motifs: how often they are seen", found, [row(name, told) for name, told in MOTIF_NAMES.items()])


def _figures(found: Found) -> Figures:
    long = _of_sessions(
        *("calls-per-session", "Calls per session", "calls in the session", "How long are sessions?"),
        *(found, lambda c: c.shapes.calls_per_session),
    )
    deep = _of_sessions(
        *("depth", "Depth", "calls on the longest path", "How much cannot be done in parallel?"),
        *(found, lambda c: c.shapes.depth),
    )
    wide = _of_sessions(
        *("width", "Width", "calls at one depth, at most", "How many calls could run side by side?"),
        *(found, lambda c: c.shapes.width),
    )
    tasks = amounts("calls in the task", "", found, per_task)
    what = "What does one human message set off?"
    expansion = cdf("calls-per-task", "Calls per task", tasks, found, per_task, share="tasks", question=what)
    lengths = amounts("calls of the subagent", "", found, per_subagent)
    what = "How long are child sessions?"
    children = cdf(
        "calls-per-subagent", "Calls per subagent", lengths, found, per_subagent, share="subagents", question=what
    )
    return (*long, *expansion, *deep, *wide, *children)


def per_task(c: Characterization) -> Distribution:
    """Calls of each task."""
    return c.shapes.calls_per_task


def per_subagent(c: Characterization) -> Distribution:
    """Calls of each subagent."""
    return c.shapes.calls_per_subagent


def _of_sessions(key: str, title: str, label: str, question: str, found: Found, of: Sample) -> Figures:
    return cdf(key, title, amounts(label, "", found, of), found, of, question=question)


def _motif_figure(found: Found) -> Figures:
    def row(name: str, told: str) -> Row:
        return Row(told, lambda c: c.motifs.motifs[name].share)

    return grouped(
        "motifs",
        "Motifs",
        found,
        Axis("motif"),
        Axis("share of sessions that show it", "share"),
        [row(name, told) for name, told in MOTIF_NAMES.items()],
        question="Which shapes return?",
        note="Share of the sessions that show each motif at least once; the rules are in the table.",
    )
