"""The workflow: what pattern sessions follow, and how roles follow each other."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.automaton import END, PRUNED, START
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import Figures, tidy
from workloom.report.study.words import Found, each, lead, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

ROLES = 12
"""Roles that a heat map shows, those with most calls."""


def section(found: Found) -> Section:
    """What pattern sessions follow."""
    how = "Numbers are calls, p10 and p90 over the sessions; a bracket repeats." if any(map(_pattern, found)) else ""
    head = "The commonest pattern is " if len(found) == 1 else "The commonest patterns are "
    return Section(
        "workflow",
        "Workflow",
        lead(say(head, each(found, _pattern), "."), how, _loops(found)),
        _patterns(found),
        tuple(figure for place, c in enumerate(found) for figure in _heat(c, place, len(found) > 1)),
    )


def _pattern(c: Characterization) -> str:
    told = c.workflow.workflow
    return "" if told is None else f"{told.text} ({said(told.share, 'share')} of the sessions)"


def _loops(found: Found) -> str:
    """Of traces with one role, how often a call leads to another: a heat map would have one cell."""

    def again(c: Characterization) -> float | None:
        role, *others = c.workflow.states
        return (
            None
            if others
            else sum(one.probability for one in c.workflow.transitions if one.source == one.target == role)
        )

    return say("With one role only, the share of calls that another follows is ", side(found, again, "share"), ".")


def _patterns(found: Found) -> tuple[Table, ...]:
    columns = [
        Column("pattern", align="left"),
        Column("sessions"),
        Column("of all", "share"),
        Column("patterns in all"),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        first = () if c.workflow.workflow is None else (c.workflow.workflow,)
        for told in (*first, *c.workflow.alternatives):
            yield told.text, told.sessions, told.share, c.workflow.patterns

    note = (
        "main{7,151} -> Explore{6,48}: 7 to 151 calls of main (p10 and p90), then 6 to 48 of Explore, whose agents may "
        "run side by side. The pattern most sessions follow, and the next two."
    )
    return tidy("Patterns", found, columns, rows, note)


def numbers(found: Found) -> tuple[Table, ...]:
    """All transitions that are left."""
    columns = [
        Column("from", align="left"),
        Column("to", align="left"),
        Column("count"),
        Column("probability", "share"),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for one in c.workflow.transitions:
            yield one.source, one.target, one.count, one.probability

    return tidy("Transitions", found, columns, rows, " ".join(["Of all that leave a role.", pruned(found)]))


def pruned(found: Found) -> str:
    """What was left out."""
    share = each(found, lambda c: "" if c.workflow.pruned_share is None else said(c.workflow.pruned_share, "share"))
    return say(
        f"Transitions less likely than {said(PRUNED, 'share')} are left out; of all transitions that is ", share, "."
    )


def _heat(c: Characterization, place: int, several: bool) -> Figures:
    """From role to role, where there are several."""
    states = sorted(c.workflow.states, key=lambda role: -c.workflow.states[role])[:ROLES]
    if len(states) < 2:
        return ()
    likely = {(one.source, one.target): one.probability for one in c.workflow.transitions}
    targets = (*states, END)
    series = tuple(
        Series(source, targets, tuple(likely.get((source, to)) for to in targets)) for source in (START, *states)
    )
    cut = "" if len(c.workflow.states) <= ROLES else f" The {ROLES} roles with most calls."
    return (
        Figure(
            f"automaton-{place}",
            f"From role to role{f': {c.label}' if several else ''}",
            "heat",
            Axis("to"),
            Axis("from"),
            series,
            f"Probability that an edge from a call of one role leads to another. {pruned([c])}{cut}",
            "Who follows whom?",
            Axis("probability", "share"),
            wide=len(states) > 4,
        ),
    )
