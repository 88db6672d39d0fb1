"""How often a 95 % interval holds the true value: many short engine runs against one a hundred times as long.

    python benchmarks/coverage.py make --kept DIR [--load open closed] [--seeds 0 1000]    one file a run
    python benchmarks/coverage.py long --kept DIR                                          the long ones
    python benchmarks/coverage.py table --kept DIR [--sessions 40 60 120]                  for docs/uncertainty.md

A short run is 158 sessions on the simulated engine, of which a window of steady load is measured: after 60 s (70 s of a
closed loop), as long as so many sessions take to come. The long run is 12,040 sessions under the same load. Every call
and every session of it counts as the truth. Coverage is of the intervals that are given; those withheld for want of
sessions are asked for all the same, so that the table can say what withholding them is good for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloom.answers.trial import in_memory
from workloom.clock import NS
from workloom.drive.driver import Options
from workloom.engine.profile import load as load_profile
from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Sample, Totals, find
from workloom.metrics.estimate import Estimate, of_observed
from workloom.metrics.figure import Figure, figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured
from workloom.metrics.sessions import makespan_s
from workloom.metrics.uncertainty import enough
from workloom.metrics.uncertainty.ratio import Begun
from workloom.plan import Closed, Limits, Load, Open, Recipe, TraceRef, Waits, make

WORKLOAD = """
workload: 1
name: coverage
about: short agent sessions with heavy tails, for the study of intervals
agents:
  main:
    calls: {family: quantiles, points: [[0, 1], [0.2, 2], [0.5, 4], [0.8, 7], [0.95, 11], [1, 16]]}
    first:
      fresh: {family: lognormal, median: 1500, sigma: 0.5}
      output: {family: lognormal, median: 120, sigma: 1.0}
    turns:
      tool:
        fresh: {family: lognormal, median: 400, sigma: 0.8}
        output: {family: lognormal, median: 120, sigma: 1.0}
        wait: {family: lognormal, median: 2, sigma: 1.0}
    memory:
      session: {fresh: 0.3, output: 0.3, wait: 0.3}
"""
PROFILE = "llama-3.1-70b-h100x4"
RATE_PER_S = 0.3
"""Six sessions at once, in the open loop as in the closed one."""
LOADS: dict[str, Load] = {"open": Open(RATE_PER_S), "closed": Closed(6)}
SETTLED_S = {"open": 60.0, "closed": 70.0}
SESSIONS, LONG_SESSIONS, LONG_SEED = 158, 12_040, 5000
SLOW_S = 6.0
Columns = dict[str, NDArray[np.float64]]


class Asked(NamedTuple):
    """One row of the table. `column`: what it is a figure of."""

    name: str
    column: str
    figure: Figure


FIGURES = (
    Asked("TTFT mean", "ttft", figure("ttft_mean")),
    Asked("TTFT p50", "ttft", figure("ttft_p50")),
    Asked("TTFT p95", "ttft", figure("ttft_p95")),
    Asked("TTFT p99", "ttft", figure("ttft_p99")),
    Asked("E2E mean", "e2e", figure("e2e_mean")),
    Asked("E2E p95", "e2e", figure("e2e_p95")),
    Asked("calls over 6 s", "slow", figure("errors")),
    Asked("output tokens/s", "tokens", figure("errors")),
    Asked("makespan mean", "makespan", figure("e2e_mean")),
    Asked("makespan p50", "makespan", figure("e2e_p50")),
    Asked("makespan p90", "makespan", figure("e2e_p90")),
    Asked("TBC p50", "tbc", figure("tbc_p50")),
    Asked("TBC p95", "tbc", figure("tbc_p95")),
)


def play(kind: str, sessions: int, seed: int) -> Measured:
    """One seeded run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.yaml"
        path.write_text(WORKLOAD)
        trace = TraceRef((str(path),), generate=sessions)
        plan = make(Recipe(trace, LOADS[kind], Limits(sessions=sessions), Waits(None), seed=seed))
        return in_memory(plan, load_profile(PROFILE), Options(timeout_s=None))


