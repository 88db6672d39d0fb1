"""A table as plain data, and the table of a figure's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from workloom.report.figure import Axis, Figure, Series
from workloom.report.units import Cell, heading, plain_heading


class Column(Struct, frozen=True):
    """A heading and the unit of the numbers under it (see :mod:`workloom.report.units`); words stand left."""

    name: str
    unit: str = ""
    align: Literal["left", "right"] = "right"

    @property
    def heading(self) -> str:
        return heading(self.name, self.unit)

    @property
    def plain_heading(self) -> str:
        return plain_heading(self.name, self.unit)


class Table(Struct, frozen=True):
    """Rows of cells; the first column names the row."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title}: a row of {len(row)} cells, {len(self.columns)} columns")


def numbers(figure: Figure) -> Table:
    """The very numbers a figure draws: a column per series where all share x (a cdf: the shares), else one list."""
    plain = [series for series in figure.series if series.x]
    if any(series.extras for series in plain):
        return _list(figure)
    xs, ys = [series.x for series in plain], [series.y for series in plain]
    if len(set(ys)) == 1 and figure.kind == "cdf":
        return _side_by_side(figure, plain, figure.measured, figure.x, ys, xs)
    if len(set(xs)) == 1:
        return _side_by_side(figure, plain, figure.x, figure.measured, xs, ys)
    return _list(figure)


def _side_by_side(
    figure: Figure,
    series: Sequence[Series],
    shared: Axis,
    own: Axis,
    keys: Sequence[Sequence[Cell]],
    values: Sequence[Sequence[Cell]],
) -> Table:
    columns = [_column(shared, keys), *(Column(each.name, own.unit) for each in series)]
    return Table(f"{figure.title}: {own.label}", tuple(columns), tuple(zip(keys[0], *values, strict=True)))


def _list(figure: Figure) -> Table:
    x, y = figure.x, figure.measured
    axes = {"labels": Axis("label"), "x_low": x, "x_high": x, "low": y, "high": y}
    given = [name for name in axes if any(getattr(series, name) is not None for series in figure.series)]
    columns = [Column(figure.y.label if figure.kind == "heat" else "series", align="left")]
    columns += [_column(x, [series.x for series in figure.series]), _column(y)]
    for name in given:
        end = f", {name.removeprefix('x_')}"
        columns.append(Column("label", align="left") if name == "labels" else _column(axes[name], end=end))
    rows: list[tuple[Cell, ...]] = []
    for series in figure.series:
        extras, nothing = dict(series.extras), (None,) * len(series.x)
        names = (series.name,) * len(series.x)
        rows += zip(names, series.x, series.y, *(extras.get(name, nothing) for name in given), strict=True)
    return Table(figure.title, tuple(columns), tuple(rows))


def _column(axis: Axis, cells: Sequence[Sequence[Cell]] = (), end: str = "") -> Column:
    words = any(isinstance(cell, str) for part in cells for cell in part)
    return Column(axis.label + end, axis.unit, "left" if words else "right")
