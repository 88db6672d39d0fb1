"""The tables of a report on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from workloom.report.page import Section
from workloom.report.table import Table
from workloom.report.units import text


def print_tables(console: Console, sections: Iterable[Section]) -> None:
    """Every section's title, lead and tables. Names of a trace may hold brackets: nothing is read as markup."""
    for section in sections:
        console.print(Text(section.title, style="bold"))
        if section.lead:
            console.print(Text(section.lead))
        for table in section.tables:
            console.print(grid(table))
            if table.note:
                console.print(Text(table.note, style="dim"))
        console.print()


def grid(table: Table) -> Grid:
    out = Grid(title=Text(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for column in table.columns:
        out.add_column(Text(column.heading), justify=column.align, overflow="fold")
    for row in table.rows:
        out.add_row(*(Text(text(cell, column.unit)) for cell, column in zip(row, table.columns, strict=True)))
    return out
