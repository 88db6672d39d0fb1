"""Azure LLM inference traces (2023, 2024; also the multimodal one of 2025): one call a row, nothing that links calls.

TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10           2023: seven decimals, no zone
2024-05-10 00:00:00.009930+00:00,2162,5       2024: up to six decimals, a zone
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from workloom.errors import TraceError
from workloom.session import Call, Header, Part, Recorded, Session
from workloom.traces.lines import numbered
from workloom.traces.reading import Intake
from workloom.traces.tables import Columns, columns, titled

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = Recorded(start_s=0.0)


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is an Azure trace."""
    return titled(head, *COLUMNS)


def header(path: Path) -> Header:
    return Header(source="azure", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session of one call for each row; a bad row is one TraceError to `on_bad`. Memory: a row at a time."""
    intake.report.assume("rows are not linked: each is a session of one call")
    made = 0
    clock = _Clock()
    for path in paths:
        try:
            table = columns(path, COLUMNS)
        except TraceError as error:
            intake.on_bad(error)
            continue
        images = 0
        for number, line in numbered(path, intake):
            if number == table.line:
                continue
            cells = table.row(number, line, intake)
            if cells is None:
                continue
            try:
                call = _call(table, number, cells)
                start_s = clock.seconds(table, number, cells)
            except TraceError as error:
                intake.on_bad(error)
                continue
            images += table.cell(cells, "numimages").strip() not in ("", "0")
            yield Session(f"r{made}", (call,), start_s=start_s, origin=f"azure:{path.name}")
            made += 1
        intake.report.drop("images of a prompt (their tokens are in ContextTokens)", images)
    if clock.zoneless:
        intake.report.assume("times without a zone are UTC")


def _call(table: Columns, number: int, cells: list[str]) -> Call:
    prompt = table.count(number, cells, "contexttokens")
    output = table.count(number, cells, "generatedtokens")
    return Call("c0", output, fresh=(Part("user", prompt),) if prompt else (), recorded=_AT_ONCE)


class _Clock:
    """Time stamps as seconds since 1970; the whole second is worked out once for the rows that share it."""

    def __init__(self) -> None:
        self.zoneless = False
        self._second: tuple[str, str, str | None] = ("", "", None)
        self._since_1970 = 0.0

    def seconds(self, table: Columns, number: int, cells: list[str]) -> float:
        stamp = cells[table.at["timestamp"]]
        match = _STAMP.fullmatch(stamp.strip())
        if match is None:
            raise _no_time(table, number, stamp)
        day, time, fraction, zone = match.groups()
        if self._second != (day, time, zone):
            try:
                instant = datetime.fromisoformat(f"{day}T{time}{zone or 'Z'}")
            except ValueError:
                raise _no_time(table, number, stamp) from None
            since_1970 = (instant - _EPOCH).total_seconds()
            if since_1970 < 0:
                raise _no_time(table, number, stamp)
            self._second, self._since_1970 = (day, time, zone), since_1970
            self.zoneless = self.zoneless or zone is None
        return self._since_1970 + float(fraction or 0)


def _no_time(table: Columns, number: int, found: str) -> TraceError:
    return table.fault(number, "TIMESTAMP", "an instant since 1970 like 2023-11-16 18:17:03.9799600", found)
