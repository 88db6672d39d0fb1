"""A topological order, by time where the edges leave a choice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush


def ordered(sources: Sequence[Collection[int]], starts_s: Sequence[float]) -> list[int] | None:
    """Indices, each behind its sources; None if some wait for each other in a circle."""
    followers: list[list[int]] = [[] for _ in sources]
    waiting: list[int] = []
    for index, before in enumerate(map(set, sources)):
        waiting.append(len(before))
        for source in before:
            followers[source].append(index)
    ready = [(starts_s[index], index) for index, count in enumerate(waiting) if not count]
    heapify(ready)
    out: list[int] = []
    while ready:
        _, index = heappop(ready)
        out.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heappush(ready, (starts_s[follower], follower))
    return out if len(out) == len(sources) else None
