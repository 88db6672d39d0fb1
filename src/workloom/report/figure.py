"""What a chart shows, as plain data: the page draws it, a table tells it in numbers, JSON keeps it.

line, step      y over x                                       bar      y of each category x, series side by side
cdf             share y of values that are at most x           stack    the same, series on end
band            a line with what lies between low and high     heat     a series is a row, x its columns, y the shade
dots            points, with error bars where low and high are given
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

from msgspec import Struct

Kind = Literal["line", "step", "cdf", "bar", "stack", "band", "heat", "dots"]
Numbers = tuple[float | None, ...]

CATEGORICAL = ("bar", "stack", "heat")
"""Kinds whose x may be names. Bars of names lie, so that long names can be read; bars over numbers stand."""


class Axis(Struct, frozen=True):
    """What is measured and in which unit: ``s`` is shown as durations, ``share`` (of 1) as percent.

    `log`: for values over several powers of ten. `zero`: the axis takes in 0 unless it is logarithmic.
    """

    label: str
    unit: str = ""
    log: bool = False
    zero: bool = True


class Series(Struct, frozen=True):
    """Points of one name, in the order they are joined. None in y is a gap; so are NaN and infinity.

    `low`, `high`: of y, for bands and error bars; `x_low`, `x_high`: of x, for dots. `labels`: a name per dot, `pale`:
    whether it stands back.
    A figure's series have their colours by place: one without numbers should keep its place.
    """

    name: str
    x: tuple[float | str, ...] = ()
    y: Numbers = ()
    low: Numbers | None = None
    high: Numbers | None = None
    x_low: Numbers | None = None
    x_high: Numbers | None = None
    labels: tuple[str, ...] | None = None
    pale: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in (("y", self.y), *self.extras, ("pale", self.pale or self.x)):
            if len(values) != len(self.x):
                raise ValueError(f"series {self.name}: {len(self.x)} of x, {len(values)} of {name}")

    @property
    def extras(self) -> list[tuple[str, tuple[float | str | None, ...]]]:
        """What is given besides x and y."""
        names = ("labels", "x_low", "x_high", "low", "high")
        return [(name, values) for name in names if (values := getattr(self, name)) is not None]


class Figure(Struct, frozen=True):
    """A chart. `key` names it in its section; `question`: what it answers; `note`: what one sees in it.

    `value`: of a heat map, what the shade means; its y axis then says what the rows are. `wide`: it takes the whole
    width of the page. `front`: of dots, the corners of a line behind them, as (x, y).
    """

    key: str
    title: str
    kind: Kind
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""
    question: str = ""
    value: Axis | None = None
    wide: bool = False
    front: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "heat" and self.value is None:
            raise ValueError(f"figure {self.key}: a heat map needs an axis for its values")
        if self.kind not in CATEGORICAL and any(isinstance(x, str) for series in self.series for x in series.x):
            raise ValueError(f"figure {self.key}: a name on the x axis of a {self.kind}")

    @property
    def measured(self) -> Axis:
        """The axis of y's numbers."""
        return self.value or self.y

    def off_the_scale(self) -> int:
        """Values that a logarithmic axis cannot show. A cdf counts them at its left edge, a heat map as the least."""
        xs: Iterator[object] = chain.from_iterable(s.x for s in self.series)
        ys: Iterator[object] = chain.from_iterable(s.y for s in self.series)
        shown = [] if not self.x.log or self.kind == "cdf" else list(xs)
        shown += list(ys) if self.y.log else []
        return sum(isinstance(value, (int, float)) and value <= 0 for value in shown)
