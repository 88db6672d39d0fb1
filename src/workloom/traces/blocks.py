"""From block hashes to explicit sharing: what a prompt inherits, and what it shares with calls that are no ancestors.

Prompts are lists of block ids. They are laid into a radix tree; every node belongs to the first call that came there:

    root ── r0: 1 2 3 ──┬── r1: 4 5         r1 and r2 continue r0
                        └── r2: 6 7 ──┬── r2: 8
                                      └── r5: 9      r5 shares 1 2 3 6 7 with r2

If r2 is no ancestor of r5, then r5 inherits `1 2 3` from r0 and the node `6 7` becomes a span in r2 and in r5. The
nodes that become spans always are the first of what their owner added: if a later one is shared with a stranger whose
own ancestor already has the earlier ones, that ancestor had them from a stranger too. So inherited + spans + fresh
holds. A call that gives a span inherits full blocks only: not the tail of a prompt, nor the answer behind it.

Equal blocks then are equal text and unequal blocks are not, for every pair of calls (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Sharing(NamedTuple):
    """What a prompt begins with: `blocks` blocks of the prompt of `ancestor`, then `spans` of (text name, blocks)."""

    ancestor: int | None
    blocks: int
    spans: tuple[tuple[str, int], ...]


class _Node:
    __slots__ = ("children", "end", "owner", "parent", "shared", "start")

    def __init__(self, parent: _Node | None, start: int, end: int, owner: int) -> None:
        self.parent = parent
        self.start = start
        """Blocks before this node; its own are [start, end) of its owner's prompt."""
        self.end = end
        self.owner = owner
        self.children: dict[int, _Node] = {}
        self.shared = False


def share(
    hashes: Sequence[Sequence[int]], previous: Sequence[int | None], ancestors: Sequence[int], names: Sequence[str]
) -> list[Sharing]:
    """The sharing of every call of a session.

    `hashes`: the block ids of each prompt; `previous`: the call before it in its agent's list, one of its ancestors;
    `ancestors`: a bit set of all of them; `names`: call ids, from which spans are named. All in topological order.
    """
    tree = _Tree(hashes)
    begins = []
    for call, before in enumerate(previous):
        matched, following = tree.insert(call, before)
        source, own = before, following
        if matched > following:
            source, own = _best(call, hashes, ancestors[call], before, following, matched)
        if matched > own:
            tree.mark(call, own, matched)
        begins.append((source if own else None, own))
    if not tree.marked:
        return [Sharing(source, own, ()) for source, own in begins]
    return [
        Sharing(source, own, tree.spans(call, own, names) if call in tree.marked else ())
        for call, (source, own) in enumerate(begins)
    ]


def _best(
    call: int, hashes: Sequence[Sequence[int]], ancestors: int, before: int | None, following: int, matched: int
) -> tuple[int | None, int]:
    """The ancestor that shares most with a call, and how many blocks; on a tie the call before it, then the latest."""
    mine, source, best = hashes[call], before, following
    for other in range(call - 1, -1, -1):
        theirs = hashes[other]
        if ancestors >> other & 1 and len(theirs) > best and theirs[best] == mine[best]:
            length = common(theirs, mine, 0, min(len(theirs), matched))
            if length > best:
                source, best = other, length
                if best == matched:
                    break
    return source, best


def common(a: Sequence[int], b: Sequence[int], start: int, limit: int) -> int:
    """The first index in [start, limit) where two lists (or two arrays) differ, or limit."""
    if a[start:limit] == b[start:limit]:
        return limit
    low, high = start, limit
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class _Tree:
    def __init__(self, hashes: Sequence[Sequence[int]]) -> None:
        self._hashes = hashes
        self._root = _Node(None, 0, 0, -1)
        self._leaf: list[_Node] = []
        """For every call the node in which its prompt ends (or one below it that was split off later)."""
        self.marked: set[int] = set()
        """Calls with a span in their prompt."""

    def insert(self, call: int, before: int | None) -> tuple[int, int]:
        """Add the prompt of a call; the blocks it shares with any earlier call, and with the call `before`."""
        mine = self._hashes[call]
        following = 0
        if before is not None:
            theirs = self._hashes[before]
            following = common(theirs, mine, 0, min(len(theirs), len(mine)))
        node, depth = self._walk(self._node_at(before, following), following, mine)
        if depth < len(mine):
            if depth < node.end:
                node = self._split(node, depth)
            leaf = node.children[mine[depth]] = _Node(node, depth, len(mine), call)
            node = leaf
        self._leaf.append(node)
        return depth, following

    def _walk(self, node: _Node, depth: int, mine: Sequence[int]) -> tuple[_Node, int]:
        """From `depth` blocks of a prompt, which end in `node`, as far as the tree goes along with the prompt."""
        while True:
            if depth < node.end:
                depth = common(self._hashes[node.owner], mine, depth, min(node.end, len(mine)))
            if depth < node.end or depth == len(mine):
                return node, depth
            child = node.children.get(mine[depth])
            if child is None:
                return node, depth
            node, depth = child, depth + 1

    def _node_at(self, call: int | None, depth: int) -> _Node:
        """The node that holds block `depth - 1` of a call's prompt."""
        if call is None or depth == 0:
            return self._root
        node = self._leaf[call]
        while node.start >= depth and node.parent is not None:
            node = node.parent
        return node

    def _split(self, node: _Node, depth: int) -> _Node:
        """Cut a node in two; the upper one is returned, the lower one keeps its identity."""
        upper = _Node(node.parent, node.start, depth, node.owner)
        upper.shared = node.shared
        prompt = self._hashes[node.owner]
        assert node.parent is not None
        node.parent.children[prompt[node.start]] = upper
        upper.children[prompt[depth]] = node
        node.parent, node.start = upper, depth
        return upper

    def mark(self, call: int, start: int, end: int) -> None:
        """Blocks [start, end) of a call's prompt are spans from now on, in it and in those they belong to."""
        node = self._node_at(call, end)
        if node.end > end:
            node = self._split(node, end)
        self.marked.add(call)
        while node.end > start:
            assert node.start >= start, "an ancestor ends or parts there, so a node begins"
            node.shared = True
            self.marked.add(node.owner)
            assert node.parent is not None
            node = node.parent

    def spans(self, call: int, start: int, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
        """The spans of a call's prompt that begins with `start` inherited blocks."""
        node = self._node_at(call, len(self._hashes[call]))
        found: list[tuple[str, int]] = []
        while node.start >= start and node.parent is not None:
            if node.shared:
                found.append((f"{names[node.owner]}@{node.start}", node.end - node.start))
            node = node.parent
        return tuple(reversed(found))
