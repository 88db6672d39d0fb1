"""Token sequences as runs of named text, and the tree that finds what they share.

Text is never compared token by token. A sequence is a list of pieces, each the first n tokens of a text with a
number of its own. Two sequences share a piece when everything before it is equal too; they part inside a piece when
one uses fewer of its tokens.

    Key(ids=(7, 12), ends=(100, 130))     the first 100 tokens of text 7, then the first 30 of text 12
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple


class Key(NamedTuple):
    """A token sequence: piece i is the first ``ends[i] - ends[i-1]`` tokens of text ``ids[i]``; no piece is empty."""

    ids: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        return self.ends[-1] if self.ends else 0

    def plus(self, text: int, tokens: int) -> Key:
        """This sequence with the first `tokens` tokens of a text behind it."""
        if tokens <= 0:
            return self
        return Key((*self.ids, text), (*self.ends, self.tokens + tokens))

    def cut(self, tokens: int) -> Key:
        """The first `tokens` tokens of this sequence."""
        if tokens >= self.tokens:
            return self
        if tokens <= 0:
            return Key()
        last = bisect_left(self.ends, tokens)
        return Key(self.ids[: last + 1], (*self.ends[:last], tokens))


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


class PrefixTree:
    """Every sequence ever added, for the longest prefix a new one shares with any of them: an infinite cache."""

    def __init__(self) -> None:
        self._root = _Node()

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
        node, used, before, shared = self._root, 0, 0, -1
        for text, end in zip(key.ids, key.ends, strict=True):
            place = (used, text)
            follower = node.branches.get(place)
            if follower is None:
                if shared < 0:
                    shared = before
                follower = node.branches[place] = _Node()
            used = end - before
            if follower.length < used:
                if shared < 0:
                    shared = before + follower.length
                follower.length = used
            node, before = follower, end
        return before if shared < 0 else shared

    def forget(self, key: Key, from_piece: int) -> None:
        """Drop everything that begins with the pieces of `key` up to and including `from_piece`."""
        node, used, before = self._root, 0, 0
        for index in range(from_piece):
            follower = node.branches.get((used, key.ids[index]))
            if follower is None:
                return
            used, before = key.ends[index] - before, key.ends[index]
            node = follower
        node.branches.pop((used, key.ids[from_piece]), None)
