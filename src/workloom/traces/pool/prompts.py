"""What each prompt of a session begins with. See :mod:`workloom.traces.pool.sessions`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.session import Inherit, Span
from workloom.traces.pool import Bools, Ints, Tree

NONE, ALL = -1, -2
_LOW = (1 << 32) - 1


class Member(NamedTuple):
    """A row of a session; other rows by their place in it."""

    row: int
    before: int
    """The row it continues; -1: none."""
    tokens: int
    output: int
    shared: int
    """Blocks that other sessions have too."""
    common: int
    """Blocks that the row it continues has too."""


class Begin(NamedTuple):
    """What a prompt begins with, and how many tokens that is."""

    inherit: Inherit | None
    spans: tuple[Span, ...]
    tokens: int


class Begins(NamedTuple):
    """The same of all rows at once, as far as numbers can tell it."""

    inherit: Ints
    """Tokens of the row it continues, NONE or ALL; what stands there for a prompt with spans is to be worked out."""
    tokens: Ints
    spans: Bools
    """Whether it has any."""


class Prompts:
    """The prompts of a file, by the tree of their blocks."""

    def __init__(self, tree: Tree, block_tokens: int, name: str) -> None:
        """`name`: what names of spans begin with."""
        self.size = block_tokens
        self._name = name
        self._owner, self._depth = tree.owner.data, tree.depth.data
        self._blocks, self._first = tree.blocks.data, tree.first.data
        self._tree = tree

    # ------------------------------------------------------------------------------------------------------- blocks

    def common(self, before: Ints) -> Ints:
        """How many blocks each row shares with the one it continues; 0 without one."""
        tree = self._tree
        common = np.where((before >= 0) & (tree.owner == before), tree.depth, 0)
        for row in np.flatnonzero((before >= 0) & (tree.owner != before) & (tree.depth > 0)).tolist():
            common[row] = self._pair(row, int(before[row]))
        return common

    def _pair(self, a: int, b: int) -> int:
        """How many blocks two rows share."""
        owner, depth = self._owner, self._depth
        of_a, of_b = self._blocks[a], self._blocks[b]
        while a != b:
            if a > b:
                of_a, a = min(of_a, depth[a]), owner[a]
            else:
                of_b, b = min(of_b, depth[b]), owner[b]
            if a < 0 or b < 0:
                return 0
        return min(of_a, of_b)

    def path(self, row: int) -> list[int]:
        """The numbers of all blocks of a row."""
        end = self._blocks[row]
        path: list[int] = []
        while end > 0:
            depth, first = self._depth[row], self._first[row]
            if end > depth:
                path[:0] = range(first, first + end - depth)
                end = depth
            row = self._owner[row]
        return path

    def full(self, member: Member) -> int:
        """How many full blocks of a row are known."""
        return min(self._blocks[member.row], member.tokens // self.size)

    def hashed(self, member: Member) -> int:
        """How many blocks of a row are known, a last one that is not full too."""
        return self._blocks[member.row]

    # ------------------------------------------------------------------------------------------------------- prompts

    def begins(self, before: Ints, output: Ints, shared: Ints, common: Ints) -> Begins:
        """What prompts begin with, where each shares most with the one it continues (`before`; -1: none)."""
        blocks, tokens, size = self._tree.blocks, self._tree.tokens, self.size
        spans = np.where(before >= 0, shared > common, shared > 0)
        theirs = np.where(before >= 0, tokens[before], 0)
        whole = theirs + np.where(before >= 0, output[before], 0)
        kept = np.minimum(common * size, np.minimum(theirs, tokens))
        holds = common >= np.minimum(blocks[before], theirs // size)  # all full blocks of the one before
        holds &= (tokens > theirs) | ((tokens == theirs) & (common == blocks[before]))
        holds &= (before >= 0) & ~spans
        kept = np.where(holds, theirs, kept)
        fits = np.flatnonzero(holds & (tokens >= whole))
        first = np.zeros(len(tokens), bool)
        first[fits[np.unique(before[fits], return_index=True)[1]]] = True
        fits = fits[first[fits] | ((tokens[fits] > whole[fits]) & (whole[fits] // size == theirs[fits] // size))]
        inherit = np.where((before >= 0) & (kept > 0), kept, NONE)
        inherit[fits] = ALL
        kept[fits] = whole[fits]
        kept = np.where(spans, np.minimum(shared * size, tokens), np.where(before >= 0, kept, 0))
        return Begins(inherit, kept, spans)

    def openings(self, rows: Ints, shared: Ints) -> list[tuple[Span, ...]]:
        """The spans of prompts that continue none; what several have of other rows' runs is made once."""
        tree, size = self._tree, self.size
        above = np.minimum(tree.depth[rows], shared)
        keys = np.where(above > 0, tree.owner[rows] << 32 | above, 0).tolist()
        known: dict[int, tuple[Span, ...]] = {0: ()}
        for key in set(keys) - {0}:
            row, upto = key >> 32, key & _LOW
            begin = self._depth[row]
            if upto > begin:  # mostly a run behind one that all begin with
                before = self._owner[row] << 32 | begin if begin else 0
                if before not in known:
                    known[before] = self.spans(self._owner[row], begin * size, begin, 0)[0]
                known[key] = (*known[before], self._span(row, upto * size))
            else:
                known[key] = self.spans(row, upto * size, upto, 0)[0]
        out = [known[key] for key in keys]
        uneven = shared * size > tree.tokens[rows]
        more = np.flatnonzero((shared > above) | uneven)
        for index, row, upto, tokens in zip(
            more.tolist(), rows[more].tolist(), shared[more].tolist(), tree.tokens[rows[more]].tolist(), strict=True
        ):
            if upto > self._depth[row]:
                out[index] += (self._span(row, min(upto * size, tokens)),)
            else:
                out[index] = self.spans(row, tokens, upto, 0)[0]
        return out

    def _span(self, row: int, end: int) -> Span:
        """A row's run as a span, up to so many tokens of its prompt."""
        return Span(f"{self._name}b{self._first[row]}", end - self._depth[row] * self.size, "trace")

    def spans(self, row: int, tokens: int, upto: int, kept: int) -> tuple[tuple[Span, ...], int]:
        """The runs of a prompt's first `upto` blocks, without those that end in the first `kept`; where they begin."""
        size = self.size
        found: list[Span] = []
        while upto > kept:
            begin = self._depth[row]
            if upto > begin:
                found.append(self._span(row, min(upto * size, tokens)))
                upto = begin
            row = self._owner[row]
        return tuple(reversed(found)), upto
