"""What two capacities say of a fleet: how much more work a server does of one workload than of another."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from workloom.answers.capacity.belief import Span
from workloom.answers.capacity.result import Capacity
from workloom.metrics.stats import Floats


class Fleet(Struct, frozen=True):
    """Of the second workload against the first, each with its interval.

    useful_work: calls (or sessions at once) that a server takes of the second for each of the first. slack: the share
    of a fleet sized for the first that the second leaves idle. fraction: of the servers that the first needs, how many
    the second needs at as many calls. slack = 1 - fraction = 1 - 1 / useful_work.
    """

    first: str
    second: str
    unit: str
    useful_work: Span
    slack: Span
    fraction: Span
    level: float


def fleet(first: Capacity, second: Capacity, *, calls: tuple[float, float] = (1.0, 1.0)) -> Fleet | None:
    """Compare two capacities; None where one of both has no edge.

    `calls`: the calls of a session of each, where the load counts sessions.
    """
    if first.span is None or second.span is None:
        return None
    ratios, weights = _ratios(first, second, calls[1] / calls[0])
    if first.over.easing:  # servers that were needed
        ratios = 1 / ratios
    order = np.argsort(ratios)
    ratios, upto = ratios[order], np.cumsum(weights[order])
    level = first.level
    low, middle, high = (float(ratios[min(int(np.searchsorted(upto, q * upto[-1])), len(ratios) - 1)]) for q in
                         ((1 - level) / 2, 0.5, (1 + level) / 2))  # fmt: skip
    work = Span(middle, low, high)
    fraction = Span(1 / middle, 1 / high, 1 / low)
    slack = Span(1 - fraction.value, 1 - fraction.high, 1 - fraction.low)
    unit = "servers" if first.over.easing else "sessions at once" if first.over.whole else "calls/s"
    return Fleet(first.workload, second.workload, unit, work, slack, fraction, level)


def _ratios(first: Capacity, second: Capacity, scale: float) -> tuple[Floats, Floats]:
    """Every pair of edges, and how likely it is: the two searches are independent."""
    a, b = (_loads(found) for found in (first, second))
    p, q = np.array(first.chances), np.array(second.chances)
    return (b[:, None] / a[None, :] * scale).ravel(), (q[:, None] * p[None, :]).ravel()


def _loads(found: Capacity) -> Floats:
    """What the edges mean as loads: of whole ones, the integer on their right side."""
    edges = np.array(found.edges)
    if not found.over.whole:
        return edges
    whole: Floats = np.ceil(edges) if found.over.easing else np.maximum(np.floor(edges), 0.5)
    return whole
