"""KV blocks as runs, and the queue of free ones.

A run is a range of blocks that were filled, freed or hit together. Free runs stand in one queue in the order they were
freed, reusable and never-reusable ones alike; blocks are taken from its head, and of a run the last block first, which
is the order in which a real engine frees them:

    head                                                                      tail
    [ plain x900 ] [ tail of A x1 ] [ A 40..99 ] [ A 0..39 ] [ state of B at 31 x3 ] [ B 12..30 ]
      ^ taken first                    <-- from 99 down

A **state** is a run of its own kind: the pages, one for each group of layers that has a state, that hold what such
layers know at the end of a block (`boundary` blocks from the start). Its pages are blocks of the same pool. It can be
found while all its pages are there; when the first of them is taken the others are plain blocks where they stand.

A run that is split keeps its head; the part cut off is its `right`. Whoever holds the whole follows `right`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from workloom.engine.node import UNBOUNDED

if TYPE_CHECKING:
    from workloom.engine.node import Node

INFINITE = 1 << 60


class Run:
    """Blocks start..end-1 of the sequences through `node`; without a node, end - start blocks nobody can find.

    The first blocks may be those of nodes before it (see :class:`workloom.engine.node.Node`).
    """

    __slots__ = ("after", "before", "boundary", "end", "freed_ps", "node", "pins", "refs", "right", "start")

    def __init__(self, node: Node | None, start: int, end: int, refs: int) -> None:
        self.node, self.start, self.end, self.refs = node, start, end, refs
        self.boundary = 0
        """Of a state that can be found: after how many blocks it stands. 0: these are KV blocks, or plain."""
        self.pins = 0
        """How many of its holders are pins."""
        self.freed_ps = 0
        """When the last holder let go."""
        self.right: Run | None = None
        self.before: Run | None = None
        self.after: Run | None = None

    def __len__(self) -> int:
        return self.end - self.start


class Gone(NamedTuple):
    """Findable blocks first..end-1 of a node that were taken, or (`boundary` > 0) a state whose first page was."""

    node: Node
    first: int
    end: int
    boundary: int


class FreeQueue:
    """Free blocks in the order they were freed. `blocks` is the size of the pool; None is infinite.

    `plain_first`: blocks nobody can find go to the head, so that all of them are taken before any other.
    """

    def __init__(self, blocks: int | None, *, plain_first: bool = False) -> None:
        self.infinite = blocks is None
        self.blocks = INFINITE if blocks is None else blocks
        self.plain_first = plain_first
        self.free = self.blocks
        self.evicted = 0
        """Findable blocks that were taken for something else, ever; a state counts all its pages when it breaks."""
        self.now_ps = 0
        """The boundary between steps that the engine is at."""
        self._ring = Run(None, 0, 0, 0)
        self._ring.before = self._ring.after = self._ring
        self._unused = Run(None, 0, self.blocks, 0)
        self._link(self._unused, self._ring)

    def _link(self, run: Run, before: Run) -> None:
        last = before.before
        assert last is not None
        run.before, run.after = last, before
        last.after = before.before = run

    def _unlink(self, run: Run) -> None:
        assert run.before is not None and run.after is not None
        run.before.after, run.after.before = run.after, run.before
        run.before = run.after = None

    def pop(self, count: int) -> list[Gone]:
        """Take blocks from the head; return what cannot be found any more."""
        self.free -= count
        assert self.free >= 0, "more blocks taken than are free"
        gone: list[Gone] = []
        while count:
            run = self._ring.after
            assert run is not None and run is not self._ring
            if run.node is not None and run.boundary:
                self.evicted += len(run)
                gone.append(Gone(run.node, run.start, run.end, run.boundary))
                run.node.lose(run)
            node = run.node
            first = run.start if node is None else max(run.start, node.first)
            taken = min(count, run.end - first)
            run.end -= taken
            count -= taken
            if run.end == run.start:
                self._unlink(run)
            if node is not None:
                self.evicted += taken
                gone.append(Gone(node, run.end, run.end + taken, 0))
                if run.end == first:
                    node.drop(run)
                    if run.end > run.start:
                        run.node = node.owner(run.end - 1)
                        run.node.leave(run)
        return gone

    def put(self, run: Run) -> None:
        """A run whose last holder let go."""
        length = run.end - run.start
        if run.node is None:
            self.put_plain(length)
        elif length:
            self.free += length
            run.freed_ps = self.now_ps
            self._link(run, self._ring)

    def put_plain(self, count: int) -> None:
        """Blocks that can never be found again."""
        self.free += count
        if self.infinite:
            self._unused.end += count
        elif count:
            first = self._ring.after
            assert first is not None and self._ring.before is not None
            beside = first if self.plain_first else self._ring.before
            if beside is not self._ring and beside.node is None:
                beside.end += count
            else:
                self._link(Run(None, 0, count, 0), first if self.plain_first else self._ring)

    @property
    def plain_ahead(self) -> int:
        """Blocks that are taken before one that can be found is."""
        count, run = 0, self._ring.after
        while run is not None and run is not self._ring and run.node is None:
            count += len(run)
            run = run.after
        return count

    def withdraw(self, run: Run) -> None:
        """A free run that was hit: it is held again."""
        self.free -= run.end - run.start
        self._unlink(run)

    def split(self, run: Run, at: int) -> Run:
        """Cut a findable run before block `at`; return the part behind. The order of eviction stays."""
        assert run.node is not None and run.start < at < run.end
        right = Run(run.node, at, run.end, run.refs)
        right.pins, right.freed_ps = run.pins, run.freed_ps
        run.end = at
        right.right, run.right = run.right, right
        node = run.node
        while node.first >= at:  # all that the run has there is behind the cut
            if run in node.copies:
                node.copies[node.copies.index(run)] = right
            assert node.parent is not None
            node = node.parent
        place = node.copies.index(run)
        if node.leaves[place] > at:
            node.copies.insert(place + 1, right)
            node.leaves.insert(place + 1, node.leaves[place])
        node.leaves[place] = UNBOUNDED
        run.node = node
        if run.before is not None:
            self._link(right, run)
        return right

    def __iter__(self) -> Iterator[Run]:
        run = self._ring.after
        while run is not None and run is not self._ring:
            yield run
            run = run.after
