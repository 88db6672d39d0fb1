"""SQL over run directories: DuckDB in memory, over the tables as they stand on disk.

The database has no way out: it reads the tables of the runs that were named and can neither write nor open any file.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct, structs

from workloom.answers.sql_tasks import task_table
from workloom.answers.sql_views import TASKS, VIEWS
from workloom.errors import StoreError, UsageError, WorkloomError
from workloom.metrics.frame import Window
from workloom.metrics.measured import measured
from workloom.model.facts import role
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.store import Run, open_run, tables
from workloom.store.run import JOURNAL

if TYPE_CHECKING:
    import pyarrow as pa

KINDS: tuple[type[Struct], ...] = (CallRecord, SessionRecord, ServerSample)
TABLES = {
    "runs": "a run: its manifest",
    "calls": "a call, as in calls.parquet",
    "sessions": "a session tree, as in sessions.parquet",
    "server": "a figure of a server at an instant, as in server.parquet",
    **{view.name: view.what for view in VIEWS},
    "tasks": "a task, with its durations in seconds",
}
"""What can be asked, and what a row of it is."""
CLOSED = ("python_enable_replacements = false", "enable_external_access = false", "lock_configuration = true")
"""What shuts the database in."""
PIECE = 10_000
"""Rows fetched at once."""


class Column(NamedTuple):
    """`kind`: DuckDB's name of its type."""

    name: str
    kind: str


class RunRow(Struct):
    """A row of the table `runs`."""

    run: str
    path: str
    status: str
    backend: str
    workload: str
    load: str
    seed: int
    plan_hash: str
    window_start_ns: int
    window_end_ns: int
    window_s: float
    started: str
    wall_s: float | None
    workloom: str
    notes: list[str]
    argv: list[str]
    config: str
    """JSON."""


SAME = ("status", "backend", "workload", "load", "seed", "plan_hash", "started", "wall_s", "workloom", "notes", "argv")
"""Its fields that stand in the manifest just so."""


class Answer:
    """What a query gave: its columns, and its rows as they are fetched."""

    def __init__(self, columns: tuple[Column, ...], connection: Any) -> None:
        self.columns = columns
        self._connection = connection

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Row by row, once. Raises UsageError where the query only now turns out to be at fault."""
        duckdb = _duckdb()
        try:
            while piece := self._connection.fetchmany(PIECE):
                yield from piece
        except duckdb.Error as fault:
            raise _refused(fault) from fault


def query(runs: Sequence[Path | str], text: str) -> Answer:
    """The answer of SQL about runs; a run that was killed is recovered first, one that is going is read as it stands.

    Several statements are carried out in their order; the answer is the last one's. Every table has a column `run`:
    the name of the run's directory, or its path where two have one name. Raises StoreError where there is no run,
    UsageError where DuckDB cannot do what is asked, WorkloomError where DuckDB is not installed.
    """
    duckdb = _duckdb()
    opened = [open_run(path) for path in runs]
    connection = duckdb.connect(":memory:")
    asks_tasks = re.search(r"\btasks\b", text, re.IGNORECASE) is not None  # they take a while: only when asked for
    _load(connection, dict(zip(_names(opened), opened, strict=True)), tasks=asks_tasks)
    for setting in CLOSED:
        connection.execute(f"set {setting}")
    try:
        connection.execute(text)
        described = connection.description
    except duckdb.Error as fault:
        raise _refused(fault) from fault
    if not described:
        raise UsageError("the query is empty", where="the last argument", expected='SQL, as "select * from calls"')
    return Answer(tuple(Column(name, str(kind)) for name, kind, *_ in described), connection)


def _duckdb() -> Any:
    try:
        return importlib.import_module("duckdb")
    except ModuleNotFoundError as fault:
        raise WorkloomError(
            "queries need DuckDB, which is not installed",
            expected="the package duckdb",
            hint="pip install 'workloom[sql]'; the tables of a run are Parquet files, which other tools can read too",
        ) from fault


def _names(runs: Sequence[Run]) -> list[str]:
    """One name a run. Raises UsageError where a run is named twice."""
    paths = [run.path.resolve() for run in runs]
    twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if twice is not None:
        raise UsageError("a run is named twice", found=str(twice))
    short = [path.name for path in paths]
    return [str(run.path) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]


def _load(connection: Any, runs: dict[str, Run], *, tasks: bool) -> None:
    """All tables and views of the runs."""
    for kind in KINDS:
        parts = []
        for i, (name, run) in enumerate(runs.items()):
            place = f"_{tables.NAMES[kind]}_{i}"
            source, there = _source(run, kind)
            connection.register(place, source)
            columns = ", ".join(_column(field, field.name in there) for field in structs.fields(kind))
            parts.append(f"select {_text(name)} as run, {columns} from {place}")
        connection.execute(f"create view {tables.NAMES[kind]} as {' union all '.join(parts)}")
    connection.register("_runs", _manifests(runs))
    connection.execute("create view runs as select * replace (config::json as config) from _runs")
    connection.register("_roles", _roles(connection))
    for view in VIEWS:
        connection.execute(f"create view {view.name} as {view.sql}")
    connection.register("_tasks", task_table({name: measured(run) for name, run in runs.items()} if tasks else {}))
    connection.execute(f"create view tasks as {TASKS}")


def _source(run: Run, kind: type[Struct]) -> tuple[Any, set[str]]:
    """A table as DuckDB reads it, and the columns that its file has: from disk, piece by piece; of a run that is going,
    what there is by now."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    shape = tables.schema(kind)
    if run.live or (run.path / JOURNAL).exists():
        return pa.Table.from_batches(list(run.batches(kind)), schema=shape), set(shape.names)
    path = run.path / f"{tables.NAMES[kind]}.parquet"
    try:
        return ds.dataset(path, schema=shape, format="parquet"), set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as fault:
        raise StoreError(f"a table of the run cannot be read: {fault}", where=str(path), hint=tables.LOST) from fault


