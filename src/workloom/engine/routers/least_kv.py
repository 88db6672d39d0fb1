"""The replica with the most room in its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.seen import Seen
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class LeastKv:
    """Smallest share of KV blocks that calls hold, then fewest calls out.

    A replica's page says nothing yet of calls that wait: of a burst the calls out tell replicas apart.
    """

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        return min(replicas, key=lambda replica: (replica.kv_usage(at_ns), replica.outstanding, replica.number))

    def gone(self, number: int) -> None:
        pass
