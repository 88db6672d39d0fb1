"""What all sections are made of: tables with a column per trace, tables of distributions, curves of distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from workloom.answers.characterize import Characterization
from workloom.model.distribution import SHARES, Distribution
from workloom.report.figure import Axis, Figure, Series
from workloom.report.study.words import Found, listed, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell, text

NOT_KNOWN = "not known"
FEWEST = 5
"""Values below which a distribution is no curve."""
Figures = tuple[Figure, ...]
Sample = Callable[[Characterization], Distribution | None]


class Row(NamedTuple):
    """A line of a table with a column per trace."""

    name: str
    value: Callable[[Characterization], Cell]
    unit: str = ""


class Measure(NamedTuple):
    """What a distribution is of."""

    name: str
    of: Sample


def compare(title: str, found: Found, rows: Iterable[Row], *, first: str = "", note: str = "") -> Table:
    """A column per trace; rows that no trace knows are left out.

    Rows of one unit stand as numbers, of several units as words.
    """
    every = [(row, [row.value(c) for c in found]) for row in rows]
    kept = [(row, cells) for row, cells in every if any(cell is not None for cell in cells)]
    units = {row.unit for row, _ in kept}
    unit = units.pop() if len(units) == 1 else None
    columns = [Column(first, align="left"), *(Column(c.label, unit if unit in ("s", "share") else "") for c in found)]
    lines = [
        (row.name, *(cells if unit is not None else [text(cell, row.unit) for cell in cells])) for row, cells in kept
    ]
    return Table(title, tuple(columns), tuple(lines), note)


def spread(
    title: str, found: Found, measures: Sequence[Measure], unit: str = "", *, first: str = "", note: str = ""
) -> tuple[Table, ...]:
    """Distributions in numbers, a row per measure and trace; none if nothing was measured."""
    several = len(found) > 1
    rows: list[tuple[Cell, ...]] = []
    for measure in measures:
        for c in found:
            d = measure.of(c)
            if d is not None and d.n:
                names = (measure.name, c.label) if several else (measure.name,)
                rows.append((*names, d.n, d.mean, d.p10, d.p50, d.p90, d.p99, d.max))
    if not rows:
        return ()
    heads = [Column(first, align="left"), *([Column("trace", align="left")] if several else [])]
    numbers = [
        Column(name, unit if unit in ("s", "share") else "") for name in ("mean", "p10", "p50", "p90", "p99", "max")
    ]
    return (Table(title, (*heads, Column("n"), *numbers), tuple(rows), note),)


def tidy(
    title: str,
    found: Found,
    columns: Sequence[Column],
    rows: Callable[[Characterization], Iterable[tuple[Cell, ...]]],
    note: str = "",
) -> tuple[Table, ...]:
    """Rows of every trace under one another, with its name before them where there are several; none without rows."""
    several = len(found) > 1
    every = [(c.label, *row) if several else row for c in found for row in rows(c)]
    names = (Column("trace", align="left"),) if several else ()
    return (Table(title, (*names, *columns), tuple(every), note),) if every else ()


def curve(d: Distribution | None, name: str) -> Series:
    """The cdf of a distribution; a series without numbers where there is none, or too little for a curve."""
    return Series(name) if d is None or not d.n or few(d) else Series(name, d.quantiles, SHARES)


def few(d: Distribution) -> bool:
    """Whether the values are too few for a curve. If all are equal their step is the truth."""
    return d.n < FEWEST and d.quantiles[0] != d.quantiles[-1]


def cdf(
    key: str,
    title: str,
    x: Axis,
    found: Found,
    of: Sample,
    *,
    share: str = "sessions",
    question: str = "",
    note: str = "",
) -> Figures:
    """The distributions of all traces in one chart; no chart if none of them is a curve."""
    known = [d for c in found if (d := of(c)) is not None]
    if not any(worth(d) for d in known):
        return ()
    zeros = "Values of 0 count at the left edge." if x.log and any(d.quantiles[:1] == (0.0,) for d in known) else ""
    told = " ".join(filter(None, (halves(found, of, x.unit), note, zeros, _too_few(found, of))))
    series = tuple(curve(of(c), c.label) for c in found)
    return (Figure(key, title, "cdf", x, Axis(f"share of {share}", "share"), series, told, question),)


def _too_few(found: Found, of: Sample) -> str:
    labels = [c.label for c in found if (d := of(c)) is not None and d.n and few(d)]
    return f"Too few values for a curve: {listed(labels)}." if labels else ""


def worth(d: Distribution) -> bool:
    """Whether there is something to see: some values, and not all of them equal."""
    return d.n >= FEWEST and d.quantiles[0] != d.quantiles[-1]


def halves(found: Found, of: Sample, unit: str) -> str:
    """What a cdf shows, in words."""

    def quantile(name: str) -> str:
        return side(found, lambda c: getattr(d, name) if (d := of(c)) is not None else None, unit)

    if len(found) == 1:
        half, most, end = quantile("p50"), quantile("p90"), quantile("max")
        return say("Half are at most ", half, ", nine in ten at most ", most, "; the largest is ", end, ".")
    return say("Medians: ", quantile("p50"), ".")


def medians(told: dict[str, Distribution], unit: str) -> str:
    """The medians of several distributions, in words."""
    return f"Medians: {listed([f'{name} {said(d.p50, unit)}' for name, d in told.items() if d.p50 is not None])}."


def amounts(label: str, unit: str, found: Found, of: Sample) -> Axis:
    """An axis for values that are not negative: logarithmic if they range over more than 30 times."""
    known = [d for c in found if (d := of(c)) is not None and d.n]
    positive = [value for d in known for value in d.quantiles if value > 0]
    return Axis(label, unit, log=bool(positive) and max(positive) > 30 * min(positive))


def grouped(
    key: str,
    title: str,
    found: Found,
    names: Axis,
    y: Axis,
    rows: Sequence[Row],
    *,
    question: str = "",
    note: str = "",
) -> Figures:
    """A bar per name and trace, by rows that some trace knows and that is not 0 in all; no chart without one."""
    kept = [row for row in rows if any(row.value(c) for c in found)]
    if not kept:
        return ()
    labels = tuple(row.name for row in kept)
    series = tuple(Series(c.label, labels, tuple(_number(row.value(c)) for row in kept)) for c in found)
    return (Figure(key, title, "bar", names, y, series, note, question, wide=len(found) > 2),)


def _number(cell: Cell) -> float | None:
    return None if isinstance(cell, str) else cell
