"""`workloom metrics`: the names of all figures, and any of them of a run with their uncertainty."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter
from msgspec import structs

from workloom.errors import UsageError

if TYPE_CHECKING:
    from workloom.metrics.catalog import Metric
    from workloom.metrics.estimate import Estimate
    from workloom.metrics.figure import Figure
    from workloom.metrics.given import Given, Limit
    from workloom.metrics.goodput import Goodput
    from workloom.metrics.groups import Group
    from workloom.metrics.measured import Measured

BY_FIGURES = ("ttft_p50", "ttft_p95", "tbc_p95", "e2e_p50", "errors", "output_tokens_per_s", "hit_rate")
"""Of a breakdown where nobody names figures."""
STATISTICS = ("p50", "p95")
"""Of metrics with a value a call, gap, task or session, where nobody names figures."""


@Parameter(name="*")
@dataclass(frozen=True)
class MetricsOptions:
    """What to say of the run."""

    figure: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    "A figure, METRIC_STATISTIC[KIND], as in ttft_p95 or tbc_p99[agent=main]; may be given again."
    headline: Literal["batch", "background", "interactive", "all"] | None = None
    "The figures that matter where nobody waits, where somebody waits for the task, or looks on; or the main ones."
    slo: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    "FIGURE<=LIMIT or @FILE; may be given again. Goodput is what ended well and kept all of them."
    by: Literal["agent", "model", "turn", "depth"] | None = None
    "The same figures for each kind of call: by agent role, model, turn of its agent, or depth of its agent."
    gpus: float | None = None
    "GPUs that served the run, for figures a GPU (default: those of the simulated engine)."
    price_per_gpu_hour: float | None = None
    "USD for a GPU for an hour."
    price_per_mtok: str | None = None
    "USD for a million tokens: INPUT/OUTPUT, or INPUT/OUTPUT/CACHED."
    power_w: float | None = None
    "Power of one GPU in watts (default: what the servers said)."
    whole: Annotated[bool, Parameter(negative="")] = False
    "Measure all of the run behind its warm-up, not only the window in which the load was as asked."
    skip: float = 0.0
    "Seconds to leave out at the beginning of the window, until which the run had not settled."
    csv: Annotated[bool, Parameter(negative="")] = False
    "Print CSV."


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `workloom metrics RUN --json` prints. An infinite value is null, and its `why` says so."""

    run: str
    window_s: tuple[float, float]
    given: Given | None = None
    estimates: list[Estimate] = []
    by: str = ""
    groups: list[Group] = []
    goodput: Goodput | None = None
    """How many kept every SLO, and which limits were broken how often."""


class Named(msgspec.Struct, frozen=True):
    """A metric, as `workloom metrics --json` lists it."""

    name: str
    aliases: list[str]
    title: str
    unit: str
    of: str
    better: str
    means: str
    others: str


def metrics(directory: str | None, json: bool, asked: MetricsOptions) -> None:
    """List the names, or measure a run."""
    if json and asked.csv:
        raise UsageError("choose one of --json and --csv", where="--csv")
    if directory is None:
        _refuse_without_run(asked)
        _list(json, asked.csv)
        return
    from workloom.metrics.figure import figure
    from workloom.metrics.measured import measured
    from workloom.store import open_run

    figures = [figure(text, "--figure") for text in asked.figure]
    given = _given(asked)
    opened = open_run(directory)
    run = replace(_skipped(measured(opened, whole=asked.whole), asked.skip), given=given)
    answer = _answer(opened.path.name, run, figures, asked)
    if json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
    elif asked.csv:
        _csv(answer)
    else:
        _show(answer, run)


def _skipped(run: Measured, seconds: float) -> Measured:
    """The run without the beginning of its window."""
    if not seconds:
        return run
    if not 0 < seconds < run.window.seconds:
        expected = f"0 to {run.window.seconds:.1f}"
        raise UsageError("nothing is left of the window", where="--skip", expected=expected, found=seconds)
    from workloom.clock import to_ns

    return run.within(structs.replace(run.window, start_ns=run.window.start_ns + to_ns(seconds)))


def _answer(name: str, run: Measured, figures: Sequence[Figure], asked: MetricsOptions) -> Answer:
    from workloom.metrics import goodput
    from workloom.metrics.estimate import estimates
    from workloom.metrics.figure import figure
    from workloom.metrics.groups import breakdown
    from workloom.metrics.headline import headline

    window = (run.window.start_ns / 1e9, run.window.end_ns / 1e9)
    given = run.given if run.given.say() else None
    if asked.by is not None:
        chosen = [*figures, *_of_calls(asked)] or [figure(text) for text in BY_FIGURES]
        if asked.slo:
            chosen += [figure(metric.name) for metric in goodput.METRICS if metric.of_calls]
        return Answer(name, window, given, [], asked.by, breakdown(run, asked.by, chosen))
    found = headline(run, asked.headline) if asked.headline is not None else []
    if asked.slo:
        figures = [*figures, *(figure(metric.name) for metric in goodput.METRICS)]
    if figures or asked.headline is None:
        found += estimates(run, figures or everything())
    good = goodput.goodput(run, run.given.limits) if asked.slo else None
    return Answer(name, window, given, found, goodput=good)


