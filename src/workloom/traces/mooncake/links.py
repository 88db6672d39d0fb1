"""Which row of a Mooncake file continues which: the trace has no sessions, so they are told from shared blocks.

A row continues the earlier row whose full blocks are all a prefix of its own, and are the most, if it could have
followed it:

- it starts later, by at least 1 ms a token of that row's answer (no end times are told);
- it is at least as long as that row's prompt and answer together, and longer than the prompt; or it is the very same
  prompt, block by block: a retry;
- that row's prompt is no shared text. A system prompt or a document is told by the rows that begin with all its full
  blocks and hold no answer to it, retries among them: if there are more than 3, what begins with it is no next turn.

If several rows have those blocks, it is the latest that fits. Several rows that continue one are branches. In the
public conversations 9,631 prompts have 0 to 3 rows of that kind behind them, one has 4, and the system prompt 1,283.

Prompts are the nodes of a tree here: those with the same full blocks are one node, and its parent is the longest
prompt that they begin with. Rows are tried from a row's own node upwards, the latest 4 of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from workloom.session import LONGEST_WAIT_S
from workloom.traces.pool import Bools, Floats, Ints, Tree

MOST_STRANGERS = 3
TOKEN_S = 0.001
_TRIES = 4
_LEVELS = 64
"""How far up the tree a row is looked for."""
_PART = 1 << 15
_SHIFT = 32


class Links(NamedTuple):
    """Of each row the one it continues (-1: none), and whether as the very same prompt; how many rows begin with a
    shared text, so that nobody can say what they continue."""

    parent: Ints
    retry: Bools
    strangers: int


def find_links(tree: Tree, start_s: Floats, output: Ints, block_tokens: int) -> Links:
    """The links of all rows of a file."""
    full = np.minimum(tree.blocks, tree.tokens // block_tokens)
    nodes = _Nodes(tree, full)
    fits = _Fits(tree, start_s, output)
    reached, shared = _shared_texts(nodes, fits)
    parent = _search(nodes, fits, shared)
    linked = np.flatnonzero(parent >= 0)
    retry = np.zeros(len(parent), bool)
    retry[linked] = fits.same(linked, parent[linked])
    first = np.flatnonzero((parent < 0) & (reached >= 0))
    return Links(parent, retry, int(np.count_nonzero(shared[reached[first]])))


class _Nodes:
    """The tree of prompts, and which rows are at each of its nodes."""

    def __init__(self, tree: Tree, full: Ints) -> None:
        self._count = len(full)
        rows = np.flatnonzero(full > 0)
        ends, node = np.unique(_holders(tree, rows, full[rows]) << _SHIFT | full[rows], return_inverse=True)
        self._rows, self._node = rows, node
        """Rows with a full block, and the node of each."""
        order = np.argsort(node, kind="stable")
        self._keys = (node * self._count + rows)[order]
        """Node and row, ascending."""
        self._earlier = np.empty(len(rows), np.int64)
        """Where the last row before each row of its own node stands, or -1."""
        self._earlier[order] = np.where(np.diff(node[order], prepend=-1) == 0, np.arange(len(rows)) - 1, -1)
        self.parent = np.full(len(ends), -1, np.int64)
        row, upto = ends >> _SHIFT, (ends & (1 << _SHIFT) - 1) - 1
        left = np.arange(len(ends))
        while len(left):
            found = np.searchsorted(ends, row << _SHIFT | upto, "right") - 1
            hit = (found >= 0) & (ends[found] >> _SHIFT == row)
            self.parent[left[hit]] = found[hit]
            on = ~hit & (tree.owner[row] >= 0)
            row, upto, left = tree.owner[row[on]], tree.depth[row[on]], left[on]

    def parts(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Rows, their nodes, and where the last rows before them of these nodes stand; some at a time."""
        for low in range(0, len(self._rows), _PART):
            part = slice(low, low + _PART)
            yield self._rows[part], self._node[part], self._earlier[part]

    def before(self, node: Ints, row: Ints) -> Ints:
        """Where the last row of a node before a row stands, or -1."""
        at = np.searchsorted(self._keys, node * self._count + row) - 1
        return np.where((at >= 0) & (self._keys[at] // self._count == node), at, -1)

    def row(self, at: Ints, node: Ints) -> Ints:
        """The row that stands there, or -1 if it is of another node."""
        key = self._keys[np.maximum(at, 0)]
        return np.where((at >= 0) & (key // self._count == node), key % self._count, -1)


def _holders(tree: Tree, rows: Ints, blocks: Ints) -> Ints:
    """The rows whose runs have the last of each row's first `blocks` blocks."""
    holder = rows.copy()
    while len(low := np.flatnonzero(tree.depth[holder] >= blocks)):
        holder[low] = tree.owner[holder[low]]
    return holder


class _Fits:
    """What a row can be to another whose full blocks it begins with."""

    def __init__(self, tree: Tree, start_s: Floats, output: Ints) -> None:
        self._tokens, self._blocks, self._start_s, self._output = tree.tokens, tree.blocks, start_s, output
        self._holder = np.full(len(output), -1, np.int64)
        rows = np.flatnonzero(tree.blocks)
        self._holder[rows] = _holders(tree, rows, tree.blocks[rows])

    def same(self, row: Ints, other: Ints) -> Bools:
        """Whether they are the very same prompt."""
        same: Bools = self._tokens[row] == self._tokens[other]
        same &= self._blocks[row] == self._blocks[other]
        same &= self._holder[row] == self._holder[other]
        return same

    def after(self, row: Ints, other: Ints) -> Bools:
        """Whether it starts when the other can have been answered."""
        gap_s, output = self._start_s[row] - self._start_s[other], self._output[other]
        after: Bools = (gap_s > 0) & (gap_s >= output * TOKEN_S - 1e-9) & (gap_s <= LONGEST_WAIT_S)
        return after

    def turn(self, row: Ints, other: Ints) -> Bools:
        """Whether it can hold the other's answer."""
        tokens, before = self._tokens[row], self._tokens[other]
        longer: Bools = (tokens >= before + self._output[other]) & (tokens > before)
        return longer & self.after(row, other)

    def turn_or_retry(self, row: Ints, other: Ints) -> Bools:
        return self.turn(row, other) | self.same(row, other) & self.after(row, other)


def _fitting(nodes: _Nodes, fits: Callable[[Ints, Ints], Bools], rows: Ints, node: Ints, at: Ints) -> Ints:
    """The latest row of each node, of those at `at` and shortly before, that a row can continue; -1: none."""
    found = np.full(len(rows), -1, np.int64)
    left = np.flatnonzero(at >= 0)
    for back in range(_TRIES):
        other = nodes.row(at[left] - back, node[left])
        left, other = left[other >= 0], other[other >= 0]
        hit = fits(rows[left], other)
        found[left[hit]] = other[hit]
        left = left[~hit]
        if not len(left):
            break
    return found


def _shared_texts(nodes: _Nodes, fits: _Fits) -> tuple[Ints, Bools]:
    """Of each row the longest earlier prompt it begins with (a node, or -1); of each node whether it is shared text."""
    reached = np.full(len(fits._tokens), -1, np.int64)
    strangers = np.zeros(len(nodes.parent), np.int64)
    for rows, node, at in nodes.parts():
        for level in range(_LEVELS):
            if level:
                at = nodes.before(node, rows)
            hit = at >= 0
            reached[rows[hit]] = node[hit]
            none = _fitting(nodes, fits.turn, rows[hit], node[hit], at[hit]) < 0
            np.add.at(strangers, node[hit][none], 1)
            rows, node = rows[~hit], nodes.parent[node[~hit]]
            rows, node = rows[node >= 0], node[node >= 0]
            if not len(rows):
                break
    shared = strangers > MOST_STRANGERS
    above = np.flatnonzero(shared)
    while len(above):  # what a shared text begins with is shared too
        above = np.unique(nodes.parent[above])
        above = above[(above >= 0) & ~shared[above]]
        shared[above] = True
    return reached, shared


def _search(nodes: _Nodes, fits: _Fits, shared: Bools) -> Ints:
    """Of each row the one it continues."""
    parent = np.full(len(fits._tokens), -1, np.int64)
    for rows, node, at in nodes.parts():
        for level in range(_LEVELS):
            if level:
                at = nodes.before(node, rows)
            own = ~shared[node]
            rows, node, at = rows[own], node[own], at[own]
            if not len(rows):
                break
            found = _fitting(nodes, fits.turn_or_retry, rows, node, at)
            parent[rows] = found
            rows, node = rows[found < 0], nodes.parent[node[found < 0]]
            rows, node = rows[node >= 0], node[node >= 0]
    return parent
