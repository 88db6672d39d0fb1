"""Calls in an order in which what they wait for comes first."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush


def topological(parents: Sequence[Sequence[int]]) -> list[int]:
    """Indices with parents before their children, else as they came: what is in order already stays as it is.

    What waits in a circle, and what waits for that, is left out.
    """
    children: list[list[int]] = [[] for _ in parents]
    missing = []
    for index, mine in enumerate(parents):
        missing.append(len(mine))
        for parent in mine:
            children[parent].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        index = heappop(ready)
        order.append(index)
        for child in children[index]:
            missing[child] -= 1
            if not missing[child]:
                heappush(ready, child)
    return order
