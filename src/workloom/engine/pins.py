"""Prefixes that the cache itself holds, so that they are not evicted. :mod:`workloom.engine.prefix` has the rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workloom.engine.blocks import Run
from workloom.engine.node import Hit, Node
from workloom.engine.sequence import Hold, parts

if TYPE_CHECKING:
    from workloom.engine.prefix import PrefixCache


class Pin:
    """A hit that is held."""

    __slots__ = ("holds", "state")

    def __init__(self, state: Run | None) -> None:
        self.holds: list[Hold] = []
        self.state = state

    def runs(self) -> list[Run]:
        """All runs of it, states too."""
        runs = [run for hold in self.holds for run in parts(hold)]
        return runs if self.state is None else [*runs, self.state]


class Pins:
    """The pins of a cache, the oldest first, and the room they share: `room` blocks, of which `blocks` are pinned."""

    def __init__(self, cache: PrefixCache, room: int) -> None:
        self.room = room
        self.blocks = 0
        self._cache = cache
        self._pins: dict[tuple[Node, int], Pin] = {}
        """By where they end."""

    def __iter__(self) -> Iterator[Pin]:
        return iter(self._pins.values())

    def add(self, hit: Hit) -> None:
        """Hold a hit; if another pin ends there, that one is the newest now."""
        last = hit.runs[-1][0].node
        assert last is not None
        node = last.owner(hit.blocks - 1)
        place = (node, hit.blocks)
        pin = self._pins.pop(place, None)
        if pin is None:
            pin = Pin(hit.state)
            self._cache.hold(hit, pin.holds)
            for run in pin.runs():
                self.blocks += 0 if run.pins else len(run)
                run.pins += 1
        self._pins[place] = pin
        while self.blocks > self.room:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Let go of the oldest pin; False if there is none."""
        if not self._pins:
            return False
        pin = self._pins.pop(next(iter(self._pins)))
        for run in pin.runs():
            run.pins -= 1
            self.blocks -= 0 if run.pins else len(run)
        self._cache.let_go(pin.holds, pin.state)
        return True
