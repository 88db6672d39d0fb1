"""The columns of a run that the protocols of others are computed from: one read, numpy throughout.

Instants and counts are float64, nan where there was none; words are numbers into a list of the words that occur.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from workloom.metrics.frame import Bools, Ints, Window, floats
from workloom.metrics.stats import Floats
from workloom.records import CallRecord
from workloom.store import Run

if TYPE_CHECKING:
    import pyarrow as pa

OVERFLOW = "context_overflow"


@dataclass(slots=True)
class Words:
    """A column of words: row i holds ``names[code[i]]``."""

    code: Ints
    names: list[str]

    def are(self, *names: str) -> Bools:
        """Which rows hold one of some words."""
        return np.isin(self.code, [self.names.index(name) for name in names if name in self.names])

    def __getitem__(self, row: int) -> str:
        return self.names[int(self.code[row])]


@dataclass(slots=True)
class Columns:
    """The calls of a run; fields as in :class:`workloom.records.CallRecord`."""

    instance: Floats
    ordinal: Floats
    due_ns: Floats
    sent_ns: Floats
    first_ns: Floats
    last_ns: Floats
    done_ns: Floats
    planned_output_tokens: Floats
    sent_prompt_tokens: Floats
    prompt_tokens: Floats
    cached_tokens: Floats
    ideal_cached_tokens: Floats
    ideal_prompt_tokens: Floats
    output_tokens: Floats
    http_status: Floats
    status: Words
    phase: Words
    error_kind: Words
    agent: Words
    session: Words
    call: Words

    def __len__(self) -> int:
        return len(self.due_ns)

    @property
    def warmup(self) -> Bools:
        return self.phase.are("warmup")

    @property
    def ok(self) -> Bools:
        return self.status.are("ok")

    @property
    def failed(self) -> Bools:
        return self.status.are("error", "timeout")

    @property
    def overflow(self) -> Bools:
        """Failed because the server has no room for so long a context."""
        overflow: Bools = self.failed & self.error_kind.are(OVERFLOW)
        return overflow

    @property
    def input_tokens(self) -> Floats:
        """ISL: the server's count of the prompt, or where it gave none what was sent."""
        tokens: Floats = np.where(np.isnan(self.prompt_tokens), self.sent_prompt_tokens, self.prompt_tokens)
        return tokens

    @property
    def ideal_of_tokens(self) -> Floats:
        """What `ideal_cached_tokens` is out of: the plan's own length of the prompt, which runs of before had not."""
        tokens: Floats = np.where(self.ideal_prompt_tokens > 0, self.ideal_prompt_tokens, self.sent_prompt_tokens)
        return tokens

    def category(self, row: int) -> str:
        """The error of a failed row in one word: its kind, with the status where HTTP told of one."""
        if self.status[row] == "timeout":
            return "timeout"
        kind, status = self.error_kind[row], self.http_status[row]
        return f"http_{int(status)}" if kind == "http_status" and not np.isnan(status) else kind or "unknown"


NUMBERS = [field.name for field in fields(Columns) if field.type == "Floats"]
WORDS = [field.name for field in fields(Columns) if field.type == "Words"]


def columns(run: Run) -> Columns:
    """Read the calls of a run; a column that an older run lacks is nan, or the empty word."""
    numbers: dict[str, list[Floats]] = {name: [np.empty(0)] for name in NUMBERS}
    known: dict[str, dict[str, int]] = {name: {} for name in WORDS}
    codes: dict[str, list[Ints]] = {name: [np.empty(0, dtype=np.int64)] for name in WORDS}
    for batch in run.batches(CallRecord, [*NUMBERS, *WORDS]):
        there, rows = set(batch.schema.names), batch.num_rows
        for name, parts in numbers.items():
            parts.append(floats(batch.column(name)) if name in there else np.full(rows, np.nan))
        for name, found in codes.items():
            found.append(_codes(batch.column(name) if name in there else None, rows, known[name]))
    joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in numbers.items()}
    joined |= {name: Words(np.concatenate(found), list(known[name])) for name, found in codes.items()}
    return Columns(**joined)


def _codes(column: pa.Array | None, rows: int, known: dict[str, int]) -> Ints:
    """The words of a column as numbers; words that are new get the next ones."""
    if column is None:
        return np.full(rows, known.setdefault("", len(known)), dtype=np.int64)
    encoded = column.fill_null("").dictionary_encode()
    new = [known.setdefault(word, len(known)) for word in encoded.dictionary.to_pylist()]
    codes: Ints = np.array(new, dtype=np.int64)[encoded.indices.to_numpy()]
    return codes


def window_of(run: Run, calls: Columns) -> Window:
    """The measured window of a run; where the manifest has no end, through the last instant that was recorded."""
    start_ns, end_ns = run.manifest.window_start_ns, run.manifest.window_end_ns
    if end_ns is not None:
        return Window(start_ns, end_ns)
    instants = [calls.due_ns, calls.sent_ns, calls.first_ns, calls.last_ns, calls.done_ns]
    last = max((float(np.nanmax(found)) for found in instants if np.isfinite(found).any()), default=-1.0)
    return Window(start_ns, max(start_ns, int(last) + 1))
