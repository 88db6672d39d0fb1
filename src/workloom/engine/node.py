"""The tree of the prefix cache, and what is found in it. :mod:`workloom.engine.prefix` tells what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from workloom.engine.blocks import Run
    from workloom.engine.tiers import Found

NEVER = -1
"""Before every instant: nothing is too old."""


UNBOUNDED = 1 << 60


class Node:
    """One text behind one history, from block `first` on. `copies` are its runs of findable blocks, as they came.

    A run may span many nodes, from one to one that follows and so on down: it is in the copies of each in which it has
    blocks, and its own `node` is the last of them. `leaves` says before which block each copy leaves for the next node.
    """

    __slots__ = ("branches", "copies", "first", "leaves", "parent", "pins", "place", "states")

    def __init__(self, parent: Node | None, place: tuple[int, int], first: int = 0) -> None:
        self.parent, self.place, self.first = parent, place, first
        self.branches: dict[tuple[int, int], Node] = {}
        self.copies: list[Run] = []
        self.leaves: list[int] = []
        self.states: dict[int, list[Run]] = {}
        """By boundary, in blocks, in the order they came."""
        self.pins = 0

    def add(self, run: Run) -> None:
        """A run ends here now."""
        self.copies.append(run)
        self.leaves.append(UNBOUNDED)

    def drop(self, run: Run) -> None:
        """A run has no blocks here any more."""
        at = self.copies.index(run)
        del self.copies[at], self.leaves[at]

    def leave(self, run: Run, before: int = UNBOUNDED) -> None:
        """A run goes on elsewhere before a block; or it does not any more."""
        self.leaves[self.copies.index(run)] = before

    def owner(self, block: int) -> Node:
        """Which of this node and those before it has a block."""
        node = self
        while node.first > block and node.parent is not None:
            node = node.parent
        return node

    def cover(self, first: int, end: int, found: list[tuple[Run, int, int]], since_ps: int = NEVER) -> int:
        """Collect runs that hold blocks first..end-1 without a hole; return how far they reach.

        Only runs that are held now, or were after `since_ps`.
        """
        if len(self.copies) == 1:  # the common case
            run = self.copies[0]
            upto = min(end, run.end, self.leaves[0])
            if run.start <= first < upto and (run.refs or run.freed_ps > since_ps):
                _found(found, run, first, upto)
                return upto
            return first
        while first < end:
            upto = end
            for run, leaves in zip(self.copies, self.leaves, strict=True):
                if not run.refs and run.freed_ps <= since_ps:
                    continue
                if run.start <= first < run.end and first < leaves:
                    upto = min(upto, run.end, leaves)
                    _found(found, run, first, upto)
                    break
                if first < run.start < upto:
                    upto = run.start
            else:
                break
            first = upto
        return first

    def state(self, blocks: int, since_ps: int = NEVER) -> Run | None:
        """The last state within so many blocks."""
        for boundary in sorted(self.states, reverse=True):
            if boundary <= blocks:
                for run in self.states[boundary]:
                    if run.refs or run.freed_ps > since_ps:
                        return run
        return None

    def lose(self, run: Run) -> None:
        """A state cannot be found any more."""
        states = self.states[run.boundary]
        states.remove(run)
        if not states:
            del self.states[run.boundary]
        run.node, run.boundary = None, 0

    @property
    def empty(self) -> bool:
        """Whether nothing needs it."""
        return not (self.copies or self.branches or self.pins or self.states)


def _found(found: list[tuple[Run, int, int]], run: Run, first: int, end: int) -> None:
    if found and found[-1][0] is run and found[-1][2] == first:
        first = found.pop()[1]
    found.append((run, first, end))


class Hit(Struct, frozen=True):
    """The longest findable prefix of a sequence: what it is made of and where in the tree it ends."""

    blocks: int
    tokens: int
    evictable: int
    """Of these blocks and state pages, those nobody holds now: using them takes them from the free ones."""
    runs: list[tuple[Run, int, int]]
    cursor: tuple[int, Node, int, int]
    """Piece index, the node before it, how much of that node's text was used, where the piece starts."""
    state: Run | None = None
    """The state at its end, where the server has states."""
    reads: tuple[Found, ...] = ()
    """The part of it that is in tiers: the last blocks, then the state if it is there."""
    pages_below: int = 0
    """Blocks and state pages of that part."""

    @property
    def blocks_below(self) -> int:
        """KV blocks of that part."""
        return sum(part.end - part.first for _, part in self.reads if not part.state)

    def without_state(self) -> Hit:
        """Its KV blocks only."""
        if self.state is None:
            return self
        free = 0 if self.state.refs else len(self.state)
        return replace(self, state=None, evictable=self.evictable - free)
