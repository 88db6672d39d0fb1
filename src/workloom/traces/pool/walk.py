"""Rows whose block ids may be anything, laid into the tree of a file one by one. See :mod:`workloom.traces.pool`.

Of each row only the full blocks of its run are kept, in one array; where rows part, a dictionary tells which row goes
on with which id.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from workloom.traces.blocks import common

Ints = npt.NDArray[np.int64]


class Walker:
    """Ids of runs, and the rows that part from them."""

    def __init__(self, block_tokens: int) -> None:
        self._size = block_tokens
        self._blocks = 0
        """How many blocks there are."""
        self._ids = array("Q")
        self._begin, self._depth = array("q"), array("q")
        """Of each row where its run begins, in `_ids` and in its prompt."""
        self._branches: dict[tuple[int, int, int], int] = {}
        """(row that has the block before, blocks before, id) -> the row whose run begins so."""
        self._partial: dict[tuple[int, int, int, int], int] = {}
        """(row that has the block before, blocks before, id, tokens of the prompt) -> the row it was new in."""

    def take(self, owner: Ints, depth: Ints, blocks: Ints, first: Ints, tokens: Ints) -> None:
        """Rows that were laid out by their numbers, which are their ids."""
        rows = zip(owner.tolist(), depth.tolist(), blocks.tolist(), first.tolist(), tokens.tolist(), strict=True)
        for before, shared, all_blocks, number, all_tokens in rows:
            full = min(all_blocks, all_tokens // self._size)
            run = array("Q", range(number, number + max(0, full - shared)))
            self._append(before, shared, run)
            self._blocks += all_blocks - shared
            if shared <= full < all_blocks:
                holder = len(self._begin) - 1 if run else before
                self._partial[holder, full, number + full - shared, all_tokens] = len(self._begin) - 1

    def add(self, ids: npt.NDArray[np.uint64], blocks: Ints, tokens: Ints) -> tuple[Ints, Ints, Ints]:
        """Owner, depth and first block of each of the rows: see :class:`workloom.traces.pool.Tree`."""
        every = array("Q", ids.tobytes())
        out: list[tuple[int, int, int]] = []
        end = 0
        for all_blocks, all_tokens in zip(blocks.tolist(), tokens.tolist(), strict=True):
            begin, end = end, end + all_blocks
            full = min(all_blocks, all_tokens // self._size)
            mine = every[begin : begin + full]
            owner, depth = self._walk(mine)
            self._append(owner, depth, mine[depth:])
            if full < all_blocks:
                row = len(self._begin) - 1
                place = (row if depth < full else owner, full, every[end - 1], all_tokens)
                known = self._partial.setdefault(place, row)
                if known != row:
                    owner, depth = known, all_blocks
            out.append((owner, depth, self._blocks))
            self._blocks += all_blocks - depth
        found = np.array(out, np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2]

    def _append(self, owner: int, depth: int, run: array[int]) -> None:
        if run:
            self._branches[owner, depth, run[0]] = len(self._begin)
        self._begin.append(len(self._ids))
        self._depth.append(depth)
        self._ids.extend(run)

    def _walk(self, mine: array[int]) -> tuple[int, int]:
        """How many blocks of a prompt are known, and which row has the last of them."""
        owner, depth = -1, 0
        while depth < len(mine):
            row = self._branches.get((owner, depth, mine[depth]))
            if row is None:
                break
            begin = self._begin[row]
            end = self._begin[row + 1] if row + 1 < len(self._begin) else len(self._ids)
            theirs = self._ids[begin : min(end, begin + len(mine) - depth)]
            depth += common(theirs, mine[depth:], 0, len(theirs))
            owner = row
        return owner, depth
