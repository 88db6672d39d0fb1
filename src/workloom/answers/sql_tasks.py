"""The tasks of runs as a table for `workloom sql`: worked out from the calls' edges, as the metrics do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from workloom.clock import NS
from workloom.metrics.measured import Measured
from workloom.metrics.workflow.tasks import Tasks, tasks
from workloom.store import tables

if TYPE_CHECKING:
    import pyarrow as pa


class TaskRow(Struct):
    """`task`: its number in the run's part of its session. `ordinal`: the call that opens it; `ordinals`: all its
    calls. `status`: ok, failed, censored (the run ended first), never begun (an earlier one failed) or partial (under
    way when the run's part of its session began)."""

    run: str
    instance: int
    task: int
    ordinal: int
    ordinals: list[int]
    status: str
    measured: bool
    due_s: float
    makespan_s: float | None
    ttfat_s: float | None
    ttfut_s: float | None


def task_table(runs: dict[str, Measured]) -> pa.Table:
    """A row a task, by run and in the order of the calls that open them."""
    import pyarrow as pa

    rows = [structs.asdict(row) for name, run in runs.items() for row in _rows(name, run, tasks(run))]
    return pa.Table.from_pylist(rows, schema=tables.schema(TaskRow))


def _rows(name: str, run: Measured, every: Tasks) -> list[TaskRow]:
    order = np.argsort(every.of, kind="stable")
    first = np.searchsorted(every.of[order], np.arange(len(every) + 1))
    ordinal = run.calls.ordinal.astype(np.int64)
    due = run.window.holds(every.due_ns)
    number: dict[float, int] = {}
    rows = []
    for i in range(len(every)):
        instance = float(every.instance[i])
        number[instance] = number.get(instance, -1) + 1
        begin, failed, ok = float(every.due_ns[i]), bool(every.failed[i]), bool(every.ok[i])
        at_end = float("inf") if failed else None
        came = (float(every.first_ns[i]) - begin) / NS
        told = not (every.partial[i] or every.never_begun[i])
        rows.append(
            TaskRow(
                name,
                int(instance),
                number[instance],
                int(ordinal[every.opens[i]]),
                ordinal[order[first[i] : first[i + 1]]].tolist(),
                _status(every, i),
                bool(due[i]),
                begin / NS,
                (float(every.done_ns[i]) - begin) / NS if ok else at_end,
                _there((float(every.answer_ns[i]) - begin) / NS) if ok else at_end,
                (_there(came) if came == came else at_end) if told else None,
            )
        )
    return rows


def _there(value: float) -> float | None:
    return None if np.isnan(value) else value


def _status(every: Tasks, i: int) -> str:
    for name, flags in (
        ("never begun", every.never_begun),
        ("failed", every.failed),
        ("censored", every.censored),
        ("partial", every.partial),
    ):
        if flags[i]:
            return name
    return "ok"
