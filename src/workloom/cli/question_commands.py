"""Commands that ask questions of runs, or make runs to answer one: each parses, and calls the module that does it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from workloom.cli.app import Json, Out, OutOrNone, app
from workloom.cli.capacity_options import CapacityOptions
from workloom.cli.engine import EngineOptions
from workloom.cli.metrics import MetricsOptions
from workloom.cli.options import Count, LoadOptions, RunOptions, TraceOptions
from workloom.cli.probe import ProbeOptions
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions
from workloom.cli.slo_options import SloOptions


@app.command
def sql(
    words: list[str],
    /,
    *,
    json: Json = False,
    csv: Annotated[bool, Parameter(negative="")] = False,
    rows: Count = 200,
) -> None:
    """Ask runs in SQL: workloom sql RUN... "select role, median(ttft_s) from calls_s group by role".

    Parameters
    ----------
    words
        Run directories, then the query (or a file .sql). Tables: runs, calls, sessions, server, chunks, gaps, edges, \
calls_s, sessions_s, tasks; see docs/queries.md.
    csv
        Print comma-separated values.
    rows
        Most rows of the table that is printed; --json and --csv print all.
    """
    from workloom.cli.sql import sql as go

    go(words, json, csv, rows)


@app.command
def slo(
    directory: str,
    /,
    *,
    json: Json = False,
    whole: Annotated[bool, Parameter(negative="")] = False,
    asked: SloOptions = SloOptions(),
) -> None:
    """Judge a run by promises. Exits with 0 if all were kept, 3 if one was broken, 4 if the run cannot tell.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote.
    whole
        Judge all of the run behind its warm-up, not only the window in which the load was as asked.
    """
    from workloom.cli.slo import slo as go

    go(directory, asked, json, whole)


@app.command
def compare(
    a: str,
    b: str,
    /,
    *,
    figure: list[str] | None = None,
    gate: list[str] | None = None,
    all: Annotated[bool, Parameter(negative="")] = False,
    pairing: Literal["auto", "paired", "unpaired"] = "auto",
    same: float = 0.02,
    strict: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    json: Json = False,
) -> None:
    """Compare run B with run A: figures with intervals and verdicts, what differs in their settings, what calls moved.

    Parameters
    ----------
    a
        A run directory, or several of a kind: A1,A2,A3 or a glob in quotes.
    b
        The same, of what is compared with it.
    figure
        A figure (ttft_p95, e2e_mean[agent=main]), or a metric for its usual ones (ttft); may be given again.
    gate
        How much worse B may be: "ttft_p95:+5%", "errors:+1pp", "output_tokens_per_s:-3%"; may be given again. Exit \
