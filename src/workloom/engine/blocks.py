"""KV blocks as runs, and the queue of free ones.

A run is a range of blocks that were filled, freed or hit together. Free runs stand in one queue in the order they were
freed, reusable and never-reusable ones alike; blocks are taken from its head, and of a run the last block first, which
is the order in which a real engine frees them:

    head                                                            tail
    [ plain x900 ] [ tail of A x1 ] [ A 40..99 ] [ A 0..39 ] [ tail of B ] [ B 12..30 ]
      ^ taken first                    <-- from 99 down

A run that is split keeps its head; the part cut off is its `right`. Whoever holds the whole follows `right`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workloom.engine.prefix import Node

INFINITE = 1 << 60


class Run:
    """Blocks start..end-1 of the sequences through `node`; without a node, end - start blocks nobody can find."""

    __slots__ = ("after", "before", "end", "node", "refs", "right", "start")

    def __init__(self, node: Node | None, start: int, end: int, refs: int) -> None:
        self.node, self.start, self.end, self.refs = node, start, end, refs
        self.right: Run | None = None
        self.before: Run | None = None
        self.after: Run | None = None

    def __len__(self) -> int:
        return self.end - self.start


class FreeQueue:
    """Free blocks in the order they were freed. `blocks` is the size of the pool; None is infinite."""

    def __init__(self, blocks: int | None) -> None:
        self.infinite = blocks is None
        self.blocks = INFINITE if blocks is None else blocks
        self.free = self.blocks
        self.evicted = 0
        """Findable blocks that were taken for something else, ever."""
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

    def pop(self, count: int) -> list[Node]:
        """Take blocks from the head; return the nodes that lost their last findable block here."""
        self.free -= count
        assert self.free >= 0, "more blocks taken than are free"
        emptied = []
        while count:
            run = self._ring.after
            assert run is not None and run is not self._ring
            taken = min(count, len(run))
            run.end -= taken
            count -= taken
            if run.node is not None:
                self.evicted += taken
            if not len(run):
                self._unlink(run)
                if run.node is not None:
                    run.node.copies.remove(run)
                    if not run.node.copies:
                        emptied.append(run.node)
        return emptied

    def put(self, run: Run) -> None:
        """A run whose last holder let go."""
        if len(run):
            self.free += len(run)
            self._link(run, self._ring)

    def put_plain(self, count: int) -> None:
        """Blocks that can never be found again."""
        self.free += count
        last = self._ring.before
        if self.infinite:
            self._unused.end += count
        elif count and last is not None and last is not self._ring and last.node is None:
            last.end += count
        elif count:
            self._link(Run(None, 0, count, 0), self._ring)

    def withdraw(self, run: Run) -> None:
        """A free run that was hit: it is held again."""
        self.free -= len(run)
        self._unlink(run)

    def split(self, run: Run, at: int) -> Run:
        """Cut a findable run before block `at`; return the part behind. The order of eviction stays."""
        assert run.node is not None and run.start < at < run.end
        right = Run(run.node, at, run.end, run.refs)
        run.end = at
        right.right, run.right = run.right, right
        copies = run.node.copies
        copies.insert(copies.index(run) + 1, right)
        if run.before is not None:
            self._link(right, run)
        return right

    def __iter__(self) -> Iterator[Run]:
        run = self._ring.after
        while run is not None and run is not self._ring:
            yield run
            run = run.after
