"""How long calls wait for tools, people and agents before they are due."""

from __future__ import annotations

from array import array
from typing import get_args

from msgspec import Struct

from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts
from workloom.session import Gap

LIMITS_S = (0.1, 1.0, 10.0, 60.0, 300.0, 3600.0)
"""Lengths of which it is told how many waits are shorter."""


class Waited(Struct, frozen=True):
    """Waits of one kind, in seconds as the trace tells them (no cap)."""

    count: int
    total_s: float
    wait_s: Distribution
    under: tuple[float, ...]
    """Share of waits shorter than each of LIMITS_S; empty without a wait."""


class Waits(Struct, frozen=True):
    """For each call with edges, the longest wait of these and its gap. A call without edges waits for nothing."""

    calls: int
    """All calls, with edges or without."""
    all: Waited
    by_gap: dict[Gap, Waited]
    """Only gaps that occur."""


class WaitsSection:
    """Tells how long calls wait; memory: a number a call."""

    def __init__(self) -> None:
        self._calls = 0
        self._waits: dict[Gap, array[float]] = {gap: array("d") for gap in get_args(Gap)}

    def add(self, facts: SessionFacts) -> None:
        self._calls += len(facts.calls)
        for c in facts.calls:
            if c.parents:
                self._waits[c.gap].append(c.wait_s)

    def result(self) -> Waits:
        every = array("d")
        for values in self._waits.values():
            every.extend(values)
        by_gap = {gap: waited(values) for gap, values in self._waits.items() if values}
        return Waits(self._calls, waited(every), by_gap)


def waited(waits_s: array[float]) -> Waited:
    """The numbers of some waits."""
    import numpy as np

    ordered = np.sort(np.asarray(waits_s, dtype=np.float64))
    under = np.searchsorted(ordered, LIMITS_S, side="left") / len(ordered) if len(ordered) else np.empty(0)
    return Waited(len(ordered), float(ordered.sum()), distribution(ordered), tuple(under.tolist()))