def columns(run: Measured) -> Columns:
    """What the study needs of a run, in seconds; gaps in microseconds, equal ones of a session together."""
    calls = run.calls
    gaps = find("tbc").observe(run.within(Window(0, 10**15)))
    assert isinstance(gaps, Sample)
    keys, where = np.unique(
        np.round(gaps.values * 1e6).astype(np.int64) * 100_000 + gaps.session.astype(np.int64), return_inverse=True
    )
    counts = np.bincount(where, gaps.weights)
    return {
        "inst": calls.instance,
        "due": calls.due_ns / NS,
        "done": calls.done_ns / NS,
        "ttft": per_call.ttft_s(calls),
        "e2e": per_call.e2e_s(calls),
        "out": calls.output_tokens,
        "sinst": run.sessions.instance,
        "sdue": run.sessions.due_ns / NS,
        "mk": makespan_s(run.sessions),
        "tbc": (keys // 100_000).astype(np.float64),
        "tinst": (keys % 100_000).astype(np.float64),
        "tcnt": counts.astype(np.float64),
    }


def observed(run: Columns, column: str, begin_s: float, end_s: float) -> Sample | Totals:
    """What a window shows."""
    if column == "makespan":
        due = (run["sdue"] >= begin_s) & (run["sdue"] < end_s)
        return Sample(run["mk"][due], run["sinst"][due])
    if column == "tbc":
        mine = np.isin(run["tinst"], run["sinst"][(run["sdue"] >= begin_s) & (run["sdue"] < end_s)])
        return Sample(
            run["tbc"][mine] / 1e6, run["tinst"][mine].astype(np.float64), run["tcnt"][mine].astype(np.float64)
        )
    if column == "tokens":
        ended = (run["done"] >= begin_s) & (run["done"] < end_s)
        return Totals(run["out"][ended], end_s - begin_s, run["inst"][ended])
    due = (run["due"] >= begin_s) & (run["due"] < end_s)
    if column == "slow":
        slow = (run["e2e"][due] > SLOW_S).astype(np.float64)
        return Totals(slow, np.ones(len(slow)), run["inst"][due])
    return Sample(run[column][due], run["inst"][due])


def judged(run: Columns, asked: Asked, begin_s: float, end_s: float) -> Estimate:
    begun = Begun(run["sinst"], run["sdue"] * NS, Window(round(begin_s * NS), round(end_s * NS)))
    return of_observed(asked.figure, observed(run, asked.column, begin_s, end_s), begun=begun)


def truth(run: Columns, kind: str, asked: Asked) -> float:
    """The value over all of a long run but its ends."""
    value = judged(run, asked, SETTLED_S[kind], float(run["sdue"].max()) - 100).value
    assert value is not None
    return value


class Row(NamedTuple):
    """`covered` of those given; low and high: the truth lay below, above the interval. Shares."""

    runs: int
    given: float
    covered: float
    below: float
    above: float
    width: float
    """Median of (high - low) / truth."""


def row(runs: list[Columns], kind: str, asked: Asked, sessions: int, true: float) -> Row:
    """Of the first so many sessions of each run; of one long run, of each so many one after the other."""
    length_s, first_s = sessions / RATE_PER_S, SETTLED_S[kind]
    ends = [float(run["sdue"].max()) - 100 if len(runs) == 1 else first_s + length_s for run in runs]
    told = [
        judged(run, asked, float(begin_s), float(begin_s) + length_s)
        for run, end_s in zip(runs, ends, strict=True)
        for begin_s in np.arange(first_s, end_s - length_s + 1e-6, length_s)
    ]
    given = np.array([(e.low, e.high) for e in told if e.low is not None and e.high is not None]).reshape(-1, 2)
    if not len(given):
        return Row(len(told), 0.0, np.nan, np.nan, np.nan, np.nan)
    below, above = np.mean(true < given[:, 0]), np.mean(true > given[:, 1])
    width = float(np.median(given[:, 1] - given[:, 0]) / true)
    return Row(len(told), len(given) / len(told), float(1 - below - above), float(below), float(above), width)


def kept(folder: Path, kind: str, first: int, end: int) -> list[Columns]:
    paths = [folder / f"{kind}_{seed}.npz" for seed in range(first, end)]
    return [dict(np.load(path)) for path in paths if path.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("make", "long", "table"))
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--load", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 1000])
    parser.add_argument("--sessions", nargs="+", type=int, default=[40, 60, 120])
    parser.add_argument("--windows", action="store_true", help="of the long run cut into windows, for more sessions")
    asked = parser.parse_args()
    asked.kept.mkdir(parents=True, exist_ok=True)
    if asked.what == "table":
        table(asked.kept, asked.load, asked.seeds, asked.sessions, asked.windows)
        return
    long = asked.what == "long"
    for kind in asked.load:
        for seed in [LONG_SEED] if long else range(*asked.seeds):
            path = asked.kept / f"{kind}_{seed}.npz"
            if not path.exists():
                np.savez(path, **columns(play(kind, LONG_SESSIONS if long else SESSIONS, seed)))  # type: ignore[arg-type]


def table(folder: Path, loads: list[str], seeds: list[int], sessions: list[int], windows: bool) -> None:
    claimed = {asked.name: enough.sessions_needed(asked.figure) for asked in FIGURES}
    enough.SESSIONS_MEAN = enough.SESSIONS_OF_GAPS = enough.SESSIONS_OF_GAPS_TAIL = 2
    enough.SESSIONS.update(dict.fromkeys(enough.SESSIONS, 2))
    print("| load | figure | sessions | runs | given | covered | truth below, above | width |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in loads:
        (long,) = kept(folder, kind, LONG_SEED, LONG_SEED + 1)
        runs = [long] if windows else kept(folder, kind, seeds[0], seeds[1])
        for asked in FIGURES:
            true = truth(long, kind, asked)
            for count in sessions:
                made = row(runs, kind, asked, count, true)
                mark = "**" if count >= claimed[asked.name] else ""
                print(
                    f"| {kind} | {asked.name} | {count} | {made.runs} | {made.given:.0%} "
                    f"| {mark}{made.covered:.1%}{mark} | {made.below:.1%}, {made.above:.1%} | {made.width:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
