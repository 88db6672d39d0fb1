"""What a router sees of a replica."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from workloom.prefix import Key


class Seen(Protocol):
    """A replica from outside."""

    @property
    def number(self) -> int: ...

    @property
    def outstanding(self) -> int:
        """Calls that were sent to it and are not over."""
        ...

    def kv_usage(self, at_ns: int) -> float:
        """Share of its KV blocks that calls hold, 0..1, as its metrics page says."""
        ...

    def cached_tokens(self, at_ns: int, prompt: Key) -> int:
        """Tokens of a prompt that are in its prefix cache, as its KV events say."""
        ...


R = TypeVar("R", bound=Seen)


def least_loaded(replicas: Iterable[R]) -> R:
    """The one with the fewest calls out."""
    return min(replicas, key=_load)


def _load(replica: Seen) -> tuple[int, int]:
    return replica.outstanding, replica.number
