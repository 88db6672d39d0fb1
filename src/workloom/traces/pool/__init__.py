"""The blocks that the prompts of a file share, whoever sent them: a tree with a run of blocks a row.

An id stands for a block of tokens; two prompts share the blocks up to where their ids first differ. Every row adds to
the tree what no earlier one has, its run, behind the last block that it shares with any of them:

    row 0   0 1 2 3            run 0..3, no owner
    row 1   0 1 | 4 5          run 4 5, behind 2 blocks of row 0       owner 0, depth 2
    row 2   0 1   4 | 6        run 6, behind 3 blocks of row 1         owner 1, depth 3

Owner and depth say all there is to say about sharing; ids need not be kept. Files whose ids count up in the order of
first use and have one predecessor each (Mooncake's) are laid out thousands of rows at a time; others row by row.

The last block of a prompt may have an id although it is not full. It is shared with prompts that have the same id and
end at the same token. Memory: 40 bytes a row; if laid row by row 8 a block and some 300 a row more.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from workloom.traces.pool.walk import Walker

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
S = TypeVar("S", bound=np.generic)


class Column(Generic[S]):
    """An array that grows."""

    def __init__(self, kind: type[S]) -> None:
        self._data: npt.NDArray[S] = np.zeros(1024, kind)
        self.size = 0

    def extend(self, values: npt.NDArray[S]) -> None:
        size = self.size + len(values)
        if size > len(self._data):
            data = np.zeros(size + size // 2, self._data.dtype)
            data[: self.size] = self.values
            self._data = data
        self._data[self.size : size] = values
        self.size = size

    def cut(self, size: int) -> None:
        """Forget what is behind the first `size`."""
        self.size = size

    @property
    def values(self) -> npt.NDArray[S]:
        return self._data[: self.size]


class Tree(NamedTuple):
    """What a pool found: an entry a row, all but tokens in blocks."""

    owner: Ints
    """The row whose run has the block before this row's run; -1: none."""
    depth: Ints
    """How many blocks it shares with earlier rows; its run follows."""
    blocks: Ints
    first: Ints
    """The number of the first block of its run: blocks are numbered in the order they come."""
    tokens: Ints
    """Tokens of the whole prompt."""


class Pool:
    """The tree of one file, built a batch of rows at a time."""

    def __init__(self, block_tokens: int) -> None:
        self._size = block_tokens
        self._columns = [Column(np.int64) for _ in Tree._fields]
        self._walker: Walker | None = None

    def tree(self) -> Tree:
        return Tree(*(column.values for column in self._columns))

    def add(self, ids: Ids, blocks: Ints, tokens: Ints) -> None:
        """Add rows: the ids of all, one row's behind the other's; of each how many ids, and tokens of the prompt.

        A prompt has an id for each of its full blocks, or for fewer if nobody shares the others; and maybe one more.
        """
        if not len(blocks):
            return
        if self._walker is None:
            rows = self._columns[0].size
            if self._lay(ids.view(np.int64), blocks, tokens):
                return
            for column in self._columns:
                column.cut(rows)
            self._walker = Walker(self._size)
            self._walker.take(*self.tree())
        owner, depth, first = self._walker.add(ids, blocks, tokens)
        self._extend(owner, depth, blocks, first, tokens)

    def _extend(self, *values: Ints) -> None:
        for column, more in zip(self._columns, values, strict=True):
            column.extend(more)

    def _lay(self, ids: Ints, blocks: Ints, tokens: Ints) -> bool:
        """Add rows whose new ids go on where the last ended; False (and a mess) if the ids are not of that kind."""
        before = self.tree()
        start = int(before.first[-1] + before.blocks[-1] - before.depth[-1]) if len(before.first) else 0
        ends = np.cumsum(blocks)
        begins = ends - blocks
        highest = np.full(len(blocks), -1, np.int64)
        if len(ids):
            if ids.min() < 0:
                return False
            highest[blocks > 0] = np.maximum.reduceat(ids, begins[blocks > 0])
        after = np.maximum.accumulate(np.maximum(highest + 1, start))
        first = np.concatenate(([start], after[:-1]))
        added = after - first
        depth = blocks - added
        if depth.min() < 0:
            return False
        new = (begins + depth)[added > 0]
        if (ids[new] != first[added > 0]).any():
            return False
        self._extend(np.full(len(blocks), -1, np.int64), depth, blocks, first, tokens)
        tree = self.tree()
        old = _Runs(tree, ids, begins, blocks, new)
        return old.sound and old.chained(tree) and old.ended(tree, self._size)


