"""`workloom show`, `inspect` and `profiles`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workloom.cli.options import TraceOptions
from workloom.engine import cards, roofline
from workloom.engine import profile as engines
from workloom.store import Run, open_run

if TYPE_CHECKING:
    from workloom.metrics.summary import Summary


def show(directory: str, json: bool, whole: bool = False) -> None:
    """The numbers of a run, or of a run that was repeated with several seeds."""
    from workloom.cli.repeats import is_repeats, show_repeats

    if is_repeats(directory):
        show_repeats(directory, json)
        return
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


class Engines(msgspec.Struct, frozen=True):
    """What `workloom profiles --json` prints."""

    profiles: list[engines.Profile]
    models: list[cards.ModelCard]
    gpus: list[cards.GpuCard]


def profiles(json: bool) -> None:
    """The engines that come with workloom, and the cards that others can be computed from."""
    loaded = [engines.load(name) for name in engines.names()]
    models, gpus = [cards.model(name) for name in cards.models()], [cards.gpu(name) for name in cards.gpus()]
    if json:
        print(msgspec.json.format(msgspec.json.encode(Engines(loaded, models, gpus)), indent=1).decode())
        return
    out = console()
    out.print(_profiles(loaded))
    out.print("\nerror of fit: the largest error of a step's time over all points fitted. Sources:")
    for p in loaded:
        out.print(f"  {p.name}: {p.source.split(';')[0]}", soft_wrap=True)
    out.print("\nnot identified by the source, with the default used instead:")
    for what, why in sorted({item for p in loaded for item in p.not_identified.items()}):
        out.print(f"  {what}: {why}", soft_wrap=True)
    _print_cards(out, models, gpus)
    out.print("\nall of it: workloom profiles --json; every limit can be overridden, see workloom run --help")


def _profiles(loaded: list[engines.Profile]) -> Table:
    table = _table("engine", "GPUs", "error of fit", "mean", "max_model_len", "KV tokens")
    for p in loaded:
        kv = "inf" if p.kv_tokens is None else f"{p.kv_tokens:,}"
        gpus = f"{p.gpus} x {p.gpu}"
        table.add_row(p.name, gpus, f"{_worst(p.error):.1%}", f"{p.error.mean:.1%}", f"{p.max_model_len:,}", kv)
    return table


def _print_cards(out: Console, models: list[cards.ModelCard], gpus: list[cards.GpuCard]) -> None:
    error = roofline.ERROR
    out.print(
        f"\ncards: --engine roofline:MODEL@GPUxCOUNT computes an engine from one of each. Against the "
        f"engines above a step's time is off by up to {_worst(error):.0%}, {error.mean:.0%} on average; nothing of it "
        "is measured.",
        soft_wrap=True,
    )
    table = _table("model", "weights", "layers", "KV bytes/token", "context")
    for m in models:
        layers = f"{m.layers}" if m.linear is None else f"{m.attention_layers} + {m.linear.layers} with states"
        table.add_row(m.name, m.dtype, layers, f"{m.kv_token_bytes:,}", f"{m.max_model_len:,}")
    out.print(table)
    table = _table("GPU", "bf16 TFLOP/s", "memory", "TB/s")
    for g in gpus:
        flops, memory = f"{g.flops['bf16'] / 1e12:,.0f}", f"{g.hbm_bytes / 1e9:.1f} GB"
        table.add_row(g.name, flops, memory, f"{g.hbm_bytes_per_s / 1e12:.2f}")
    out.print(table)
    for name, source in [(m.name, m.source) for m in models] + [(g.name, g.source) for g in gpus]:
        out.print(f"  {name}: {source}", soft_wrap=True)


def _worst(error: engines.FitError) -> float:
    return max(error.prefill_max, error.decode_max, error.mixed_max or 0.0)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        words = column in ("engine", "GPUs", "model", "GPU", "weights")
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    return table
