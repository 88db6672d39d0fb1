"""The less busy of two replicas drawn at random (Mitzenmacher, "The power of two choices", 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workloom import seeds
from workloom.engine.hints import Hints
from workloom.engine.routers.seen import Seen, least_loaded
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class PowerOfTwo:
    """Two different replicas are drawn; the one with fewer calls out is chosen."""

    def __init__(self, seed: int) -> None:
        self._draw = seeds.stream(seed, "router", "power_of_two")

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        count = len(replicas)
        if count < 3:
            return least_loaded(replicas)
        first = int(self._draw.integers(count))
        second = int(self._draw.integers(count - 1))
        return least_loaded((replicas[first], replicas[second + (second >= first)]))

    def gone(self, number: int) -> None:
        pass
