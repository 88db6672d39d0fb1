"""Token sequences as runs of named text, and the tree that finds what they share.

Text is never compared token by token. A sequence is a list of pieces, each the first n tokens of a text with a
number of its own. Two sequences share a piece when everything before it is equal too; they part inside a piece when
one uses fewer of its tokens.

    Key(ids=(7, 12), ends=(100, 130))     the first 100 tokens of text 7, then the first 30 of text 12

A sequence that goes on from another, or is cut from it, holds what is new and points at the other for the rest. So does
its way down a tree, a cursor: a chain of calls costs the new pieces of each, not its whole history each time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class _Line(Generic[T]):
    """A list of pieces: some of its own, each with the token it ends before, behind those of the line `before`.

    The first `begin` of its `tokens` tokens are those of `before`.
    """

    __slots__ = ("before", "begin", "jump", "jumped", "own", "own_ends", "tokens")

    def __init__(self, own: tuple[T, ...] = (), own_ends: tuple[int, ...] = (), before: Self | None = None) -> None:
        self.own = own
        self.own_ends = own_ends
        self.before = before
        self.jump: Self | None = before
        if before is None:
            self.begin = self.jumped = 0
        else:
            # The jumps of Myers, "An applicative random-access stack" (1983): one takes the two equal jumps before it
            # together, so they are 1, 3, 7, ... lines long and any place is found in O(log lines).
            self.begin, self.jumped, back = before.tokens, 1, before.jump
            if back is not None and back.jumped == before.jumped:
                self.jump, self.jumped = back.jump, 2 * back.jumped + 1
        self.tokens: int = own_ends[-1] if own_ends else self.begin

    def cut(self, tokens: int) -> Self:
        """The first `tokens` tokens."""
        line = self
        while line.begin >= tokens and line.before is not None and line.jump is not None:
            line = line.jump if line.jump.tokens >= tokens else line.before
        if line.tokens <= tokens:
            return line
        last = bisect_left(line.own_ends, tokens)
        ends = (*line.own_ends[:last], tokens) if tokens > 0 else ()
        return type(self)(line.own[: len(ends)], ends, line.before)


class Key(_Line[int]):
    """A token sequence: piece i is the first ``ends[i] - ends[i-1]`` tokens of text ``ids[i]``; no piece is empty.

    `before`: a sequence it goes on from; `ids` and `ends` are then those of the pieces behind it.
    """

    __slots__ = ("_all",)

    def __init__(self, ids: tuple[int, ...] = (), ends: tuple[int, ...] = (), before: Key | None = None) -> None:
        super().__init__(ids, ends, before)
        self._all = (ids, ends) if before is None else None

    @property
    def ids(self) -> tuple[int, ...]:
        """The texts of all pieces: as long as the history, so it is made when it is first asked for."""
        return self._whole()[0]

    @property
    def ends(self) -> tuple[int, ...]:
        """Where each piece ends, in tokens from the start."""
        return self._whole()[1]

    def _whole(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self._all is None:
            line, lines = self, []
            while line._all is None and line.before is not None:
                lines.append(line)
                line = line.before
            ids, ends = map(list, line._whole())
            for line in reversed(lines):
                ids += line.own
                ends += line.own_ends
            self._all = tuple(ids), tuple(ends)
        return self._all

    def pieces(self, after: int = 0) -> list[tuple[int, int]]:
        """The pieces behind its first `after` tokens, as (text, tokens)."""
        line, lines = self, [self]
        while line.begin > after and line.before is not None:
            line = line.before
            lines.append(line)
        out = []
        for line in reversed(lines):
            for text, end in zip(line.own, line.own_ends, strict=True):
                if end > after:
                    out.append((text, end - after))
                    after = end
        return out

    def then(self, pieces: Iterable[tuple[int, int]]) -> Key:
        """This sequence with pieces, (text, tokens) each, behind it; empty ones are left out."""
        ids, ends, end = [], [], self.tokens
        for text, tokens in pieces:
            if tokens > 0:
                end += tokens
                ids.append(text)
                ends.append(end)
        return Key(tuple(ids), tuple(ends), self if self.tokens else None) if ids else self

    def plus(self, text: int, tokens: int) -> Key:
        """This sequence with the first `tokens` tokens of a text behind it."""
        return self.then(((text, tokens),))

    def __eq__(self, other: object) -> bool:
        return self._whole() == other._whole() if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._whole())

    def __repr__(self) -> str:
        return f"Key(ids={self.ids}, ends={self.ends})"


def common(a: Key, b: Key) -> int:
    """Tokens of the longest prefix that two sequences share."""
    shared = 0
    for id_a, end_a, id_b, end_b in zip(a.ids, a.ends, b.ids, b.ends, strict=False):
        if id_a != id_b:
            return shared
        shared = min(end_a, end_b)
        if end_a != end_b:
            return shared
    return shared


class _Node:
    """One text standing at one place behind one history; `length` is the most of it that was ever used there."""

    __slots__ = ("branches", "length")

    def __init__(self) -> None:
        self.length = 0
        self.branches: dict[tuple[int, int], _Node] = {}
        """(tokens of this text used, number of the text that follows) -> what follows."""


class Cursor(_Line[_Node]):
    """Where a sequence ends in a tree, and the way there: the node of every piece.

    start <- [system, 14000] <- [user, 310] <- [answer, 90] <- [tool, 700]
                                            <- [answer, 40] <- [user, 25]       from a cut of the other
    """

    __slots__ = ()

    def then(self, pieces: Iterable[tuple[int, int]]) -> tuple[Cursor, int]:
        """Add this sequence with pieces, (text, tokens) each, behind it.

        Returns it, and how many of its tokens were there before: :meth:`PrefixTree.match` of the whole. This sequence,
        the beginning, must be there already.
        """
        node, end, shared = self.own[-1], self.tokens, -1
        used = end - (self.own_ends[-2] if len(self.own_ends) > 1 else self.begin)
        nodes, ends = [], []
        for text, tokens in pieces:
            place = (used, text)
            follower = node.branches.get(place)
            if follower is None:
                if shared < 0:
                    shared = end
                follower = node.branches[place] = _Node()
            if follower.length < tokens:
                if shared < 0:
                    shared = end + follower.length
                follower.length = tokens
            node, used = follower, tokens
            end += tokens
            nodes.append(node)
            ends.append(end)
        line = Cursor(tuple(nodes), tuple(ends), self) if nodes else self
        return line, end if shared < 0 else shared


class PrefixTree:
    """Every sequence ever added, for the longest prefix a new one shares with any of them: an infinite cache."""

    def __init__(self) -> None:
        self._root = _Node()
        self.start = Cursor((self._root,), (0,))
        """The empty sequence."""

    def match(self, key: Key) -> int:
        """Tokens of the longest prefix of `key` that some added sequence has."""
        node, used, before = self._root, 0, 0
        for text, end in zip(key.ids, key.ends, strict=True):
            follower = node.branches.get((used, text))
            if follower is None:
                return before
            used = end - before
            if follower.length < used:
                return before + follower.length
            node, before = follower, end
        return before

    def add(self, key: Key) -> int:
        """Add a sequence; return what :meth:`match` said before."""
        return self.start.then(key.pieces())[1]
