"""Prefix-aware, by what is in the replicas' caches at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.affinity import USUAL, Thresholds, choose
from workloom.engine.routers.seen import Seen
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class PrefixExact:
    """Asks every replica how much of the prompt its cache holds, as routers do that follow KV events."""

    def __init__(self, thresholds: Thresholds = USUAL) -> None:
        self._thresholds = thresholds

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        return choose(replicas, prompt.tokens, lambda replica: replica.cached_tokens(at_ns, prompt), self._thresholds)

    def gone(self, number: int) -> None:
        pass
