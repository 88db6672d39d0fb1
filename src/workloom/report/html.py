"""Tables and figures as HTML. Every text from outside goes through `escape`, every struct through `embed`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import msgspec

from workloom.report.figure import Figure
from workloom.report.table import Column, Table, numbers
from workloom.report.units import Cell, text

CSV_BUTTONS = (
    '<button type="button" data-csv="copy">Copy CSV</button><button type="button" data-csv="save">Save CSV</button>'
)
"""What they do is in page.js; without JavaScript they are not shown."""


def embed(value: object) -> str:
    """JSON that can stand inside a <script>: no character of it can end the element or begin a comment."""
    said = msgspec.json.encode(value).decode()
    for sign in "<>&\u2028\u2029":
        said = said.replace(sign, f"\\u{ord(sign):04x}")
    return said


def anchor(*keys: str) -> str:
    """An id for the elements of a section or figure."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-") for key in keys)


def figure_html(figure: Figure, id: str, place: int) -> str:
    """The frame that page.js draws in (figure `place` of those embedded), what it shows, and its numbers."""
    question = f'<p class="question">{escape(figure.question)}</p>' if figure.question else ""
    notes = [figure.note] if figure.note else []
    if lost := figure.off_the_scale():
        values = f"{lost:,} value{'s' if lost > 1 else ''}"
        notes.append(f"{values} of 0 or less cannot stand on a logarithmic axis; see the numbers.")
    caption = f"<figcaption>{escape(' '.join(notes))}</figcaption>" if notes else ""
    told = escape(f"{figure.title}. {figure.question}".strip())
    kind = "card wide" if figure.wide else "card"
    return (
        f'<article class="{kind}" id="{id}">\n<h3>{escape(figure.title)}</h3>{question}\n'
        f'<figure><div class="legend"></div><div class="chart" role="img" aria-label="{told}" data-figure="{place}">'
        f"</div>{caption}</figure>\n"
        f"<details><summary>Numbers</summary>{table_html(numbers(figure))}</details>\n</article>"
    )


def table_html(table: Table) -> str:
    """A table that scrolls sideways on its own where it is too wide."""
    head = "".join(_heading(column) for column in table.columns)
    body = "\n".join(_row(row, table.columns) for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><caption>{escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
        f'</table></div>{note}<p class="csv">{CSV_BUTTONS}</p></div>'
    )


def _heading(column: Column) -> str:
    shown, plain = escape(column.heading), escape(column.plain_heading)
    data = f' data-plain="{plain}"' if plain != shown else ""
    return f'<th scope="col" class="{column.align}"{data}>{shown}</th>'


def _row(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    cells = [_cell(cell, column) for cell, column in zip(row, columns, strict=True)]
    first = f'<th scope="row" class="{columns[0].align}">{cells[0]}</th>' if cells else ""
    rest = "".join(
        f'<td class="{column.align}">{cell}</td>' for cell, column in zip(cells[1:], columns[1:], strict=True)
    )
    return f"<tr>{first}{rest}</tr>"


def _cell(cell: Cell, column: Column) -> str:
    """What one reads; where that is rounded, the number itself is its value."""
    shown = escape(text(cell, column.unit))
    if cell is None:
        return f'<data value="">{shown}</data>'
    plain = shown if isinstance(cell, str) else float.__repr__(cell) if isinstance(cell, float) else str(cell)
    return shown if plain == shown else f'<data value="{plain}">{shown}</data>'
