"""Scheduling policies: who of the waiting calls is next, and who of the running ones gives way.

A policy is one small file and one entry in `POLICIES`. It sees calls and their hints, never the future.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from workloom.engine.policies.fcfs import FirstComeFirstServed
from workloom.engine.policies.priority import Priority
from workloom.engine.policies.sjf import ShortestJobFirst
from workloom.engine.sequence import Sequence
from workloom.errors import ProfileError, nearest


class Waiting(Protocol):
    """The waiting calls of an engine, in the order in which they will be admitted. A call is in it at most once."""

    def append(self, sequence: Sequence) -> None:
        """A call that left the front end."""
        ...

    def appendleft(self, sequence: Sequence) -> None:
        """A call that ran and was preempted: it goes before all that would not have gone before it anyway."""
        ...

    def head(self) -> Sequence:
        """Who is next; there must be one."""
        ...

    def popleft(self) -> Sequence:
        """Take out who is next."""
        ...

    def remove(self, sequence: Sequence) -> None:
        """A call that was cancelled; KeyError if it does not wait."""
        ...

    def victim(self, running: Iterable[Sequence]) -> Sequence:
        """Who of the running calls, given from the newest to the oldest, is preempted when blocks run short."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]:
        """From the head on."""
        ...


POLICIES: dict[str, Callable[[], Waiting]] = {
    "fcfs": FirstComeFirstServed,
    "sjf": ShortestJobFirst,
    "priority": Priority,
}
"""By the name that a profile gives as its `policy`."""


def make_waiting(name: str) -> Waiting:
    """An empty queue of a policy. Raises ProfileError for a name that is none."""
    if name not in POLICIES:
        near = nearest(name, list(POLICIES))
        raise ProfileError(
            f"there is no scheduling policy called {name}",
            expected=f"one of {', '.join(POLICIES)}",
            found=name,
            hint=f"did you mean {near}?" if near else None,
        )
    return POLICIES[name]()
