"""First come, first served: vLLM's default."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from workloom.engine.sequence import Sequence


class FirstComeFirstServed:
    """Calls in the order in which they left the front end, preempted ones before them."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Sequence, None] = OrderedDict()

    def append(self, sequence: Sequence) -> None:
        self._calls[sequence] = None

    def appendleft(self, sequence: Sequence) -> None:
        self._calls[sequence] = None
        self._calls.move_to_end(sequence, last=False)

    def head(self) -> Sequence:
        return next(iter(self._calls))

    def popleft(self) -> Sequence:
        return self._calls.popitem(last=False)[0]

    def remove(self, sequence: Sequence) -> None:
        del self._calls[sequence]

    def victim(self, running: Iterable[Sequence]) -> Sequence:
        """The newest."""
        return next(iter(running))

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._calls)
