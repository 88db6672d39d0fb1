"""Where the conversations of an AIPerf `dag_jsonl` file are, which begin a session, and how several begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from workloom.errors import TraceError
from workloom.traces.aiperf_dag.rows import ARRAYS, KNOWN, Refused, Row, branches, check, decoder, digest, items
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import BOM, HALF_WRITTEN, bad_line, half_written, seekable
from workloom.traces.reading import Intake

LEADING = 16
"""How many first messages of a conversation are looked for in others of the file."""


class _Place(Struct, gc=False):
    offset: int
    line: int
    children: tuple[str, ...]
    begins: set[bytes]
    """With what it begins: its first message, its first two, and so on."""


class Index:
    """A file read through once: some 300 bytes a conversation. Conversations are read again when they are wanted.

    Bad lines, branches to nowhere and branches that go round go to `intake.on_bad`.
    """

    def __init__(self, path: Path, intake: Intake, stack: ExitStack) -> None:
        self._path = path
        self._intake = intake
        self._file = stack.enter_context(seekable(path, intake))
        self._places: dict[str, _Place] = {}
        self._named: set[str] = set()
        at = 0
        for number, line in enumerate(self._file, start=1):
            start, at = at, at + len(line)
            if number == 1:
                line = line.removeprefix(BOM)
            if line.strip() and (row := self._row(number, line)) is not None:
                self._add(number, start, row)
        order = self._trees()
        self._whole = set(order)
        self._roots = self._sessions(order)
        self._shared = self._begin_alike()

    def roots(self) -> Iterator[str]:
        """Conversations that no other branches to and whose branches are all there, in file order."""
        return (name for name in self._places if name not in self._named and name in self._whole)

    def where(self, name: str) -> str:
        """File and line of a conversation."""
        return f"{self._path}, line {self._places[name].line}"

    def row(self, name: str) -> Row:
        """A conversation, read anew."""
        self._file.seek(self._places[name].offset)
        return decoder.decode(self._file.readline().removeprefix(BOM))

    def shared(self, name: str, history: bytes) -> bool:
        """Whether other sessions of the file have a conversation too, or one that begins so."""
        return history in self._shared or self._roots[name] is None

    def _row(self, number: int, line: bytes) -> Row | None:
        where = f"{self._path}, line {number}"
        try:
            row = decoder.decode(line)
            check(row)
        except DECODER_ERRORS as error:
            if half_written(line, error):
                self._intake.report.drop(HALF_WRITTEN)
            else:
                self._intake.on_bad(bad_line(self._path, number, line, error, known=KNOWN))
        except Refused as error:
            what = "a conversation that AIPerf refuses"
            where = f"{where}, {error.field}"
            self._intake.on_bad(TraceError(what, where=where, expected=error.expected, found=error.found))
        else:
            if row.session_id not in self._places:
                return row
            what, expected = (
                "two conversations have one name",
                f"another than on line {self._places[row.session_id].line}",
            )
            where = f"{where}, session_id"
            self._intake.on_bad(TraceError(what, where=where, expected=expected, found="the same"))
        return None

    def _add(self, number: int, offset: int, row: Row) -> None:
        children = [branch.child for turn in branches(row) for branch in turn] + row.pre_session_spawns
        begins: set[bytes] = set()
        for turn in row.turns if row.context_mode == ARRAYS else row.turns[:1]:
            history = b""
            for item in items(turn, tools=True)[0][:LEADING]:
                history = digest(history, item.digest)
                begins.add(history)
        self._places[row.session_id] = _Place(offset, number, tuple(dict.fromkeys(children)), begins)
        self._named.update(children)

    def _sessions(self, order: list[str]) -> dict[str, str | None]:
        """Of every conversation the session it belongs to, None for several."""
        roots: dict[str, str | None] = {}
        for name in reversed(order):
            root = roots.setdefault(name, name)
            for child in self._places[name].children:
                if roots.setdefault(child, root) != root:
                    roots[child] = None
        return roots

    def _begin_alike(self) -> set[bytes]:
        """What conversations of several sessions begin with."""
        first: dict[bytes, str | None] = {}
        shared: set[bytes] = set()
        for name, root in self._roots.items():
            place = self._places[name]
            for history in place.begins:
                if first.setdefault(history, root) != root:
                    shared.add(history)
            place.begins = set()
        return shared

    def _trees(self) -> list[str]:
        """Conversations below which everything is there: each behind its branches."""
        above: dict[str, list[str]] = {}
        missing: dict[str, int] = {}
        lost: set[str] = set()
        for name, place in self._places.items():
            missing[name] = len(place.children)
            for child in place.children:
                above.setdefault(child, []).append(name)
                if child not in self._places and name not in lost:
                    lost.add(name)
                    what, expected = "a branch leads nowhere", "the session_id of another line"
                    self._intake.on_bad(TraceError(what, where=self.where(name), expected=expected, found="none such"))
        order = [name for name, count in missing.items() if not count]
        for name in order:  # it grows as it goes
            for parent in above.get(name, ()):
                missing[parent] -= 1
                if not missing[parent]:
                    order.append(parent)
        self._round(set(order), above, lost)
        return order

    def _round(self, whole: set[str], above: dict[str, list[str]], lost: set[str]) -> None:
        """Say it if some of the conversations that are not whole lead back to themselves."""
        stack = list(lost)
        excused = set(lost)
        while stack:
            for parent in above.get(stack.pop(), ()):
                if parent not in excused:
                    excused.add(parent)
                    stack.append(parent)
        for name in self._places:
            if name not in whole and name not in excused:
                what, expected = "branches go round", "no conversation below itself"
                self._intake.on_bad(TraceError(what, where=self.where(name), expected=expected, found="one that is"))
                return
