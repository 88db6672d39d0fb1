"""Of runs that end when they know enough: does their interval hold the true value as often as it says?

python benchmarks/until.py [RUNS] [JOBS]     the table of docs/how-long.md; 100 runs a row take some ten minutes

Each run has a seed of its own, so sessions and order of its own, and none of its sessions comes twice before SESSIONS.
The true value is that of one run of TRUE_SESSIONS. Beside it: as many runs of a fixed size, the median of what the
others took, with seeds of their own; and what `workloom plan-size` had said from a pilot with another seed (one for
each FIFTH run), over what the run took.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from workloom.execute.goals import goal
from workloom.metrics.estimate import Estimate, estimate, estimates
from workloom.plan import Closed, Context, Limits, Plan, Recipe, TraceRef, make

WORKLOAD, LOAD, ENGINE = "chat", Closed(8), "llama-3.1-8b-h200x1"
GOALS = ("e2e_mean±15%", "e2e_p50±15%")
SESSIONS = 1500
TRUE_SESSIONS = 40_000
FIFTH = 5
FIXED_SEEDS, PILOT_SEEDS, TRUE_SEED = 250_000, 500_000, 987_654
"""Where the seeds of the others begin."""


class One(NamedTuple):
    """How one run ended."""

    held: bool
    sessions: int
    reached: bool
    predicted: float | None
    """Sessions by plan-size, over those it took; None where not asked, or where the pilot cannot say."""


def plan_of(seed: int, sessions: int) -> Plan:
    """So many sessions, each once."""
    trace, context = TraceRef((WORKLOAD,), generate=sessions), Context(profile.load(ENGINE).longest_call)
    return make(Recipe(trace, LOAD, Limits(sessions=sessions), context=context, seed=seed))


def truth(texts: Sequence[str]) -> list[float]:
    """The figures of one long run."""
    run = play(plan_of(TRUE_SEED, TRUE_SESSIONS), profile.load(ENGINE)).measured()
    values = [found.value for found in estimates(run, [goal(text).figure for text in texts])]
    return [value for value in values if value is not None]


def holds(found: Estimate, true: float) -> bool:
    """Whether there is an interval, and the true value in it."""
    return found.low is not None and found.high is not None and found.low <= true <= found.high


def one(text: str, true: float, seed: int) -> One:
    """A run that goes on until its goal is reached."""
    plan = plan_of(seed, SESSIONS)
    endless = Plan(replace(plan.recipe, limits=Limits()), plan.source)
    kept = play(until_known(endless, [text], live=False), profile.load(ENGINE))
    assert kept.until is not None
    took = kept.until.checks[-1].sessions
    held = holds(estimate(kept.measured(), goal(text).figure), true)
    told = predicted(text, seed) if seed % FIFTH == 0 else None
    return One(held, took, kept.until.verdict == "reached", None if told is None else told / took)


def predicted(text: str, seed: int) -> int | None:
    """What plan-size says that it takes."""
    about = goal(text)
    pilot = simulated_pilot(plan_of(seed + PILOT_SEEDS, 400), Fleet((Pool(profile.load(ENGINE)),)))
    return size(pilot_of(pilot, ""), about.figure, look(pilot, about.figure), about.half_width).sessions


def fixed(text: str, true: float, sessions: int, seed: int) -> bool:
    """Whether a run whose size was said beforehand holds the true value."""
    kept = play(plan_of(seed + FIXED_SEEDS, sessions), profile.load(ENGINE))
    return holds(estimate(kept.measured(), goal(text).figure), true)


def share(held: Sequence[bool]) -> str:
    """With its 95 % interval."""
    p = float(np.mean(held))
    return f"{p:.0%} ± {1.96 * np.sqrt(p * (1 - p) / len(held)):.0%}"


def row(text: str, ends: Sequence[One], others: Sequence[bool]) -> str:
    """One goal's."""
    missed = sum(not end.reached for end in ends)
    runs = f"{len(ends)}" + (f" ({missed} not reached)" if missed else "")
    said = np.array([end.predicted for end in ends if end.predicted is not None])
    median = f"{np.median(said):.2f}" if len(said) else "–"
    off = f"x{np.quantile(np.exp(np.abs(np.log(said))), 0.9):.1f}" if len(said) else "–"
    took = f"{np.median([end.sessions for end in ends]):.0f}"
    return f"| {' | '.join((text, runs, share([end.held for end in ends]), took, share(others), median, off))} |"


def main(runs: int = 100, jobs: int = 1) -> None:
    """Print the table, a row as soon as it is known."""
    columns = (
        f"{WORKLOAD}, {LOAD.say().removesuffix(' sessions at once')} at once, {ENGINE}",
        "runs",
        "true value held",
        "sessions, median",
        "fixed runs of that size held it",
        "pilot said / run took, median",
        "9 of 10 within",
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    seeds = range(1, runs + 1)
    with ProcessPoolExecutor(jobs) as pool:
        for text, true in zip(GOALS, truth(GOALS), strict=True):
            ends = list(pool.map(partial(one, text, true), seeds, chunksize=4))
            median = int(np.median([end.sessions for end in ends]))
            others = list(pool.map(partial(fixed, text, true, median), seeds, chunksize=4))
            print(row(text, ends, others), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
