"""How many calls and sessions are in flight at once."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.concurrency import Levels
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import Figures, Measure, spread, tidy
from workloom.report.study.words import Found, lead, listed, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell


def section(found: Found) -> Section:
    """What is in flight at once."""
    return Section(
        "concurrency",
        "Concurrency",
        lead(_at_once(found), _in_session(found), _no_clock(found)),
        _levels(found),
        tuple(figure for place, c in enumerate(found) for figure in _over_time(c, place)),
    )


def _at_once(found: Found) -> str:
    mean = side(found, lambda c: None if c.concurrency.calls is None else c.concurrency.calls.mean)
    most = side(found, lambda c: None if c.concurrency.calls is None else c.concurrency.calls.max)
    return say("On average ", mean, " calls are in flight at the recorded times, at most ", most, ".")


def _in_session(found: Found) -> str:
    busy = side(found, lambda c: c.concurrency.within_sessions.busy, "share")
    several = side(found, lambda c: c.concurrency.within_sessions.several, "share")
    return say("Share of a session's time with a call in flight: ", busy, "; with two or more: ", several, ".")


def _no_clock(found: Found) -> str:
    missing = [c.label for c in found if not c.concurrency.common_clock]
    if not missing:
        return ""
    where = "" if len(found) == 1 else f" in {listed(missing)}"
    return f"How many sessions ran at once is not known{where}, for want of a common clock."


def _levels(found: Found) -> tuple[Table, ...]:
    columns = [
        *(Column("in flight", align="left"), Column("over", "s"), Column("mean"), Column("mean while any")),
        *(Column("any", "share"), Column("two or more", "share"), Column("p50"), Column("p90"), Column("p99")),
        Column("max"),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        told = c.concurrency
        for name, levels in (
            ("sessions", told.sessions),
            ("calls", told.calls),
            ("calls of one session", told.within_sessions),
        ):
            if levels is not None and levels.mean is not None:
                yield name, *_level(levels)

    note = (
        "Weighted by time: from the first start to the last end, of the trace or of all its sessions one after "
        "another. Ends that the trace does not tell are assumed."
    )
    return tidy("In flight at once", found, columns, rows, note)


def _level(told: Levels) -> tuple[Cell, ...]:
    return (told.seconds, told.mean, told.mean_busy, told.busy, told.several, told.p50, told.p90, told.p99, told.max)


def numbers(found: Found) -> tuple[Table, ...]:
    """The most calls of a session at once."""
    most = [Measure("calls at once, the most of a session", lambda c: c.concurrency.most_per_session)]
    return spread("Per session", found, most)


def _assumed(c: Characterization) -> str:
    return "" if c.timing.timed_share == 1 else " Where the trace does not tell the ends of calls they are assumed."


def _over_time(c: Characterization, place: int) -> Figures:
    told = c.concurrency.over_time
    if told is None:
        return ()
    at = tuple(index * told.bin_s for index in range(len(told.calls) + 1))
    sessions, calls = (*told.sessions, told.sessions[-1]), (*told.calls, told.calls[-1])  # the last step has an end
    series = (Series("sessions", at, sessions), Series("calls", at, calls))
    x, y = Axis("time of the trace", "s"), Axis("in flight")
    note = f"Mean numbers in {len(told.calls)} equal stretches of {said(told.bin_s, 's')}.{_assumed(c)}"
    title = f"In flight over time: {c.label}"
    return (Figure(f"time-{place}", title, "step", x, y, series, note, "How does the load move?", wide=True),)
