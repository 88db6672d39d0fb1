"""The tool's own cost: what is measured of a live process, and the verdict that is made of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from workloom.clock import NS, RealClock, host, run_real
from workloom.drive.cost import WorkerCost
from workloom.drive.lag import LoopLag
from workloom.drive.meter import Meter, clock_source, memory, p95
from workloom.drive.scrape.reset import Reset
from workloom.metrics.frame import batches, calls_of
from workloom.metrics.show import show
from workloom.metrics.stats import Stats, stats
from workloom.metrics.summary import summarize_records
from workloom.metrics.tool import FEW_CALLS, FEW_LOOKS, Seen, Tool, flatters, judge, seen
from workloom.metrics.tool_rules import RULES, Verdict, rules_table
from workloom.records import CallRecord
from workloom.store.manifest import Manifest

ORDER = get_args(Verdict)


def cost(**fields: Any) -> WorkerCost:
    """A worker that was hardly busy and never late."""
    calm: dict[str, Any] = {
        "wall_s": 10.0,
        "cpu_s": 1.0,
        "busy_share": 0.1,
        "busy_share_p95": 0.1,
        "loop_looks": FEW_LOOKS,
        "loop_lag_p90_s": 1e-5,
        "loop_lag_p99_s": 1e-4,
        "handling_s": 0.5,
        "clock_resolution_s": 1e-9,
    }
    return WorkerCost(**{**calm, **fields})


def finished(*workers: WorkerCost, **fields: Any) -> Manifest:
    base: dict[str, Any] = {"status": "finished", "wall_s": 10.0, "cpu_s": 1.0, "workers": list(workers)}
    return Manifest(backend="http", **{**base, **fields})


def lags(lag_s: float = 1e-4, n: int = FEW_CALLS) -> Stats:
    return stats(np.full(n, lag_s))


CLOSED = {"recipe": {"load": {"type": "closed", "concurrency": 4}}}

# -- measured


class Scripted:
    """An event loop and its clock, by the book: every turn takes 2 us, and a job of `job_ns` comes every `every_ns`.

    `spins`: other timers watch the clock, so the loop never sleeps.
    """

    def __init__(self, job_ns: int = 0, every_ns: int = NS, spins: bool = False) -> None:
        self.now_ns = self.cpu_ns = 0
        self.job_ns, self.every_ns, self.spins = job_ns, every_ns, spins
        self.next_job_ns = every_ns
        self.ready: list[Callable[[], None]] = []
        self.timers: list[tuple[int, Callable[[], None]]] = []

    def now(self) -> int:
        return self.now_ns

    def call_soon(self, callback: Callable[[], None]) -> Any:
        self.ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.timers.append((self.now_ns + round(delay * NS), callback))

    def look(self, seconds: float) -> LoopLag:
        lag = LoopLag(self, self)  # type: ignore[arg-type]
        while self.now_ns < seconds * NS:
            self.turn()
        return lag

    def turn(self) -> None:
        due = min(self.next_job_ns, *(at_ns for at_ns, _ in self.timers), self.now_ns + NS)
        if not self.ready and not self.spins:
            self.now_ns = max(self.now_ns, due)
        began_ns = self.now_ns
        self.now_ns += 2_000
        if self.next_job_ns <= began_ns:
            self.now_ns += self.job_ns
            self.next_job_ns += self.every_ns
        self.cpu_ns += self.now_ns - began_ns
        ready, self.ready = self.ready, []
        woken = [timer for timer in self.timers if timer[0] <= self.now_ns]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_ns]
        for callback in [*ready, *(callback for _, callback in woken)]:
            callback()


def test_an_idle_loop_is_neither_late_nor_busy() -> None:
    lag = Scripted().look(5)
    assert 90 <= lag.looks <= 110 and lag.quantile_s(1.0) == 1e-5
    assert lag.busy_ns == 0 < 0.02 * 5 * NS < lag.seen_ns


def test_timers_that_watch_the_clock_use_a_core_and_are_not_busy() -> None:
    loop = Scripted(spins=True)
    lag = loop.look(0.5)
    assert loop.cpu_ns >= 0.5 * NS and lag.looks and lag.busy_ns == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_looks_tell_how_busy_a_loop_is_without_looking_all_the_time(share: float) -> None:
    """Jobs come every 2.5 ms, a part of the spacing of looks: they must not fall in step."""
    every_ns = 2_500_000
    loop = Scripted(round(share * every_ns), every_ns)
    lag = loop.look(20)
    assert lag.busy_ns / lag.seen_ns == pytest.approx(share, abs=0.1)
    # What comes at a random instant finds the loop at a job with that share, and waits for at most all of it.
    late = sum(count for place, count in lag._bins.items() if place > 0)
    assert late / lag.looks == pytest.approx(share, abs=0.1)
    assert lag.most_ns <= share * every_ns + 10_000


def test_a_loop_that_cannot_keep_up_is_always_busy_and_a_job_late() -> None:
    lag = Scripted(5_000_000, 4_000_000).look(5)
    late_s = lag.quantile_s(0.9)
    assert lag.busy_ns == lag.seen_ns and late_s is not None and 0.004 < late_s < 0.006


def test_lags_are_counted_in_bins_and_read_as_quantiles() -> None:
    async def main(clock: RealClock) -> None:
        lag = LoopLag(clock)
        assert lag.quantile_s(0.5) is None
        lag._bins = {0: 98, 100: 1, 5000: 1}
        lag.looks = 100
        assert lag.quantile_s(0.5) == pytest.approx(1e-5)
        assert lag.quantile_s(0.98) == pytest.approx(1.01e-3)
        assert lag.quantile_s(0.99) == lag.quantile_s(0.999) == pytest.approx(0.05001)
        lag.restart()
        assert lag.stop() is None and lag.looks == lag.seen_ns == 0

    run_real(main)


def test_a_meter_counts_from_the_start_of_the_window() -> None:
    counted = {"handling_ns": 0, "bytes_sent": 0, "bytes_received": 0, "stalled_s": 0.0}

    async def main(clock: RealClock) -> WorkerCost:
        meter = Meter(clock, worker=3, **{name: (lambda n=name: counted[n]) for name in counted})  # type: ignore[arg-type]
        meter.start()
        counted.update(handling_ns=5, bytes_sent=100, bytes_received=200, stalled_s=1.0)
        burn = host.cpu() + 0.1
        while host.cpu() < burn:
            pass
        meter.restart()
        counted.update(handling_ns=5 + NS, bytes_sent=107, bytes_received=211, stalled_s=1.25)
        await asyncio.sleep(0.2)
        return meter.stop()

    told = run_real(main)
    assert (told.worker, told.handling_s, told.bytes_sent, told.bytes_received) == (3, 1.0, 7, 11)
    assert told.stalled_s == 0.25 and told.cpu_s < 0.1 and told.wall_s >= 0.19
    assert told.rss_max_bytes is not None and told.rss_bytes is not None and told.rss_bytes <= told.rss_max_bytes


def test_a_saturated_second_of_a_longer_run_is_seen() -> None:
    async def main(clock: RealClock) -> WorkerCost:
        meter = Meter(clock)
        meter.start()
        end = host.cpu() + 0.3
        while host.cpu() < end:
            pass
        await asyncio.sleep(2.0)
        return meter.stop()

    told = run_real(main)
    assert told.cpu_share_p95 is not None and told.cpu_share_p95 > 1.2 * told.cpu_s / told.wall_s


def test_the_95th_percentile_of_few_is_the_largest() -> None:
    assert p95([]) is None
    assert p95([0.1, 0.9, 0.2]) == 0.9
    assert p95([i / 100 for i in range(100)]) == 0.95


def test_the_clock_says_what_it_is_and_moves_in_steps_that_are_seen() -> None:
    ticks = iter(range(0, 10**9, 250))  # a clock that is read four times between two steps of 1 us
    resolution_s, source = clock_source(lambda: next(ticks) // 1000 * 1000)
    assert resolution_s == pytest.approx(1e-6) and source
    now, peak = memory()
    assert peak >= (now or 1) > 0


# -- judged


def test_a_calm_run_is_valid_and_no_rule_decided() -> None:
    tool = judge(finished(cost()), lags(), Seen(0.0, 0.0))
    assert (tool.verdict, tool.rule_that_decided, tool.reasons, tool.faults) == ("valid", None, [], [])


BREAKS: dict[str, Any] = {
    # rule: value -> (manifest, lag, what the records say)
    "dispatch_lag": lambda v: (finished(cost()), lags(v), Seen()),
    "loop_lag": lambda v: (finished(cost(loop_lag_p99_s=v)), lags(), Seen()),
    "busy": lambda v: (finished(cost(busy_share_p95=v)), lags(), Seen()),
    "cpu": lambda v: (finished(cpu_s=10 * v), lags(), Seen()),
    "handling": lambda v: (finished(cost(handling_s=10 * v)), lags(), Seen()),
    "coalesced": lambda v: (finished(cost(loop_lag_p99_s=0.0025)), lags(), Seen(coalesced_share=v)),
    "held_back": lambda v: (finished(cost(), config=CLOSED), lags(), Seen(held_back_share=v)),
    "stalled": lambda v: (finished(cost(stalled_s=10 * v)), lags(), Seen()),
    "clock_resolution": lambda v: (finished(cost(clock_resolution_s=v)), lags(), Seen()),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_decides_by_its_own_limits_and_says_so(rule: Any) -> None:
    def told(value: float) -> Tool:
        return judge(*BREAKS[rule.name](value))

    assert rule.name not in [fault.rule for fault in told(rule.degraded * 0.99).faults]
    degraded = told(rule.degraded * 1.01 + 1e-6)
    mine = degraded.faults[-1]
    assert (degraded.verdict, mine.rule, mine.limit) == ("degraded", rule.name, rule.degraded)
    assert rule.words in degraded.reasons[-1]
    assert degraded.rule_that_decided == (rule.name if rule.name != "coalesced" else "loop_lag")
    if rule.invalid <= 1:
        invalid = told(rule.invalid * 1.01)
        assert (invalid.verdict, invalid.rule_that_decided) == ("invalid", rule.name)


@given(
    st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(range(5))
)
def test_a_worse_figure_never_makes_a_better_verdict(
    lag: float, loop: float, busy: float, together: float, held: float, which: int
) -> None:
    def verdict(figures: list[float]) -> int:
        worker = cost(loop_lag_p99_s=figures[1], busy_share_p95=figures[2])
        tool = judge(finished(worker, config=CLOSED), lags(figures[0]), Seen(figures[4], figures[3]))
        assert (tool.rule_that_decided is None) == (tool.verdict == "valid") == (not tool.faults)
        return ORDER.index(tool.verdict)

    figures = [lag, loop, busy, together, held]
    worse = [value * 2 if i == which else value for i, value in enumerate(figures)]
    assert verdict(worse) >= verdict(figures)


def test_the_worst_worker_decides_and_sums_are_sums() -> None:
    idle, full = cost(bytes_sent=1, bytes_received=2, rss_max_bytes=10), cost(busy_share_p95=0.99, busy_share=0.98)
    tool = judge(finished(idle, full), lags())
    assert (tool.verdict, tool.rule_that_decided, tool.workers) == ("invalid", "busy", 2)
    assert (tool.handling_s, tool.bytes_sent, tool.bytes_received, tool.rss_max_bytes) == (1.0, 1, 2, 10)


def test_the_worst_of_several_faults_stands_first() -> None:
    tool = judge(finished(cost(busy_share_p95=0.99)), lags(0.006))
    assert [fault.rule for fault in tool.faults] == ["busy", "dispatch_lag"]
    assert tool.reasons[:2] == ["event loop busy p95 of seconds 99% > 97%", "dispatch lag p99 6.0 ms > 5 ms"]


def test_of_few_looks_the_one_worst_is_not_held_against_a_run() -> None:
    few = cost(loop_looks=FEW_LOOKS - 1, loop_lag_p99_s=0.2)
    assert judge(finished(few), lags()).verdict == "valid"
    late = judge(finished(cost(loop_looks=5, loop_lag_p90_s=0.003)), lags())
    assert late.reasons == ["event loop lag p90 3.0 ms > 2 ms"]


def test_bursts_of_a_server_are_not_held_against_a_loop_that_was_on_time() -> None:
    assert judge(finished(cost()), lags(), Seen(coalesced_share=1.0)).verdict == "valid"


def test_waiting_to_be_sent_counts_in_closed_loops_only() -> None:
    assert judge(finished(cost()), lags(), Seen(held_back_share=0.9)).verdict == "valid"


def test_a_core_that_others_took_is_named() -> None:
    starved = cost(busy_share=0.99, busy_share_p95=0.99, cpu_s=4.0)
    assert judge(finished(starved), lags()).reasons[-1] == (
        "other programs had its core: busy 99% of the time with 40% of a core"
    )


def test_what_flatters_a_server_is_said_and_not_judged() -> None:
    server = {"temperature": 0, "max_model_len": 8192, "max_model_len_lowered": True}
    warm = Reset("http://127.0.0.1:1", False, "", "status 404").say()
    tool = judge(finished(cost(), config={"server": server}, notes=["something else", warm]), lags())
    assert tool.verdict == "valid" and len(tool.flatters) == 3
    assert "temperature 0" in tool.flatters[0] and "8,192" in tool.flatters[1] and "cache" in tool.flatters[2]
    assert flatters(finished(config={"server": {"body": {"temperature": 0.0}}})) == tool.flatters[:1]
    for honest in ({}, {"server": {"temperature": 0.7}}, {"server": {"temperature": None, "max_model_len": 10}}):
        assert flatters(finished(config=honest)) == []


def test_held_back_is_waiting_beyond_a_millisecond_over_time_from_due_to_done() -> None:
    ms = NS // 1000
    records = [
        CallRecord(0, "s", "a", "main", "", "ok", due_ns=0, sent_ns=3 * ms, done_ns=10 * ms),
        CallRecord(1, "s", "a", "main", "", "ok", due_ns=0, sent_ns=1 * ms, done_ns=10 * ms),
        CallRecord(2, "s", "a", "main", "", "cancelled", due_ns=0),
        CallRecord(3, "s", "a", "main", "", "ok", due_ns=90 * ms, sent_ns=99 * ms, done_ns=100 * ms),
    ]
    calls = calls_of(batches(CallRecord, records))
    told = seen(calls, np.array([True, True, True, False]), 3, 12)
    assert (told.held_back_share, told.coalesced_share) == (0.1, 0.25)
    assert seen(calls, np.zeros(4, dtype=bool), 0, 0) == Seen(sent=0)


def test_workers_are_kept_in_the_manifest_and_shown() -> None:
    server = {"temperature": 0}
    manifest = finished(
        cost(bytes_sent=2_000_000, bytes_received=500_000, rss_max_bytes=64_000_000, clock_source="clock_gettime()"),
        config={"server": server},
    )
    again = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    assert again.workers == manifest.workers
    call = CallRecord(0, "s", "a", "main", "", "ok", due_ns=0, sent_ns=0, first_ns=1, last_ns=1, done_ns=2)
    console = Console(file=io.StringIO(), width=300)
    show(summarize_records([call], manifest=again), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("clock_gettime()") < text.index("flatters the server  temperature 0"), "the verdict stays whole"
    for words in ("temperature 0", "64 MB of memory", "2.0 MB sent, 0.5 MB received", "clock_gettime()"):
        assert words in text
    assert "event loop busy 10% of the time (reading chunks 5%)" in text


def test_the_table_of_the_documentation_lists_every_rule() -> None:
    table = rules_table()
    assert all(f"| {rule.words} |" in table for rule in RULES) and "| 5 ms | 50 ms |" in table
    assert len(table.splitlines()) == len(RULES) + 2
    assert len({rule.name for rule in RULES}) == len(RULES) == len(BREAKS)
