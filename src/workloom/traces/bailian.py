"""Bailian (Qwen) usage traces: JSON Lines, a row a request, prompts as hashes of their 16-token blocks.

    {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132,
     "type": "text", "turn": 2, "hash_ids": [1089, 1090, 1091, 6326, ..., 13148]}

`timestamp` is in seconds. Ids are common to the file; the last one of a prompt may be of a block that is not full. A
session is the tree of rows below one whose parent is -1 or not in the file: rows that have one parent are branches.

Files are read one at a time, each whole before its first session. Memory: some 400 bytes a row and 9 a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from workloom.session import MOST_TOKENS, Header, Session
from workloom.traces.batches import batches
from workloom.traces.pool import Column, Ints
from workloom.traces.pool.rows import NO_HASHES, Table, first_keys
from workloom.traces.pool.sessions import NO_ENDS, Naming, Rows, sessions
from workloom.traces.reading import Intake, Report

BLOCK_TOKENS = 16

_ChatId = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]


class Row(Struct, gc=False):
    """A request. `type`: text, search, image or file."""

    chat_id: _ChatId
    timestamp: Annotated[float, Meta(ge=0, le=1e10)]
    input_length: _Count
    output_length: _Count
    parent_chat_id: _ChatId = -1
    type: str | None = None
    turn: Annotated[int, Meta(ge=0, le=1 << 40)] = 1
    hash_ids: msgspec.Raw = NO_HASHES


_decoder = msgspec.json.Decoder(Row)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a Bailian trace."""
    return {"chat_id", "input_length", "output_length", "timestamp"} <= first_keys(head)


def header(path: Path) -> Header:
    """The header of every Bailian trace."""
    return Header(source="bailian", block_tokens=BLOCK_TOKENS, common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of each file; ids of different files are not the same blocks or chats."""
    for number, path in enumerate(paths):
        yield from _file(path, intake, f"{number}." if number else "")


def _file(path: Path, intake: Intake, prefix: str) -> Iterator[Session]:
    report = intake.report
    table = Table(path, BLOCK_TOKENS, intake, uneven=True)
    chats, parents, turns = Column(np.int64), Column(np.int64), Column(np.int64)
    types: dict[str | None, int] = {}
    type_of = Column(np.int64)
    for rows, numbers in batches(path, _decoder, intake):
        good = table.add(rows, numbers)
        chats.extend(np.array([row.chat_id for row in good], np.int64))
        parents.extend(np.array([row.parent_chat_id for row in good], np.int64))
        turns.extend(np.array([row.turn for row in good], np.int64))
        type_of.extend(np.array([types.setdefault(row.type, len(types)) for row in good], np.int64))
    if not chats.size:
        return
    parent = _parents(chats.values, parents.values, report)
    _check_turns(parent, turns.values, report)
    linked = parent[parent >= 0]
    report.infer("rows behind a row that another continues too (branches)", len(linked) - len(np.unique(linked)))
    report.assume(NO_ENDS)
    rows_of = Rows(table.start.values, table.output.values, parent)
    names = list(types)

    def named(first: list[int]) -> tuple[list[str], list[str | None]]:
        return [str(chat) for chat in chats.values[first].tolist()], [names[n] for n in type_of.values[first].tolist()]

    naming = Naming(named, prefix, f"bailian:{path.name}")
    yield from sessions(table.pool.tree(), rows_of, naming, intake)


def _parents(chats: Ints, parents: Ints, report: Report) -> Ints:
    """The row that each row continues, or -1: the first row of its parent's chat id, if that stands before it."""
    order = np.argsort(chats, kind="stable")
    ordered = chats[order]
    at = np.minimum(np.searchsorted(ordered, parents), len(order) - 1)
    found = np.where((ordered[at] == parents) & (parents >= 0), order[at], -1)
    later = found >= np.arange(len(found))
    twice, missing = len(chats) - len(np.unique(chats)), np.count_nonzero((parents >= 0) & (found < 0))
    report.infer("rows whose chat_id an earlier row has: that one is the parent of others", twice)
    report.infer("rows whose parent is not in the file, read as first turns", int(missing))
    report.infer("rows whose parent does not stand before them, read as first turns", int(np.count_nonzero(later)))
    return np.where(later, -1, found)


def _check_turns(parent: Ints, turns: Ints, report: Report) -> None:
    linked = np.flatnonzero(parent >= 0)
    odd = np.count_nonzero(turns[linked] != turns[parent[linked]] + 1)
    report.infer("turn numbers that do not count on from the parent's, not used", int(odd))
