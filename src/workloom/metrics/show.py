"""The numbers of a run on a terminal, for someone who sees the project for the first time."""

from __future__ import annotations

import re
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from workloom.metrics.known import answers
from workloom.metrics.server import HitRate, ServerSide
from workloom.metrics.stats import LEVELS, Stats
from workloom.metrics.summary import Summary
from workloom.metrics.text import digits, duration
from workloom.metrics.tool import Tool

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
_PLURALS = re.compile(r"\b(session|call|output)s\b")
_WIDEST = 12
"""Letters of the last column of the latency table: with them it is 80 wide."""


def show(summary: Summary, console: Console | None = None, *, title: str = "run") -> None:
    """Print what ran, then the numbers."""
    console = console or Console()
    for part in parts(summary, title):
        console.print(part)


def parts(summary: Summary, title: str = "run") -> list[RenderableType]:
    """What ran, latency, tokens, hit rates, throughput, concurrency, errors, intervals, the critical path, the tool's
    cost; in that order."""
    ran = _ran(summary, title)
    if summary.calls.recorded == 0:
        return [ran, Text("No call was recorded, so there is nothing to measure.", style="bold")]
    out: list[RenderableType] = [ran, Text(), _latency(summary)]
    if cut_off := _cut_off(summary):
        out.append(cut_off)
    out += [Text(LEGEND, style="dim"), _work(summary)]
    if summary.errors:
        out.append(_errors(summary))
    out += answers(summary)
    out += [_tool(summary), Text(), Text(in_words(summary))]
    return out


def in_words(summary: Summary) -> str:
    """What the agents felt, for whoever reads one thing only."""
    calls = summary.calls
    said = f"In words: {'; '.join(_clauses(summary))}." if calls.ok else "No call succeeded."
    if not calls.due:
        said = "No call was due in the measured window."
    if calls.censored:
        many = f"{calls.censored:,} of {_many(calls.due, 'call')}"
        one = calls.censored == 1
        cut_off = (
            f"{_be(one, 'is')} still going" if _going(summary) else f"{_be(one, 'was')} cut off by the end of the run"
        )
        said += f" {many} {cut_off}: when they would have ended is not in these figures."
    return said


def _clauses(summary: Summary) -> list[str]:
    """What can be said of calls some of which succeeded; what has no figure, or an infinite one, is left out."""
    calls, sessions, hits = summary.calls, summary.sessions, summary.hits
    ttft, tbc = summary.latency["ttft_from_due_s"], summary.latency["tbc_s"]
    makespan = summary.latency["makespan_s"]
    said = []
    if _finite(ttft.p50):
        said.append(f"half of the calls began to answer within {_figure(ttft, ttft.p50)} of being due")
        if _finite(ttft.p95) and ttft.n >= 20:
            said[-1] += f", 1 in 20 took longer than {_figure(ttft, ttft.p95)}"
    if _finite(tbc.p50) and tbc.p50:
        said.append(f"text then came at about {1 / tbc.p50:,.0f} tokens/s a call")
    if _finite(makespan.p50):
        took = _figure(makespan, makespan.p50)
        if makespan.n < sessions.due:
            said.append(f"of the {makespan.n:,} of {_many(sessions.due, 'session')} that ended, the median took {took}")
        else:
            said.append(f"the median session took {took}")
    if hits.reported is not None:
        of = "the prompt tokens of calls that report it" if hits.unreported_calls else "all prompt tokens"
        said.append(f"{hits.reported:.1%} of {of} were found in the prefix cache")
    if calls.empty:
        said.append(f"{calls.empty:,} of {_many(calls.ok, 'answer')} {_be(calls.empty == 1, 'was')} empty")
    if calls.failed:
        said.append(f"{_many(calls.failed, 'call')} failed")
    return said or [f"{_many(calls.ok, 'call')} succeeded"]


def _finite(value: float | None) -> bool:
    return value is not None and value != float("inf")


