"""How sessions and calls arrive: rates, bursts, hours of the day."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.arrivals import Process
from workloom.model.distribution import Distribution
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import Figures, cdf, tidy
from workloom.report.study.words import Found, lead, listed, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell, duration

COARSE = 0.05
"""Share of gaps of 0 from which on the clock is told to be coarse."""
FEWEST = 3
"""Arrivals below which nothing is drawn."""


def section(found: Found) -> Section:
    """How sessions and calls arrive."""
    return Section(
        "arrivals",
        "Arrivals",
        lead(_rates(found), _no_clock(found), _few(found), _within(found), _coarse(found)),
        (*_processes(found), *_gaps(found)),
        (*_dispersion(found), *_hours(found), *_gap_figure(found)),
    )


def process(c: Characterization, what: str) -> Process | None:
    """The arrivals of sessions or calls, where they are on one clock and enough to say something."""
    told = c.arrivals.sessions if what == "sessions" else c.arrivals.calls
    return told if told is not None and told.arrivals >= FEWEST and told.span_s > 0 else None


def _no_clock(found: Found) -> str:
    missing = [c.label for c in found if not c.arrivals.common_clock]
    if not missing:
        return ""
    where = "" if len(found) == 1 else f" in {listed(missing)}"
    return f"When sessions arrive is not known{where}, for want of a common clock: only gaps within sessions are."


def _few(found: Found) -> str:
    few = [c.label for c in found if c.arrivals.common_clock and process(c, "sessions") is None]
    return (
        "" if not few else f"Too few sessions to tell how they arrive{'' if len(found) == 1 else f': {listed(few)}'}."
    )


def _rates(found: Found) -> str:
    def gap_s(c: Characterization) -> float | None:
        told = process(c, "sessions")
        return None if told is None else told.gap_s.mean

    def cv(c: Characterization) -> float | None:
        told = process(c, "sessions")
        return None if told is None else told.gap_cv

    return lead(
        say("On average a session arrives every ", side(found, gap_s, "s"), "."),
        say("The cv of the gaps between sessions (1 for a Poisson process) is ", side(found, cv), "."),
    )


def _within(found: Found) -> str:
    median = side(found, lambda c: c.arrivals.within_sessions.gap_s.p50, "s")
    cv = side(found, lambda c: c.arrivals.within_sessions.gap_cv)
    return say("Within a session the median gap between calls is ", median, "; the cv of these gaps is ", cv, ".")


def told_from_s(c: Characterization) -> float:
    """The shortest gap or window that shows the load; shorter ones show the ticks of a coarse clock.

    Starts of sessions tell it: calls of one session may well start at once.
    """
    p = process(c, "sessions")
    if p is None or p.least_gap_s is None or (p.zero_gaps or 0.0) < COARSE:
        return 0.0
    return 10 * p.least_gap_s


def _coarse(found: Found) -> str:
    told = []
    for c in found:
        p = process(c, "sessions")
        if p is not None and told_from_s(c):
            share, least = said(p.zero_gaps or 0.0, "share"), duration(p.least_gap_s or 0.0)
            told.append(
                f"The clock of {c.label} is coarse: {share} of the gaps between sessions are 0 and the next is "
                f"{least}, so gaps and windows under {duration(told_from_s(c))} show the clock, not the load."
            )
    return " ".join(told)


def _processes(found: Found) -> tuple[Table, ...]:
    columns = [
        *(Column("arrivals of", align="left"), Column("count"), Column("span", "s"), Column("per s")),
        *(
            Column("gap, mean", "s"),
            Column("gap, p50", "s"),
            Column("gap, p99", "s"),
            Column("cv"),
            Column("burstiness"),
        ),
        *(Column("gaps of 0", "share"), Column("least gap", "s")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for what in ("sessions", "calls"):
            p = process(c, what)
            if p is not None:
                gaps = (p.gap_s.mean, p.gap_s.p50, p.gap_s.p99, p.gap_cv, p.burstiness)
                yield (what, p.arrivals, p.span_s, p.rate_per_s, *gaps, p.zero_gaps, p.least_gap_s)

    note = (
        "Cv: standard deviation / mean of the gaps. Burstiness: (cv - 1) / (cv + 1): -1 for a steady beat, 0 for a "
        "Poisson process, towards 1 in bursts (Goh and Barabasi 2008)."
    )
    return tidy("Arrivals", found, columns, rows, note)


def numbers(found: Found) -> tuple[Table, ...]:
    """Counts in windows of every length."""
    columns = [
        *(Column("arrivals of", align="left"), Column("window", "s"), Column("windows")),
        *(Column("IDC"), Column("fullest / mean")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for what in ("sessions", "calls"):
            told = process(c, what)
            for count in () if told is None else told.counts:
                yield what, count.window_s, count.windows, count.idc, count.peak_to_mean

    note = "IDC: variance / mean of the counts in windows: 1 for a Poisson process, more in bursts."
    return tidy("Counts in windows", found, columns, rows, note)


def _gaps(found: Found) -> tuple[Table, ...]:
    columns = [
        *(Column("sessions with two calls or more"), Column("gap, p50", "s"), Column("gap, p90", "s")),
        *(Column("gap, p99", "s"), Column("cv"), Column("burstiness"), Column("cv of a session, p50")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        w = c.arrivals.within_sessions
        if w.sessions:
            yield w.sessions, w.gap_s.p50, w.gap_s.p90, w.gap_s.p99, w.gap_cv, w.burstiness, w.cv_per_session.p50

    note = "Between the starts of consecutive calls of a session. Pooled gaps mix slow sessions and fast ones."
    return tidy("Calls within sessions", found, columns, rows, note)


def _dispersion(found: Found) -> Figures:
    if len(found) == 1:
        lines = tuple(_idc(found[0], what, what) for what in ("sessions", "calls"))
        return _idc_figure("idc", "Burstiness by window", lines)
    sessions = tuple(_idc(c, "sessions", c.label) for c in found)
    calls = tuple(_idc(c, "calls", c.label) for c in found)
    return (
        *_idc_figure("idc-sessions", "Burstiness of sessions by window", sessions),
        *_idc_figure("idc-calls", "Burstiness of calls by window", calls),
    )


def _idc(c: Characterization, what: str, name: str) -> Series:
    p = process(c, what)
    counts = [] if p is None else [count for count in p.counts if count.window_s >= told_from_s(c)]
    return Series(name, tuple(count.window_s for count in counts), tuple(count.idc for count in counts))


def _idc_figure(key: str, title: str, lines: tuple[Series, ...]) -> Figures:
    if all(len(line.x) < 2 for line in lines):
        return ()
    x, y = Axis("length of the window", "s", log=True), Axis("index of dispersion (IDC)", log=True)
    note = (
        "Variance / mean of the arrivals per window. 1 is a Poisson process; a line that rises shows bursts. Windows "
        "too short for the clock of a trace are left out."
    )
    return (Figure(key, title, "line", x, y, lines, note, "At which scale is the load bursty?"),)


def _hours(found: Found) -> Figures:
    told = [c for c in found if (p := process(c, "calls")) is not None and p.hours is not None]
    if not told:
        return ()
    hours = tuple(float(hour) for hour in range(24))
    series = tuple(
        Series(c.label, hours, p.hours) if (p := process(c, "calls")) is not None and p.hours else Series(c.label)
        for c in found
    )
    y = Axis("share of calls", "share")
    note = "Calls by the hour in which they started, UTC. Only traces that tell dates and span a day or more."
    what = "When are people at work?"
    return (Figure("hours", "Hours of the day", "bar", Axis("hour of the day (UTC)"), y, series, note, what),)


def _gap_figure(found: Found) -> Figures:
    def gap_s(c: Characterization) -> Distribution:
        return c.arrivals.within_sessions.gap_s

    x = Axis("from the start of a call to that of the next", "s", log=True)
    what = "At what pace does one session call?"
    return cdf("gaps", "Gaps between calls of a session", x, found, gap_s, share="gaps", question=what)
