"""The numbers of a run on a terminal, for someone who sees the project for the first time."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from workloom.metrics.server import HitRate
from workloom.metrics.stats import LEVELS, Stats
from workloom.metrics.summary import Summary

ROWS = {
    "ttft_s": "TTFT",
    "ttft_from_due_s": "TTFT from due",
    "tbc_s": "TBC",
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "e2e_from_due_s": "E2E from due",
    "makespan_s": "makespan",
    "lag_s": "dispatch lag",
}
LEGEND = (
    "TTFT: sent to first token. TBC: gap between streamed chunks, all gaps pooled. TPOT: per call, time per output "
    "token after the first. E2E: sent to last token. From due: counted from when the call should have left. "
    "Makespan: a whole session, first call due to last call done. Dispatch lag: sent - due, the tool's own. "
    "Failed calls count as ∞."
)


def show(summary: Summary, console: Console | None = None, *, title: str = "run") -> None:
    """Print what ran, then the numbers."""
    console = console or Console()
    for part in parts(summary, title):
        console.print(part)


def parts(summary: Summary, title: str = "run") -> list[RenderableType]:
    """What ran, latency, tokens and hit rates, throughput, concurrency, errors, the tool's cost; in that order."""
    ran = _ran(summary, title)
    if summary.calls.recorded == 0:
        return [ran, Text("No call was recorded, so there is nothing to measure.", style="bold")]
    out: list[RenderableType] = [ran, Text(), _latency(summary), Text(LEGEND, style="dim"), _work(summary)]
    if summary.errors:
        out.append(_errors(summary))
    out += [_tool(summary), Text(), Text(in_words(summary))]
    return out


def in_words(summary: Summary) -> str:
    """What the agents felt, for whoever reads one thing only."""
    ttft, tbc = summary.latency["ttft_from_due_s"], summary.latency["tbc_s"]
    makespan = summary.latency["makespan_s"]
    said = (
        f"In words: half of the calls began to answer within {_figure(ttft, ttft.p50)} of being due, "
        f"1 in 20 took longer than {_figure(ttft, ttft.p95)};"
    )
    if tbc.n:
        said += f" text then came at about {_speed(tbc.p50)} tokens/s a call;"
    if makespan.n:
        said += f" the median session took {_figure(makespan, makespan.p50)};"
    if summary.hits.reported is not None:
        said += f" {summary.hits.reported:.1%} of all prompt tokens were found in the prefix cache;"
    failed = summary.latency["e2e_s"].infinite
    return said[:-1] + (f"; {failed:,} calls failed." if failed else ".")


def _speed(gap_s: float | None) -> str:
    return "-" if not gap_s or gap_s == float("inf") else f"{1 / gap_s:,.0f}"


def _ran(summary: Summary, title: str) -> Table:
    grid = _grid()
    run, calls, sessions = summary.run, summary.calls, summary.sessions
    if run is not None:
        grid.add_row(title, f"{run.status}, {'simulated' if run.backend == 'simulated' else 'over HTTP'}")
        if run.error:
            grid.add_row("error", Text(run.error, style="red"))
        for name, words in (("workload", run.workload), ("load", run.load)):
            if words:
                grid.add_row(name, words)
        grid.add_row("plan", f"{run.plan_hash[:12] or '-'}, seed {run.seed}, workloom {run.workloom}")
        if run.left_out:
            grid.add_row("left out", Text(", ".join(f"{n:,} {why}" for why, n in run.left_out.items()), style="yellow"))
    window = summary.window
    span = f"{duration(window.start_ns / 1e9)} to {duration(window.end_ns / 1e9)} of the run"
    grid.add_row("measured", f"{duration(window.seconds)} ({span})")
    states = _counts(calls, "ok", "failed", "cancelled", "censored", "empty")
    grid.add_row("calls", f"{calls.due:,} due in it: {states}; {calls.ended:,} ended in it; {calls.recorded:,} in all")
    states = _counts(sessions, "ok", "failed", "censored", "unfinished")
    grid.add_row("sessions", f"{sessions.due:,} due in it: {states}; {sessions.ended:,} ended in it")
    return grid


def _counts(counts: object, *names: str) -> str:
    """The counts that are not 0, the first of them always."""
    numbers = [(name, getattr(counts, name)) for name in names]
    return ", ".join(f"{n:,} {name}" for i, (name, n) in enumerate(numbers) if n or i == 0)


