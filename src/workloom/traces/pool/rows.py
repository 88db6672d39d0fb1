"""Rows that hold a prompt's length and the hashes of its blocks, many at a time as columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.pool import Column, Floats, Ids, Ints, Pool
from workloom.traces.reading import Intake

LARGEST_ID = (1 << 64) - 1
_LOOK_BYTES = 1 << 12
NO_HASHES = msgspec.Raw(b"[]")

_ZERO = np.uint8(ord("0"))
_PAD = b" " * 16
_SUMS = [
    (np.uint64(10 * 2**8 + 1), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    (np.uint64(100 * 2**16 + 1), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
    (np.uint64(10_000 * 2**32 + 1), np.uint64(32), np.uint64(0xFFFFFFFF)),
]
"""Neighbours in a word: low * 10 + high in the high place, then down."""

_list = msgspec.json.Decoder(list[int])


class Hashed(Protocol):
    """What rows of all such formats have. The hashes are decoded together: most of a file is hashes."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: msgspec.Raw


R = TypeVar("R", bound=Hashed)


class Table:
    """The rows of one file: their blocks in a pool, the rest as columns."""

    def __init__(self, path: Path, block_tokens: int, intake: Intake, *, uneven: bool = False) -> None:
        """`uneven`: prompts may have more or fewer hashes than blocks, which is said."""
        self.pool = Pool(block_tokens)
        self.start, self.output = Column(np.float64), Column(np.int64)
        """Times as the file has them, tokens."""
        self._path, self._size, self._intake, self._uneven = path, block_tokens, intake, uneven

    def add(self, rows: Sequence[R], numbers: Sequence[int]) -> Sequence[R]:
        """Add rows, which stand in the lines `numbers`; what is returned leaves out those that cannot be true."""
        tokens = np.array([row.input_length for row in rows], np.int64)
        found = ids_of([row.hash_ids for row in rows])
        if found is None or self._odd(found[1], tokens).any():
            pairs = [(row, self.hashes(row, number)) for row, number in zip(rows, numbers, strict=True)]
            rows = [row for row, ids in pairs if ids is not None]
            good = [ids for _, ids in pairs if ids is not None]
            found = (
                np.array([number for ids in good for number in ids], np.uint64),
                np.array([len(ids) for ids in good], np.int64),
            )
            tokens = np.array([row.input_length for row in rows], np.int64)
        ids, blocks = found
        start = np.array([row.timestamp for row in rows], np.float64)
        self.put(ids, blocks, tokens, start, np.array([row.output_length for row in rows], np.int64))
        return rows

    def put(self, ids: Ids, blocks: Ints, tokens: Ints, start: Floats, output: Ints) -> None:
        """Add rows that were looked at: all ids, and of each row how many."""
        self.pool.add(ids, blocks, tokens)
        self.start.extend(start)
        self.output.extend(output)

    def _odd(self, blocks: Ints, tokens: Ints) -> npt.NDArray[np.bool_]:
        """Rows with too many ids or too few: there is one for every full block, maybe one more, or none."""
        full = tokens // self._size
        return ((blocks < full) & (blocks > 0)) | (blocks - full > (tokens % self._size > 0))

    def hashes(self, row: R, number: int) -> list[int] | None:
        """The ids of a row; None, and a bad line, if they cannot be."""
        where, tokens, report = f"{self._path}, line {number}, hash_ids", row.input_length, self._intake.report
        try:
            ids = _list.decode(row.hash_ids)
        except DECODER_ERRORS as error:
            self._intake.on_bad(misfit(where, bytes(row.hash_ids), error, what="a line is not JSON"))
            return None
        full, most = tokens // self._size, -(-tokens // self._size)
        wrong = next((id for id in ids if not 0 <= id <= LARGEST_ID), None)
        if wrong is not None:
            what, expected, found = "a hash id is no id", "0 to 2^64 - 1", str(wrong)
        elif len(ids) > most and self._uneven:
            report.drop("hash ids of blocks behind the end of their prompt", len(ids) - most)
            return ids[:most]
        elif 0 < len(ids) < full and self._uneven:
            report.infer("prompts with fewer hash ids than full blocks: the rest is taken for shared with none")
            return ids
        elif 0 < len(ids) < full or len(ids) > most:
            what = f"a prompt has {'more' if len(ids) > most else 'fewer'} hashes than blocks"
            expected, found = f"{most} ids (input_length {tokens}, blocks of {self._size})", f"{len(ids)} ids"
        else:
            return ids
        self._intake.on_bad(TraceError(what, where=where, expected=expected, found=found))
        return None


def ids_of(lists: Sequence[msgspec.Raw]) -> tuple[Ids, Ints] | None:
    """All numbers of some JSON lists, and how many each has; None if they are anything but whole ones of few digits.

    They are read all at once, which takes a third of the time that making Python's numbers of them takes.
    """
    text = b"".join((_PAD, *lists))
    data = np.frombuffer(text, np.uint8)
    digits = data - _ZERO < 10
    opened, closed = np.flatnonzero(data == ord("[")), np.flatnonzero(data == ord("]"))
    signs = np.count_nonzero(data == ord(" ")) + np.count_nonzero(data == ord(",")) + len(opened) + len(closed)
    if signs + np.count_nonzero(digits) != len(text) or len(opened) != len(lists) or len(closed) != len(lists):
        return None
    if (opened[1:] < closed[:-1]).any():
        return None  # a list in a list
    edges = np.flatnonzero(digits[1:] != digits[:-1])
    first, last = edges[::2] + 1, edges[1::2]
    lengths = last - first + 1
    longest = int(lengths.max(initial=0))
    if longest > 16:
        return None
    words: Ids = np.ndarray(len(text) - 7, "<u8", text, strides=(1,))
    """The eight characters from each place on, the first one lowest."""
    values = _decimal(words[last - 7], np.minimum(lengths, 8) if longest > 8 else lengths)
    if longest > 8:
        long = np.flatnonzero(lengths > 8)
        values[long] += _decimal(words[last[long] - 15], lengths[long] - 8) * np.uint64(10**8)
    return values, np.diff(np.searchsorted(first, opened), append=len(first))


def _decimal(text: Ids, digits: Ints) -> Ids:
    """The numbers that the last `digits` of 8 characters are: digits to pairs, to fours, to eights. `text` is lost."""
    unused = ((8 - digits) << 3).view(np.uint64)
    text >>= unused
    text <<= unused
    text &= np.uint64(0x0F0F0F0F0F0F0F0F)
    for factor, shift, mask in _SUMS:
        text *= factor
        text >>= shift
        text &= mask
    return text


def first_keys(head: bytes) -> set[str]:
    """The keys of the object in the first line of some content, which may end in the middle of it."""
    line, end, _ = head.lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return set()
    if not end and len(line) > _LOOK_BYTES:  # one line, who knows of what length: the first of its keys
        return {key.decode() for key in re.findall(rb'"(\w+)"\s*:', line[:_LOOK_BYTES])}
    try:
        found = msgspec.json.decode(line)
    except DECODER_ERRORS:
        return set()
    return set(found) if isinstance(found, dict) else set()