def _column(field: structs.FieldInfo, there: bool) -> str:
    """A column; where an older run lacks it, its default."""
    quoted = f'"{field.name}"'
    if field.default_factory is not msgspec.NODEFAULT:
        default = "[]"
    elif isinstance(field.default, str):
        default = _text(field.default)
    else:
        default = "null" if field.default in (None, msgspec.NODEFAULT) else str(field.default).lower()
    return quoted if there else f"coalesce({quoted}, {default}) as {quoted}"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _manifests(runs: dict[str, Run]) -> pa.Table:
    import pyarrow as pa

    rows = [structs.asdict(_row(name, run)) for name, run in runs.items()]
    return pa.Table.from_pylist(rows, schema=tables.schema(RunRow))


def _row(name: str, run: Run) -> RunRow:
    manifest = run.manifest
    if manifest.window_end_ns is None:
        window = measured(run).window
    else:
        window = Window(manifest.window_start_ns, manifest.window_end_ns)
    same = {field: getattr(manifest, field) for field in SAME}
    return RunRow(
        name,
        str(run.path),
        window_start_ns=window.start_ns,
        window_end_ns=window.end_ns,
        window_s=window.seconds,
        config=msgspec.json.encode(manifest.config).decode(),
        **same,
    )


def _roles(connection: Any) -> pa.Table:
    """The role of every agent."""
    import pyarrow as pa

    agents = [agent for (agent,) in connection.execute("select distinct agent from calls order by agent").fetchall()]
    roles = [role(agent) for agent in agents]
    return pa.table({"agent": pa.array(agents, pa.string()), "role": pa.array(roles, pa.string())})


def _refused(fault: Exception) -> UsageError:
    """DuckDB's fault, with what there is to ask."""
    return UsageError(
        "the query cannot be answered",
        found="\n    ".join(line for line in str(fault).splitlines() if line.strip()),
        hint=f'there are {", ".join(TABLES)}; "describe calls_s" lists the columns of one',
    )
