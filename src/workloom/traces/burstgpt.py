"""BurstGPT: a table of requests to ChatGPT and GPT-4, some of them linked by a conversation.

    Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
    19440110.0,1722ac82-...,43,GPT-4,906,446,1352,Conversation log

Releases before 2.0 lack the second and third column. Rows of the API log have no session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from workloom.errors import TraceError
from workloom.session import LONGEST_WAIT_S, Call, Edge, Header, Part, Recorded, Session
from workloom.traces.lines import Groups, Place, numbered
from workloom.traces.reading import Intake, Report
from workloom.traces.tables import Columns, columns, split, titled
from workloom.traces.turns import Continued, Turn, continued, exact

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is a BurstGPT trace."""
    return titled(head, *COLUMNS, "Log Type")


def header(path: Path) -> Header:
    return Header(source="burstgpt", common_clock=True)


class _Row(NamedTuple):
    """A request: `at_s` from midnight of the first day, `seconds` until its answer was whole, if that is told."""

    place: Place
    at_s: float
    seconds: float | None
    model: str
    log: str
    prompt: int
    output: int


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """Sessions in the order of their first rows; bad rows go to `on_bad`.

    Memory: 20 bytes for each row that has a session id, and a session.
    """
    tables: dict[Path, Columns] = {}
    for path in paths:
        try:
            tables[path] = columns(path, COLUMNS)
        except TraceError as error:
            intake.on_bad(error)
    if len(tables) > 1:
        intake.report.assume("the timestamps of all files count from one day")
    return _sessions(tables, intake)


def _sessions(tables: dict[Path, Columns], intake: Intake) -> Iterator[Session]:
    """A walk over all rows: one without a session id is a session, the first of a session stands for all of them."""
    linked = [path for path, table in tables.items() if "session id" in table.at]
    groups = iter(Groups(linked, intake, lambda path, number, line: _key(tables[path], number, line)))
    following = next(groups, None)
    singles = 0
    for path, table in tables.items():
        # Damage of a compressed file was told when its rows were grouped.
        for number, line in numbered(path, intake._replace(on_bad=_untold) if path in linked else intake):
            cells = None if number == table.line else table.row(number, line, intake)
            if cells is None:
                continue
            if not _session_id(table, cells):
                single = _row(table, Place(path, number), cells, intake)
                if single is not None:
                    yield _session(f"r{singles}", [single], intake.report)
                    singles += 1
            elif following is not None and following[1][0][0] == (path, number):
                yield from _linked(str(following[0]), following[1], tables, intake)
                following = next(groups, None)
    if singles:
        intake.report.assume("rows without a session id are sessions of one call")


def _untold(error: TraceError) -> None:
    pass


def _key(table: Columns, number: int, line: bytes) -> str | None:
    """The session of a row; None if it has none or is no row, which is told later."""
    try:
        cells = split(line)
    except ValueError:
        return None
    return _session_id(table, cells) or None if number != table.line and len(cells) == table.width else None


def _session_id(table: Columns, cells: list[str]) -> str:
    return table.cell(cells, "session id").strip()


def _linked(
    name: str, lines: list[tuple[Place, bytes]], tables: dict[Path, Columns], intake: Intake
) -> Iterator[Session]:
    """The session of some rows, if any of them is good."""
    rows = [row for place, line in lines if (row := _row(tables[place.path], place, split(line), intake))]
    if rows:
        try:
            yield _session(name, rows, intake.report)
        except TraceError as error:
            intake.on_bad(error)


def _row(table: Columns, place: Place, cells: list[str], intake: Intake) -> _Row | None:
    number = place.line
    try:
        elapsed = table.cell(cells, "elapsed time").strip()
        return _Row(
            place,
            table.seconds(number, cells, "timestamp"),
            table.seconds(number, cells, "elapsed time") if elapsed else None,
            table.cell(cells, "model"),
            table.cell(cells, "log type"),
            table.count(number, cells, "request tokens"),
            table.count(number, cells, "response tokens"),
        )
    except TraceError as error:
        intake.on_bad(error)
        return None


def _session(name: str, rows: list[_Row], report: Report) -> Session:
    first = rows[0]
    ordered = sorted(rows, key=lambda row: row.at_s)
    report.infer("sessions whose rows were put in order of time", ordered != rows)
    begin_s = ordered[0].at_s
    calls = [_call(index, ordered, begin_s, report) for index in range(len(ordered))]
    origin = f"burstgpt:{first.place.path.name}"
    return Session(name, tuple(calls), start_s=begin_s, workflow=first.log or None, origin=origin)


def _call(index: int, rows: list[_Row], begin_s: float, report: Report) -> Call:
    row = rows[index]
    report.infer("requests without response tokens: taken as failed, kept without output", not row.output)
    start_s = exact(row.at_s - begin_s)
    end_s = None if row.seconds is None else exact(start_s + row.seconds)
    recorded = Recorded(start_s=start_s, end_s=end_s, status="ok" if row.output else "error")
    after: tuple[Edge, ...] = ()
    inherit, new = None, row.prompt
    if index:
        parent, before = f"c{index - 1}", rows[index - 1]
        after = (Edge(parent, _wait_s(row, before, report), "human"),)
        kept = continued(Turn(parent, before.prompt, before.output), row.prompt, None)
        inherit, new = kept.inherit, row.prompt - kept.tokens
        report.infer(_said(kept))
    fresh = (Part("user", new),) if new else ()
    return Call(f"c{index}", row.output, after, model=row.model, inherit=inherit, fresh=fresh, recorded=recorded)


def _said(kept: Continued) -> str:
    if kept.reset:
        return "prompts shorter than the one before in their session: taken for a new context"
    if kept.inherit is not None and kept.inherit.tokens is None:
        return "prompts long enough for the prompt and answer before: taken to begin with both"
    return "prompts too short for the answer before: taken to begin with the prompt before alone"


def _wait_s(row: _Row, before: _Row, report: Report) -> float:
    """From the end of the row before to this one. Raises TraceError."""
    if row.at_s - before.at_s > LONGEST_WAIT_S:
        what, where = "a row is too long after the one before", f"{row.place.path}, line {row.place.line}, Timestamp"
        expected = f"at most {LONGEST_WAIT_S:g} s after the row before it in its session, at {before.at_s}"
        raise TraceError(what, where=where, expected=expected, found=row.at_s)
    if before.seconds is None:
        report.assume("where no elapsed time is told, the wait after a call holds the time it took")
    wait_s = row.at_s - before.at_s - (before.seconds or 0.0)
    report.infer("rows that begin before the one before them in their session ended: they wait for it", wait_s < 0)
    return exact(max(0.0, wait_s))
