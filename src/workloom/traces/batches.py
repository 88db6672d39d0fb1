"""Rows of JSON Lines files, thousands at a time: for formats of short rows, where a step a line would be too slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import BOM, HALF_WRITTEN, Damaged, bad_line, chunks, half_written
from workloom.traces.reading import Intake

T = TypeVar("T")

BATCH_BYTES = 1 << 19

Explain = Callable[[Path, int, bytes, Exception], TraceError]
"""The error for a line that does not decode."""


class Batch(NamedTuple, Generic[T]):
    """Rows of some lines. `numbers`: the line of each."""

    rows: list[T]
    numbers: Sequence[int]


def batches(
    path: Path,
    decoder: msgspec.json.Decoder[T],
    intake: Intake,
    explain: Explain = bad_line,
) -> Iterator[Batch[T]]:
    """The rows of a file as :func:`workloom.traces.lines.rows` gives them, but many at a time.

    Memory: BATCH_BYTES, or the longest line, decoded.
    """
    number = 1
    for block in _blocks(path, intake):
        ends = block.count(b"\n")
        lines = ends + (not block.endswith(b"\n"))
        try:
            found = decoder.decode_lines(block)
        except DECODER_ERRORS:
            found = []
        if len(found) == lines:
            yield Batch(found, range(number, number + lines))
        else:  # blank lines, bad lines, values across lines: one at a time tells them apart
            yield _one_by_one(path, number, block, decoder, intake, explain)
        number += ends


def _one_by_one(
    path: Path,
    number: int,
    block: bytes,
    decoder: msgspec.json.Decoder[T],
    intake: Intake,
    explain: Explain,
) -> Batch[T]:
    found: list[T] = []
    numbers: list[int] = []
    for at, line in enumerate(block.split(b"\n"), start=number):
        if not line or line.isspace():
            continue
        try:
            found.append(decoder.decode(line))
            numbers.append(at)
        except DECODER_ERRORS as error:
            last = at == number + block.count(b"\n")
            if last and half_written(line, error):
                intake.report.drop(HALF_WRITTEN)
            else:
                intake.on_bad(explain(path, at, line, error))
    return Batch(found, numbers)


def _blocks(path: Path, intake: Intake) -> Iterator[bytes]:
    """The content in blocks of whole lines, each of BATCH_BYTES or a little more; damage goes to `intake.on_bad`."""
    pieces: list[bytes] = []
    size = done = 0
    try:
        for chunk in chunks(path):
            pieces.append(chunk if done or pieces else chunk.removeprefix(BOM))
            size += len(chunk)
            end = chunk.rfind(b"\n") + 1
            if size >= BATCH_BYTES and end:
                pieces[-1] = chunk[:end]
                block = b"".join(pieces)
                done += block.count(b"\n")
                pieces, size = [chunk[end:]], len(chunk) - end
                yield block
    except Damaged as damage:
        error = damage.error
        block, end_of_line, _ = b"".join(pieces).rpartition(b"\n")
        done += block.count(b"\n") + len(end_of_line)
        if block:
            yield block + end_of_line
        where = f"{path}, after line {done}"
        intake.on_bad(TraceError(error.what, where=where, expected=error.expected, found=error.found, hint=error.hint))
    else:
        if block := b"".join(pieces):
            yield block
