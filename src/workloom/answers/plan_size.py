"""How long a run must be for its figures to be known well, said beforehand from a pilot.

The half width of an interval shrinks with the root of the number of sessions. So one run, the pilot, says what any
other of its kind will need: a pilot of n sessions with half width h needs n * (h / w)^2 for half width w. Three looks
are taken, at either half of the pilot and at all of it: the range of what they say is how sure the answer is, and from
half to whole the variance should halve. Where it does not the run drifts, or the pilot is too short to tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from workloom.answers.simulated import play
from workloom.engine.fleet import Fleet
from workloom.errors import UsageError
from workloom.execute.goals import half_width
from workloom.execute.until import FIRST
from workloom.metrics.estimate import Estimate, estimate
from workloom.metrics.figure import Figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured
from workloom.metrics.uncertainty.enough import needed, sessions_needed
from workloom.plan import Limits, Plan

PILOT_SESSIONS = 400
PILOT_CALLS = 20_000
"""The pilot ends at whichever comes first: some seconds of CPU."""
WIDTHS = (0.10, 0.05, 0.02, 0.01)
"""Half widths asked for where nobody says: shares of the figure."""
HALVES = (1.3, 3.1)
"""The variance of the first half over that of the whole should be 2; beyond these the pilot is not to be trusted."""
UNTIL_TAKES = (1.4, 1.9)
"""A run with `--until` takes so many times what a pilot says, of a median and of a mean: `benchmarks/until.py`."""


class Pilot(Struct, frozen=True):
    """What the answer rests on."""

    what: str
    """In words: a run, or a simulated one on which engine."""
    sessions: int
    calls: int
    seconds: float
    prompt_tokens_per_call: float
    output_tokens_per_call: float


class Size(Struct, frozen=True):
    """What it takes to know a figure to `half_width`, a share of itself."""

    figure: str
    half_width: float
    sessions: int | None = None
    sessions_low: int | None = None
    """The least and the most that a look at the pilot says."""
    sessions_high: int | None = None
    calls: int | None = None
    seconds: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    why: str = ""
    """Why there is no answer."""


class Reach(Struct, frozen=True):
    """How well a figure will be known after so much: half widths, as shares of the figure."""

    figure: str
    half_width: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


class Looked(Struct, frozen=True):
    """One figure of the pilot, with the half width of its interval as a share of itself."""

    figure: str
    unit: str
    estimate: Estimate
    half_width: float | None
    halving: float | None = None
    """Variance of the first half over that of the whole: about 2."""
    steady: bool | None = None
    """Whether that is so."""


class PlanSize(Struct, frozen=True):
    """All that is said."""

    pilot: Pilot
    figures: list[Looked]
    sizes: list[Size] = []
    reaches: list[Reach] = []
    after: str = ""
    """After what `reaches` is: `600 s`."""


class Looks(NamedTuple):
    """One figure of all of the pilot, and of its first and second half."""

    whole: Estimate
    first: Estimate
    second: Estimate


def simulated_pilot(plan: Plan, fleet: Fleet) -> Measured:
    """A pilot of a plan in virtual time: its load and seed, some hundreds of its sessions."""
    per_session = plan.source.calls / len(plan.source)
    calls = min(PILOT_CALLS, math.ceil(PILOT_SESSIONS * per_session))
    short = Plan(replace(plan.recipe, limits=Limits(calls=calls)), plan.source)
    return play(short, fleet).measured()


def look(run: Measured, about: Figure) -> Looks:
    """The figure over the pilot and its halves: as many seconds each."""
    start, end = run.window.start_ns, run.window.end_ns
    middle = (start + end) // 2
    halves = (Window(start, middle), Window(middle, end))
    return Looks(estimate(run, about), *(estimate(run.within(half), about) for half in halves))


def pilot_of(run: Measured, what: str) -> Pilot:
    """The size of a pilot. Raises UsageError for one without a call."""
    due = run.due
    if not due.any():
        raise UsageError("the pilot holds no call that was due in its window", where=what)
    return Pilot(
        what,
        len(np.unique(run.calls.instance[due])),
        int(due.sum()),
        run.window.seconds,
        float(np.nanmean(run.prompt_tokens[due])),
        float(np.nanmean(run.output_tokens[due])),
    )


def looked(about: Figure, looks: Looks) -> Looked:
    """What a pilot says of one figure, and whether its variance halves with twice the sessions."""
    wide, first = relative(looks.whole), relative(looks.first)
    halving = None if not wide or first is None else (first / wide) ** 2
    steady = None if halving is None else HALVES[0] <= halving <= HALVES[1]
    return Looked(about.say(), about.about.unit, looks.whole, wide, halving, steady)


def relative(found: Estimate) -> float | None:
    """The half width of an interval as a share of the value; None where there is none, or it has no end."""
    wide = half_width(found)
    if wide is None or not found.value or not math.isfinite(wide) or not math.isfinite(found.value):
        return None
    return wide / abs(found.value)


def size(pilot: Pilot, about: Figure, looks: Looks, share: float) -> Size:
    """What it takes to know the figure to that share of itself."""
    name = about.say()
    if looks.whole.value is not None and not math.isfinite(looks.whole.value):
        return Size(name, share, why="infinite: calls failed, and no number of sessions helps")
    told = needed(looks.whole, share)
    if told.sessions is None:
        return Size(name, share, why=told.why or looks.whole.why or "not enough data")
    others = [needed(half, share).sessions for half in (looks.first, looks.second)]
    least = max(FIRST, sessions_needed(about))
    found = [max(least, n) for n in (told.sessions, *others) if n is not None]
    sessions = found[0]
    calls = sessions * pilot.calls / pilot.sessions
    return Size(
        name,
        share,
        sessions,
        min(found),
        max(found),
        round(calls),
        sessions * pilot.seconds / pilot.sessions,
        round(calls * pilot.prompt_tokens_per_call),
        round(calls * pilot.output_tokens_per_call),
        told.why,
    )


def reach(pilot: Pilot, about: Figure, looks: Looks, sessions: float) -> Reach:
    """How well the figure will be known after so many sessions."""
    told = []
    for found in looks:
        wide = relative(found)
        if wide is not None and found.sessions:
            told.append(wide * math.sqrt(found.sessions / sessions))
    if relative(looks.whole) is None:
        return Reach(about.say(), None, why=looks.whole.why or "not enough data")
    return Reach(about.say(), told[0], min(told), max(told))


def sessions_within(pilot: Pilot, limits: Limits) -> tuple[float, str] | None:
    """How many sessions a run with these limits has, by the pilot's pace, and the limit in words; None without one."""
    told = []
    if limits.duration_s is not None:
        told.append((limits.duration_s * pilot.sessions / pilot.seconds, f"{limits.duration_s:g} s"))
    if limits.sessions is not None:
        told.append((float(limits.sessions), f"{limits.sessions:,} sessions"))
    if limits.calls is not None:
        told.append((limits.calls * pilot.sessions / pilot.calls, f"{limits.calls:,} calls"))
    return min(told) if told else None


def plan_size(
    run: Measured, what: str, figures: Sequence[tuple[Figure, Sequence[float]]], limits: Limits | None = None
) -> PlanSize:
    """What the pilot `run` says of each figure: what each half width (a share) takes, or what a limit will give."""
    pilot = pilot_of(run, what)
    within = sessions_within(pilot, limits or Limits())
    told, sizes, reaches = [], [], []
    for about, shares in figures:
        looks = look(run, about)
        told.append(looked(about, looks))
        if within is not None:
            reaches.append(reach(pilot, about, looks, within[0]))
        else:
            sizes += [size(pilot, about, looks, share) for share in shares]
    return PlanSize(pilot, told, sizes, reaches, within[1] if within is not None else "")
