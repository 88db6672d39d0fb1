"""Mooncake rows with a `session_id`: AIPerf's dialect, in which a row is a turn.

    {"session_id": "a", "timestamp": 0,   "input_length": 900, "output_length": 50, "hash_ids": [0, 1]}
    {"session_id": "a", "delay": 2000.0,  "input_length": 200, "output_length": 80}

There the rows behind the first say what is new: the prompt is all that was said before, and these tokens. Not all who
write such files know; if every row begins with all full blocks of the one before, they are whole prompts, and are read
so. A file with rows of both kinds is refused. The hashes of what is new in a turn are of text that stands behind
another answer in every session: nothing is shared by them.

`delay` is ms from the end of the turn before. Memory: some 400 bytes a row, and the ids of the last row of a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import LONGEST_WAIT_S, MOST_TOKENS, Session
from workloom.traces.batches import Explain, batches
from workloom.traces.pool.rows import NO_HASHES, Table
from workloom.traces.pool.sessions import NO_ENDS, Naming, Rows, sessions
from workloom.traces.reading import Intake, Report

_Milliseconds = Annotated[float, Meta(ge=0, le=1e13)]


class Turn(Struct):
    """A row."""

    session_id: str | int
    input_length: Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
    output_length: Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
    timestamp: _Milliseconds = float("nan")
    delay: Annotated[float, Meta(ge=0, le=LONGEST_WAIT_S * 1000)] = float("nan")
    hash_ids: msgspec.Raw = NO_HASHES


_decoder = msgspec.json.Decoder(Turn)


class _Last(Struct):
    """The last turn of a session: its row, its whole prompt and answer, and what is known of their blocks."""

    row: int
    tokens: int
    ids: list[int]


def read_turns(path: Path, intake: Intake, prefix: str, block_tokens: int, explain: Explain) -> Iterator[Session]:
    """The sessions of a file. `prefix`: of the names of its spans."""
    report = intake.report
    try:
        whole = _whole(path, intake, block_tokens)
    except TraceError as error:
        intake.on_bad(error)
        return
    if whole:
        report.assume("rows with a session_id hold whole prompts: each begins with the full blocks of the one before")
    else:
        report.assume("rows with a session_id hold what is new in a turn, behind all that was said before")
    table = Table(path, block_tokens, intake)
    last: dict[str | int, _Last] = {}
    names: dict[int, str] = {}
    parent: list[int] = []
    waits_s: list[float] = []
    for rows, numbers in batches(path, _decoder, intake, explain):
        laid: list[tuple[list[int], Turn]] = []
        for row, number in zip(rows, numbers, strict=True):
            ids = table.hashes(row, number)
            if ids is None:
                continue
            before = last.get(row.session_id)
            if before is None:
                names[len(parent)] = str(row.session_id)
            elif not whole:
                report.drop("hash ids of what is new in a turn", len(ids))
                row.input_length += before.tokens
                ids = before.ids
            if before is not None and row.timestamp != row.timestamp and row.delay != row.delay:
                report.infer("turns without timestamp or delay: they follow at once")
            tokens = row.input_length + row.output_length
            last[row.session_id] = _Last(len(parent), tokens, ids[: row.input_length // block_tokens])
            parent.append(-1 if before is None else before.row)
            waits_s.append(row.delay / 1000)
            laid.append((ids, row))
        table.put(
            np.array([number for ids, _ in laid for number in ids], np.uint64),
            np.array([len(ids) for ids, _ in laid], np.int64),
            np.array([row.input_length for _, row in laid], np.int64),
            np.array([row.timestamp for _, row in laid], np.float64),
            np.array([row.output_length for _, row in laid], np.int64),
        )
    if any(row >= 0 and wait_s != wait_s for row, wait_s in zip(parent, waits_s, strict=True)):
        report.assume(NO_ENDS)
    rows_of = Rows(table.start.values / 1000, table.output.values, np.array(parent, np.int64), np.array(waits_s))
    naming = Naming(lambda first: ([names[row] for row in first], [None] * len(first)), prefix, f"mooncake:{path.name}")
    if parent:
        yield from sessions(table.pool.tree(), rows_of, naming, intake)


def _whole(path: Path, intake: Intake, block_tokens: int) -> bool:
    """Whether the rows of a file are whole prompts. Raises a TraceError if some are and some are not."""
    quiet = intake._replace(report=Report(), on_bad=lambda error: None)
    table = Table(path, block_tokens, quiet)
    last: dict[str | int, tuple[int, list[int]]] = {}
    seen: dict[bool, int] = {}
    for rows, numbers in batches(path, _decoder, quiet):
        for row, number in zip(rows, numbers, strict=True):
            mine = table.hashes(row, number)
            if mine is None:
                continue
            tokens, ids = last.get(row.session_id, (0, []))
            if ids:
                seen.setdefault(row.input_length >= tokens and mine[: len(ids)] == ids, number)
            last[row.session_id] = row.input_length, mine[: row.input_length // block_tokens]
    if len(seen) == 2:
        raise TraceError(
            "some rows of a session are whole prompts and some are not",
            where=f"{path}, line {max(seen.values())}, hash_ids",
            expected=f"whole prompts, as in line {seen[True]}, or what is new in each turn, as in line {seen[False]}",
            found="both in one file",
        )
    return seen.get(True) is not None
