"""Of runs that end when they know enough: does their interval hold the true value as often as it says?

python benchmarks/until.py [RUNS] [JOBS]     the tables of docs/how-long.md; 300 runs a row take some minutes

Each run has a seed of its own, so sessions, order and arrivals of its own. The true value is that of one run of some
5,000 sessions. Beside it: what `workloom plan-size` had said from a pilot with another seed, over what the run took.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from workloom.answers.plan_size import look, pilot_of, simulated_pilot, size
from workloom.answers.simulated import play
from workloom.answers.until import until_known
from workloom.engine import profile
from workloom.engine.fleet import Fleet, Pool
from workloom.execute.goals import goal, half_width
from workloom.metrics.estimate import estimate
from workloom.plan import Closed, Context, Limits, Load, Open, Plan, Recipe, TraceRef, make

ENGINE = "llama-3.1-8b-h200x1"
LONG = 5_000
CASES: tuple[tuple[str, Load, str], ...] = (
    ("chat", Closed(8), "e2e_mean±15%"),
    ("chat", Closed(8), "ttft_p95±40%"),
    ("chat", Open(2.0), "e2e_p50±15%"),
    ("agentic-coding", Closed(8), "e2e_mean±12%"),
)


class One(NamedTuple):
    """How one run ended."""

    held: bool
    sessions: int
    reached: bool
    half_width: float
    predicted: float
    """Sessions by plan-size, over those it took; nan where not asked."""


def plan_of(workload: str, load: Load, seed: int, sessions: int, calls: int | None = None) -> Plan:
    limits = Limits(calls=calls) if calls else Limits(sessions=sessions)
    return make(
        Recipe(
            TraceRef((workload,), generate=sessions),
            load,
            limits,
            context=Context(profile.load(ENGINE).longest_call),
            seed=seed,
        )
    )


def truth(workload: str, load: Load, text: str) -> float:
    """The figure of one long run."""
    per = plan_of(workload, load, 0, 50).source.calls / 50
    sessions = LONG if per < 5 else LONG // 5
    kept = play(plan_of(workload, load, 987_654, sessions), profile.load(ENGINE))
    value = estimate(kept.measured(), goal(text).figure).value
    assert value is not None
    return value


def one(workload: str, load: Load, text: str, true: float, seed: int) -> One:
    plan = plan_of(workload, load, seed, 1000 if workload == "chat" else 400)
    endless = Plan(replace(plan.recipe, limits=Limits()), plan.source)
    kept = play(until_known(endless, [text], live=False), profile.load(ENGINE))
    run, about = kept.measured(), goal(text)
    found = estimate(run, about.figure)
    assert kept.until is not None
    held = found.low is not None and found.high is not None and found.low <= true <= found.high
    took = kept.until.checks[-1].sessions
    predicted = float("nan")
    if seed % 5 == 0:
        pilot_plan = plan_of(workload, load, seed + 500_000, 400)
        pilot = simulated_pilot(pilot_plan, Fleet((Pool(profile.load(ENGINE)),)))
        told = size(pilot_of(pilot, ""), about.figure, look(pilot, about.figure), about.half_width)
        predicted = (told.sessions or float("nan")) / took
    wide = half_width(found)
    return One(held, took, kept.until.verdict == "reached", (wide or 0.0) / (found.value or 1.0), predicted)


def main(runs: int = 300, jobs: int = 2) -> None:
    columns = ("workload", "load", "goal", "runs", "true value held", "median sessions", "half width")
    print(f"| {' | '.join(columns)} | predicted / taken: median, 9 of 10 within |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(jobs) as pool:
        for workload, load, text in CASES:
            true = truth(workload, load, text)
            ends = list(pool.map(partial(one, workload, load, text, true), range(1, runs + 1), chunksize=4))
            held = np.mean([end.held for end in ends])
            error = 1.96 * np.sqrt(held * (1 - held) / runs)
            said = np.array([end.predicted for end in ends if not np.isnan(end.predicted)])
            off = np.quantile(np.exp(np.abs(np.log(said))), 0.9) if len(said) else float("nan")
            print(
                f"| {workload} | {load.say()} | {text} | {runs} ({sum(not end.reached for end in ends)} not reached) | "
                f"{held:.1%} ± {error:.1%} | {np.median([end.sessions for end in ends]):.0f} | "
                f"{np.median([end.half_width for end in ends]):.1%} | {np.median(said):.2f}, x{off:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
