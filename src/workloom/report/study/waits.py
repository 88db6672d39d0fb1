"""How long calls wait: for tools, people and agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from workloom.answers.characterize import Characterization
from workloom.model.distribution import Distribution
from workloom.model.waits import LIMITS_S, Waited
from workloom.report.figure import Axis, Figure
from workloom.report.page import Section
from workloom.report.study.parts import Figures, cdf, curve, medians, tidy, worth
from workloom.report.study.words import Found, lead, listed, people, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell
from workloom.session import Gap

GAPS: tuple[Gap, ...] = get_args(Gap)
GAP_NAMES: dict[Gap, str] = {
    "tool": "tools",
    "human": "people",
    "spawn": "spawning",
    "network": "network",
    "orchestration": "orchestration",
    "none": "not told",
}
WAIT = Axis("wait", "s", log=True)


def section(found: Found) -> Section:
    """How long calls wait."""
    return Section(
        "waits",
        "Waits",
        lead(_told(found, "tool", "for tools"), _told(found, "human", "for people"), _silent(found), people(found)),
        _table(found),
        _figures(found),
    )


def waited(c: Characterization, gap: Gap) -> Waited | None:
    """The waits of one kind."""
    return c.waits.by_gap.get(gap)


def _told(found: Found, gap: Gap, what: str) -> str:
    """How long waits of one kind are."""

    def quantile(name: str) -> str:
        def of(c: Characterization) -> float | None:
            told = waited(c, gap)
            return None if told is None else getattr(told.wait_s, name)

        return side(found, of, "s")

    if len(found) > 1:
        return say(f"The median wait {what} is ", quantile("p50"), ".")
    most = say("; nine in ten are at most ", quantile("p90"), ", the longest is ", quantile("max"))
    return say(f"The median wait {what} is ", quantile("p50"), most, ".")


def _silent(found: Found) -> str:
    """Traces in which nothing waits, or which do not tell for what."""

    def labels(some: list[Characterization]) -> str:
        return f" in {listed([c.label for c in some])}" if len(found) > 1 else ""

    none = [c for c in found if not c.waits.all.count]
    mute = [c for c in found if set(c.waits.by_gap) == {"none"}]
    return lead(
        f"No call waits for another{labels(none)}." if none else "",
        f"What calls wait for is not told{labels(mute)}." if mute else "",
    )


def _table(found: Found) -> tuple[Table, ...]:
    names = ("mean", "p10", "p50", "p90", "p99", "max", "in all")
    columns = [Column("wait for", align="left"), Column("waits"), *(Column(name, "s") for name in names)]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for name, told in _kinds(c):
            d = told.wait_s
            yield name, told.count, d.mean, d.p10, d.p50, d.p90, d.p99, d.max, told.total_s

    note = "Of each call with edges the longest wait, as the trace tells it, without a cap."
    return tidy("Waits by kind", found, columns, rows, note)


def numbers(found: Found) -> tuple[Table, ...]:
    """Shares of short waits."""
    limits = (f"under {limit:g} s" if limit < 60 else f"under {limit / 60:g} min" for limit in LIMITS_S)
    columns = [Column("wait for", align="left"), *(Column(name, "share") for name in limits)]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for name, told in _kinds(c):
            yield (name, *told.under)

    return tidy("Short waits", found, columns, rows)


def _kinds(c: Characterization) -> Iterator[tuple[str, Waited]]:
    for gap in GAPS:
        if (told := waited(c, gap)) is not None:
            yield GAP_NAMES[gap], told
    if len(c.waits.by_gap) > 1:
        yield "all", c.waits.all


def _figures(found: Found) -> Figures:
    if len(found) == 1:
        return _of_one(found[0])
    every: list[Figure] = []
    for gap in GAPS:

        def of(c: Characterization, gap: Gap = gap) -> Distribution | None:
            return told.wait_s if (told := waited(c, gap)) is not None else None

        title = f"Waits: {GAP_NAMES[gap]}"
        every += cdf(f"wait-{gap}", title, WAIT, found, of, share="waits", question="How long do calls wait?")
    return tuple(every)


def _of_one(c: Characterization) -> Figures:
    """All kinds in one chart."""
    told = {GAP_NAMES[gap]: w.wait_s for gap in GAPS if (w := waited(c, gap)) is not None and worth(w.wait_s)}
    if not told:
        return ()
    series = tuple(curve(d, name) for name, d in told.items())
    note = f"{medians(told, 's')} Values of 0 count at the left edge."
    y = Axis("share of waits", "share")
    return (Figure("waits", "Waits by kind", "cdf", WAIT, y, series, note, "How long do calls wait?"),)
