"""All metrics of a run with a million calls: seconds of CPU, and the most memory.

    python benchmarks/all_metrics.py [--calls 1000000] [--sessions 100] [--keep FOLDER]

The canonical workload is run on a simulated engine once; its tables are then repeated behind one another in time, with
sessions of their own, until there are as many calls (455 output tokens each: 450 million gaps). What is measured is one
process that opens this run, makes its summary (intervals and critical paths included), and then every metric of the
catalog with its intervals. Prints seconds for each, and fails beyond 60 s of CPU or 4 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workloom.drive.driver import Options, Progress
from workloom.engine import profile as profiles
from workloom.execute import Simulated, execute
from workloom.plan import Closed, Limits, Recipe, TraceRef, make

MOST_S, MOST_GB = 60.0, 4.0
CANONICAL = Path(__file__).parents[1] / "src" / "workloom" / "data" / "canonical.jsonl"
ENGINE = "llama-3.1-70b-h200x4"


def base(path: Path, sessions: int) -> None:
    """A run of about 35 calls a session."""
    plan = make(Recipe(TraceRef((str(CANONICAL),)), Closed(8), Limits(sessions=sessions)))
    target = Simulated(profiles.load(ENGINE))
    execute(plan, target, path, options=Options(), progress=Progress(), argv=[], summarize=lambda run: b"{}")


def repeated(path: Path, calls: int) -> int:
    """Repeat the tables of a run in place until it has so many calls; how many it then has."""
    manifest = json.loads((path / "manifest.json").read_text())
    length_ns = manifest["window_end_ns"] or 0
    table = pq.read_table(path / "calls.parquet")
    sessions = pq.read_table(path / "sessions.parquet")
    copies = -(-calls // table.num_rows)
    step_ns = max(length_ns, int(np.nanmax(table["done_ns"].to_numpy()))) + 1
    instances = int(np.max(table["instance"].to_numpy())) + 1
    for name, rows in (("calls", table), ("sessions", sessions)):
        with pq.ParquetWriter(path / f"{name}.new", rows.schema) as writer:
            for k in range(copies):
                writer.write_table(moved(rows, k * instances, k * step_ns))
        (path / f"{name}.new").replace(path / f"{name}.parquet")
    manifest["window_end_ns"] = copies * step_ns
    (path / "manifest.json").write_text(json.dumps(manifest))
    return copies * table.num_rows


def moved(rows: pa.Table, instances: int, ns: int) -> pa.Table:
    """The same calls or sessions later, as other instances."""
    for name in rows.column_names:
        at, field = rows.column_names.index(name), rows.schema.field(name)
        if name == "instance":
            shifted = pa.compute.add(rows[name], instances)
        elif name.endswith("_ns") and name != "connect_ns":
            shifted = pa.compute.add(rows[name], ns)
        elif name == "chunks":
            shifted = _chunks(rows[name].combine_chunks(), ns)
        else:
            continue
        rows = rows.set_column(at, field, shifted.cast(field.type))
    return rows


def _chunks(column: pa.ListArray, ns: int) -> pa.ListArray:
    inner = column.values
    fields = [inner.type.field(i) for i in range(inner.type.num_fields)]
    values = [
        pa.compute.add(inner.field(i), ns) if f.name == "first_ns" else inner.field(i) for i, f in enumerate(fields)
    ]
    return pa.ListArray.from_arrays(column.offsets, pa.StructArray.from_arrays(values, fields=fields))


def measure(path: str) -> dict[str, float]:
    """Seconds of CPU of each part, and the most memory in GB."""
    from workloom.metrics.catalog import catalog
    from workloom.metrics.estimate import estimates
    from workloom.metrics.figure import Figure
    from workloom.metrics.measured import measured
    from workloom.metrics.streams import streams
    from workloom.metrics.summary import answers_of, summary_of
    from workloom.store import open_run

    spent: dict[str, float] = {}
    begin = last = time.process_time()

    def lap(name: str) -> None:
        nonlocal last
        now = time.process_time()
        spent[name], last = now - last, now

    run = measured(open_run(Path(path)))
    lap("load")
    streams(run)
    lap("streams")
    summary_of(run)
    lap("plain summary")
    answers_of(run)
    lap("intervals and workflow")
    for metric in catalog().values():
        estimates(
            run, [Figure(metric.name, s) for s in ([""] if metric.of == "run" else ("mean", "p50", "p95", "p99"))]
        )
        lap(metric.name)
    spent["total"] = time.process_time() - begin
    spent["calls"] = len(run.calls)
    spent["gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return spent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=100, help="of the run that is repeated")
    parser.add_argument("--keep", type=Path, help="make the run here, and leave it (or use it if it is there)")
    asked = parser.parse_args()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="all-metrics-"))
    path = folder / "run"
    try:
        if not path.exists():
            base(path, asked.sessions)
            repeated(path, asked.calls)
        with get_context("spawn").Pool(1) as pool:
            spent = pool.apply(measure, (str(path),))
    finally:
        if asked.keep is None:
            shutil.rmtree(folder)
    for name, seconds in spent.items():
        if name not in ("calls", "gb", "total") and seconds >= 0.005 * spent["total"]:
            print(f"{name:32} {seconds:8.2f} s")
    print(f"{spent['calls']:,.0f} calls: {spent['total']:.1f} s of CPU, {spent['gb']:.2f} GB")
    return 0 if spent["total"] < MOST_S and spent["gb"] < MOST_GB else 1


if __name__ == "__main__":
    sys.exit(main())
