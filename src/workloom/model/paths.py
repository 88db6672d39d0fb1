"""Which earlier call every reused KV block comes from: the one table that all reuse numbers are worked out from.

    Accesses in the order they were sent -> Paths.add() -> Paths.table() -> hit curve, optimal bound, retention

Block i of a sequence holds tokens i*B .. (i+1)*B - 1. Two sequences share it when all tokens up to its end are equal.
A call looks up the full blocks of its prompt. Then all its full blocks, the answer's too, are the most recently used,
touched from the last to the first, so a block is never older than those behind it and no policy that goes by age
leaves a hole (vLLM frees the last block first for the same reason). Look-up and touch are one step, at the instant the
call is sent, and there is no rule that the last token of a prompt is always recomputed.

The blocks last touched by access p are then one range of p's path, because later accesses take over its beginning:

    access 0   0 0 0 0 0 0          access 2 goes on from access 0's first four blocks and touches two of its own
    access 2   2 2 2 2 0 0          the blocks of access 0
                       2 2          the new ones, on a branch: one row (t=2, p=0, a=0, b=4)

So the path of an access is a few ranges, each last touched by one earlier access, the latest first: amortised
O(log n) rows a call (the preferred paths of link-cut trees).
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloom.prefix import Key
from workloom.prompt import TRACE_TEXTS

Ints = NDArray[np.int64]


class Access(NamedTuple):
    """One call as a cache sees it; instants are nanoseconds from the start of the run."""

    instance: int
    call: str
    agent: str
    model: str
    prompt: Key
    answer: int
    """Number of the answer's text."""
    answer_tokens: int
    sent_ns: int
    done_ns: int
    base: int | None = None
    """Number of the access of the same instance whose prompt and answer the prompt begins with, if that is known ..."""
    base_tokens: int = 0
    """... and how much of it. It saves work and changes nothing."""


class Table(NamedTuple):
    """Accesses are numbered from 0 in the order they were sent; an array has one item a row, an end or an access.

    Rows, by t and then by a: blocks a..b-1 of the prompt of access t were last touched by access p. Nobody has used
    them since `free_ns`, the latest end of any access that touched them (after `sent_ns[t]`: they are still in use).
    Ends: `end_blocks` blocks last touched by access `end_p`, free since `end_free_ns`, were never touched again.
    """

    block_tokens: int
    t: Ints
    p: Ints
    a: Ints
    b: Ints
    free_ns: Ints
    end_p: Ints
    end_blocks: Ints
    end_free_ns: Ints
    prompt_tokens: Ints
    answer_tokens: Ints
    prompt_blocks: Ints
    """Full blocks of the prompt: what is looked up."""
    blocks: Ints
    """Full blocks of prompt and answer: what is touched."""
    sent_ns: Ints
    done_ns: Ints
    agents: list[str]
    models: list[str]

    @property
    def hit_blocks(self) -> int:
        """Prompt blocks that an infinite cache held."""
        return int((self.b - self.a).sum())

    @property
    def distinct_blocks(self) -> int:
        """Blocks that were ever touched, each once: what an infinite cache holds in the end."""
        return int(self.end_blocks.sum())


class _Node:
    """One text behind one history, which is `begin` tokens long. Blocks belong to the node their last token lies in.

    `first`: number of its first block. `held`: who touched its blocks last, as (group, block behind the last of them);
    a stack, the first blocks on top. `private`: no other instance comes here.
    """

    __slots__ = ("begin", "branches", "first", "held", "parent", "private")

    def __init__(self, parent: _Node | None, begin: int, first: int, private: bool) -> None:
        self.parent = parent
        self.begin = begin
        self.branches: dict[tuple[int, int], _Node] = {}
        self.first = first
        self.held: list[tuple[int, int]] = []
        self.private = private