def _going(summary: Summary) -> bool:
    return summary.run is not None and summary.run.status == "running"


def _ran(summary: Summary, title: str) -> Table:
    grid = _grid()
    run, calls, sessions = summary.run, summary.calls, summary.sessions
    if run is not None:
        _row(grid, title, f"{run.status}, {'simulated' if run.backend == 'simulated' else 'over HTTP'}")
        if run.error:
            _row(grid, "error", run.error, "red")
        for name, words in (("workload", run.workload), ("load", run.load)):
            if words:
                _row(grid, name, words)
        _row(grid, "plan", f"{run.plan_hash[:12] or '-'}, seed {run.seed}, workloom {run.workloom}")
        if run.left_out:
            _row(grid, "left out", ", ".join(f"{n:,} {_of(n, why)}" for why, n in run.left_out.items()), "yellow")
        if run.torn_bytes:
            torn = f"{_many(run.torn_bytes, 'byte')} of half-written or unusable records"
            _row(grid, "lost", f"{torn} {_be(run.torn_bytes == 1, 'was')} dropped", "yellow")
    window = summary.window
    span = f"{duration(window.start_ns / 1e9)} to {duration(window.end_ns / 1e9)} of the run"
    _row(grid, "measured", f"{duration(window.seconds)} ({span})")
    states = _counts(calls, "ok", "failed", "cancelled", "censored", "empty")
    ended = f"{calls.ended:,} ended well in it"
    _row(grid, "calls", f"{calls.due:,} due in it: {states}; {ended}; {calls.recorded:,} in all")
    if calls.warmup:
        failed = f", {calls.warmup_failed:,} failed" if calls.warmup_failed else ""
        _row(grid, "warm-up", f"{_many(calls.warmup, 'call')} before it{failed}")
    if calls.retries:
        again = f"{_many(calls.retried, 'call')} {_be(calls.retried == 1, 'was')} sent again"
        _row(grid, "retries", f"{again}, {_many(calls.retries, 'time')} in all", "yellow")
    if run is not None and run.skipped_s:
        caps = ", ".join(f"{duration(seconds)} ({cap})" for cap, seconds in run.skipped_s.items())
        _row(grid, "waits skipped", f"by caps: {caps}")
    for note in run.notes if run is not None else ():
        _row(grid, "note", note, "yellow")
    states = _counts(sessions, "ok", "failed", "censored", "unfinished")
    _row(grid, "sessions", f"{sessions.due:,} due in it: {states}; {sessions.ended:,} ended well in it")
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
        short, withheld = key.removesuffix("_s"), set(summary.withheld)
        cells = [
            "?" if f"{short}_{level}" in withheld else _figure(figures, getattr(figures, level))
            for level in ("mean", *LEVELS)
        ]
        table.add_row(name, *cells, _behind(figures))
    failed, unanswered = summary.latency["e2e_s"].infinite, summary.latency["ttft_s"].infinite
    if summary.withheld:
        table.caption = "?: too few independent values, or too many cut off, to say"
    if failed:
        but = f" (in TTFT {unanswered:,}: the others timed out after their first token)" if unanswered < failed else ""
        said = f"{_many(failed, 'failed call')} {_be(failed == 1, 'is')} in these figures as ∞{but}"
        table.caption = f"{table.caption}; {said}" if table.caption else said
    return table


def _behind(figures: Stats) -> str:
    """How many values there are, and how many more there would be had the run not ended; narrow enough for 80."""
    n, censored = figures.n, figures.censored
    whole = f"{n:,}" if n < 100_000 else f"{n / 1e6:.2f}M"
    if not censored:
        return whole
    said = f"{whole} (+{censored:,})"
    return said if len(said) <= _WIDEST else f"{_short(n)} (+{_short(censored)})"


