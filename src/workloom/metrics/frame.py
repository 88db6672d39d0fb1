"""Calls and sessions as numpy columns: what the metrics are computed from.

Instants are float64 nanoseconds since the start of the run (exact for 104 days), nan where there was none; so are
counts that may be missing. The window a figure is about is a pair of such instants: it holds its start, not its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workloom.clock import NS
from workloom.metrics.stats import Floats
from workloom.records import CallRecord, CallStatus
from workloom.store import tables

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Struct)
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STATUSES: tuple[str, ...] = get_args(CallStatus)
OK, ERROR, TIMEOUT, CANCELLED, CENSORED = (
    STATUSES.index(name) for name in ("ok", "error", "timeout", "cancelled", "censored")
)

LINE = 160
"""Letters kept of an error's message."""


class Window(Struct, frozen=True):
    """What is measured: from one instant of the run up to, and without, another; nanoseconds."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS

    def holds(self, instants: Floats) -> Bools:
        """Which of the instants lie in the window (nan never does)."""
        inside: Bools = (instants >= self.start_ns) & (instants < self.end_ns)
        return inside


@dataclass(slots=True)
class Calls:
    """Every call of a run but its chunks; fields as in :class:`workloom.records.CallRecord`."""

    instance: Floats
    ordinal: Floats
    due_ns: Floats
    sent_ns: Floats
    admitted_ns: Floats
    first_ns: Floats
    last_ns: Floats
    done_ns: Floats
    planned_prompt_tokens: Floats
    planned_output_tokens: Floats
    planned_fresh_tokens: Floats
    sent_prompt_tokens: Floats
    prompt_tokens: Floats
    cached_tokens: Floats
    ideal_cached_tokens: Floats
    ideal_prompt_tokens: Floats
    output_tokens: Floats
    reasoning_tokens: Floats
    retries: Floats
    connect_ns: Floats
    status: Ints
    """Index into STATUSES."""
    warmup: Bools
    """Sent before the measured window, to put contexts into the server's cache."""
    error_kind: Ints
    """Index into `error_kinds`; the kind of a call without an error is the empty word."""
    message: Ints
    """Index into `messages`: what the call's error says, cut to one line."""
    error_kinds: list[str]
    messages: list[str]

    def __len__(self) -> int:
        return len(self.due_ns)

    @property
    def failed(self) -> Bools:
        """Sent, and no whole answer came: their latency is infinite."""
        return np.isin(self.status, (ERROR, TIMEOUT))

    @property
    def end_ns(self) -> int:
        """The last instant that a call left; 0 without calls."""
        instants = [self.sent_ns, self.first_ns, self.last_ns, self.done_ns, self.due_ns[self.status != CANCELLED]]
        return int(max((float(np.nanmax(a)) for a in instants if np.isfinite(a).any()), default=0.0))


WORDS = ["status", "error_kind", "error", "phase"]
NUMBERS = [field.name for field in fields(Calls) if field.type == "Floats"]
SCALARS = [*NUMBERS, *WORDS]
"""The columns of calls.parquet that :class:`Calls` needs."""


UNKNOWN = {"admitted_ns", "planned_fresh_tokens"}
"""Columns whose values nobody knows where an older run lacks them; the others are 0 there."""


def calls_of(batches: Iterable[pa.RecordBatch]) -> Calls:
    """The columns of all batches, one behind the other."""
    words: list[dict[str, int]] = [{name: i for i, name in enumerate(STATUSES)}, {}, {}, {"run": 0, "warmup": 1}]
    numbers: dict[str, list[Floats]] = {name: [np.empty(0)] for name in NUMBERS}
    codes: list[list[Ints]] = [[np.empty(0, dtype=np.int64)] for _ in WORDS]
    for batch in batches:
        there = set(batch.schema.names)  # an older run lacks the newer columns
        for name, parts in numbers.items():
            missing = np.nan if name in UNKNOWN else 0.0
            parts.append(floats(batch.column(name)) if name in there else np.full(batch.num_rows, missing))
        for name, known, found in zip(WORDS, words, codes, strict=True):
            found.append(_codes(batch.column(name), known) if name in there else np.zeros(batch.num_rows, np.int64))
    status, error_kind, message, phase = (np.concatenate(found) for found in codes)
    return Calls(
        **{name: np.concatenate(parts) for name, parts in numbers.items()},
        status=status,
        warmup=phase == 1,
        error_kind=error_kind,
        message=message,
        error_kinds=list(words[1]),
        messages=list(words[2]),
    )


def floats(column: pa.Array) -> Floats:
    """A column of numbers, nan for null."""
    import pyarrow as pa

    values: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _codes(column: pa.Array, known: dict[str, int]) -> Ints:
    encoded = column.fill_null("").dictionary_encode()
    numbers = [known.setdefault(_line(word), len(known)) for word in encoded.dictionary.to_pylist()]
    return np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()] if numbers else np.empty(0, dtype=np.int64)


def _line(text: str) -> str:
    """The first line that says something, cut, without what a terminal would obey."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


@dataclass(slots=True)
class Chunks:
    """The chunk runs of some calls: run j belongs to call `call[j]` of them; in each call in the order they came."""

    calls: int
    call: Ints
    first_ns: Floats
    gap_ns: Floats
    slope_ns: Floats
    count: Ints
    tokens_each: Ints

    def at(self, i: Ints, runs: Ints | slice = slice(None)) -> Floats:
        """The instant of chunk i of each run, as ChunkRun.at."""
        linear = self.first_ns[runs] + i * self.gap_ns[runs]
        instants: Floats = np.rint(linear + self.slope_ns[runs] * (i * (i - 1) // 2))
        return instants

    @property
    def tokens(self) -> Floats:
        """Output tokens of each call, as counted from its chunks."""
        return per_call(self.call, self.count * self.tokens_each, self.calls)


def per_call(call: Ints, weights: Ints, calls: int) -> Floats:
    """The sum of the weights of each call's runs."""
    return np.bincount(call, weights=weights, minlength=calls).astype(np.float64)


def chunks_of(batch: pa.RecordBatch) -> Chunks:
    """The chunk runs of a batch of calls."""
    import pyarrow.compute as pc

    column = batch.column("chunks")
    runs = column.flatten()
    owner = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy(zero_copy_only=False))
    first, gap, slope, count, each = (runs.field(i).to_numpy(zero_copy_only=False) for i in range(5))
    there = count > 0
    return Chunks(
        len(column),
        owner[there].astype(np.int64),
        first[there].astype(np.float64),
        gap[there],
        slope[there],
        count[there],
        each[there],
    )


def batches(kind: type[R], records: Iterable[R]) -> Iterator[pa.RecordBatch]:
    """Records as batches of bounded size."""
    rest = iter(records)
    while some := list(islice(rest, tables.ROWS)):
        yield tables.to_batch(kind, some)


def calls(records: Sequence[CallRecord]) -> Calls:
    """Records as columns."""
    return calls_of(batches(CallRecord, records))


def chunks(records: Sequence[CallRecord]) -> Chunks:
    """The chunk runs of records."""
    return chunks_of(tables.to_batch(CallRecord, list(records)))
