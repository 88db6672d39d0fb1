"""A run as the metrics see it: its calls, their DAG, its sessions, streams and servers, loaded once.

Whatever made the run (live, simulated, in memory, on disk), a metric is a function of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
from msgspec import structs

from workloom.metrics.frame import SCALARS, Bools, Calls, Chunks, Ints, Window, batches, calls_of, chunks_of, floats
from workloom.metrics.given import Given, gpus_of
from workloom.metrics.samples import Samples, samples_of
from workloom.metrics.samples import samples as series
from workloom.metrics.sessions import Sessions, sessions_of
from workloom.metrics.sessions import sessions as session_columns
from workloom.metrics.stats import Floats
from workloom.metrics.window import window_of
from workloom.model.facts import role
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.session import Gap

if TYPE_CHECKING:
    import pyarrow as pa

    from workloom.store import Run
    from workloom.store.manifest import Manifest

GAPS: tuple[str, ...] = get_args(Gap)
WHO = ("agent", "model")


@dataclass(slots=True)
class Coded:
    """A column of words as numbers: row i says `words[codes[i]]`."""

    codes: Ints
    words: list[str]


@dataclass(slots=True)
class Edges:
    """The edges of all sessions. Edge j: row `child[j]` waited `wait_ns[j]` after row `parent[j]` was done.

    By child, of each in the order of the trace. Edges from calls that have no row (over before the run's part of the
    session began) are left out; a parent's row is always before its child's.
    """

    child: Ints
    parent: Ints
    wait_ns: Floats
    gap: Ints
    """Index into GAPS."""


@dataclass
class Measured:
    """Everything that was recorded, in the order of the plan (instance, then place in the session)."""

    manifest: Manifest | None
    window: Window
    calls: Calls
    agent: Coded
    model: Coded
    edges: Edges
    """Among calls of the phase `run`; those of the warm-up have none."""
    sessions: Sessions
    samples: Samples
    pieces: Callable[[], Iterator[Chunks]]
    """The chunk runs of all calls, some calls at a time, in row order."""
    only: Bools | None = field(default=None)
    """Rows that are looked at; None: all."""
    given: Given = field(default_factory=Given)
    """What was said of the servers: GPUs, prices, power."""

    @cached_property
    def due(self) -> Bools:
        """The rows that figures of calls are about: due in the window, not of the warm-up, and looked at."""
        due = self.window.holds(self.calls.due_ns) & ~self.calls.warmup
        return due if self.only is None else due & self.only

    @cached_property
    def role(self) -> Coded:
        """The kind of agent of each call: its name without what tells several of a kind apart (`Explore:a1`)."""
        words = [role(word) for word in self.agent.words]
        known = {word: i for i, word in enumerate(dict.fromkeys(words))}
        codes = np.array([known[word] for word in words], dtype=np.int64)
        return Coded(codes[self.agent.codes] if len(words) else self.agent.codes, list(known))

    @cached_property
    def carried(self) -> Floats:
        """Output tokens of each call, as counted from its chunks."""
        return np.concatenate([np.empty(0), *(piece.tokens for piece in self.pieces())])

    @property
    def gpus(self) -> float | None:
        """GPUs that served the run, where somebody says; None: unknown, or not the same all the time."""
        return gpus_of(self.manifest) if self.given.gpus is None else self.given.gpus

    @property
    def output_tokens(self) -> Floats:
        """Output tokens of each call by the server's count, or where it gave none by the chunks."""
        counted = self.calls.output_tokens
        return np.where(np.isnan(counted), self.carried, counted)

    @property
    def prompt_tokens(self) -> Floats:
        """Prompt tokens of each call by the server's count, or where it gave none by ours."""
        counted = self.calls.prompt_tokens
        return np.where(np.isnan(counted), self.calls.sent_prompt_tokens, counted)

    def looking_at(self, rows: Bools) -> Measured:
        """The same run, looking only at some of its calls (and of what is looked at now)."""
        other = replace(self, only=rows if self.only is None else rows & self.only)
        return self._lend(other)

    def within(self, window: Window) -> Measured:
        """The same run in another window."""
        return self._lend(replace(self, window=window))

    def as_promised(self) -> Measured:
        """The same run as SLOs see it: a failed call has kept nothing, so a first token that did come is no comfort."""
        calls = replace(self.calls, first_ns=np.where(self.calls.failed, np.nan, self.calls.first_ns))
        other = replace(self, calls=calls)
        other.__dict__.update({name: self.__dict__[name] for name in ("role", "carried") if name in self.__dict__})
        return other

    def _lend(self, other: Measured) -> Measured:
        """What was worked out and holds for another look at the run too."""
        kept = ("role", "carried", "workflow")
        other.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return other


