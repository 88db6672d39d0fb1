"""One replica after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.seen import Seen
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class RoundRobin:
    """In the order of their numbers, whatever they have to do."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        chosen = next((replica for replica in replicas if replica.number > self._last), replicas[0])
        self._last = chosen.number
        return chosen

    def gone(self, number: int) -> None:
        pass
