"""The prefix cache: which blocks of a sequence are still there.

Sequences are pieces of named text (:class:`workloom.prefix.Key`), so a context of 100,000 tokens is a few nodes. A node
is one text standing behind one history; what follows it branches off at the number of its tokens that were used:

    root -(0, system)-> [system] -(14000, a)-> [a] -(310, answer of a)-> ...
                                 -(14000, b)-> [b]

Block j of a sequence holds tokens j*size .. (j+1)*size - 1 and belongs to the node its last token lies in: that place
fixes everything before it. A block can be found from the end of the step that filled it. Two calls that compute the
same text at once keep a copy each (as vLLM does); a search takes the copy that came first.
"""

from __future__ import annotations

from typing import NamedTuple

from workloom.engine.blocks import FreeQueue, Run
from workloom.engine.sequence import Hold, Sequence


class Node:
    """One text behind one history. `copies` are its runs of findable blocks, in the order they came."""

    __slots__ = ("branches", "copies", "parent", "pins", "place")

    def __init__(self, parent: Node | None, place: tuple[int, int]) -> None:
        self.parent, self.place = parent, place
        self.branches: dict[tuple[int, int], Node] = {}
        self.copies: list[Run] = []
        self.pins = 0

    def cover(self, first: int, end: int, found: list[tuple[Run, int, int]]) -> int:
        """Collect runs that hold blocks first..end-1 without a hole; return how far they reach."""
        while first < end:
            upto = end
            for run in self.copies:
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


class Hit(NamedTuple):
    """The longest findable prefix of a sequence: what it is made of and where in the tree it ends."""

    blocks: int
    tokens: int
    evictable: int
    """Of these blocks, those nobody holds now: using them takes them from the free ones."""
    runs: list[tuple[Run, int, int]]
    cursor: tuple[int, Node, int, int]
    """Piece index, the node before it, how much of that node's text was used, where the piece starts."""


class PrefixCache:
    """Blocks by what is in them. `enabled` False: nothing is ever found."""

    def __init__(self, queue: FreeQueue, block_tokens: int, *, enabled: bool = True) -> None:
        self.queue = queue
        self.block_tokens = block_tokens
        self.enabled = enabled
        self.root = Node(None, (0, 0))
        self.root.pins = 1

    def lookup(self, sequence: Sequence) -> Hit:
        """The longest prefix of whole blocks; the last token is always computed."""
        size, limit = self.block_tokens, sequence.tokens - 1
        node, used, start, blocks = self.root, 0, 0, 0
        runs: list[tuple[Run, int, int]] = []
        index = 0
        while self.enabled:
            text, end = sequence.ids[index], sequence.ends[index]
            child = node.branches.get((used, text))
            if child is None:
                break
            wanted = min(end, limit) // size
            if blocks < wanted:
                blocks = child.cover(blocks, wanted, runs)
            if blocks < wanted or end >= limit:
                break
            index, node, used, start = index + 1, child, end - start, end
        evictable = sum(end - first for run, first, end in runs if not run.refs)
        return Hit(blocks, blocks * size, evictable, runs, (index, node, used, start))

    def take(self, sequence: Sequence, hit: Hit) -> None:
        """Hold the blocks of a hit for a sequence."""
        for run, first, end in hit.runs:
            part = self.queue.split(run, first) if run.start < first else run
            if part.end > end:
                self.queue.split(part, end)
            if not part.refs:
                self.queue.withdraw(part)
            part.refs += 1
            sequence.holds.append(Hold(part, end))
        sequence.registered = hit.blocks
        sequence.cursor = hit.cursor
        hit.cursor[1].pins += 1

    def pop(self, count: int) -> None:
        """Take free blocks; forget what was in them."""
        for node in self.queue.pop(count):
            self._prune(node)

    def register(self, sequence: Sequence, computed: int) -> None:
        """Make the full blocks among the first `computed` tokens findable."""
        if not self.enabled:
            return
        end_block = computed // self.block_tokens
        index, node, used, start = sequence.cursor
        while sequence.registered < end_block:
            end = sequence.ends[index]
            place = (used, sequence.ids[index])
            child = node.branches.get(place)
            if child is None:
                child = node.branches[place] = Node(node, place)
            upto = min(end // self.block_tokens, end_block)
            if sequence.registered < upto:
                self._add(sequence, child, upto)
            if upto == end_block:
                break
            child.pins += 1
            node.pins -= 1
            index, node, used, start = index + 1, child, end - start, end
        sequence.cursor = (index, node, used, start)

    def _add(self, sequence: Sequence, node: Node, upto: int) -> None:
        first, sequence.registered = sequence.registered, upto
        last = sequence.holds[-1] if sequence.holds else None
        if last is not None and node.copies == [last.run] and last.run.refs == 1 and last.run.end == last.end == first:
            last.run.end = last.end = upto
            return
        run = Run(node, first, upto, 1)
        node.copies.append(run)
        sequence.holds.append(Hold(run, upto))

    def release(self, sequence: Sequence, held_blocks: int) -> None:
        """Let go of all `held_blocks` blocks of a sequence, the last block first."""
        self.queue.put_plain(held_blocks - sequence.registered)
        for hold in reversed(sequence.holds):
            parts = [hold.run]
            while parts[-1].end < hold.end:
                right = parts[-1].right
                assert right is not None
                parts.append(right)
            for run in reversed(parts):
                run.refs -= 1
                if not run.refs:
                    self.queue.put(run)
        sequence.holds.clear()
        sequence.registered = 0
        if self.enabled:
            node = sequence.cursor[1]
            node.pins -= 1
            self._prune(node)

    def forget(self) -> None:
        """Make every free block one that nobody can find again. What calls hold stays."""
        for run in self.queue:
            if run.node is not None:
                node, run.node = run.node, None
                node.copies.remove(run)
                self._prune(node)

    def _prune(self, node: Node) -> None:
        while not (node.copies or node.branches or node.pins) and node.parent is not None:
            parent = node.parent
            if parent.branches.get(node.place) is node:
                del parent.branches[node.place]
            node = parent
