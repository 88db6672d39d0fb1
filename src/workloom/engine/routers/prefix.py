"""Prefix-aware, by what the router itself sent where: it cannot see what replicas evicted or generated.

Prompts are kept in one tree of texts, with the replicas each piece was sent to. Of every replica the pieces stand in
the order in which they were last sent, a prompt's deepest first: what is dropped first, when there are too many tokens,
is always a leaf.

    [system, 900: replicas 0, 1] -> [session a, 400: 0] -> [tool, 90: 0]
                                 -> [session b, 350: 1]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.affinity import USUAL, Thresholds, choose
from workloom.engine.routers.seen import Seen
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)
MOST_TOKENS = 1 << 24
"""Of one replica; SGLang's gateway keeps 2^26 characters, which is about as much."""


class _Node:
    """A text behind a history; `held`: how much of it was sent to which replica."""

    __slots__ = ("branches", "held", "parent", "place")

    def __init__(self, parent: _Node | None, place: tuple[int, int]) -> None:
        self.parent, self.place = parent, place
        self.branches: dict[tuple[int, int], _Node] = {}
        self.held: dict[int, int] = {}


class Prefix:
    """Goes by its own bounded tree of prompts. See :mod:`workloom.engine.routers.affinity` for the rule."""

    def __init__(self, thresholds: Thresholds = USUAL, most_tokens: int = MOST_TOKENS) -> None:
        self._thresholds = thresholds
        self._most_tokens = most_tokens
        self._root = _Node(None, (0, 0))
        self._order: dict[int, OrderedDict[_Node, None]] = {}
        self._tokens: dict[int, int] = {}

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        matches = self.matches(prompt)
        chosen = choose(replicas, prompt.tokens, lambda replica: matches.get(replica.number, 0), self._thresholds)
        self._add(chosen.number, prompt)
        return chosen

    def gone(self, number: int) -> None:
        while self._order.get(number):
            self._drop(number)
        self._order.pop(number, None)
        self._tokens.pop(number, None)

    def matches(self, prompt: Key) -> dict[int, int]:
        """Tokens of the longest beginning of a prompt that was sent to each replica."""
        found: dict[int, int] = {}
        node, used, start = self._root, 0, 0
        whole: set[int] | None = None
        for text, end in zip(prompt.ids, prompt.ends, strict=True):
            child = node.branches.get((used, text))
            if child is None:
                break
            used = end - start
            next_whole = set()
            for number, held in child.held.items():
                if whole is None or number in whole:
                    found[number] = start + min(held, used)
                    if held >= used:
                        next_whole.add(number)
            if not next_whole:
                break
            node, start, whole = child, end, next_whole
        return found

    def _add(self, number: int, prompt: Key) -> None:
        node, used, start = self._root, 0, 0
        path, tokens = [], self._tokens.get(number, 0)
        for text, end in zip(prompt.ids, prompt.ends, strict=True):
            place = (used, text)
            child = node.branches.get(place)
            if child is None:
                child = node.branches[place] = _Node(node, place)
            used = end - start
            held = child.held.get(number, 0)
            if held < used:
                child.held[number] = used
                tokens += used - held
            path.append(child)
            node, start = child, end
        self._tokens[number] = tokens
        order = self._order.setdefault(number, OrderedDict())
        for each in reversed(path):
            order[each] = None
            order.move_to_end(each)
        while self._tokens[number] > self._most_tokens and len(order) > len(path):
            self._drop(number)

    def _drop(self, number: int) -> None:
        """Forget the piece of a replica that was sent the longest ago."""
        node, _ = self._order[number].popitem(last=False)
        self._tokens[number] -= node.held.pop(number)
        while not (node.held or node.branches) and node.parent is not None:
            del node.parent.branches[node.place]
            node = node.parent
