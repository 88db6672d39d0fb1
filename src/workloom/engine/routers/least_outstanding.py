"""The replica with the fewest calls out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.seen import Seen, least_loaded
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class LeastOutstanding:
    """Fewest calls that were sent and are not over."""

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        return least_loaded(replicas)

    def gone(self, number: int) -> None:
        pass