class _Parts(NamedTuple):
    """Parts of prompts that count up: an entry a part."""

    row: Ints
    place: Ints
    """How many blocks are before it in its row."""
    length: Ints
    id: Ints
    """Its first block."""
    behind: Ints
    """The block before, or -1."""
    run: Ints
    """The row whose run its first block is in."""


class _Runs:
    """What is old in a batch of rows, as parts of runs.

    All of it has to be runs or beginnings of runs, each behind the block that it was behind when it was new.
    """

    def __init__(self, tree: Tree, ids: Ints, begins: Ints, blocks: Ints, new: Ints) -> None:
        count = len(blocks)
        zero = len(tree.first) - count
        cut = np.ones(len(ids), bool)
        np.not_equal(ids[1:], ids[:-1] + 1, out=cut[1:])
        cut[begins[blocks > 0]] = True
        cut[new] = True
        at = np.flatnonzero(cut)
        row = np.repeat(np.arange(count), np.diff(np.searchsorted(at, begins), append=len(at)))
        place, length = at - begins[row], np.diff(at, append=len(ids))
        row += zero
        fresh = place >= tree.depth[row]
        old = np.flatnonzero(~fresh)
        grown = tree.blocks[row[fresh]] - tree.depth[row[fresh]]
        row, place = row[old], place[old]
        id, behind = ids[at[old]], np.where(place > 0, ids[at[old] - 1], -1)
        known = bool((id + length[old] <= tree.first[row]).all())
        self.sound = known and bool((length[fresh] == grown).all())
        """Whether all that is new in a row counts up, and all that is old was there before."""
        run = np.searchsorted(tree.first, id, "right") - 1
        self._parts = _in_runs(tree, _Parts(row, place, length[old], id, behind, run))

    def chained(self, tree: Tree) -> bool:
        """Tell the tree the owners of the rows. Whether each part is behind what it was behind."""
        row, place, length, id, behind, run = self._parts
        final = place + length == tree.depth[row]
        tree.owner[row[final]] = run[final]
        owner = tree.owner[run]
        before = np.where(owner < 0, -1, tree.first[owner] + tree.depth[run] - 1 - tree.depth[owner])
        return bool((id == tree.first[run]).all() and (place == tree.depth[run]).all() and (behind == before).all())

    def ended(self, tree: Tree, size: int) -> bool:
        """Whether blocks that are not full occur only at the end of prompts, and of as many tokens each time."""
        row, run, end = self._parts.row, self._parts.run, self._parts.place + self._parts.length
        row_ends = (end == tree.blocks[row]) & (tree.blocks[row] * size > tree.tokens[row])
        run_ends = (end == tree.blocks[run]) & (tree.blocks[run] * size > tree.tokens[run])
        same = tree.tokens[row[row_ends]] == tree.tokens[run[row_ends]]
        return bool((row_ends == run_ends).all() and same.all())


def _in_runs(tree: Tree, parts: _Parts) -> _Parts:
    """The parts, cut where runs end."""
    out = [parts]
    while True:
        row, place, length, id, _, run = out[-1]
        ends = tree.first[run] + tree.blocks[run] - tree.depth[run]
        more = id + length - ends
        long = np.flatnonzero(more > 0)
        if not len(long):
            break
        length[long] -= more[long]
        id = ends[long]
        run = np.searchsorted(tree.first, id, "right") - 1
        out.append(_Parts(row[long], place[long] + length[long], more[long], id, id - 1, run))
    return parts if len(out) == 1 else _Parts(*(np.concatenate(columns) for columns in zip(*out, strict=True)))