def measured(run: Run, *, window: Window | None = None, whole: bool = False) -> Measured:
    """A run on disk: in its window, in another, or the `whole` of it from where the window begins."""
    manifest = run.manifest
    if whole:
        manifest = structs.replace(manifest, window_end_ns=None)
    return _measured(
        run.batches(CallRecord, [*SCALARS, *WHO, "after"]),
        lambda: (chunks_of(batch) for batch in run.batches(CallRecord, ["chunks"])),
        sessions_of(run.batches(SessionRecord)),
        samples_of(run.batches(ServerSample)),
        window,
        manifest,
    )


def measured_records(
    calls: Sequence[CallRecord],
    sessions: Iterable[SessionRecord] = (),
    samples: Iterable[ServerSample] = (),
    *,
    window: Window | None = None,
    manifest: Manifest | None = None,
) -> Measured:
    """Records in memory, in any order."""
    rows = sorted(calls, key=lambda record: (record.instance, record.ordinal))
    return _measured(
        batches(CallRecord, rows),
        lambda: (chunks_of(batch) for batch in batches(CallRecord, rows)),
        session_columns(sorted(sessions, key=lambda record: record.instance)),
        series(samples),
        window,
        manifest,
    )


def _measured(
    tables: Iterable[pa.RecordBatch],
    pieces: Callable[[], Iterator[Chunks]],
    sessions: Sessions,
    samples: Samples,
    window: Window | None,
    manifest: Manifest | None,
) -> Measured:
    who: dict[str, dict[str, int]] = {name: {} for name in WHO}
    codes: dict[str, list[Ints]] = {name: [np.empty(0, dtype=np.int64)] for name in WHO}
    after: list[tuple[Ints, Ints, Floats, Ints]] = []

    def noted() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in tables:
            for name in WHO:
                codes[name].append(_codes(batch.column(name), who[name]))
            if "after" in batch.schema.names:
                after.append(_after(batch.column("after"), row))
            row += batch.num_rows
            yield batch

    calls = calls_of(noted())
    agent, model = (Coded(np.concatenate(codes[name]), list(who[name])) for name in WHO)
    edges = _edges(calls, after)
    window = window or window_of(calls, sessions, manifest)
    return Measured(manifest, window, calls, agent, model, edges, sessions, samples, pieces)


def _codes(column: pa.Array, known: dict[str, int]) -> Ints:
    encoded = column.fill_null("").dictionary_encode()
    numbers = [known.setdefault(word, len(known)) for word in encoded.dictionary.to_pylist()]
    return np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()] if numbers else np.empty(0, dtype=np.int64)


def _after(column: pa.ListArray, first_row: int) -> tuple[Ints, Ints, Floats, Ints]:
    """Row of the child, place of the parent, wait and gap of every edge of a batch."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    child = np.repeat(np.arange(first_row, first_row + len(column)), lengths)
    gap = _codes(flat.field("gap"), dict(zip(GAPS, range(len(GAPS)), strict=True)))
    return child, flat.field("ordinal").to_numpy(zero_copy_only=False), floats(flat.field("wait_ns")), gap


def _edges(calls: Calls, after: list[tuple[Ints, Ints, Floats, Ints]]) -> Edges:
    if not after:
        none = np.empty(0, dtype=np.int64)
        return Edges(none, none, np.empty(0), none)
    child, place, wait_ns, gap = (np.concatenate(part) for part in zip(*after, strict=True))
    rows = np.flatnonzero(~calls.warmup)
    span = float(np.max(calls.ordinal, initial=0.0)) + 1
    keys = calls.instance[rows] * span + calls.ordinal[rows]
    wanted = calls.instance[child] * span + place
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    there = ~calls.warmup[child] & (len(keys) > 0)
    if len(keys):
        there &= keys[at] == wanted
    return Edges(child[there], rows[at[there]], wait_ns[there], gap[there])
