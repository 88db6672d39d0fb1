"""The critical path of a session: the chain of calls and waits that its makespan is made of.

    t = the last end
    at each call, backwards      its own seconds up to t         inference
                                 the edge that bound it          the one whose parent's end + wait is latest
                                 from the parent's end up to t   that edge's wait, by its gap; what is left: idle

Every second between the first start and the last end is counted once. A trace whose instants overlap (a call that
starts before its parents are done, or before their waits are over) has its waits, then its parents' seconds cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from workloom.model.facts import CallFacts, SessionFacts
from workloom.session import Gap

Kind = Literal["inference", "tool", "network", "human", "orchestration", "spawn", "unnamed", "idle"]
KINDS: tuple[Kind, ...] = ("inference", "tool", "network", "human", "orchestration", "spawn", "unnamed", "idle")
"""What a second of a session is spent on. `unnamed`: a wait whose edge has the gap `none`; `idle`: between the end of
a wait and the start of the call, so queueing or what the trace does not explain."""

DUST_S = 1e-6
"""No trace tells time finer: less than that is what adding binary fractions leaves."""


class Leg(NamedTuple):
    """A call and the wait before it, in seconds."""

    call: CallFacts
    parent: int | None
    """The call whose edge bound this one; None for a call without edges."""
    gap: Gap
    wait_s: float
    idle_s: float
    inference_s: float

    @property
    def prefill_s(self) -> float | None:
        """Seconds of inference up to the first token; None where the trace does not tell it."""
        recorded = self.call.call.recorded
        first_s = None if recorded is None else recorded.first_s
        if first_s is None or not self.call.start_s <= first_s <= self.call.end_s:
            return None
        return min(first_s - self.call.start_s, self.inference_s)

    def waits(self) -> tuple[tuple[Kind, float], ...]:
        """The wait by what it was spent on.

        Tools of one call run side by side: of a wait with the gap `tool` the longest is tool time, the rest
        orchestration. Where the trace does not tell how long each of them ran, all of it is tool time.
        """
        if self.gap == "none":
            return (("unnamed", self.wait_s),)
        if self.gap != "tool":
            return ((self.gap, self.wait_s),)
        ran = [part.seconds for part in self.call.call.fresh if part.kind == "tool"]
        told = [seconds for seconds in ran if seconds is not None]
        if not told or len(told) < len(ran):
            return (("tool", self.wait_s),)
        tool_s, rest_s = _waited(max(told), self.wait_s)
        return (("tool", tool_s), ("orchestration", rest_s))


def legs(session: SessionFacts) -> list[Leg]:
    """Every call with its own seconds and the wait before it, in list order.

    A call waits once, on the edge that bound it: a wait in the shadow of a longer one is not counted.
    """
    calls = session.calls
    places = {c.call.id: c.place for c in calls}
    return [_leg(c, calls, places) for c in calls]


def critical_path(session: SessionFacts, every: Sequence[Leg]) -> list[Leg]:
    """The legs on the critical path, from the first call to the last; their seconds add up to the makespan.

    `every` is what :func:`legs` says of the session. A call without edges that starts after the first call of the
    session was idle until then.
    """
    calls = session.calls
    upto_s, at = max((c.end_s, c.place) for c in calls)
    path: list[Leg] = []
    while True:
        leg = every[at]
        start_s = min(upto_s, leg.call.start_s)
        before_s = min(c.start_s for c in calls) if leg.parent is None else min(start_s, calls[leg.parent].end_s)
        wait_s, idle_s = _waited(leg.wait_s, start_s - before_s)
        path.append(leg._replace(inference_s=upto_s - start_s, wait_s=wait_s, idle_s=idle_s))
        if leg.parent is None:
            return path[::-1]
        upto_s, at = before_s, leg.parent


def _leg(c: CallFacts, calls: Sequence[CallFacts], places: dict[str, int]) -> Leg:
    parent: int | None = None
    gap: Gap = "none"
    wait_s = due_s = 0.0
    for edge in c.call.after:
        place = places[edge.call]
        here_s = calls[place].end_s + edge.wait_s
        if parent is None or here_s >= due_s:
            parent, gap, wait_s, due_s = place, edge.gap, edge.wait_s, here_s
    if parent is None:
        return Leg(c, None, "none", 0.0, 0.0, c.seconds)
    return Leg(c, parent, gap, *_waited(wait_s, max(0.0, c.start_s - calls[parent].end_s)), c.seconds)


def _waited(wait_s: float, between_s: float) -> tuple[float, float]:
    """Of the seconds between a parent's end and the call: those of the wait, and those it does not explain."""
    idle_s = between_s - wait_s
    return (wait_s, idle_s) if idle_s >= DUST_S else (between_s, 0.0)
