"""Routers: which replica a call goes to. One small file for a policy, one protocol, a dict of names.

A router sees what a router can see: how many of the calls it sent are still out, what a replica says of itself, the
prompt, and the hints of the call. Ties go to the replica with the lowest number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers import (
    least_kv,
    least_outstanding,
    power_of_two,
    prefix,
    prefix_exact,
    round_robin,
    session,
)
from workloom.engine.routers.seen import Seen
from workloom.errors import UsageError, nearest
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)


class Router(Protocol):
    """Chooses a replica for every call."""

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        """One of `replicas` (at least one, by number, rising), for a call that comes at an instant."""
        ...

    def gone(self, number: int) -> None:
        """A replica takes no more calls; its number does not come again."""
        ...


ROUTERS: dict[str, Callable[[int], Router]] = {
    "round_robin": lambda seed: round_robin.RoundRobin(),
    "least_outstanding": lambda seed: least_outstanding.LeastOutstanding(),
    "least_kv": lambda seed: least_kv.LeastKv(),
    "session": lambda seed: session.Session(),
    "prefix": lambda seed: prefix.Prefix(),
    "prefix_exact": lambda seed: prefix_exact.PrefixExact(),
    "power_of_two": lambda seed: power_of_two.PowerOfTwo(seed),
}
"""By name; made with a seed."""


def named(name: str) -> Callable[[int], Router]:
    """What makes routers of a name. Raises UsageError."""
    found = ROUTERS.get(name)
    if found is None:
        near = nearest(name, list(ROUTERS))
        raise UsageError(
            f"there is no router {name}",
            expected=", ".join(ROUTERS),
            hint=f"did you mean {near}?" if near else None,
        )
    return found