def _short(n: int) -> str:
    if n < 1_000:
        return str(n)
    value, unit = (n / 1e3, "k") if n < 999_500 else (n / 1e6, "M")
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def _cut_off(summary: Summary) -> Text | None:
    """How much of what was due had not ended, and which figures that makes look better than they are."""
    calls, sessions = summary.calls, summary.sessions
    unended = sessions.censored + sessions.unfinished
    missing = [(calls.censored, calls.due, "call"), (unended, sessions.due, "session")]
    said = " and ".join(f"{n:,} of {_many(due, what)} due" for n, due, what in missing if n)
    if not said:
        return None
    one = calls.censored + unended == 1
    when = f"{_be(one, 'is')} still going" if _going(summary) else f"{_be(one, 'was')} still going when the run ended"
    said = f"{said} {when}{_too_low(summary, calls.waiting, calls.censored, unended)}. In column n they are (+m)."
    serious = any(n > 0.01 * due for n, due, _ in missing)
    return Text(said, style="bold red" if serious else "")


def _too_low(summary: Summary, waiting: int, censored: int, unended: int) -> str:
    """Which figures the calls and sessions that had not ended are missing from; where there is no figure, nothing."""
    pairs = (("TTFT", "ttft_s", waiting), ("E2E", "e2e_s", censored), ("makespan", "makespan_s", unended))
    names = [name for name, key, n in pairs if n and summary.latency[key].n]
    if not names:
        return ""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    leave = "leave them out and so are too low" if len(names) > 1 else "leaves them out and so is too low"
    return f": {listed} {leave}"


def _work(summary: Summary) -> Table:
    grid = _grid()
    tokens, through, both = summary.tokens, summary.throughput, summary.concurrency
    _row(grid, "prompt tokens", f"{tokens.sent_prompt:,} sent ({tokens.prompt:,} by the server's count)")
    thought = f"planned {tokens.planned_output:,}"
    if tokens.reasoning:
        thought += f"; {tokens.reasoning:,} of them reasoning"
    _row(grid, "output tokens", f"{tokens.output:,} ({thought})")
    _row(grid, "prefix hit rate", _hits(summary.hits))
    if summary.engine_hit_rate is not None:
        _row(grid, "", f"{summary.engine_hit_rate:.2%} by the engine's counters")
    if summary.server is not None and (said := _server(summary.server)):
        _row(grid, "the server says", said)
    rates = [
        (through.output_tokens_per_s, "output tokens/s"),
        (through.prompt_tokens_per_s, "prompt tokens/s"),
        (through.calls_per_s, "calls/s"),
        (through.sessions_per_s, "sessions/s"),
    ]
    _row(grid, "throughput", ", ".join(f"{_rate(rate)} {unit}" for rate, unit in rates))
    if both.calls_mean is not None and both.sessions_mean is not None:
        calls = f"{both.calls_mean:.1f} calls in flight (at most {both.calls_max:,})"
        _row(grid, "concurrency", f"{calls}, {both.sessions_mean:.1f} sessions alive (at most {both.sessions_max:,})")
    return grid


def _server(side: ServerSide) -> str:
    """Queues, KV use and the like, as far as the server tells."""
    said = []
    for name, words in (("running", "running"), ("waiting", "waiting")):
        if (gauge := side.gauges.get(name)) is not None and gauge.mean is not None and gauge.peak is not None:
            said.append(f"{gauge.mean:.1f} {words} (at most {gauge.peak:,.0f})")
    if (used := side.gauges.get("kv_usage")) is not None and used.mean is not None and used.peak is not None:
        said.append(f"KV cache {used.mean:.0%} full (at most {used.peak:.0%})")
    if preempted := side.growth.get("preemptions"):
        said.append(f"{preempted:,.0f} preemption{'s' * (round(preempted) != 1)}")
    if side.external_hit_rate is not None:
        said.append(f"{side.external_hit_rate:.1%} external hits")
    if side.acceptance_length is not None:
        said.append(f"{side.acceptance_length:.2f} tokens a verification")
    if (power := side.gauges.get("power_w")) is not None and power.mean is not None:
        said.append(f"{power.mean:,.0f} W")
    return ", ".join(said)


