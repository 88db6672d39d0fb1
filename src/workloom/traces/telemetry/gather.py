"""Rows of telemetry brought together by session: they lie in any order, in any number of files, in any JSON shape."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from workloom.traces.arrays import elements
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import Files, Place
from workloom.traces.reading import Intake

T = TypeVar("T")


class Ids(NamedTuple):
    """Which trace a row belongs to, and which session if it says so."""

    trace: str
    session: str | None = None


class Gathered(NamedTuple):
    """A session's id and its rows, traces in the order they first came. Iterate the rows once."""

    id: str
    rows: Iterator[tuple[int, Place, bytes]]
    """(number of the trace in the session, place, bytes)."""


def gather(
    paths: Sequence[Path],
    intake: Intake,
    keys: Callable[[bytes], tuple[str, ...]],
    ids: Callable[[bytes], Ids | None],
    *,
    head_bytes: int = 1 << 16,
) -> Iterator[Gathered]:
    """The sessions of all files. A trace is of the session that any of its rows names, or else one of its own.

    `keys`: from the beginning of a file, below which keys its rows are; `ids` of a row may raise what decoding raises,
    which is one TraceError to `intake.on_bad`, or be None for rows of no interest. Memory: 28 bytes a row and some
    hundred a trace.
    """
    index = _Index()
    with contextlib.closing(Files(paths, intake)) as files:
        for number, path in enumerate(paths):
            file = files.open(number)
            for element in elements(path, file, keys(file.read(head_bytes)), intake):
                try:
                    found = ids(element.data)
                except DECODER_ERRORS as error:
                    place = f"{path}, line {element.line}"
                    intake.on_bad(misfit(place, element.data, error, what="the content is not JSON"))
                else:
                    if found is not None:
                        index.add(found, number, element.offset, len(element.data), element.line)
        intake.report.infer("traces that name two sessions, taken for the first", len(index.torn))
        for session, traces in index.sessions():
            yield Gathered(session, index.rows(traces, files, paths))


class _Index:
    """For each trace where its rows are, and its session."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[array[int], array[int], array[int], array[int]]] = {}
        self._session: dict[str, str] = {}
        self.torn: set[str] = set()

    def add(self, ids: Ids, file: int, offset: int, size: int, line: int) -> None:
        rows = self._rows.get(ids.trace)
        if rows is None:
            rows = self._rows[ids.trace] = (array("I"), array("Q"), array("Q"), array("Q"))
        for column, value in zip(rows, (file, offset, size, line), strict=True):
            column.append(value)
        if ids.session and self._session.setdefault(ids.trace, ids.session) != ids.session:
            self.torn.add(ids.trace)

    def sessions(self) -> list[tuple[str, list[str]]]:
        """(id, its traces) in the order their first rows came."""
        found: dict[tuple[bool, str], list[str]] = {}
        for trace in self._rows:
            session = self._session.get(trace)
            key = (session is not None, trace if session is None else session)
            found.setdefault(key, []).append(trace)
        return [(name, traces) for (_, name), traces in found.items()]

    def rows(self, traces: list[str], files: Files, paths: Sequence[Path]) -> Iterator[tuple[int, Place, bytes]]:
        for number, trace in enumerate(traces):
            for file, offset, size, line in zip(*self._rows[trace], strict=True):
                content = files.open(file)
                content.seek(offset)
                yield number, Place(paths[file], line), content.read(size)


def decoded(
    rows: Iterator[tuple[int, Place, bytes]], decode: Callable[[bytes], T], intake: Intake
) -> Iterator[tuple[int, Place, T]]:
    """The rows of a session as what they are decoded to; one that does not decode is a TraceError to `on_bad`."""
    for trace, place, data in rows:
        try:
            row = decode(data)
        except DECODER_ERRORS as error:
            where = f"{place.path}, line {place.line}"
            intake.on_bad(misfit(where, data, error, what="the content is not JSON"))
        else:
            yield trace, place, row
