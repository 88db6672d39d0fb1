"""Figures with their intervals as tables of a terminal, and as rows of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workloom.metrics.catalog import Metric
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import figure
from workloom.metrics.groups import Group
from workloom.metrics.text import between, quantity

COLUMNS = ("figure", "value", "low", "high", "unit", "level", "values", "sessions", "effective", "censored", "why")


def about(estimate: Estimate) -> Metric:
    """The metric that an estimate is of."""
    return figure(estimate.figure).about


def interval(estimate: Estimate) -> str:
    """Its interval in words; empty where it has none."""
    return between(estimate.low, estimate.high, about(estimate).unit)


def table(estimates: Sequence[Estimate], title: str = "", *, values: bool = True) -> Table:
    """Figures below one another, with interval, number of values and of sessions; or why there is none.

    Without the number of `values` most of them fit into 80 columns unbroken.
    """
    level = f"{100 * estimates[0].level:g} %" if estimates else "95 %"
    out = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0)
    out.show_edge = False
    out.add_column("figure", no_wrap=True)
    out.add_column("value", justify="right", no_wrap=True)
    out.add_column(f"{level} interval")
    if values:
        out.add_column("values", justify="right", no_wrap=True)
    out.add_column("sessions", justify="right", no_wrap=True)
    few = _too_few(estimates)
    if few:
        out.caption = Text(few, style="yellow")
        out.caption_justify = "left"
    for estimate in estimates:
        said = Text(interval(estimate))
        if few and _FEW.fullmatch(estimate.why):
            said = Text("–", style="yellow")
        elif estimate.why:
            said = Text(estimate.why, style="yellow") if not said.plain else said.append(f"; {estimate.why}", "yellow")
        behind = f"{estimate.values:,}" + (f" (+{estimate.censored:,})" if estimate.censored else "")
        value = quantity(estimate.value, about(estimate).unit)
        counts = (behind, f"{estimate.sessions:,}") if values else (f"{estimate.sessions:,}",)
        out.add_row(Text(estimate.figure), value, said, *counts)
    return out


_FEW = re.compile(r"not enough data: (?P<have>[0-9]+ sessions?), (?P<needed>[0-9]+) needed for (?P<what>.*)")


def _too_few(estimates: Sequence[Estimate]) -> str:
    """One sentence instead of many where sessions are too few for several figures; empty where they are not."""
    found = [match for estimate in estimates if (match := _FEW.fullmatch(estimate.why))]
    if len(found) < 3:
        return ""
    by: dict[int, dict[str, None]] = {}
    for match in found:
        by.setdefault(int(match["needed"]), {})[match["what"]] = None
    needed = "; ".join(f"{count} needed for {', '.join(by[count])}" for count in sorted(by))
    return f"–: not enough data: {found[0]['have']}; {needed}"


def breakdown_table(by: str, groups: Sequence[Group]) -> Table:
    """Kinds of calls below one another, a column for each figure, the interval under the value."""
    out = Table(title=f"by {by}", title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    out.show_edge = False
    out.add_column(by, no_wrap=True)
    out.add_column("calls", justify="right", no_wrap=True)
    for estimate in groups[0].estimates if groups else ():
        out.add_column(figure(estimate.figure).say(), justify="right")
    for group in groups:
        cells = [_cell(estimate) for estimate in group.estimates]
        out.add_row(Text(group.kind or "(none)"), f"{group.calls:,}", *cells)
    return out


def _cell(estimate: Estimate) -> Text:
    value = Text(quantity(estimate.value, about(estimate).unit))
    said = interval(estimate)
    return value.append(f"\n{said}" if said else "\nnot enough data", "dim")


def row(estimate: Estimate) -> list[str]:
    """One estimate as cells of CSV, in the order of COLUMNS; numbers in the metric's own unit, empty where none is."""
    e = estimate
    cells = (e.figure, e.value, e.low, e.high, about(e).unit, e.level, e.values, e.sessions, e.effective, e.censored)
    return ["" if cell is None else str(cell) for cell in (*cells, e.why)]
