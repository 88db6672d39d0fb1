"""`workloom slo`: did a run keep its promises? Other commands that judge print and end as this one does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workloom.answers.slo import Judgement, Verdict, exit_code, judge, overall
from workloom.cli.show import console as stdout
from workloom.cli.slo_options import SloOptions
from workloom.errors import UsageError
from workloom.metrics.estimate import Estimate
from workloom.metrics.measured import measured
from workloom.metrics.tables import about, interval
from workloom.metrics.text import quantity
from workloom.store import open_run

COLOURS: dict[Verdict, str] = {"pass": "green", "fail": "red", "not enough data": "yellow"}


class Judged(msgspec.Struct, frozen=True):
    """What `workloom slo --json` prints."""

    run: str
    verdict: Verdict
    slos: list[Judgement]


def slo(directory: str, asked: SloOptions, json: bool, whole: bool) -> None:
    """Judge a run; exit with 0 if it passed, 3 if it failed, 4 if it does not hold enough data."""
    wanted = asked.read()
    if not wanted:
        raise UsageError("what was promised is missing", where="--slo", expected='--slo "ttft_p95<=0.75s", say')
    run = open_run(directory)
    found = judge(measured(run, whole=whole), wanted, by=asked.slo_judge)
    if json:
        print(msgspec.json.format(msgspec.json.encode(Judged(str(run.path), overall(found), found)), indent=1).decode())
    else:
        print_judgements(found)
    conclude(found)


def print_judgements(judgements: Sequence[Judgement], *, console: Console | None = None) -> None:
    """A line an SLO, to stdout: the limit, the figure with its interval, the verdict, and what is missing."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("SLO", no_wrap=True)
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("")
    for one in judgements:
        cells = (Text(one.slo), Text(_known(one.estimate)))
        table.add_row(*cells, Text(one.verdict, style=COLOURS[one.verdict]), Text(_why(one)))
    (console or stdout()).print(table)


def conclude(judgements: Sequence[Judgement]) -> None:
    """End the command as its verdict says: 3 where an SLO failed, 4 where one cannot be told, else go on."""
    code = exit_code(judgements)
    if code:
        sys.stdout.flush()
        sys.exit(code)


def _known(found: Estimate) -> str:
    """A value with the interval that holds it: `386 ms (350 to 421 ms)`."""
    value, span = quantity(found.value, about(found).unit), interval(found)
    return f"{value} ({span})" if span else value


def _why(one: Judgement) -> str:
    """What stands behind a verdict that cannot be told, and the sessions and values behind one that can."""
    if one.why:
        return one.why.removeprefix("not enough data: ")
    return f"{one.estimate.values:,} values, {one.estimate.sessions:,} sessions"
