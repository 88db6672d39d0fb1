"""The results of a sweep as text, JSON, CSV and a page."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from workloom.answers.sweep.results import Question, Results
from workloom.report.sweep import lead, sections, sweep_page, varied
from workloom.report.terminal import print_tables
from workloom.store.run import write_whole


def print_table(found: Results, question: Question) -> None:
    """Tables to stdout; where nobody says how wide it is, wide enough for their columns."""
    others = len(varied(found.rows)) + 2
    console = Console(width=max(100, 16 * others + 26 * len(question.figures)), highlight=False, markup=False)
    if sys.stdout.isatty():  # a narrow one breaks lines, not every word into letters
        console.width = max(Console().width, 10 * others + 13 * len(question.figures))
    print(lead(found, question))
    print_tables(console, [each for each in sections(found, question) if each.tables])


def print_json(found: Results) -> None:
    """All of it. An infinite figure is null, and its `why` says so."""
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())


def print_csv(found: Results, question: Question) -> None:
    """A row a point, plain numbers in the units of the metrics: each figure, its interval, the spread of its seeds."""
    options = varied(found.rows)
    out = csv.writer(sys.stdout, lineterminator="\n")
    names = [figure.say() for figure in question.all]
    ends = ("", "_low", "_high", "_least", "_most")
    head = [*options, "asked", "runs", *(name + end for name in names for end in ends), "verdict", "front", "error"]
    out.writerow(head)
    for row, best in zip(found.rows, found.front, strict=True):
        told = {setting.option: " ".join(setting.values) for setting in row.settings}
        cells: list[object] = [told.get(option, "") for option in options]
        cells += [row.asked, row.runs]
        for name in names:
            figure = row.figures.get(name)
            if figure is None:
                cells += [""] * len(ends)
                continue
            estimate = figure.estimate
            numbers = (estimate.value, estimate.low, estimate.high, figure.least, figure.most)
            cells += ["" if number is None else number for number in numbers]
        out.writerow([*cells, row.verdict or "", "yes" if best else "no", row.error.replace("\n", " ")])


def page_of(path: Path, found: Results, question: Question) -> None:
    """Write the page into the directory of the sweep."""
    write_whole(path / "report.html", sweep_page(found, question).encode())
