"""Commands about runs, traces and workloads: each parses, and calls the module that does it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from workloom.cli.app import Json, Out, OutOrNone, app
from workloom.cli.calibrate import KnownOptions
from workloom.cli.engine import EngineOptions
from workloom.cli.options import LoadOptions, PrivacyOptions, RunOptions, TraceOptions, Whole
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions
from workloom.cli.slo_options import SloOptions


@app.command
def run(
    trace: list[str],
    /,
    *,
    out: OutOrNone = None,
    json: Json = False,
    running: RunOptions = RunOptions(),
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
    engine: EngineOptions = EngineOptions(),
    server: ServerOptions = ServerOptions(),
    text: TextOptions = TextOptions(),
    watch: WatchOptions = WatchOptions(),
    slos: SloOptions = SloOptions(),
) -> None:
    """Run a workload on the simulated engine (--engine) or against a server (--url), and print what it felt like.

    Parameters
    ----------
    trace
        Trace files, folders or globs; or one plan file.
    out
        Directory for the run (default: the next free one under runs/).
    """
    from workloom.cli.run import run as go

    go(trace, out, json, running, reading, load, engine, server, text, watch, slos)


@app.command
def plan(
    trace: list[str],
    /,
    *,
    out: Out,
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
) -> None:
    """Write a plan: the recipe of a run, which `workloom run` accepts, and its first instances to look at.

    Parameters
    ----------
    trace
        Trace files, folders or globs.
    out
        The file to write.
    """
    from workloom.cli.run import write_plan

    write_plan(trace, out, reading, load)


@app.command
def show(directory: str, /, *, json: Json = False, whole: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show the numbers of a run again, whether it was finished, interrupted or killed.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote.
    whole
        Measure all of the run behind its warm-up, not only the window in which the load was as asked.
    """
    from workloom.cli.show import show as go

    go(directory, json, whole)


@app.command
def inspect(trace: list[str], /, *, json: Json = False, reading: TraceOptions = TraceOptions()) -> None:
    """Say what is in a trace: sessions, calls, tokens, shape, and how much of it an ideal cache would serve.

    Parameters
    ----------
    trace
        Trace files, folders or globs.
    """
    from workloom.cli.show import inspect as go

    go(trace, json, reading)


@app.command
def characterize(
    trace: list[str],
    /,
    *,
    out: OutOrNone = None,
    json: Json = False,
    block_tokens: Whole = None,
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
) -> None:
    """Study workloads side by side: graph shapes, where the time goes, reuse, instability, roles. -o writes a report.

    Parameters
    ----------
    trace
        Each a trace (a file, a folder or a glob in quotes), a workload file, or a name from `workloom workloads`.
    out
        The report to write: one HTML file with charts, which needs nothing else.
    block_tokens
        Tokens of a KV block in the curves of reuse (default: that of the trace, else 16).
    """
    from workloom.cli.characterize import characterize as go

    go(trace, out, json, block_tokens, reading, load)


@app.command(name="import")
def import_(
    source: list[str],
    /,
    *,
    out: Out,
    json: Json = False,
    reading: TraceOptions = TraceOptions(),
    privacy: PrivacyOptions = PrivacyOptions(),
) -> None:
    """Take the traces one has into workloom's own format, without text, and say what was understood.

    Parameters
    ----------
    source
        Files, folders (walked) or globs, of any formats.
    out
        The trace to write (.jsonl, or compressed: .jsonl.zst).
    """
    from workloom.cli.traces import import_ as go

    go(source, out, json, reading, privacy)


@app.command
def anonymize(
    trace: list[str],
    /,
    *,
    out: Out,
    json: Json = False,
    skip_bad: Annotated[bool, Parameter(negative="")] = False,
    privacy: PrivacyOptions = PrivacyOptions(),
) -> None:
    """Take texts and identities out of traces in workloom's own format.

    Parameters
    ----------
    trace
        Native trace files, folders or globs.
    out
        The trace to write (.jsonl, or compressed: .jsonl.zst).
    skip_bad
        Leave out and count what is malformed instead of stopping.
    """
    from workloom.cli.traces import import_ as go

    go(trace, out, json, TraceOptions("native", skip_bad), privacy)


