"""Priority first, then arrival, as vLLM's `--scheduling-policy priority`."""

from __future__ import annotations

from collections.abc import Iterable

from workloom.engine.policies.ranked import Ranked
from workloom.engine.sequence import Sequence


class Priority(Ranked):
    """By `Hints.priority`, lower first, and by when a call left the front end.

    A preempted call keeps its place by these (vLLM's priority queue has no front to put it to), so it goes before all
    of its own priority, and a more urgent one that waits goes before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._came = 0

    def append(self, sequence: Sequence) -> None:
        self._came += 1
        self.add(sequence, (sequence.hints.priority, sequence.queued_ps, self._came))

    def appendleft(self, sequence: Sequence) -> None:
        self._came += 1
        self.add(sequence, (sequence.hints.priority, sequence.queued_ps, -self._came))

    def victim(self, running: Iterable[Sequence]) -> Sequence:
        """The least urgent, and of these the one that came last."""
        return max(running, key=_last)


def _last(sequence: Sequence) -> tuple[int, int]:
    return sequence.hints.priority, sequence.queued_ps
