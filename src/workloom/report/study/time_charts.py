"""The charts of where the time goes, and what they have in common with its tables."""

from __future__ import annotations

from workloom.answers.characterize import Characterization
from workloom.model.critical import KINDS, Kind
from workloom.model.distribution import Distribution
from workloom.model.timing import Spent
from workloom.report.figure import Axis, Figure, Series
from workloom.report.study.parts import Figures, cdf
from workloom.report.study.words import Found, side

KIND_NAMES: dict[Kind, str] = {
    "inference": "inference",
    "tool": "tools",
    "network": "network",
    "human": "people",
    "orchestration": "orchestration",
    "spawn": "spawning",
    "unnamed": "waits of no told kind",
    "idle": "idle",
}
BESIDE = 0.01
"""Seconds off the path per second of session below which there is nothing to draw."""


def figures(found: Found) -> Figures:
    """All of them, in the order of the section."""
    return (*_path(found), *_beside(found), *_lengths(found))


def spent(c: Characterization, kind: Kind) -> Spent:
    """The time of one kind."""
    return next(one for one in c.timing.spent if one.kind == kind)


def without_people(c: Characterization, kind: Kind) -> float | None:
    """Its share of the time on the path that is not waiting for people; 1 is not missed by the dust of a sum."""
    share = spent(c, kind).share_without_human
    return None if share is None else round(share, 9)


def makespan_s(c: Characterization) -> Distribution:
    """First start to last end of each session."""
    return c.timing.makespan_s


def task_s(c: Characterization) -> Distribution:
    """First start to last end of each task."""
    return c.timing.task_s


def _path(found: Found) -> Figures:
    lasting = [c for c in found if c.timing.total_s > 0]
    people = any(spent(c, "human").on_s for c in lasting)
    shown = [(c, with_people) for c in lasting for with_people in _bars(c)]
    if not shown or len(seen(found)) < 2:
        return ()

    def share(c: Characterization, kind: Kind, with_people: bool) -> float:
        one = spent(c, kind)
        return (one.share if with_people else one.share_without_human) or 0.0

    names = tuple(_bar(c, found, "all of it" if with_people else "without people") for c, with_people in shown)
    series = tuple(
        Series(KIND_NAMES[kind], names, tuple(share(c, kind, with_people) for c, with_people in shown))
        for kind in seen(found)
    )
    note = "Seconds on the critical paths, which add up to the makespans" + (
        "; without people: the same less the waits for people." if people else "."
    )
    y = Axis("share of session time", "share")
    what = "What do sessions wait for?"
    return (Figure("path", "On the critical path", "stack", Axis("session time"), y, series, note, what, wide=True),)


def _bars(c: Characterization) -> tuple[bool, ...]:
    """All session time, and that without people where it is another."""
    other = spent(c, "human").on_s > 0 and without_people(c, "inference") is not None
    return (True, False) if other else (True,)


def seen(found: Found) -> list[Kind]:
    """The kinds that take any time."""
    return [kind for kind in KINDS if any(spent(c, kind).on_s or spent(c, kind).off_s for c in found)]


def _bar(c: Characterization, found: Found, what: str) -> str:
    return f"{c.label}, {what}" if len(found) > 1 else what


def _beside(found: Found) -> Figures:
    """What runs beside the critical paths, where that is not next to nothing."""

    def beside(c: Characterization) -> float:
        return sum(one.off_s for one in c.timing.spent) / c.timing.total_s if c.timing.total_s > 0 else 0.0

    some = [c for c in found if beside(c) >= BESIDE]
    if not some:
        return ()
    names = tuple(_bar(c, found, where) for c in some for where in ("on the path", "off it"))

    def seconds(c: Characterization, kind: Kind) -> tuple[float, float]:
        one = spent(c, kind)
        return one.on_s / c.timing.total_s, one.off_s / c.timing.total_s

    series = tuple(
        Series(KIND_NAMES[kind], names, tuple(value for c in some for value in seconds(c, kind)))
        for kind in seen(found)
    )
    told = side(found, lambda c: beside(c) if c in some else None)
    note = f"Seconds off the critical path for every second of a session: {told}. Traces below 0.01 are left out."
    y = Axis("seconds per second of session time")
    what = "How much runs side by side?"
    return (Figure("beside", "On the path and off it", "stack", Axis("trace"), y, series, note, what, wide=True),)


def _lengths(found: Found) -> Figures:
    def inference(c: Characterization) -> Distribution:
        return spent(c, "inference").per_session

    lasting = Axis("makespan", "s", log=True)
    taking = Axis("time of the task", "s", log=True)
    share = Axis("inference on the critical path / makespan", "share")
    return (
        *cdf("makespan", "Makespan of sessions", lasting, found, makespan_s, question="How long do sessions last?"),
        *cdf("task", "Time of tasks", taking, found, task_s, share="tasks", question="How long do people wait?"),
        *cdf("inference", "Inference per session", share, found, inference, question="Can a faster server be felt?"),
    )
