"""`workloom agentx` and `workloom trie`: a run in the words of other people's benchmarks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from workloom.cli.show import console, print_rows
from workloom.cli.write import new_file, write_new
from workloom.errors import UsageError, WorkloomError
from workloom.store import open_run

if TYPE_CHECKING:
    from pathlib import Path

    from workloom.answers.agentx import Validity


class NotValid(WorkloomError):
    """A run that does not keep to the protocol, where that was asked for."""


def agentx(directory: str, out: str | None, tag: list[str] | None, mvp: bool, strict: bool, json: bool) -> None:
    """Aggregate, print or write. `mvp`: the earlier protocol's summary, which a run of that scenario has anyway."""
    from workloom.answers import agentx as answer

    goal = None if out is None else new_file(out, "the aggregate")
    identity = answer.identity_of(tag or [])
    run = open_run(directory)
    earlier = mvp or answer.scenario_of(run.manifest)[0] == "agentx-mvp"
    if earlier:
        summary = answer.mvp(run, identity)
        document, validity = answer.encode(summary).decode(), summary.validity
        (lines, table), headings = answer.mvp_rows(summary), answer.MVP_HEADINGS
    else:
        aggregate = answer.aggregate(run, identity)
        document, validity = answer.encode(aggregate).decode(), aggregate.workloom.validity
        (lines, table), headings = answer.rows(aggregate), answer.HEADINGS
    if json:
        print(document, end="")
    else:
        print_rows(lines)
        _print_table(headings, table)
    _write(goal, document)
    if strict:
        _require(validity, directory, answer.scenario_of(run.manifest)[0])


def trie(directory: str, out: str | None, gpus: int | None, json: bool) -> None:
    """Compute, print or write."""
    from workloom.answers import trie as answer

    if gpus is not None and gpus < 1:
        raise UsageError("a server has at least one GPU", where="--gpus", expected="1 or more", found=gpus)
    goal = None if out is None else new_file(out, "the metrics")
    found = answer.trie(open_run(directory), gpus)
    document = answer.encode(found).decode()
    if json:
        print(document, end="")
    else:
        lines, traces, rates = answer.rows(found)
        print_rows(lines)
        _print_table(answer.HEADINGS, traces)
        _print_table(answer.RATE_HEADINGS, rates)
    _write(goal, document)


def _print_table(headings: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    out = console()
    out.print()
    out.print(table)


def _write(goal: Path | None, document: str) -> None:
    if goal is not None:
        write_new(goal, document)
        print(f"written to {goal}", file=sys.stderr)


def _require(validity: Validity, directory: str, scenario: str | None) -> None:
    if not validity.valid:
        again = f"workloom run --scenario {scenario or 'agentx-v1'}"
        raise NotValid(
            "the run does not keep to the protocol",
            where=directory,
            found="; ".join(validity.reasons),
            hint=f"run it again with `{again}`, and change none of its settings",
        )
