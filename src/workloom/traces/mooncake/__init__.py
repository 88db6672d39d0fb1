"""Mooncake traces: JSON Lines, a row a request, prompts as chained hashes of their 512-token blocks.

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, ..., 2354]}

`timestamp` is in ms. Ids are common to the file; the last one of a prompt may be of a block that is not full. Without
`hash_ids` a prompt shares nothing. There are no sessions: :mod:`workloom.traces.mooncake.links` tells which row
continues which. Rows with a `session_id` (AIPerf's) do have sessions: :mod:`workloom.traces.mooncake.turns`.

Files are read one at a time, each whole before its first session. Memory: some 200 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import MOST_TOKENS, Header, Session
from workloom.traces.batches import batches
from workloom.traces.lines import BOM, bad_line, head
from workloom.traces.mooncake.links import find_links
from workloom.traces.mooncake.turns import read_turns
from workloom.traces.pool.rows import NO_HASHES, Table, first_keys
from workloom.traces.pool.sessions import NO_ENDS, Naming, Rows, sessions
from workloom.traces.reading import Intake

BLOCK_TOKENS = 512

_TEXT = {"text_input", "messages", "payload"}
_KEYS = {"timestamp", "delay", "input_length", "output_length", "hash_ids", "session_id", "tools", "extra", *_TEXT}


class Row(Struct, gc=False):
    """A request."""

    timestamp: Annotated[float, Meta(ge=0, le=1e13)]
    input_length: Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
    output_length: Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
    hash_ids: msgspec.Raw = NO_HASHES
    session_id: None = None


_decoder = msgspec.json.Decoder(Row)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a Mooncake trace, in one of AIPerf's variants too."""
    keys = first_keys(head)
    if {"input_length", "output_length"} <= keys:
        others = keys & {"chat_id", "node_id", "new_input_length"}
        return not others and bool(keys & {"timestamp", "delay", "hash_ids", "session_id"})
    return bool(keys & _TEXT) and keys <= _KEYS and bool(keys & {"timestamp", "delay", "text_input"})


def header(path: Path) -> Header:
    """The header of every Mooncake trace."""
    return Header(source="mooncake", block_tokens=BLOCK_TOKENS, common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of each file; ids of different files are not the same blocks."""
    for number, path in enumerate(paths):
        prefix = f"{number}." if number else ""
        if "session_id" in first_keys(head(path, 1 << 16).removeprefix(BOM)):
            yield from read_turns(path, intake, prefix, BLOCK_TOKENS, explain)
        else:
            yield from _requests(path, intake, prefix)


def _requests(path: Path, intake: Intake, prefix: str) -> Iterator[Session]:
    """The sessions of a file that does not tell them."""
    report = intake.report
    table = Table(path, BLOCK_TOKENS, intake)
    for rows, numbers in batches(path, _decoder, intake, explain):
        table.add(rows, numbers)
    tree, start_s, output = table.pool.tree(), table.start.values, table.output.values
    start_s /= 1000
    if not len(output):
        return
    found = find_links(tree, start_s, output, BLOCK_TOKENS)
    linked = found.parent[found.parent >= 0]
    report.infer("rows that continue the earlier row with the longest prompt they begin with", len(linked))
    report.infer("of these, the same prompt once more (retries)", int(found.retry.sum()))
    report.infer("of these, behind a row that another continues too (branches)", len(linked) - len(np.unique(linked)))
    report.infer("rows that begin with no earlier prompt but a text of many, like a system prompt", found.strangers)
    report.infer("rows that start before the row above them", int(np.count_nonzero(np.diff(start_s) < 0)))
    unhashed = (tree.blocks == 0) & (tree.tokens >= BLOCK_TOKENS)
    report.infer("rows without hash_ids: they share nothing", int(np.count_nonzero(unhashed)))
    report.assume(NO_ENDS)
    told = Rows(start_s, output, found.parent)
    naming = Naming(
        lambda first: ([f"{prefix}r{row}" for row in first], [None] * len(first)), prefix, f"mooncake:{path.name}"
    )
    yield from sessions(tree, told, naming, intake)


def explain(path: Path, number: int, line: bytes, error: Exception) -> TraceError:
    """The error for a line that is no row."""
    keys = first_keys(line)
    if isinstance(error, msgspec.ValidationError) and keys & _TEXT and "input_length" not in keys:
        return TraceError(
            "a row gives text where its length is needed",
            where=f"{path}, line {number}",
            expected="input_length, output_length and hash_ids",
            found=", ".join(sorted(keys & _TEXT)),
            hint="lengths depend on a tokenizer: have the tool that wrote the file write input_length",
        )
    return bad_line(path, number, line, error)
