"""Passes over the DAGs of all sessions at once, level by level.

    level 0      roots of every session          forward   a row after all of its parents
    level 1      rows one edge below             backward  a row after all of its children
    ...

A row's level is the number of edges on the longest way to it, so a level's rows do not wait for one another and numpy
takes them together: a pass costs some microseconds a level (the longest chain of any session) and some tens of
nanoseconds an edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.metrics.frame import Ints


class _Step(NamedTuple):
    """The edges of one level: edges `lo` to `hi` of the order, in groups that begin at `first` and belong to `rows`."""

    lo: int
    hi: int
    first: Ints | None
    """None: every group is one edge."""
    rows: Ints


class Dag:
    """Edge j leads from row `parent[j]` to row `child[j]`. The edges come by child, rising, and a parent's row is
    before its child's."""

    def __init__(self, rows: int, child: Ints, parent: Ints, level: Ints | None = None) -> None:
        self.child, self.parent = child, parent
        self.level = _levels(rows, child, parent) if level is None else level
        self._down, self._down_steps = self._steps(child)
        self._up, self._up_steps = self._steps(parent)

    def latest(self, begin: Ints, wait: Ints, took: Ints) -> Ints:
        """When each row ends: it begins at the latest of (parent's end + wait) over its edges and takes `took`.

        A row without edges begins at `begin`.
        """
        end = begin + took
        parent, wait = self.parent[self._down], wait[self._down]
        for lo, hi, first, rows in self._down_steps:
            ready = end[parent[lo:hi]] + wait[lo:hi]
            end[rows] = (ready if first is None else np.maximum.reduceat(ready, first)) + took[rows]
        return end

    def earliest(self, limit: Ints, wait: Ints, took: Ints) -> Ints:
        """By when each row must have ended so that neither it nor any row below it ends after its `limit`."""
        end = limit.copy()
        child, wait = self.child[self._up], wait[self._up]
        for lo, hi, first, rows in reversed(self._up_steps):
            below = child[lo:hi]
            must = end[below] - took[below] - wait[lo:hi]
            end[rows] = np.minimum(end[rows], must if first is None else np.minimum.reduceat(must, first))
        return end

    def _steps(self, rows: Ints) -> tuple[Ints, list[_Step]]:
        """The order of the edges by level of that end of theirs, then by row; and where each level lies in it."""
        if not len(rows):
            return np.empty(0, dtype=np.int64), []
        order = np.lexsort((rows, self.level[rows]))
        ordered = rows[order]
        heads = np.flatnonzero(np.diff(ordered, prepend=-1))
        levels = self.level[ordered]
        steps = []
        starts = np.flatnonzero(np.diff(levels, prepend=-1))
        ends = np.append(starts[1:], len(ordered))
        cuts = np.searchsorted(heads, np.append(starts, len(ordered)))
        for i, (lo, hi) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            first = heads[cuts[i] : cuts[i + 1]]
            steps.append(_Step(lo, hi, None if len(first) == hi - lo else first - lo, ordered[first]))
        return order, steps


def _levels(rows: int, child: Ints, parent: Ints) -> Ints:
    level = [0] * rows
    for below, above in zip(child.tolist(), parent.tolist(), strict=True):
        if level[above] >= level[below]:
            level[below] = level[above] + 1
    return np.array(level, dtype=np.int64)


def last_of(groups: int, group: Ints, value: Ints, rows: Ints) -> Ints:
    """Of each group, the row with the greatest value, the last of equals; -1 of an empty group.

    `group` and `value` are those of `rows`, which rise.
    """
    most = np.full(groups, np.iinfo(np.int64).min, dtype=np.int64)
    np.maximum.at(most, group, value)
    best = value == most[group]
    found = np.full(groups, -1, dtype=np.int64)
    np.maximum.at(found, group[best], rows[best])
    return found