class _Groups:
    """Blocks with one last access and one instant since when they are free, by number.

    A call that goes on from another whose blocks nobody has touched since takes its group over as a whole: then a chain
    of calls costs what is new in each, not its whole history each time.
    """

    def __init__(self) -> None:
        self.owner = array("q")
        self.free_ns = array("q")
        self.whole = bytearray()
        """1: the blocks of the group are all that its owner touched."""

    def new(self, owner: int, free_ns: int) -> int:
        self.owner.append(owner)
        self.free_ns.append(free_ns)
        self.whole.append(0)
        return len(self.owner) - 1


class _Walk:
    """One access on its way down the tree: the node it has come to, its own group and the rows it makes."""

    __slots__ = ("group", "node", "rows", "single", "tokens")

    def __init__(self, node: _Node, tokens: int, group: int) -> None:
        self.node, self.tokens, self.group = node, tokens, group
        self.rows: list[tuple[int, int, int]] = []
        """(p, b, free_ns): up to block b the blocks are from access p; the first row begins at 0."""
        self.single = True
        """Whether all that the access touched is in its one group."""


class Paths:
    """Accesses in the order they were sent, and the rows they make. `outputs` False: answers leave no blocks.

    Memory: a few numbers a row and an access; of an instance that is over only what others can share.
    """

    def __init__(self, block_tokens: int, *, outputs: bool = True) -> None:
        self.block_tokens = block_tokens
        self._outputs = outputs
        self._root = _Node(None, 0, 0, private=False)
        self._groups = _Groups()
        self._private: dict[int, list[tuple[_Node, tuple[int, int]]]] = {}
        """Of a live instance: where its own texts branch off from what others can share."""
        self._lasts: dict[int, dict[int, tuple[_Node, int, int]]] = {}
        """Of a live instance, by access: the node it ended in, its tokens, its group."""
        self._rows = tuple(array("q") for _ in range(5))
        self._ends = tuple(array("q") for _ in range(3))
        self._accesses = tuple(array("q") for _ in range(6))
        self._agents: list[str] = []
        self._models: list[str] = []

    def add(self, access: Access) -> None:
        """The next access."""
        t, size = len(self._agents), self.block_tokens
        prompt = access.prompt
        whole = prompt.plus(access.answer, access.answer_tokens) if self._outputs else prompt
        walk = self._goes_on(access, t) or _Walk(self._root, 0, self._groups.new(t, access.done_ns))
        self._walk(walk, whole, access.instance)
        if walk.single:
            self._groups.whole[walk.group] = 1
            self._lasts.setdefault(access.instance, {})[t] = walk.node, whole.tokens, walk.group
        a = 0
        for p, b, free_ns in walk.rows:
            _append(self._rows, (t, p, a, b, free_ns))
            a = b
        counts = (prompt.tokens, access.answer_tokens, prompt.tokens // size, whole.tokens // size)
        _append(self._accesses, (*counts, access.sent_ns, access.done_ns))
        self._agents.append(access.agent)
        self._models.append(access.model)

    def forget(self, instance: int) -> None:
        """An instance is over: nobody will come back to its own texts."""
        self._lasts.pop(instance, None)
        for node, place in self._private.pop(instance, ()):
            self._end(node.branches.pop(place))

    def table(self) -> Table:
        """The table of all accesses; nothing can be added after that."""
        self._end(self._root)
        t, p, a, b, free_ns = (np.array(column) for column in self._rows)
        end_p, end_blocks, end_free_ns = (np.array(column) for column in self._ends)
        prompts, answers, looked_up, touched, sent_ns, done_ns = (np.array(column) for column in self._accesses)
        return Table(
            block_tokens=self.block_tokens,
            t=t,
            p=p,
            a=a,
            b=b,
            free_ns=free_ns,
            end_p=end_p,
            end_blocks=end_blocks,
            end_free_ns=end_free_ns,
            prompt_tokens=prompts,
            answer_tokens=answers,
            prompt_blocks=looked_up,
            blocks=touched,
            sent_ns=sent_ns,
            done_ns=done_ns,
            agents=self._agents,
            models=self._models,
        )

    def _walk(self, walk: _Walk, whole: Key, instance: int) -> None:
        """Touch the blocks of the pieces behind the first `walk.tokens` tokens."""
        node, size, end = walk.node, self.block_tokens, walk.tokens
        for text, tokens in whole.pieces(end):
            place = (end - node.begin, text)
            follower = node.branches.get(place)
            if follower is None:
                follower = self._branch(node, place, end, instance)
            end += tokens
            last = end // size
            if follower.first < last:
                self._touch(walk, follower.held, last)
            node = follower
        walk.node = node

    def _branch(self, node: _Node, place: tuple[int, int], begin: int, instance: int) -> _Node:
        private = place[1] < TRACE_TEXTS
        if private and not node.private:
            self._private.setdefault(instance, []).append((node, place))
        follower = node.branches[place] = _Node(node, begin, begin // self.block_tokens, private or node.private)
        return follower

    def _touch(self, walk: _Walk, held: list[tuple[int, int]], last: int) -> None:
        """Take over the blocks of a node before its block `last`, and tell whose they were.

        What a longer call still holds stays in use until that one ends. Such blocks come first: whoever touches a
        block touches those before it, so `free_ns` never rises along a path.
        """
        groups, rows = self._groups, walk.rows
        mine = groups.owner[walk.group], groups.free_ns[walk.group]
        still: list[tuple[int, int]] = []
        while held:
            group, b = held[-1]
            upto, free_ns = min(b, last), groups.free_ns[group]
            groups.whole[group] = 0
            _add_row(rows, groups.owner[group], upto, free_ns)
            if free_ns > mine[1]:
                still.append((groups.new(mine[0], free_ns), upto))
                walk.single = False
            if b <= last:
                held.pop()
            if b >= last:
                break
        if not still or still[-1][1] < last:
            held.append((walk.group, last))
        held += reversed(still)

    def _goes_on(self, access: Access, t: int) -> _Walk | None:
        """Take over the group of the call it goes on from, if that has everything it touched; None if not.

        What is behind the place where the new call leaves the old path stays with the old one, as another group.
        """
        last = self._lasts.get(access.instance, {}).get(-1 if access.base is None else access.base)
        if last is None:
            return None
        node, tokens, group = last
        groups, size, old = self._groups, self.block_tokens, access.base
        free_ns, shared = groups.free_ns[group], min(access.base_tokens, tokens)
        if groups.owner[group] != old or not groups.whole[group] or free_ns > access.done_ns or not shared:
            return None
        left = groups.new(old, free_ns)
        while node.begin >= shared:
            if node.held and node.held[-1][0] == group:
                node.held[-1] = (left, node.held[-1][1])
            assert node.parent is not None
            node = node.parent
        upto = shared // size
        if node.held and node.held[-1][0] == group and node.held[-1][1] > upto:
            node.held[-1] = (left, node.held[-1][1])
            if node.first < upto:
                node.held.append((group, upto))
        groups.owner[group], groups.free_ns[group], groups.whole[group] = t, access.done_ns, 0
        walk = _Walk(node, shared, group)
        if upto:
            walk.rows.append((old, upto, free_ns))
        return walk

    def _end(self, top: _Node) -> None:
        """Nothing from this node on is touched again."""
        nodes, groups = [top], self._groups
        while nodes:
            node = nodes.pop()
            nodes += node.branches.values()
            a = node.first
            for group, b in reversed(node.held):
                _append(self._ends, (groups.owner[group], b - a, groups.free_ns[group]))
                a = b


def _append(columns: tuple[array[int], ...], values: tuple[int, ...]) -> None:
    for column, value in zip(columns, values, strict=True):
        column.append(value)


def _add_row(rows: list[tuple[int, int, int]], p: int, b: int, free_ns: int) -> None:
    """The next blocks of a path, up to block b, are from access p: one row with those before, where they are alike."""
    if rows and rows[-1][0] == p and rows[-1][2] == free_ns:
        rows[-1] = (p, b, free_ns)
    else:
        rows.append((p, b, free_ns))
