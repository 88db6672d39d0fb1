"""Which points nothing else beats: as good in one figure and better in the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Pair = tuple[float, float]


def front(points: Sequence[Pair], higher: tuple[bool, bool] = (True, True)) -> list[bool]:
    """Of each point whether it is on the front: no other is at least as good in both and better in one.

    `higher`: of x and of y, whether more is better. Equal points are on it together.
    """
    signed = [_signed(point, higher) for point in points]
    order = sorted(range(len(points)), key=lambda i: signed[i], reverse=True)
    on = [False] * len(points)
    best: float | None = None
    held: Pair | None = None
    for i in order:
        _, y = signed[i]
        if best is None or y > best or signed[i] == held:
            on[i], best, held = True, y, signed[i]
    return on


def outline(points: Sequence[Pair], higher: tuple[bool, bool] = (True, True)) -> list[Pair]:
    """The edge of what the front reaches, as corners in the order of x.

    What a point reaches are all figures that are worse than both of its own, so the edge goes in steps.
    """
    on = sorted({point for point, keep in zip(points, front(points, higher), strict=True) if keep})
    corners: list[Pair] = []
    for one, other in pairwise(on):
        corners += [one, _corner(one, other, higher)]
    return corners + on[-1:]


def _corner(one: Pair, other: Pair, higher: tuple[bool, bool]) -> Pair:
    """Where the edges of what two points reach meet: of x and of y the worse one."""
    x = min(one[0], other[0]) if higher[0] else max(one[0], other[0])
    y = min(one[1], other[1]) if higher[1] else max(one[1], other[1])
    return x, y


def _signed(point: Pair, higher: tuple[bool, bool]) -> Pair:
    return (point[0] if higher[0] else -point[0], point[1] if higher[1] else -point[1])