code 3 when one fails, 4 when there is not enough data to say.
    all
        Every metric with its usual statistics, and every setting that differs.
    pairing
        auto: session by session where both runs had the same sessions, by workload and seed.
    same
        Figures within this share of each other are the same.
    strict
        A gate that there is not enough data for fails.
    seed
        Root of the randomness of intervals.
    """
    from workloom.cli.compare import comparison as go

    go(a, b, figure or [], gate or [], all, pairing, same, strict, seed, json)


@app.command
def sweep(
    trace: list[str],
    /,
    *,
    out: Out,
    vary: Annotated[list[str] | None, Parameter(negative="")] = None,
    zip: Annotated[bool, Parameter(negative="")] = False,
    file: Annotated[str | None, Parameter(name="--list")] = None,
    figure: Annotated[list[str] | None, Parameter(negative="")] = None,
    x: str | None = None,
    y: str | None = None,
    gpus: float | None = None,
    json: Json = False,
    csv: Annotated[bool, Parameter(negative="")] = False,
    slos: SloOptions = SloOptions(),
    running: RunOptions = RunOptions(),
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
    engine: EngineOptions = EngineOptions(),
    server: ServerOptions = ServerOptions(),
    text: TextOptions = TextOptions(),
    watch: WatchOptions = WatchOptions(),
) -> None:
    """Run a workload under many sets of options: one table, one chart of what is traded for what. Goes on where it was.

    Parameters
    ----------
    trace
        Trace files, folders or globs; or one plan file.
    out
        Directory for the sweep: a run directory a point, and report.html. The same command goes on with it.
    vary
        OPTION=VALUES of `workloom run`: concurrency=1,2,4 or rate=1:8:1 or concurrency=1:64:x2. Again: a grid.
    zip
        The first values of all --vary go together, then the second ones, instead of a grid.
    file
        A file of option sets instead: a YAML list, or a JSON object a line (.jsonl).
    figure
        Figure of the table, as in ttft_p95[agent=main]; may be given again.
    x
        Figure across the chart (default: tokens/s per user).
    y
        Figure up the chart (default: output tokens/s per GPU).
    gpus
        GPUs of a live server, for figures per GPU.
    csv
        Print comma-separated values.
    """
    from workloom.cli.prepare import Asked
    from workloom.cli.sweep import sweep as go

    asked = Asked(trace, running, reading, load, engine, server, text, watch)
    go(out, vary or [], zip, file, figure or [], (x, y), gpus, (json, csv), slos, asked)


@app.command
def probe(
    what: Literal["prefill", "decode", "cache", "stress"],
    workload: list[str] | None = None,
    /,
    *,
    out: OutOrNone = None,
    json: Json = False,
    asked: ProbeOptions = ProbeOptions(),
    reading: TraceOptions = TraceOptions(),
    engine: EngineOptions = EngineOptions(),
    server: ServerOptions = ServerOptions(),
    text: TextOptions = TextOptions(),
    watch: WatchOptions = WatchOptions(),
) -> None:
    """Measure what a server does with the simplest loads: prefill, decode, its prefix cache, and stress.

    Parameters
    ----------
    what
        prefill: TTFT against prompt length. decode: TBC against batch size and context. cache: cached against cold \
prefill, and how long a prefix is kept. stress: throughput against load, to the knee.
    workload
        stress: a workload or trace to load it with (default: single calls).
    out
        Folder for its runs, probe.json and report.html (default: the next free one under runs/).
    """
    from workloom.cli.probe import probe as go

    go(what, workload, out, json, asked, reading, engine, server, text, watch)


@app.command(name="plan-size")
def plan_size(
    trace: list[str] | None = None,
    /,
    *,
    until: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    run: Annotated[str | None, Parameter(name="--from")] = None,
    json: Json = False,
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
    engine: EngineOptions = EngineOptions(),
) -> None:
    """Say beforehand how many sessions, calls and seconds it takes to know a figure so well, from a pilot run.

    With --duration, --sessions or --calls: how well the figures will be known after that.

    Parameters
    ----------
    trace
        Trace files, folders or globs; or one plan file. The pilot is simulated (default engine llama-3.1-70b-h200x4).
    until
        How well a figure is to be known, as in ttft_p95±5%; may be given again (default: a table of the usual figures).
    run
        A run directory to take for the pilot instead.
    """
    from workloom.cli.plan_size import size as go

    go(trace or [], until, run, json, reading, load, engine)


@app.command
def metrics(directory: str | None = None, /, *, json: Json = False, asked: MetricsOptions = MetricsOptions()) -> None:
    """List the metrics, or print figures of a run with their uncertainty: all of them, or those that are asked for.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote (default: list the names).
    """
    from workloom.cli.metrics import metrics as go

    go(directory, json, asked)


@app.command
def capacity(
    trace: list[str],
    /,
    *,
    out: OutOrNone = None,
    json: Json = False,
    options: CapacityOptions = CapacityOptions(),
    running: RunOptions = RunOptions(),
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
    engine: EngineOptions = EngineOptions(),
    server: ServerOptions = ServerOptions(),
    text: TextOptions = TextOptions(),
    watch: WatchOptions = WatchOptions(),
) -> None:
    """Find the highest load that keeps promises, or the replicas that it takes: an interval, and what breaks first.

    Parameters
    ----------
    trace
        Trace files, folders or globs; a workload's name or file.
    out
        Directory of the search (default: the next free one under runs/). The same command with the same directory \
goes on where it was.
    """
    from workloom.cli.capacity import capacity as go
    from workloom.cli.prepare import Asked

    go(Asked(trace, running, reading, load, engine, server, text, watch), options, out, json)
