"""The command line: parse, call, print. Data goes to stdout, everything else to stderr.

Exit codes: 0 done; 1 an error, said with a hint; 2 options that make no sense; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from workloom import __version__
from workloom.cli.options import EngineOptions, LoadOptions, PrivacyOptions, ServerOptions, TraceOptions, Whole
from workloom.errors import UsageError, WorkloomError

app = App(
    name="workloom",
    help="How an LLM serving system behaves under agentic load: real traces in, live or simulated runs, numbers out.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)

Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]


@app.command
def run(
    trace: list[str],
    /,
    *,
    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None,
    timeout: float = 1800.0,
    drain: float = 120.0,
    json: Json = False,
    reading: TraceOptions = TraceOptions(),
    load: LoadOptions = LoadOptions(),
    engine: EngineOptions = EngineOptions(),
    server: ServerOptions = ServerOptions(),
) -> None:
    """Run a workload on the simulated engine (--engine) or against a server (--url), and print what it felt like.

    Parameters
    ----------
    trace
        Trace files, folders or globs; or one plan file.
    out
        Directory for the run (default: the next free one under runs/).
    timeout
        Total time of one call, seconds.
    drain
        With --duration: how long calls due in the window may take after it, seconds.
    """
    from workloom.cli.run import run as go

    go(trace, out, timeout, drain, json, reading, load, engine, server)


@app.command
def plan(
    trace: list[str],
    /,
    *,
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
def serve(
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    model: str | None = None,
    record: str | None = None,
    engine: EngineOptions = EngineOptions(),
) -> None:
    """Serve the simulated engine behind an OpenAI-compatible API, in real time.

    Parameters
    ----------
    port
        Port to listen on; 0 takes a free one.
    host
        Address to listen on.
    model
        Name the model goes by; without it every name is accepted, and the profile's model is listed.
    record
        File for the instants of every request, as JSON lines.
    """
    from workloom.cli.serve import serve as go

    go(engine.profile(), host, port, model, record, engine.prefix_cache == "on")


@app.command
def show(directory: str, /, *, json: Json = False) -> None:
    """Show the numbers of a run again, whether it was finished, interrupted or killed.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote.
    """
    from workloom.cli.show import show as go

    go(directory, json)


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
    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None,
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
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
    out: Annotated[str, Parameter(name=["--out", "-o"])],
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
    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None,
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
def profiles(*, json: Json = False) -> None:
    """List the simulated engines: source, stated error, limits."""
    from workloom.cli.show import profiles as go

    go(json)


def say(fault: WorkloomError) -> None:
    """An error and its hint, to stderr."""
    print(f"error: {fault}", file=sys.stderr)


def main() -> None:
    """Entry point of the `workloom` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ∞ gets a ?
            stream.reconfigure(errors="replace")
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as fault:
        say(UsageError(str(fault).strip(), hint="`workloom --help` and `workloom COMMAND --help` list the options"))
        sys.exit(2)
    except UsageError as fault:
        say(fault)
        sys.exit(2)
    except WorkloomError as fault:
        say(fault)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as fault:
        if fault.filename is not None or sys.stdout is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(fault, BrokenPipeError):
            say(WorkloomError(f"the output could not be written: {fault.strerror}"))
        sys.exit(1)
