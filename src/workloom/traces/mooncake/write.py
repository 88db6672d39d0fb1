"""Sessions as Mooncake rows: one row a call, prompts whole (not deltas), in the order of their times.

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, ..., 2354]}

An id stands for 512 tokens and all before them; the last one of a prompt may stand for fewer. Rows are put aside in
a temporary file with 24 bytes each in memory, sorted, and their ids counted anew in the order in which they come.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from workloom.prompt import planned
from workloom.session import Header, Session
from workloom.traces.block_ids import LONGEST_PROMPT, BlockIds
from workloom.traces.instants import instants
from workloom.traces.reading import Report

BLOCK_TOKENS = 512
EPOCH_S = 1e8
"""A clock that says more than this (3 years) does not count from the start of a trace."""

_Row = tuple[int, int, list[int]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Row).decode


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write all sessions to one file; the places of those left out are returned."""
    out: list[int] = []
    ids = BlockIds(BLOCK_TOKENS, first=0, partial=True)
    with tempfile.TemporaryFile(prefix="workloom-") as aside:
        rows = _Rows(aside)
        for place, session in enumerate(sessions):
            prompts = planned(session, place)
            if any(max(prompt.tokens, call.output_tokens) > LONGEST_PROMPT for call, prompt in prompts):
                report.drop(f"sessions left out: a prompt or answer of more than {LONGEST_PROMPT:,} tokens")
                out.append(place)
                continue
            start_s = _start(session, header, report)
            times = instants(session)
            for (call, prompt), blocks in zip(prompts, ids.session(prompts), strict=True):
                if not times[call.id].told:
                    report.infer("timestamps from waits, as if calls without recorded ends took no time")
                if call.answer_tokens < call.output_tokens:
                    report.infer("answers cut where their client hung up")
                rows.add(start_s + times[call.id].start_s, prompt.tokens, call.answer_tokens, blocks)
        if header.block_tokens not in (None, BLOCK_TOKENS):
            report.assume(f"what prompts share in blocks of {header.block_tokens} tokens is told in blocks of 512")
        rows.write(path, ids.next, report)
    return out


def _start(session: Session, header: Header, report: Report) -> float:
    if session.start_s is None:
        report.assume("sessions without a start begin at 0, all at once")
        return 0.0
    if not header.common_clock:
        report.assume("the starts of all sessions are on one clock")
    return session.start_s


class _Rows:
    """Rows put aside in the order of their sessions."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._times = array("d")
        self._offsets = array("Q", [0])

    def add(self, start_s: float, prompt_tokens: int, output_tokens: int, ids: list[int]) -> None:
        self._times.append(start_s)
        size = self._file.write(_encode((prompt_tokens, output_tokens, ids)))
        self._offsets.append(self._offsets[-1] + size)

    def write(self, path: Path, ids: int, report: Report) -> None:
        """All rows by time; those of one time in the order they were added. `ids`: how many there are."""
        times = self._times
        first = min(times, default=0.0)
        zero = first if first > EPOCH_S or first < 0 else 0.0
        if zero:
            report.assume("timestamps count from the first call")
        with tempfile.TemporaryFile(prefix="workloom-") as numbers, path.open("wb") as out:
            renumbered = _Renumbered(ids, numbers)
            for row in _order(times):
                begin, end = self._offsets[row], self._offsets[row + 1]
                self._file.seek(begin)
                prompt, output, blocks = _decode(self._file.read(end - begin))
                stamp = _milliseconds(times[row] - zero)
                told = renumbered(blocks)
                line = f'{{"timestamp": {stamp}, "input_length": {prompt}, "output_length": {output}, '
                out.write(f'{line}"hash_ids": {told}}}\n'.encode())


class _Renumbered:
    """Ids counted up in the order in which they are asked for; kept in a file, so memory does not grow with them."""

    def __init__(self, ids: int, file: IO[bytes]) -> None:
        file.truncate(max(1, ids) * 8)
        self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self._next = 0

    def __call__(self, ids: list[int]) -> list[int]:
        numbers, out = self._numbers, []
        for number in ids:
            known = numbers[number]
            if not known:
                self._next += 1
                known = numbers[number] = self._next
            out.append(known - 1)
        return out


def _order(times: array[float]) -> Iterator[int]:
    """Places by time, equal ones as they are."""
    import numpy as np

    return map(int, np.argsort(np.frombuffer(times), kind="stable")) if times else iter(())


def _milliseconds(seconds: float) -> int | float:
    """Whole where it is whole to the microsecond."""
    stamp = round(seconds * 1000, 3)
    return int(stamp) if stamp == int(stamp) else stamp
