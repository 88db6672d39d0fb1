"""One memory tier: which blocks it keeps, in the order of use, as runs. Its rules are in :mod:`workloom.engine.tiers`.

A run is a range of blocks behind one node that were written or used together; in the queue of all runs its last block
is the least recently used:

    least recently used                      most recently used
    [ A 40..99 ] [ A 0..39 ] [ B 12..30 ]         taken out: A 99, 98, ... 40, 39, ... 0, B 30, ...
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from workloom.engine.link import Link
from workloom.engine.node import Node

if TYPE_CHECKING:
    from workloom.engine.profile import Tier as Spec

UNSETTLED = 1 << 62
"""When blocks are there whose transfer has not been asked for yet."""


class Part(NamedTuple):
    """Blocks first..end-1 behind one node, or the states at their ends."""

    node: Node
    first: int
    end: int
    state: bool = False


class Kept:
    """A run of blocks in a tier, there from `ready_ps` on. Of a run the last block is the least recently used."""

    __slots__ = ("after", "before", "end", "node", "ready_ps", "start", "state")

    def __init__(self, part: Part, ready_ps: int) -> None:
        self.node, self.start, self.end, self.state = part
        self.ready_ps = ready_ps
        self.before: Kept = self
        self.after: Kept = self


class Lent:
    """Pages of a tier that hold what a preempted call had computed."""

    __slots__ = ("pages", "ready_ps")

    def __init__(self, pages: int, ready_ps: int) -> None:
        self.pages, self.ready_ps = pages, ready_ps


class Tier:
    """One tier: what it keeps, in the order of use, and its two links."""

    def __init__(self, spec: Spec, block_tokens: int, page_bytes: int, state_pages: int = 0) -> None:
        self.spec = spec
        self.capacity = None if spec.tokens is None else spec.tokens // block_tokens
        self.pages = 0
        """Kept now, those lent to swapped calls not counted."""
        self.lent = 0
        self.evicted = 0
        """Pages taken out for lack of room, ever."""
        self.reads = Link(spec.read_bytes_per_s, spec.latency_ps)
        self.writes = Link(spec.write_bytes_per_s, spec.latency_ps)
        self._page_bytes = page_bytes
        self.weights = (1, state_pages)
        """Pages of a block and of a state."""
        self._runs: tuple[dict[Node, list[Kept]], dict[Node, list[Kept]]] = ({}, {})
        """By node, rising and without overlap: of KV, of states."""
        self._ring = Kept(Part(Node(None, (0, 0)), 0, 0), 0)
        self._new: list[Kept] = []
        """Of the group that is being put in."""

    def reach(self, part: Part, at_ps: int) -> int:
        """How far from its first block on the part is there at an instant."""
        runs = self._runs[part.state].get(part.node)
        if runs is None:
            return part.first
        first, at = part.first, bisect_right(runs, part.first, key=_start) - 1
        if at < 0:
            return first
        while at < len(runs) and runs[at].start <= first < runs[at].end and runs[at].ready_ps <= at_ps:
            first = min(runs[at].end, part.end)
            at += 1
        return first

    def begins(self, part: Part, at_ps: int) -> int:
        """The first block of a part that is there at an instant, the part's end if none is."""
        runs = self._runs[part.state].get(part.node, ())
        for at in range(max(0, bisect_right(runs, part.first, key=_start) - 1), len(runs)):
            run = runs[at]
            if run.start >= part.end:
                break
            if run.end > part.first and run.ready_ps <= at_ps:
                return max(run.start, part.first)
        return part.end

    def latest(self, part: Part, at_ps: int) -> int | None:
        """The last block of a part that is there at an instant."""
        runs = self._runs[part.state].get(part.node, ())
        for at in range(bisect_left(runs, part.end, key=_start) - 1, -1, -1):
            run = runs[at]
            if run.end <= part.first:
                break
            if run.ready_ps <= at_ps:
                return min(run.end, part.end) - 1
        return None

    def write(self, at_ps: int, parts: list[Part]) -> tuple[list[Part], list[Node]]:
        """Put a group in; returns what had to go for it, and the nodes that have nothing here any more."""
        pages = 0
        for part in parts:
            upper = part.end
            while upper > part.first:
                run = self._below(part, upper)
                there = run.end if run is not None else part.first
                if run is None or there < upper:
                    self._append(Part(part.node, there, upper, part.state), at_ps)
                    pages += self.weights[part.state] * (upper - there)
                    upper = there
                else:
                    upper = self._use(run, part.first, upper, at_ps)
        if pages:
            self.pages += pages
            ready_ps = self.writes.transfer(at_ps, pages * self._page_bytes)
            for run in self._new:
                run.ready_ps = ready_ps
            self._new.clear()
        return self._trim()

    def use(self, part: Part, at_ps: int) -> None:
        """What of a part is there was used just now, its last block first."""
        upper = part.end
        while (run := self._below(part, upper)) is not None:
            upper = self._use(run, part.first, upper, at_ps)

    def read(self, at_ps: int, parts: list[Part]) -> int:
        """Read parts, in the order of the sequence, as one transfer; returns when they are on the GPU."""
        for part in reversed(parts):
            self.use(part, at_ps)
        pages = sum(self.weights[part.state] * (part.end - part.first) for part in parts)
        return self.reads.transfer(at_ps, pages * self._page_bytes)

    def lend(self, at_ps: int, pages: int) -> tuple[Lent | None, list[Part], list[Node]]:
        """Room for a preempted call, and its write; None if there is too little. The rest as of :meth:`write`."""
        if self.capacity is not None and self.lent + pages > self.capacity:
            return None, [], []
        self.lent += pages
        lent = Lent(pages, self.writes.transfer(at_ps, pages * self._page_bytes))
        return lent, *self._trim()

    def read_back(self, at_ps: int, lent: Lent, pages: int) -> int:
        """Read so many pages of a swapped call; returns when they are on the GPU. They stay lent."""
        return self.reads.transfer(max(at_ps, lent.ready_ps), pages * self._page_bytes)

    def give_back(self, lent: Lent) -> None:
        """The pages of a swapped call are not needed any more."""
        self.lent -= lent.pages
        lent.pages = 0

    def clear(self) -> list[Node]:
        """Forget everything but what is lent; returns the nodes that had something here."""
        nodes = [node for runs in self._runs for node in runs]
        for runs in self._runs:
            runs.clear()
        self._ring.before = self._ring.after = self._ring
        self.pages = 0
        return nodes

    def queue(self) -> list[tuple[Part, int]]:
        """What is kept and from when on, the least recently used first, for tests."""
        out, run = [], self._ring.after
        while run is not self._ring:
            out.append((Part(run.node, run.start, run.end, run.state), run.ready_ps))
            run = run.after
        return out

    # -- runs

    def _below(self, part: Part, upper: int) -> Kept | None:
        """The last run that has any of a part's blocks before `upper`."""
        runs = self._runs[part.state].get(part.node)
        if runs is None:
            return None
        at = bisect_left(runs, upper, key=_start) - 1
        return runs[at] if at >= 0 and runs[at].end > part.first else None

    def _append(self, part: Part, at_ps: int) -> None:
        """A new run as the most recently used."""
        run = Kept(part, UNSETTLED)
        runs = self._runs[part.state].get(part.node)
        if runs is None:
            runs = self._runs[part.state][part.node] = []
            part.node.pins += 1
        runs.insert(bisect_right(runs, run.start, key=_start), run)
        self._new.append(run)
        self._link(run, self._ring)
        self._merge(run.before.before, run.before, at_ps)
        self._merge(run.before, run, at_ps)

    def _use(self, run: Kept, first: int, upper: int, at_ps: int) -> int:
        """Make a run's blocks from `first` to `upper` the most recently used; returns where they begin."""
        if upper < run.end:
            self._split(run, upper)
        if run.start < first:
            run = self._split(run, first)
        begin = run.start
        if run.after is not self._ring:
            _unlink(run)
            self._link(run, self._ring)
            self._merge(run.before, run, at_ps)
        return begin

    def _split(self, run: Kept, at: int) -> Kept:
        """Cut a run before a block; the part behind, returned, goes first of the two."""
        right = Kept(Part(run.node, at, run.end, run.state), run.ready_ps)
        run.end = at
        runs = self._runs[run.state][run.node]
        runs.insert(bisect_right(runs, run.start, key=_start), right)
        self._link(right, run)
        if right.ready_ps == UNSETTLED:
            self._new.append(right)
        return right

    def _merge(self, first: Kept, then: Kept, at_ps: int) -> None:
        """Make one of two neighbours in the queue if nobody can tell."""
        if first is self._ring or first.node is not then.node or first.state != then.state or first.start != then.end:
            return
        if first.ready_ps != then.ready_ps and max(first.ready_ps, then.ready_ps) > at_ps:
            return
        runs = self._runs[then.state][then.node]
        del runs[bisect_left(runs, then.start, key=_start)]
        first.start, first.ready_ps = then.start, max(first.ready_ps, then.ready_ps)
        _unlink(then)

    def _link(self, run: Kept, before: Kept) -> None:
        run.before, run.after = before.before, before
        before.before.after = before.before = run

    def _trim(self) -> tuple[list[Part], list[Node]]:
        out: list[Part] = []
        emptied: list[Node] = []
        if self.capacity is None:
            return out, emptied
        while (over := self.pages + self.lent - self.capacity) > 0:
            run = self._ring.after
            weight = self.weights[run.state]
            taken = min(run.end - run.start, -(-over // weight))
            out.append(Part(run.node, run.end - taken, run.end, run.state))
            run.end -= taken
            self.pages -= taken * weight
            self.evicted += taken * weight
            if run.start == run.end:
                _unlink(run)
                runs = self._runs[run.state][run.node]
                del runs[bisect_left(runs, run.start, key=_start)]
                if not runs:
                    del self._runs[run.state][run.node]
                    emptied.append(run.node)
        return out, emptied


def _start(run: Kept) -> int:
    return run.start


def _unlink(run: Kept) -> None:
    run.before.after, run.after.before = run.after, run.before
