"""Where the time of the sessions goes: inference, tools, people, on the critical path and off it."""

from __future__ import annotations

from array import array

from msgspec import Struct

from workloom.model.critical import KINDS, Kind, Leg, critical_path, legs
from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts


class Spent(Struct, frozen=True):
    """Seconds of one kind, summed over sessions, on their critical paths and off them.

    Kinds on the critical path add up to the makespans. Off it are calls in the shadow of others, the waits before
    them, and what of a call or wait overlaps with what came after it.
    """

    kind: Kind
    on_s: float
    off_s: float
    share: float | None
    """On the path, of all makespans."""
    share_without_human: float | None
    """On the path, of all makespans less the human waits on it; None for human waits."""
    per_session: Distribution
    """On the path, share of the session's makespan, over sessions that last."""


class Timing(Struct, frozen=True):
    """Where session time goes; seconds are session time, as the trace tells it or the pace assumes it.

    Instants of calls that are not `timed` are in part or all assumed: by the edges and the pace.
    """

    sessions: int
    calls: int
    timed: int
    """Calls whose start and end are the trace's own."""
    timed_share: float | None
    makespan_s: Distribution
    total_s: float
    """All makespans."""
    spent: tuple[Spent, ...]
    """By kind, in the order of :data:`workloom.model.critical.KINDS`."""
    path_calls: int
    """Calls on the critical paths."""
    split: int
    """Calls of which the trace tells the first token; only theirs are split in prefill and decode."""
    prefill_on_s: float
    prefill_off_s: float
    decode_on_s: float
    decode_off_s: float
    parallelism: float | None
    """Inference seconds / inference seconds on the critical path: 1 for chains."""
    parallelism_per_session: Distribution
    tasks: int
    task_s: Distribution
    """From the start of a task's first call to the last end of its calls."""


class TimingSection:
    """Tells where the time goes; memory: a dozen numbers a session and one a task."""

    def __init__(self) -> None:
        self._calls = self._timed = self._split = self._path_calls = 0
        self._makespans, self._tasks, self._parallel = array("d"), array("d"), array("d")
        self._on, self._all = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
        self._first_on, self._first_all = [0.0, 0.0], [0.0, 0.0]
        self._shares = {kind: array("d") for kind in KINDS}

    def add(self, facts: SessionFacts) -> None:
        every = legs(facts)
        path = critical_path(facts, every)
        on, whole = spent(path), spent(every)
        whole["idle"] += path[0].idle_s  # a call without edges waits for nothing, but its session did
        for kind in KINDS:
            self._on[kind] += on[kind]
            self._all[kind] += whole[kind]
        makespan_s = facts.makespan_s
        if makespan_s > 0:
            for kind, shares in self._shares.items():
                shares.append(on[kind] / makespan_s)
        if on["inference"] > 0:
            self._parallel.append(whole["inference"] / on["inference"])
        self._makespans.append(makespan_s)
        self._tasks.extend(task_seconds(facts))
        self._calls += len(facts.calls)
        self._timed += sum(c.timed for c in facts.calls)
        self._path_calls += len(path)
        self._split += _split(every, self._first_all)
        _split(path, self._first_on)

    def result(self) -> Timing:
        total_s = sum(self._makespans)
        busy_s, on_s = self._all["inference"], self._on["inference"]
        prefill_on_s, decode_on_s = self._first_on
        prefill_s, decode_s = self._first_all
        return Timing(
            sessions=len(self._makespans),
            calls=self._calls,
            timed=self._timed,
            timed_share=self._timed / self._calls if self._calls else None,
            makespan_s=distribution(self._makespans),
            total_s=total_s,
            spent=tuple(self._spent(kind, total_s) for kind in KINDS),
            path_calls=self._path_calls,
            split=self._split,
            prefill_on_s=prefill_on_s,
            prefill_off_s=max(0.0, prefill_s - prefill_on_s),
            decode_on_s=decode_on_s,
            decode_off_s=max(0.0, decode_s - decode_on_s),
            parallelism=busy_s / on_s if on_s > 0 else None,
            parallelism_per_session=distribution(self._parallel),
            tasks=len(self._tasks),
            task_s=distribution(self._tasks),
        )

    def _spent(self, kind: Kind, total_s: float) -> Spent:
        on_s = self._on[kind]
        without_s = total_s - self._on["human"]
        return Spent(
            kind=kind,
            on_s=on_s,
            off_s=max(0.0, self._all[kind] - on_s),
            share=on_s / total_s if total_s > 0 else None,
            share_without_human=on_s / without_s if kind != "human" and without_s > 0 else None,
            per_session=distribution(self._shares[kind]),
        )


def spent(rows: list[Leg]) -> dict[Kind, float]:
    """Seconds of some legs, by kind.

    Waits of one kind behind one call are one wait, the longest: one person who starts two agents at once waits once.
    """
    out: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    longest: dict[tuple[int | None, Kind], float] = {}
    for leg in rows:
        out["inference"] += leg.inference_s
        out["idle"] += leg.idle_s
        for kind, seconds in leg.waits():
            longest[leg.parent, kind] = max(seconds, longest.get((leg.parent, kind), 0.0))
    for (_, kind), seconds in longest.items():
        out[kind] += seconds
    return out


def task_seconds(facts: SessionFacts) -> list[float]:
    """How long each task of a session took, in the order of their numbers."""
    starts_s, ends_s = [float("inf")] * facts.tasks, [float("-inf")] * facts.tasks
    for c in facts.calls:
        starts_s[c.task] = min(starts_s[c.task], c.start_s)
        ends_s[c.task] = max(ends_s[c.task], c.end_s)
    return [end_s - start_s for start_s, end_s in zip(starts_s, ends_s, strict=True)]


def _split(rows: list[Leg], into: list[float]) -> int:
    """Add the prefill and the decode seconds of the legs whose first token is told; how many these are."""
    count = 0
    for leg in rows:
        prefill_s = leg.prefill_s
        if prefill_s is not None:
            into[0] += prefill_s
            into[1] += leg.inference_s - prefill_s
            count += 1
    return count