def _hits(hits: HitRate) -> str:
    said = (
        f"{hits.reported:.2%} by {_many(hits.reported_calls, 'answer')}"
        if hits.reported is not None
        else "not reported"
    )
    if hits.unreported_calls and hits.reported is not None:
        said += f" ({hits.unreported_calls:,} did not say)"
    return said + (f", ideal {hits.ideal:.2%}" if hits.ideal is not None else "")


def _errors(summary: Summary) -> Table:
    table = _table("Errors")
    for name in ("kind", "calls", "of those sent"):
        table.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    table.add_column("most frequent message", overflow="fold")
    for kind, failures in summary.errors.items():
        message = failures.message or ("the whole answer had not come in time" if kind == "timeout" else "-")
        table.add_row(Text(kind), f"{failures.calls:,}", f"{failures.share_of_sent:.1%}", Text(message))
    return table


def _tool(summary: Summary) -> Table:
    grid = _grid()
    tool = summary.tool
    styles = {"valid": "green", "degraded": "yellow", "invalid": "bold red"}
    if tool.verdict is not None:
        said = Text().append(tool.verdict, styles[tool.verdict])
        grid.add_row("the tool itself", said.append(f": {'; '.join(tool.reasons)}" if tool.reasons else "", "dim"))
    elif tool.reasons:
        _row(grid, "the tool itself", "; ".join(tool.reasons))
    for words in filter(None, (_time_cost(tool), _room_cost(tool))):
        _row(grid, "", words)
    for i, words in enumerate(tool.flatters):
        _row(grid, "" if i else "flatters the server", words, "yellow")
    return grid


def _time_cost(tool: Tool) -> str:
    """What the run took of the machine's time."""
    if tool.cpu_s is None or tool.wall_s is None:
        return ""
    said = f"{duration(tool.cpu_s)} of CPU in {duration(tool.wall_s)}"
    if tool.busy_share is not None:
        said += f"; event loop busy {tool.busy_share:.0%} of the time"
    if tool.handling_share is not None:
        said += f" (reading chunks {tool.handling_share:.0%})"
    if tool.loop_lag_p99_s is not None:
        said += f"; event loop at most {duration(tool.loop_lag_p99_s)} late in 99 of 100 looks"
    return said


def _room_cost(tool: Tool) -> str:
    """Memory, bytes and clock of a live run."""
    said = []
    if tool.rss_max_bytes is not None:
        many = f" in {tool.workers} processes" if tool.workers > 1 else ""
        said.append(f"{tool.rss_max_bytes / 1e6:,.0f} MB of memory{many}")
    if tool.bytes_sent is not None and tool.bytes_received is not None:
        said.append(f"{tool.bytes_sent / 1e6:,.1f} MB sent, {tool.bytes_received / 1e6:,.1f} MB received")
    if tool.clock_source and tool.clock_resolution_s is not None:
        said.append(f"clock {tool.clock_source}, steps of {duration(tool.clock_resolution_s)}")
    return "; ".join(said)


def _table(title: str) -> Table:
    """A table whose eight columns of figures fit into 80 characters."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0, show_edge=False)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    return grid


def _row(grid: Table, name: str, said: str, style: str = "") -> None:
    """A row of words as they are: those of a trace or a server may hold brackets, which rich would read as markup."""
    grid.add_row(Text(name), Text(said, style))


def _many(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _be(one: bool, verb: Literal["is", "was"]) -> str:
    return verb if one else {"is": "are", "was": "were"}[verb]


def _of(n: int, what: str) -> str:
    """The words for a count that are written for many; for one."""
    return _PLURALS.sub(r"\1", what, count=1) if n == 1 else what


def _figure(figures: Stats, value: float | None) -> str:
    """A duration; of a summary read back from JSON, null among values stands for infinite."""
    if figures.n == 0:
        return "-"
    return "∞" if value is None else duration(value)


def _rate(value: float | None) -> str:
    return "-" if value is None else digits(value)
