"""`workloom show`, `inspect` and `profiles`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workloom.cli.options import TraceOptions
from workloom.engine import profile as engines
from workloom.store import Run, open_run

if TYPE_CHECKING:
    from workloom.metrics.summary import Summary


def show(directory: str, json: bool, whole: bool = False) -> None:
    """The numbers of a run."""
    print_run(open_run(directory), json=json, whole=whole)


def print_run(run: Run, *, json: bool, whole: bool = False) -> Summary:
    """The numbers of a run to stdout: tables, or JSON. `whole`: of all that came behind its warm-up."""
    from workloom.metrics import show as tables
    from workloom.metrics.summary import encode, summarize

    summary = summarize(run, whole=whole)
    if json:
        print(encode(summary).decode(), end="")
    else:
        tables.show(summary, console(), title=run.path.name)
    return summary


def console() -> Console:
    """Stdout; 100 columns where nobody says how wide it is."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if terminal else 100, highlight=False, markup=False)


def inspect(trace: list[str], json: bool, options: TraceOptions) -> None:
    """What is in a trace."""
    from workloom.model.describe import describe, table

    reading = options.open(trace)
    description = describe(reading)
    for skipped in reading.report.skipped:
        print(f"skipped: {skipped.where}: {skipped.why}", file=sys.stderr)
    if json:
        print(msgspec.json.format(msgspec.json.encode(description), indent=1).decode())
        return
    print_rows(table(description))


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Names and values to stdout."""
    out = Table(show_header=False, box=None, padding=(0, 2))
    out.add_column(style="bold")
    out.add_column(overflow="fold")  # a path is never cut
    for name, value in rows:
        out.add_row(Text(name), Text(value))
    console().print(out)


def profiles(json: bool) -> None:
    """The engines that come with workloom."""
    loaded = [engines.load(name) for name in engines.names()]
    if json:
        print(msgspec.json.format(msgspec.json.encode(loaded), indent=1).decode())
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("engine", "GPUs", "error of fit", "mean", "max_model_len", "KV tokens"):
        table.add_column(column, justify="left" if column in ("engine", "GPUs") else "right", no_wrap=True)
    for p in loaded:
        worst = max(p.error.prefill_max, p.error.decode_max, p.error.mixed_max or 0.0)
        kv = "inf" if p.kv_tokens is None else f"{p.kv_tokens:,}"
        gpus = f"{p.gpus} x {p.gpu}"
        table.add_row(p.name, gpus, f"{worst:.1%}", f"{p.error.mean:.1%}", f"{p.max_model_len:,}", kv)
    out = console()
    out.print(table)
    out.print("\nerror of fit: the largest error of a step's time over all points fitted. Sources:")
    for p in loaded:
        out.print(f"  {p.name}: {p.source.split(';')[0]}", soft_wrap=True)
    out.print("\nnot identified by the source, with the default used instead:")
    for what, why in sorted({item for p in loaded for item in p.not_identified.items()}):
        out.print(f"  {what}: {why}", soft_wrap=True)
    out.print("\nall of it: workloom profiles --json; every limit can be overridden, see workloom run --help")
