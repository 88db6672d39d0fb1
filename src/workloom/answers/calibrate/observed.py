"""What was measured, in one form: runs of ours, and row files as other tools write them.

Of a call the calibrator needs when it was sent, when each chunk of its answer came, and how many tokens it had.
Instants are seconds on the run's own clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from workloom.clock import NS
from workloom.errors import StoreError, UsageError

if TYPE_CHECKING:
    from workloom.records import CallRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ROWS = ("session_id", "picked_up_s", "completed_s", "prompt_tokens", "output_tokens", "ttfc_s", "tbc_s")
"""Columns that a row file has at least: instants of one clock in seconds, `tbc_s` a list of gaps between chunks."""


class Observed(NamedTuple):
    """Calls that ended well, by when they were sent. Arrays have one entry a call.

    `before`: the index of the call before it in its session, -1 for the first; `level`: how many those are.
    `server_tokens`, `cached_tokens`: the prompt as the server counted it, and what of it came from its cache; nan where
    it did not say. `chunks`: the instants of each answer's chunks.
    """

    name: str
    path: Path
    session: Ints
    before: Ints
    level: Ints
    start_s: Floats
    done_s: Floats
    prompt_tokens: Floats
    server_tokens: Floats
    cached_tokens: Floats
    output_tokens: Ints
    chunks: list[Floats]

    @property
    def first_s(self) -> Floats:
        return np.array([chunks[0] for chunks in self.chunks])

    @property
    def last_s(self) -> Floats:
        return np.array([chunks[-1] for chunks in self.chunks])


def read(path: Path) -> Observed:
    """A run directory of ours, or a Parquet file with the columns of `ROWS`. Raises UsageError, StoreError."""
    if path.suffix == ".parquet":
        return _rows(path)
    from workloom.store import open_run

    run = open_run(path)
    observed = observed_of(path, run.calls())
    if not len(observed.session):
        raise UsageError(
            "a run holds no streamed call that ended well",
            where=str(path),
            expected="calls with the instants of their chunks",
            found="none",
            hint="run it with streaming on",
        )
    return observed


def observed_of(path: Path, calls: Iterable[CallRecord]) -> Observed:
    """Of the records of a run, the calls that streamed and ended well."""
    sound = [call for call in calls if call.status == "ok" and call.phase == "run" and _streamed(call)]
    return _observed(
        path,
        session=[call.instance for call in sound],
        start_s=[(call.sent_ns or 0) / NS for call in sound],
        done_s=[(call.done_ns or 0) / NS for call in sound],
        prompt_tokens=[float(call.sent_prompt_tokens or call.planned_prompt_tokens) for call in sound],
        server_tokens=[_nan(call.prompt_tokens) for call in sound],
        cached_tokens=[_nan(call.cached_tokens) for call in sound],
        output_tokens=[call.output_tokens or sum(run.count for run in call.chunks) for call in sound],
        chunks=[_instants(call) for call in sound],
    )


def _streamed(call: CallRecord) -> bool:
    return call.sent_ns is not None and call.done_ns is not None and sum(run.count for run in call.chunks) > 0


def _nan(count: int | None) -> float:
    return float("nan") if count is None else float(count)


def _instants(call: CallRecord) -> Floats:
    pieces = []
    for run in call.chunks:
        i = np.arange(run.count)
        pieces.append((run.first_ns + i * run.gap_ns + run.slope_ns * (i * (i - 1) // 2)) / NS)
    return np.concatenate(pieces)


def _rows(path: Path) -> Observed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError("a file of rows cannot be read", where=str(path), found=error) from error
    missing = [name for name in ROWS if name not in table.schema.names]
    if missing:
        raise UsageError(
            "a file of rows lacks columns", where=str(path), expected=", ".join(ROWS), found=f"no {', '.join(missing)}"
        )
    column = {name: table[name].to_pylist() for name in table.schema.names}
    starts = column["picked_up_s"]
    gaps = column["tbc_s"]
    unknown = [float("nan")] * len(starts)
    return _observed(
        path,
        session=column["session_id"],
        start_s=starts,
        done_s=column["completed_s"],
        prompt_tokens=column["prompt_tokens"],
        server_tokens=column.get("server_prompt_tokens", unknown),
        cached_tokens=column.get("cached_tokens", unknown),
        output_tokens=column["output_tokens"],
        chunks=[
            start + ttfc + np.concatenate(([0.0], np.cumsum(np.asarray(gap, dtype=np.float64))))
            for start, ttfc, gap in zip(starts, column["ttfc_s"], gaps, strict=True)
        ],
    )


def _observed(
    path: Path,
    *,
    session: Sequence[int],
    start_s: Sequence[float],
    done_s: Sequence[float],
    prompt_tokens: Sequence[float],
    server_tokens: Sequence[float],
    cached_tokens: Sequence[float],
    output_tokens: Sequence[int],
    chunks: Sequence[Floats],
) -> Observed:
    order = np.argsort(np.asarray(start_s), kind="stable")
    sessions = np.asarray(session, dtype=np.int64)[order]
    before, level = np.full(len(order), -1), np.zeros(len(order), dtype=np.int64)
    latest: dict[int, int] = {}
    for index, number in enumerate(sessions.tolist()):
        if number in latest:
            before[index] = latest[number]
            level[index] = level[latest[number]] + 1
        latest[number] = index
    return Observed(
        name=path.stem if path.suffix else path.name,
        path=path,
        session=sessions,
        before=before,
        level=level,
        start_s=np.asarray(start_s, dtype=np.float64)[order],
        done_s=np.asarray(done_s, dtype=np.float64)[order],
        prompt_tokens=np.asarray(prompt_tokens, dtype=np.float64)[order],
        server_tokens=np.asarray(server_tokens, dtype=np.float64)[order],
        cached_tokens=np.asarray(cached_tokens, dtype=np.float64)[order],
        output_tokens=np.asarray(output_tokens, dtype=np.int64)[order],
        chunks=[chunks[index] for index in order],
    )
