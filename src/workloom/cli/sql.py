"""`workloom sql`."""

from __future__ import annotations

import csv as comma_separated
import json as javascript
import math
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workloom.answers.sql import Answer, query
from workloom.cli.wide import wide
from workloom.errors import UsageError
from workloom.report.units import text as readable

CELL = 48
"""Letters of a cell in a table, at most."""
NUMBERS = ("INT", "DOUBLE", "FLOAT", "DECIMAL", "HUGEINT")


def sql(words: list[str], json: bool, csv: bool, most: int) -> None:
    """The answer to a query about runs, to stdout. The last word is the query, or a file that ends in .sql."""
    if len(words) < 2:
        raise UsageError(
            "runs and a query are needed", expected='workloom sql RUN "select * from calls_s"', found=" ".join(words)
        )
    if json and csv:
        raise UsageError("an answer has one form", expected="--json or --csv", found="both")
    if most < 1:
        raise UsageError("an answer has at least one row", where="--rows", expected="1 or more", found=most)
    answer = query(words[:-1], _query(words[-1]))
    if json:
        _print_json(answer)
    elif csv:
        _print_csv(answer)
    else:
        _print_table(answer, most)


def _query(word: str) -> str:
    if not word.endswith(".sql"):
        return word
    try:
        return Path(word).read_text("utf-8")
    except OSError as fault:
        raise UsageError("the query's file cannot be read", where=word, found=fault.strerror) from fault


def _print_json(answer: Answer) -> None:
    """A list of objects, one a row; what JSON has no number for (an infinite one) is null."""
    names = [column.name for column in answer.columns]
    print("[", end="")
    for i, row in enumerate(answer.rows()):
        cells = {name: _plain(cell) for name, cell in zip(names, row, strict=True)}
        print(",\n " if i else "\n ", javascript.dumps(cells, ensure_ascii=False, default=str), sep="", end="")
    print("\n]")


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if isinstance(cell, list | tuple):
        return [_plain(each) for each in cell]
    return {name: _plain(each) for name, each in cell.items()} if isinstance(cell, dict) else cell


def _print_csv(answer: Answer) -> None:
    out = comma_separated.writer(sys.stdout, lineterminator="\n")
    out.writerow(column.name for column in answer.columns)
    out.writerows(answer.rows())


def _print_table(answer: Answer, most: int) -> None:
    """Rows to read, at most so many: how many there are in all is said."""
    rows = answer.rows()
    shown = list(islice(rows, most))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for column in answer.columns:
        right = any(word in column.kind for word in NUMBERS) and "[" not in column.kind
        table.add_column(Text(readable(column.name)), justify="right" if right else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    wide().print(table)
    more = _count(rows)
    if more:
        total = len(shown) + more
        print(f"{len(shown):,} of {total:,} rows; --rows {total} shows all, as --csv and --json do", file=sys.stderr)


def _cell(cell: Any) -> str:
    """As it is written in SQL, but numbers with six digits at most and long texts and lists cut."""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = "" if cell is None else readable(str(cell))
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def _count(rows: Iterable[object]) -> int:
    return sum(1 for _ in rows)
