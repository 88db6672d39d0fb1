"""workloom's flat table: comma-separated, one row a call, all that a session holds; to look at in a spreadsheet.

    session_id,call_id,agent,model,after,inherit,spans,fresh,prompt_tokens,fresh_tokens,output_tokens,...
    s1,c0,main,m,,,system:4000:trace,user:900,4900,900,120,...
    s1,c1,main,m,c0:tool:1.5,c0,,tool:490:read:1.5,5510,490,80,...

What stands in a cell is told in :mod:`workloom.traces.csv_table.cells`. `prompt_tokens` and `fresh_tokens` follow
from the others and are checked where told. Columns of a session stand in each of its rows. `start_s`, `first_s`,
`end_s` and what follows are the recorded ones. Rows can be sorted in any way; sessions come in the order of their
first rows, and calls with those they need before them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from workloom.errors import TraceError, nearest
from workloom.session import Call, Header, Recorded, Session, Status, prompt_tokens, validate
from workloom.traces.csv_table import cells
from workloom.traces.lines import Groups, numbered
from workloom.traces.order import topological
from workloom.traces.reading import Intake, Report, each
from workloom.traces.tables import LARGEST_COUNT, LARGEST_S, LARGEST_SUM, Columns, columns, joined, split, titled

T = TypeVar("T")

REQUIRED = ("session_id", "call_id", "output_tokens")
RECORDED = ("start_s", "first_s", "end_s", "cached_tokens", "status", "streaming", "estimated", "answer")
OF_SESSION = ("session_start_s", "user", "workflow", "origin", "common_clock", "block_tokens")
"""The last two are the trace's."""
COLUMNS = (
    *("session_id", "call_id", "agent", "model", "after", "inherit", "spans", "fresh", "prompt_tokens", "fresh_tokens"),
    *("output_tokens", "reasoning_tokens", "stop_after", *RECORDED, *OF_SESSION),
)
_BOOLS = {"true": True, "false": False}
_STATUS: dict[str, Status] = {"ok": "ok", "error": "error", "aborted": "aborted"}


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is a call table."""
    return titled(head, *REQUIRED)


def header(path: Path) -> Header:
    """What the first good row says of the trace; bad rows are told when the table is read. Raises TraceError."""
    table = columns(path, REQUIRED)
    silent = Intake(Header(), Report(), _untold)
    for number, line in numbered(path, silent):
        row = None if number == table.line else table.row(number, line, silent)
        if row is not None:
            with contextlib.suppress(TraceError):
                clock, block = _of_trace(_Row(table, number, row))
                return Header(source="csv", block_tokens=block, common_clock=clock)
    return Header(source="csv")


def _untold(error: TraceError) -> None:
    pass


def _read(path: Path, intake: Intake) -> Iterator[Session]:
    """Sessions in the order of their first rows; bad rows go to `on_bad`. Memory: 20 bytes a row, and a session.

    A session with a bad row is left out whole: others may need it.
    """
    try:
        table = columns(path, REQUIRED)
    except TraceError as error:
        intake.on_bad(error)
        return
    for name in table.at:
        if name not in COLUMNS:
            close = nearest(name, list(COLUMNS))
            intake.report.drop(f"column {name!r}, unknown" + (f" (did you mean {close}?)" if close else ""))

    def session_id(path: Path, number: int, line: bytes) -> str | None:
        row = None if number == table.line else table.row(number, line, intake)
        if row is None:
            return None
        name = table.cell(row, "session_id")
        if not name:
            intake.on_bad(table.fault(number, "session_id", "a name", ""))
        return name or None

    for _, lines in Groups([path], intake, session_id):
        rows = [_Row(table, place.line, split(line)) for place, line in lines]
        calls = [call for row in rows if (call := _told(row, intake))]
        if len(calls) < len(rows):
            intake.report.drop("sessions with a bad row")
            continue
        try:
            session = _session(rows, calls)
        except TraceError as error:
            intake.on_bad(error)
        else:
            yield session if intake.text else _without_text(session, intake.report)


read = each(_read)


class _Row(NamedTuple):
    """The cells of a row by column. An empty one is None. Methods raise TraceError."""

    table: Columns
    number: int
    row: list[str]

    def raw(self, column: str) -> str:
        return self.table.cell(self.row, column)

    def said(self, column: str, read: Callable[[str], T]) -> T | None:
        cell = self.raw(column)
        try:
            return read(cell) if cell else None
        except cells.Unreadable as error:
            raise self.table.fault(self.number, column, error, cell) from None

    def text(self, column: str) -> str | None:
        return self.said(column, cells.read_text)

    def tokens(self, column: str, most: int = LARGEST_COUNT) -> int | None:
        return self.table.count(self.number, self.row, column, most) if self.raw(column) else None

    def seconds(self, column: str) -> float | None:
        return self.table.seconds(self.number, self.row, column, -LARGEST_S) if self.raw(column) else None

    def one_of(self, column: str, values: Mapping[str, T]) -> T | None:
        cell = self.raw(column)
        if cell and cell.lower() not in values:  # spreadsheets write TRUE
            raise self.table.fault(self.number, column, " | ".join(values), cell)
        return values[cell.lower()] if cell else None


def _of_trace(row: _Row) -> tuple[bool, int | None]:
    """What a row says of the trace: whether its sessions have a common clock, and its block size."""
    return row.one_of("common_clock", _BOOLS) or False, row.tokens("block_tokens") or None


def _told(row: _Row, intake: Intake) -> Call | None:
    """The call of a row, None if it is bad, which is told."""
    try:
        _of_trace(row)
        agent, stop_after = row.text("agent"), row.tokens("stop_after")
        return Call(
            id=row.text("call_id") or "",
            output_tokens=row.table.count(row.number, row.row, "output_tokens"),
            after=row.said("after", cells.read_after) or (),
            agent="main" if agent is None else agent,
            model=row.text("model") or "",
            inherit=row.said("inherit", cells.read_inherit),
            spans=row.said("spans", cells.read_spans) or (),
            fresh=row.said("fresh", cells.read_fresh) or (),
            reasoning_tokens=row.tokens("reasoning_tokens") or 0,
            stop_after=stop_after,
            recorded=_recorded(row) if any(map(row.raw, RECORDED)) else None,
        )
    except TraceError as error:
        intake.on_bad(error)
        return None


def _recorded(row: _Row) -> Recorded:
    return Recorded(
        start_s=row.seconds("start_s"),
        first_s=row.seconds("first_s"),
        end_s=row.seconds("end_s"),
        cached_tokens=row.tokens("cached_tokens"),
        status=row.one_of("status", _STATUS) or "ok",
        streaming=row.one_of("streaming", _BOOLS),
        estimated=row.said("estimated", cells.read_words) or (),
        answer=row.text("answer"),
    )


def _session(rows: list[_Row], calls: list[Call]) -> Session:
    """Raises TraceError."""
    first = rows[0]
    order = _order(rows, calls)
    for row in rows:
        for column in OF_SESSION:
            if row.raw(column) != first.raw(column):
                what, expected = "rows of a session differ in what they say of it", f"as in line {first.number}"
                raise row.table.fault(row.number, column, f"{first.raw(column)!r}, {expected}", row.raw(column), what)
    session = Session(
        id=first.text("session_id") or "",
        calls=tuple(calls[index] for index in order),
        start_s=first.seconds("session_start_s"),
        user=first.text("user"),
        workflow=first.text("workflow"),
        origin=first.text("origin"),
    )
    try:
        validate(session)
    except TraceError as error:
        where = f"{first.table.path}, line {first.number} and those of its session, {error.where}"
        raise TraceError(error.what, where=where, expected=error.expected, found=error.found) from None
    prompts = prompt_tokens(session)
    for row, call in zip(rows, calls, strict=True):
        _check(row, "prompt_tokens", prompts[call.id])
        _check(row, "fresh_tokens", call.fresh_tokens)
    return session


def _order(rows: list[_Row], calls: list[Call]) -> list[int]:
    """The calls with what they need before them. Raises TraceError."""
    at: dict[str, int] = {}
    needs: list[list[int]] = []
    for index, (row, call) in enumerate(zip(rows, calls, strict=True)):
        if at.setdefault(call.id, index) != index:
            what = "two calls of a session have one id"
            raise row.table.fault(
                row.number, "call_id", f"another than in line {rows[at[call.id]].number}", call.id, what
            )
    for row, call in zip(rows, calls, strict=True):
        named = [("after", edge.call) for edge in call.after]
        named += [("inherit", call.inherit.call)] if call.inherit is not None else []
        named += [("fresh", part.from_call) for part in call.fresh if part.from_call is not None]
        unknown = next(((column, name) for column, name in named if name not in at), None)
        if unknown is not None:
            column, name = unknown
            raise row.table.fault(
                row.number, column, "a call_id of the session", name, "it names no call of its session"
            )
        needs.append([at[name] for _, name in named])
    order = topological(needs)
    if len(order) < len(calls):
        index = min(set(range(len(calls))) - set(order))
        row, what = rows[index], "calls wait for each other in a circle"
        raise row.table.fault(row.number, "after", "no call that needs itself", row.raw("after"), what)
    return order


def _check(row: _Row, column: str, tokens: int) -> None:
    told = row.tokens(column, LARGEST_SUM)
    if told not in (None, tokens):
        what, hint = "a sum is not right", f"if sizes were changed by hand, empty {column}: it is only checked"
        raise row.table.fault(row.number, column, tokens, told, what, hint)


def _without_text(session: Session, report: Report) -> Session:
    texts = 0
    calls = []
    for call in session.calls:
        spoken = sum(part.text is not None for part in call.fresh)
        recorded = call.recorded
        if spoken:
            call = replace(call, fresh=tuple(replace(part, text=None) for part in call.fresh))
        if recorded is not None and recorded.answer is not None:
            call = replace(call, recorded=replace(recorded, answer=None))
            spoken += 1
        texts += spoken
        calls.append(call)
    report.drop("texts of parts and answers, which were not asked for", texts)
    return replace(session, calls=tuple(calls)) if texts else session


# ---------------------------------------------------------------------------------------------------------- writing


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write all sessions; none is left out."""
    names: set[str] = set()
    of_trace = (_bool(header.common_clock), _number(header.block_tokens))
    report.drop("the source that the header names", header.source not in ("", "csv"))
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(joined(COLUMNS))
        for session in sessions:
            name = _other(session.id, names)
            report.infer("sessions under another id, since an earlier one has theirs", name != session.id)
            of_session = (
                *(_number(session.start_s), cells.text(session.user), cells.text(session.workflow)),
                *(cells.text(session.origin), *of_trace),
            )
            prompts = prompt_tokens(session)
            for call in session.calls:
                file.write(joined((cells.text(name), *_row(call, prompts[call.id]), *of_session)))
    return []


def _other(name: str, names: set[str]) -> str:
    """The name, or one like it that is not taken; it is taken now."""
    free, copy = name, 1
    while free in names:
        copy += 1
        free = f"{name}#{copy}"
    names.add(free)
    return free


def _row(call: Call, prompt: int) -> Iterator[str]:
    """The cells of a call, without those of its session."""
    yield cells.text(call.id)
    yield cells.text(call.agent)
    yield cells.text(call.model or None)
    yield cells.after(call.after)
    yield cells.inherit(call.inherit)
    yield cells.spans(call.spans)
    yield cells.fresh(call.fresh)
    yield from map(_number, (prompt, call.fresh_tokens, call.output_tokens, call.reasoning_tokens, call.stop_after))
    recorded = call.recorded
    if recorded is None:
        yield from ("" for _ in RECORDED)
        return
    yield from map(_number, (recorded.start_s, recorded.first_s, recorded.end_s, recorded.cached_tokens))
    yield recorded.status
    yield "" if recorded.streaming is None else _bool(recorded.streaming)
    yield cells.words(recorded.estimated)
    yield cells.text(recorded.answer)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _bool(value: bool) -> str:
    return "true" if value else "false"
