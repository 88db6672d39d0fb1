"""Shortest job first: less waiting on average, and no promise to the long ones."""

from __future__ import annotations

from collections.abc import Iterable

from workloom.engine.policies.ranked import Ranked
from workloom.engine.sequence import Sequence


class ShortestJobFirst(Ranked):
    """By the tokens still to be computed and the answer's expected length where a hint tells it; equals as they came.

    What of a prompt is in the cache is not known before its turn, so the whole prompt counts. Preempted calls go before
    all others: their blocks were given for nothing already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._came = 0

    def append(self, sequence: Sequence) -> None:
        self._came += 1
        expected = sequence.hints.expected_output_tokens or 0.0
        self.add(sequence, (sequence.tokens - sequence.computed + expected, self._came))

    def appendleft(self, sequence: Sequence) -> None:
        self._came += 1
        self.add(sequence, (-1.0, -self._came))

    def victim(self, running: Iterable[Sequence]) -> Sequence:
        """The newest."""
        return next(iter(running))
