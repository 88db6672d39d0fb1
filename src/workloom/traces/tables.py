"""Comma-separated tables, one row a line: columns by name, cells as numbers, faults by line and column.

Cells may be quoted, with quotes inside them doubled. A cell never holds a line break: so a stray quote spoils its own
line and no more, and rows can be found again by their place.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from workloom.errors import TraceError
from workloom.traces.faults import short
from workloom.traces.lines import BOM, HALF_WRITTEN, Damaged, lines
from workloom.traces.reading import Intake

LARGEST_COUNT = 1 << 40
LARGEST_SUM = 1 << 60
LARGEST_S = 1e11
"""Some 3,000 years: instants since 1970 fit, and differences of them are exact to 20 microseconds."""

_CELL = re.compile(r'(?:"((?:[^"]|"")*+)"|([^",]*+))(,|$)')


def split(line: bytes) -> list[str]:
    """The cells of a line. Raises ValueError where it is no UTF-8 or its quotes do not match."""
    text = line.decode().rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    cells: list[str] = []
    at = 0
    while True:
        match = _CELL.match(text, at)
        if match is None:
            raise ValueError(f"a quote that does not fit at character {at + 1}")
        quoted, plain, comma = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        if not comma:
            return cells
        at = match.end()


def joined(cells: Sequence[str]) -> str:
    """A line of cells, quoted where they must be; the other way round as :func:`split`."""
    return ",".join(_quoted(cell) for cell in cells) + "\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if '"' in cell or "," in cell else cell


def titled(head: bytes, *names: str) -> bool:
    """Whether a file that begins like this is a table with these columns, among others."""
    first = head.lstrip().split(b"\n", 1)[0]
    try:
        return {name.lower() for name in names} <= {name.lower() for name in _names(first)}
    except ValueError:
        return False


def _names(line: bytes) -> list[str]:
    return [name.strip() for name in split(line)]


class Columns:
    """Where the columns of a table are, by their names in lower case. Methods raise TraceError for what is no value."""

    def __init__(self, path: Path, number: int, line: bytes, required: Sequence[str]) -> None:
        """`number`: of the line with the names."""
        self.path = path
        self.line = number
        try:
            self._titles = _names(line)
        except ValueError as error:
            raise self._no_names(required, f"{error} in {short(line)}") from None
        names = [title.lower() for title in self._titles]
        self.width = len(names)
        self.at = {name: index for index, name in enumerate(names) if name}
        if not all(name.lower() in self.at for name in required):
            raise self._no_names(required, short(line))
        twice = next((name for name in self.at if names.count(name) > 1), None)
        if twice is not None:
            what, where = "two columns have one name", f"{path}, line {number}"
            raise TraceError(what, where=where, expected="different names", found=twice)

    def _no_names(self, required: Sequence[str], found: str) -> TraceError:
        where, expected = f"{self.path}, line {self.line}", f"the columns {', '.join(required)}"
        return TraceError("the first line does not name the columns", where=where, expected=expected, found=found)

    def row(self, number: int, line: bytes, intake: Intake) -> list[str] | None:
        """The cells of a line; None for one that is bad, which is told, or half-written."""
        try:
            cells = split(line)
        except ValueError as error:
            cells, found = [], f"{error} in {short(line)}"
        else:
            if len(cells) == self.width:
                return cells
            found = f"{len(cells)} cells in {short(line)}"
        if not line.endswith(b"\n") and len(cells) < self.width:
            intake.report.drop(HALF_WRITTEN)
        else:
            where, expected = f"{self.path}, line {number}", f"{self.width} cells, in UTF-8"
            intake.on_bad(TraceError("a line is not a row of the table", where=where, expected=expected, found=found))
        return None

    def cell(self, cells: list[str], column: str) -> str:
        """What stands in a column; nothing where the table does not have it."""
        at = self.at.get(column)
        return "" if at is None else cells[at]

    def count(self, number: int, cells: list[str], column: str, most: int = LARGEST_COUNT) -> int:
        """A count of 0 or more; also as `472.0`, which is what counts become beside empty cells in some tools."""
        cell = cells[self.at[column]]
        value = int(cell) if cell.isascii() and cell.isdigit() and len(cell) < 20 else _whole(cell)
        if not 0 <= value <= most:
            raise self.fault(number, column, f"a count, 0 to {most}", cell)
        return value

    def seconds(self, number: int, cells: list[str], column: str, least: float = 0.0) -> float:
        """A finite number of seconds."""
        cell = cells[self.at[column]]
        try:
            value = float(cell)
        except ValueError:
            value = float("nan")
        if not least <= value <= LARGEST_S:
            raise self.fault(number, column, f"seconds, {least:g} to {LARGEST_S:g}", cell)
        return value

    def fault(
        self,
        number: int,
        column: str,
        expected: object,
        found: object,
        what: str = "a cell is not what the format promises",
        hint: str | None = None,
    ) -> TraceError:
        at = self.at.get(column.lower())
        where = f"{self.path}, line {number}, {column if at is None else self._titles[at]}"
        found = short(ascii(found).encode()) if isinstance(found, str) else found
        return TraceError(what, where=where, expected=expected, found=found, hint=hint)


def _whole(cell: str) -> int:
    """A count written with a decimal point; -1 for anything else."""
    try:
        value = float(cell.replace("_", "?"))  # 1_000 is Python's, and no table's
    except ValueError:
        return -1
    return int(value) if value.is_integer() else -1


def columns(path: Path, required: Sequence[str]) -> Columns:
    """The columns that the first line of a file names. Raises TraceError."""
    number, line = 0, b""
    try:
        with contextlib.closing(lines(path)) as every:
            for number, line in enumerate(every, start=1):
                line = line.removeprefix(BOM) if number == 1 else line
                if line.strip():
                    break
    except Damaged as damage:
        raise damage.error from None
    return Columns(path, max(1, number), line, required)