@app.command
def export(
    trace: list[str],
    /,
    *,
    format: str,
    out: Out,
    source_format: Annotated[str | None, Parameter(name="--from")] = None,
    skip_bad: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Write a trace in another tool's format; what that format cannot hold is listed first.

    Parameters
    ----------
    trace
        Trace files, folders or globs.
    format
        weka (a folder of files), mooncake, trie, veeksha, aiperf-dag or csv.
    out
        The file to write; for weka the folder.
    source_format
        Format of the trace; told from the content unless given.
    skip_bad
        Leave out and count what is malformed instead of stopping.
    dry_run
        Only list what the format cannot hold.
    """
    from workloom.cli.traces import export as go

    go(trace, format, out, TraceOptions(source_format, skip_bad), dry_run, json)


@app.command
def fit(
    trace: list[str],
    /,
    *,
    out: Out,
    name: str | None = None,
    families: Literal["best", "parametric", "quantiles"] = "best",
    json: Json = False,
    reading: TraceOptions = TraceOptions(),
) -> None:
    """Fit a workload to a trace: a short file to read and edit, which `workloom synth` makes sessions of.

    Parameters
    ----------
    trace
        Trace files, folders or globs.
    out
        The file to write (.yaml).
    name
        Name of the workload (default: that of the file).
    families
        best: the family that AIC likes best where it is close to the sample, else quantiles; or always one of the two.
    """
    from workloom.cli.workloads import fit as go

    go(trace, out, name, families, json, reading)


@app.command
def synth(
    workload: str,
    /,
    *,
    out: Out,
    sessions: Whole = 1000,
    seed: int = 0,
) -> None:
    """Make sessions of a workload: the same seed gives the same bytes, on any machine.

    Parameters
    ----------
    workload
        A workload file, or a name that `workloom workloads` lists.
    out
        The trace to write (.jsonl, or compressed: .jsonl.zst).
    sessions
        How many.
    seed
        Root of all randomness.
    """
    from workloom.cli.workloads import synth as go

    go(workload, sessions, seed, out)


@app.command
def workloads(name: str | None = None, /, *, json: Json = False) -> None:
    """List the workloads that come with workloom, or print one of them as a file to edit.

    Parameters
    ----------
    name
        A name from the list.
    """
    from workloom.cli.workloads import workloads as go

    go(name, json)


@app.command
def schema() -> None:
    """Print the JSON Schema of workload files, for completion in editors."""
    from workloom.cli.workloads import print_schema

    print_schema()


@app.command
def fidelity(
    real: str,
    other: str,
    /,
    *,
    band: str | None = None,
    out: OutOrNone = None,
    concurrency: int = 4,
    seed: int = 0,
    json: Json = False,
    reading: TraceOptions = TraceOptions(),
    engine: EngineOptions = EngineOptions(),
) -> None:
    """Say how alike two workloads are: margins, what goes together, the cache curve, and both on one simulated engine.

    Parameters
    ----------
    real
        The real trace: a file, folder or glob.
    other
        What is compared with it: a trace, a workload file, or a name that `workloom workloads` lists. Of a workload,
        unless --generate says how many, eight times the real sessions are made, but at most 400 or as many as are real.
    band
        Trace whose random halves say how far is far (default: the real one).
    out
        A page to write (.html).
    concurrency
        Sessions at once on the engine (default engine: llama-3.1-70b-h200x4).
    seed
        Root of all randomness: of sessions that are made, of orders, of splits.
    """
    from workloom.cli.fidelity import fidelity as go

    go(real, other, band, out, json, concurrency, seed, reading, engine)


@app.command
def calibrate(
    runs: list[str] | None = None,
    /,
    *,
    out: OutOrNone = None,
    plan: Annotated[bool, Parameter(negative="")] = False,
    check: str | None = None,
    same_siblings: Annotated[bool, Parameter(negative="")] = False,
    most: int = 24,
    context: int = 40_000,
    seed: int = 0,
    json: Json = False,
    known: KnownOptions = KnownOptions(),
) -> None:
    """Fit an engine profile to measured runs, with uncertainty, and say what they cannot tell.

    Parameters
    ----------
    runs
        Run directories, or Parquet files of rows with chunk times; all of one server.
    out
        The profile to write (.yaml); with --plan the workload (.jsonl).
    plan
        Write a workload of about five minutes that shows everything, to run against the server first.
    check
        Fit nothing: replay the runs on this profile (a name or a .yaml file) and print how far it is from them. \
--metrics is then the page saved at the end of the run, for its hit rate.
    same_siblings
        Calls of one history that were ready together and are equally long sent one text: rows cannot tell.
    most
        With --plan: most calls at once.
    context
        With --plan: longest context in tokens.
    seed
        Root of all randomness.
    """
    from workloom.cli.calibrate import calibrate as go

    go(tuple(runs or ()), plan, out, most, context, seed, json, known, check, same_siblings)


@app.command
def profiles(*, json: Json = False) -> None:
    """List the simulated engines: source, stated error, limits."""
    from workloom.cli.show import profiles as go

    go(json)
