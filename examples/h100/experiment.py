"""One experiment: a workload at a rate for five minutes on a profile, as it was published or without its quirks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from msgspec.structs import replace

from h100.figures import Figures, figures, of_records
from h100.workloads import AS_PUBLISHED, FRESH_TOKENS, Quirks, dag, linear, write
from workloom import seeds
from workloom.answers.simulated import play
from workloom.clock import NS
from workloom.engine.profile import Profile
from workloom.plan import Limits, Open, Plan, Recipe, Replay, TraceRef, make

Shape = Literal["linear", "dag"]
SHAPES: tuple[Shape, ...] = ("linear", "dag")
DURATION_S = 300.0
CALLS = {"linear": 5, "dag": 15}
CLIP_MEANS = 3.0


def plan(
    shape: Shape,
    sessions_per_s: float,
    folder: Path,
    *,
    quirks: Quirks = AS_PUBLISHED,
    seed: int = 0,
    unit_starts: Sequence[float] = (),
) -> Plan:
    """The plan of an experiment; its workload is written into the folder.

    `unit_starts`: when sessions start, in mean gaps, to be divided by the rate. None given: Poisson arrivals.
    """
    session = linear(quirks) if shape == "linear" else dag(quirks)
    limits = Limits(duration_s=DURATION_S)
    if unit_starts:
        sessions = [replace(session, id=f"{shape}-{k}", start_s=at) for k, at in enumerate(unit_starts)]
        path = write(folder / f"{shape}-replay.jsonl", sessions, common_clock=True)
        return make(Recipe(TraceRef((str(path),)), Replay(sessions_per_s), limits=limits, seed=seed))
    path = write(folder / f"{shape}.jsonl", [session])
    if not quirks.one_sequence:
        seed = seeds.number(seed, "rate", repr(sessions_per_s)) >> 33
    load = Open(sessions_per_s, clip_means=CLIP_MEANS) if quirks.clip else Open(sessions_per_s)
    return make(Recipe(TraceRef((str(path),)), load, limits=limits, seed=seed))


def run(plan: Plan, profile: Profile) -> Figures:
    """Its figures, over the calls that were due before the load ended."""
    kept = play(plan, profile)
    return figures(of_records(kept.calls, FRESH_TOKENS, DURATION_S))


def ttfc_by_call(plan: Plan, profile: Profile) -> list[float]:
    """Median TTFC, in seconds, of each call of a session, over those due before the load ended."""
    found: dict[int, list[float]] = {}
    for record in play(plan, profile).calls:
        if record.due_ns < DURATION_S * NS and record.first_ns is not None and record.sent_ns is not None:
            found.setdefault(record.ordinal, []).append((record.first_ns - record.sent_ns) / NS)
    return [median(found[i]) for i in sorted(found)]
