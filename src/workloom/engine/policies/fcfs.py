"""First come, first served: vLLM's default."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from workloom.engine.sequence import Sequence


class FirstComeFirstServed(OrderedDict[Sequence, None]):
    """Calls in the order in which they left the front end, preempted ones before them."""

    def append(self, sequence: Sequence) -> None:
        self[sequence] = None

    def appendleft(self, sequence: Sequence) -> None:
        self[sequence] = None
        self.move_to_end(sequence, last=False)

    def head(self) -> Sequence:
        return next(iter(self))

    def popleft(self) -> Sequence:
        return self.popitem(last=False)[0]

    def remove(self, sequence: Sequence) -> None:
        del self[sequence]

    def victim(self, running: Iterable[Sequence]) -> Sequence:
        """The newest."""
        return next(iter(running))
