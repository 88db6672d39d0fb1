"""How contexts grow over a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workloom.answers.characterize import Characterization
from workloom.model.context import Point
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import Figures, Measure, spread, tidy
from workloom.report.study.words import Found, lead, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

FEWEST = 5
"""Sessions below which a point is left out, where the trace has that many."""


def section(found: Found) -> Section:
    """How contexts grow."""
    return Section(
        "context",
        "Growth of contexts",
        lead(_ends(found), _kept(found)),
        _points(found),
        (*_by_number(found), *_by_position(found)),
    )


def _ends(found: Found) -> str:
    def at(c: Characterization, place: int) -> float | None:
        points = c.context.by_position
        return points[place].p50 if points else None

    first, last = (
        side(found, lambda c: at(c, 0), "tokens", "token"),
        side(found, lambda c: at(c, -1), "tokens", "token"),
    )
    if len(found) == 1:
        return say("The median main context begins with ", first, " and ends with ", last, ".")
    return say("The median main context begins with ", first, ". It ends with ", last, ".")


def _kept(found: Found) -> str:
    share = side(found, lambda c: c.context.overlap.kept_all, "share")
    return say("The share of calls that keep all of the prompt they go on from is ", share, ".")


def _points(found: Found) -> tuple[Table, ...]:
    columns = [Column("place in the session", "share"), *map(Column, ("sessions", "p10", "p50", "p90"))]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for point in c.context.by_position[::5]:
            yield point.at, point.sessions, point.p10, point.p50, point.p90

    note = "Prompt tokens of the main context: the agent of the first call. All places are in the numbers of the chart."
    return tidy("Main context", found, columns, rows, note)


def numbers(found: Found) -> tuple[Table, ...]:
    """How many calls the main context has."""
    return spread("Length of the main context", found, [Measure("calls per session", lambda c: c.context.main_calls)])


def _by_number(found: Found) -> Figures:
    series = tuple(_band(c.label, _enough(c.context.by_number)) for c in found)
    if all(len(line.x) < 2 for line in series):
        return ()
    note = (
        "Median, with p10 to p90 around it. The further to the right, the fewer sessions are left, and these are the "
        f"long ones; where fewer than {FEWEST} are left nothing is shown."
    )
    x = Axis("call of the main context, by number", log=True)
    what = "How does the context grow?"
    return (Figure("by-number", "Context by call number", "band", x, _prompt(series), series, note, what),)


def _enough(points: Sequence[Point]) -> Sequence[Point]:
    fewest = min(FEWEST, points[0].sessions) if points else 0
    return [point for point in points if point.sessions >= fewest]


def _by_position(found: Found) -> Figures:
    series = tuple(_band(c.label, c.context.by_position) for c in found)
    if not any(line.x for line in series):
        return ()
    note = "Median, with p10 to p90 around it, over the same sessions everywhere: those with two calls or more."
    x = Axis("place in the session", "share")
    what = "And from the first call to the last?"
    return (Figure("by-position", "Context by place in the session", "band", x, _prompt(series), series, note, what),)


def _prompt(series: Sequence[Series]) -> Axis:
    """Logarithmic where contexts of very different sizes stand in one chart."""
    values = [value for line in series for value in (*(line.low or ()), *(line.high or ())) if value]
    return Axis("prompt", "tokens", log=max(values) > 30 * min(values))


def _band(name: str, points: Sequence[Point]) -> Series:
    return Series(
        name,
        tuple(point.at for point in points),
        tuple(point.p50 for point in points),
        tuple(point.p10 for point in points),
        tuple(point.p90 for point in points),
    )
