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

from workloom.answers.calibrate.lineage import Lineage, Rows, trace
from workloom.clock import NS
from workloom.errors import StoreError, UsageError

if TYPE_CHECKING:
    from workloom.records import CallRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ROWS = ("session_id", "picked_up_s", "completed_s", "prompt_tokens", "output_tokens", "ttfc_s", "tbc_s")
"""Columns that a row file has at least: instants of one clock in seconds, `tbc_s` a list of gaps between chunks.

`ready_s`, when all that a call waited for was done, and `fresh_tokens`, what is new in its prompt, say more of which
calls followed which; `server_prompt_tokens` and `cached_tokens` are the server's own counts.
"""


class Observed(NamedTuple):
    """Calls that ended well, by when they were sent. Arrays have one entry a call.

    `before`: the index of the call whose history it continues, -1: none; `level`: how many calls that history has.
    `after`: the calls it waited for. `family`: the index of the first of those that were ready together with it, in a
    session; `twin`: of an earlier one of them that sent the same text (-1: none), where somebody said they did.
    `label`: its place in its session (:mod:`workloom.answers.calibrate.lineage`).
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
    after: list[tuple[int, ...]]
    family: Ints
    twin: Ints
    label: list[int]

    @property
    def first_s(self) -> Floats:
        return np.array([chunks[0] for chunks in self.chunks])

    @property
    def last_s(self) -> Floats:
        return np.array([chunks[-1] for chunks in self.chunks])


def read(path: Path, *, same_siblings: bool = False) -> Observed:
    """A run directory of ours, or a Parquet file with the columns of `ROWS`. Raises UsageError, StoreError.

    `same_siblings`: calls of one history that were ready together and are equally long sent one text: rows cannot tell.
    """
    if path.suffix == ".parquet":
        return _rows(path, same_siblings)
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
        ready_s=[call.due_ns / NS for call in sound],
        start_s=[(call.sent_ns or 0) / NS for call in sound],
        done_s=[(call.done_ns or 0) / NS for call in sound],
        prompt_tokens=[float(call.sent_prompt_tokens or call.planned_prompt_tokens) for call in sound],
        fresh_tokens=[float("nan")] * len(sound),
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


def _rows(path: Path, same_siblings: bool) -> Observed:
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
        ready_s=column.get("ready_s", starts),
        start_s=starts,
        done_s=column["completed_s"],
        prompt_tokens=column["prompt_tokens"],
        fresh_tokens=column.get("fresh_tokens", unknown),
        server_tokens=column.get("server_prompt_tokens", unknown),
        cached_tokens=column.get("cached_tokens", unknown),
        output_tokens=column["output_tokens"],
        chunks=[
            start + ttfc + np.concatenate(([0.0], np.cumsum(np.asarray(gap, dtype=np.float64))))
            for start, ttfc, gap in zip(starts, column["ttfc_s"], gaps, strict=True)
        ],
        same_siblings=same_siblings,
    )


def _observed(
    path: Path,
    *,
    session: Sequence[int],
    ready_s: Sequence[float],
    start_s: Sequence[float],
    done_s: Sequence[float],
    prompt_tokens: Sequence[float],
    fresh_tokens: Sequence[float],
    server_tokens: Sequence[float],
    cached_tokens: Sequence[float],
    output_tokens: Sequence[int],
    chunks: Sequence[Floats],
    same_siblings: bool = False,
) -> Observed:
    order = np.argsort(np.asarray(start_s), kind="stable")

    def sorted_floats(values: Sequence[float]) -> Floats:
        return np.asarray(values, dtype=np.float64)[order]

    rows = Rows(
        session=np.asarray(session, dtype=np.int64)[order],
        ready_s=sorted_floats(ready_s),
        start_s=sorted_floats(start_s),
        done_s=sorted_floats(done_s),
        prompt_tokens=sorted_floats(prompt_tokens),
        fresh_tokens=sorted_floats(fresh_tokens),
        output_tokens=np.asarray(output_tokens, dtype=np.int64)[order],
    )
    lineage = trace(rows)
    return Observed(
        name=path.stem if path.suffix else path.name,
        path=path,
        session=rows.session,
        before=lineage.before,
        level=lineage.level,
        start_s=rows.start_s,
        done_s=rows.done_s,
        prompt_tokens=rows.prompt_tokens,
        server_tokens=sorted_floats(server_tokens),
        cached_tokens=sorted_floats(cached_tokens),
        output_tokens=rows.output_tokens,
        chunks=[chunks[index] for index in order],
        after=lineage.after,
        family=lineage.family,
        twin=_twins(rows, lineage) if same_siblings else np.full(len(order), -1),
        label=lineage.label,
    )


def _twins(rows: Rows, lineage: Lineage) -> Ints:
    """The first of the calls of one history that were ready together and are as long."""
    twins = np.full(len(rows.session), -1)
    first: dict[tuple[int, ...], int] = {}
    for call in range(len(twins)):
        before, family = int(lineage.before[call]), int(lineage.family[call])
        if before < 0:
            continue
        alike = before, family, int(rows.prompt_tokens[call]), int(rows.output_tokens[call])
        twins[call] = first.setdefault(alike, call)
        if twins[call] == call:
            twins[call] = -1
    return twins
