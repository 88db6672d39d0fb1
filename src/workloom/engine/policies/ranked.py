"""Waiting calls in the order of a rank, least first: a heap whose removed entries stay until they surface."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from workloom.engine.sequence import Sequence

Rank = tuple[float, ...]
"""Ranks in one queue have one length, and no two are equal."""


class Ranked:
    """Adding and taking out cost O(log n), removing O(1) and a share of a later clean-up."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Sequence]] = []
        self._ranks: dict[Sequence, Rank] = {}
        """Of the calls that wait; whatever else is in the heap is gone."""

    def add(self, sequence: Sequence, rank: Rank) -> None:
        self._ranks[sequence] = rank
        heappush(self._heap, (rank, sequence))

    def head(self) -> Sequence:
        while self._gone(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][1]

    def popleft(self) -> Sequence:
        sequence = self.head()
        heappop(self._heap)
        del self._ranks[sequence]
        return sequence

    def remove(self, sequence: Sequence) -> None:
        del self._ranks[sequence]
        if len(self._heap) > 2 * len(self._ranks) + 16:
            self._heap = [entry for entry in self._heap if not self._gone(entry)]
            heapify(self._heap)

    def _gone(self, entry: tuple[Rank, Sequence]) -> bool:
        rank, sequence = entry
        return self._ranks.get(sequence) is not rank

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(sorted(self._ranks, key=self._ranks.__getitem__))