def _latency(summary: Summary) -> Table:
    table = _table("Latency")
    table.add_column("", no_wrap=True)
    for name in ("mean", *LEVELS, "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, name in ROWS.items():
        figures = summary.latency[key]
        cells = [_figure(figures, getattr(figures, level)) for level in ("mean", *LEVELS)]
        table.add_row(name, *cells, f"{figures.n:,}" if figures.n < 100_000 else f"{figures.n / 1e6:.2f}M")
    failed = summary.latency["e2e_s"].infinite
    if failed:
        table.caption = f"{failed:,} failed calls are in these figures as ∞"
    return table


def _work(summary: Summary) -> Table:
    grid = _grid()
    tokens, through, both = summary.tokens, summary.throughput, summary.concurrency
    grid.add_row("prompt tokens", f"{tokens.sent_prompt:,} sent ({tokens.prompt:,} by the server's count)")
    grid.add_row("output tokens", f"{tokens.output:,} (planned {tokens.planned_output:,})")
    grid.add_row("prefix hit rate", _hits(summary.hits))
    if summary.engine_hit_rate is not None:
        grid.add_row("", f"{summary.engine_hit_rate:.2%} by the engine's counters")
    rates = [
        (through.output_tokens_per_s, "output tokens/s"),
        (through.prompt_tokens_per_s, "prompt tokens/s"),
        (through.calls_per_s, "calls/s"),
        (through.sessions_per_s, "sessions/s"),
    ]
    grid.add_row("throughput", ", ".join(f"{_rate(rate)} {unit}" for rate, unit in rates))
    if both.calls_mean is not None and both.sessions_mean is not None:
        calls = f"{both.calls_mean:.1f} calls in flight (at most {both.calls_max:,})"
        grid.add_row("concurrency", f"{calls}, {both.sessions_mean:.1f} sessions alive (at most {both.sessions_max:,})")
    return grid


def _hits(hits: HitRate) -> str:
    said = f"{hits.reported:.2%} by {hits.reported_calls:,} answers" if hits.reported is not None else "not reported"
    if hits.unreported_calls and hits.reported is not None:
        said += f" ({hits.unreported_calls:,} did not say)"
    return said + (f", ideal {hits.ideal:.2%}" if hits.ideal is not None else "")


def _errors(summary: Summary) -> Table:
    table = _table("Errors")
    table.add_column("kind")
    table.add_column("calls", justify="right")
    table.add_column("of those due", justify="right")
    for kind, n in summary.errors.items():
        table.add_row(kind, f"{n:,}", f"{n / summary.calls.due:.1%}")
    return table


def _tool(summary: Summary) -> Table:
    grid = _grid()
    tool = summary.tool
    styles = {"valid": "green", "degraded": "yellow", "invalid": "bold red"}
    if tool.verdict is not None:
        said = Text(tool.verdict, style=styles[tool.verdict])
        grid.add_row(
            "the tool itself", said.append(f": {'; '.join(tool.reasons)}" if tool.reasons else "", style="dim")
        )
    elif tool.reasons:
        grid.add_row("the tool itself", "; ".join(tool.reasons))
    if tool.cpu_s is not None and tool.wall_s is not None:
        cost = f"{duration(tool.cpu_s)} of CPU in {duration(tool.wall_s)}"
        if tool.loop_lag_p99_s is not None:
            cost += f"; event loop at most {duration(tool.loop_lag_p99_s)} late in 99 of 100 looks"
        grid.add_row("", cost)
    return grid


def _table(title: str) -> Table:
    """A table whose eight columns of figures fit into 80 characters."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0, show_edge=False)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    return grid


def _figure(figures: Stats, value: float | None) -> str:
    """A duration; of a summary read back from JSON, null among values stands for infinite."""
    if figures.n == 0:
        return "-"
    return "∞" if value is None else duration(value)


def duration(seconds: float) -> str:
    """Seconds as people say them, three digits or so."""
    size = abs(seconds)
    if size == float("inf"):
        return "∞"
    if size == 0:
        return "0 s"
    for limit, unit, name in ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if size < limit * 0.9995:
            return f"{_digits(seconds / unit)} {name}"
    return f"{_digits(seconds / 3600)} h"


def _digits(value: float) -> str:
    size = abs(value)
    if size < 0.0995:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else _digits(value)
