"""The tree of the prefix cache, and what is found in it. :mod:`workloom.engine.prefix` tells what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from workloom.engine.blocks import Run
    from workloom.engine.tiers import Found

NEVER = -1
"""Before every instant: nothing is too old."""


class Node:
    """One text behind one history. `copies` are its runs of findable blocks, in the order they came."""

    __slots__ = ("branches", "copies", "parent", "pins", "place", "states")

    def __init__(self, parent: Node | None, place: tuple[int, int]) -> None:
        self.parent, self.place = parent, place
        self.branches: dict[tuple[int, int], Node] = {}
        self.copies: list[Run] = []
        self.states: dict[int, list[Run]] = {}
        """By boundary, in blocks, in the order they came."""
        self.pins = 0

    def cover(self, first: int, end: int, found: list[tuple[Run, int, int]], since_ps: int = NEVER) -> int:
        """Collect runs that hold blocks first..end-1 without a hole; return how far they reach.

        Only runs that are held now, or were after `since_ps`.
        """
        if len(self.copies) == 1:  # the common case
            run = self.copies[0]
            if run.start <= first < run.end and (run.refs or run.freed_ps > since_ps):
                upto = min(end, run.end)
                found.append((run, first, upto))
                return upto
            return first
        while first < end:
            upto = end
            for run in self.copies:
                if not run.refs and run.freed_ps <= since_ps:
                    continue
                if run.start <= first < run.end:
                    upto = min(upto, run.end)
                    found.append((run, first, upto))
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


class Hit(NamedTuple):
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
        return self._replace(state=None, evictable=self.evictable - free)