def _of_calls(asked: MetricsOptions) -> list[Figure]:
    """The figures of a headline set that are of calls."""
    from workloom.metrics.headline import figures

    if asked.headline is None:
        return []
    return [f for f in figures(asked.headline) if f.about.of in ("call", "gap") or f.about.of_calls]


def everything() -> list[Figure]:
    """Every metric: p50 and p95 of those with many values."""
    from workloom.metrics.catalog import catalog
    from workloom.metrics.figure import Figure

    return [
        Figure(metric.name, statistic)
        for metric in catalog().values()
        for statistic in ([""] if metric.of == "run" else STATISTICS)
    ]


def _given(asked: MetricsOptions) -> Given:
    from workloom.metrics.given import Given

    for name in ("gpus", "price_per_gpu_hour", "power_w"):
        value = getattr(asked, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError("it cannot be negative", where=f"--{name.replace('_', '-')}", found=value)
    if asked.gpus == 0:
        raise UsageError("a server has at least one GPU", where="--gpus", expected="above 0", found=0)
    prices = _prices(asked.price_per_mtok)
    limits: tuple[Limit, ...] = ()
    if asked.slo:
        from workloom.answers.slo import call_limits, slos

        limits = tuple(call_limits(slos(asked.slo)))
    return Given(asked.gpus, asked.price_per_gpu_hour, prices[0], prices[2], prices[1], asked.power_w, limits)


def _prices(text: str | None) -> tuple[float | None, float | None, float | None]:
    """Input, output, cached."""
    if text is None:
        return None, None, None
    words = text.split("/")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) not in (2, 3) or not all(0 <= value < float("inf") for value in values):
        raise UsageError(
            "prices are numbers with slashes between them",
            where="--price-per-mtok",
            expected="INPUT/OUTPUT or INPUT/OUTPUT/CACHED, as in 3/15/0.3",
            found=text,
        )
    return values[0], values[1], values[2] if len(values) == 3 else None


def _refuse_without_run(asked: MetricsOptions) -> None:
    for name in ("figure", "headline", "slo", "by"):
        if getattr(asked, name):
            raise UsageError("figures are of a run", where=f"--{name}", hint="name one: workloom metrics RUN")


def _list(json: bool, as_csv: bool) -> None:
    from workloom.cli.show import console
    from workloom.metrics.catalog import catalog

    named = [_named(metric) for metric in catalog().values()]
    if json:
        print(msgspec.json.format(msgspec.json.encode(named), indent=1).decode())
        return
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(Named.__struct_fields__)
        for one in named:
            writer.writerow([one.name, " ".join(one.aliases), *msgspec.structs.astuple(one)[2:]])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("metric", "also", "unit", "of"):
        table.add_column(heading, no_wrap=heading != "also")
    for metric, one in zip(catalog().values(), named, strict=True):
        other = ", ".join(metric.aliases)
        table.add_row(Text(metric.short), Text(other), Text(one.unit), Text(one.of))
    out = console()
    out.print(table)
    out.print()
    out.print(
        "A figure is a metric with a statistic: ttft_p95, e2e_mean, tbc_max; of a run it is one number: errors. Of "
        "some calls: ttft_p95[agent=main], [model=...], [turn=2-3], [depth=1]. What each means: docs/metrics.md."
    )


def _named(metric: Metric) -> Named:
    aliases = [*([metric.short] if metric.short != metric.name else []), *metric.aliases]
    means = " ".join(metric.doc.split())
    return Named(metric.name, aliases, metric.title, metric.unit, metric.of, metric.better, means, metric.also)


def _show(answer: Answer, run: Measured) -> None:
    from workloom.cli.show import console
    from workloom.metrics.tables import breakdown_table, table

    out = console()
    if answer.given is not None:
        out.print(f"given: {answer.given.say()}")
    if answer.by:
        out.print(breakdown_table(answer.by, answer.groups))
        return
    out.print(table(answer.estimates, f"{answer.run}, {run.window.seconds:,.1f} s measured"))
    if answer.goodput is not None:
        calls = answer.goodput.calls
        broken = "; ".join(f"{limit} broken by {n:,}" for limit, n in answer.goodput.broken.items())
        out.print(f"Of {calls.ended:,} calls that ended well, {calls.good:,} kept every limit. {broken}")


def _csv(answer: Answer) -> None:
    from workloom.metrics.tables import COLUMNS, row

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*((answer.by, "calls") if answer.by else ()), *COLUMNS])
    for estimate in answer.estimates:
        writer.writerow(row(estimate))
    for group in answer.groups:
        for estimate in group.estimates:
            writer.writerow([group.kind, group.calls, *row(estimate)])
