"""All blocks of the reference, and the free ones in the order they will be given out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Name = tuple[Literal["kv", "state"], int]
"""What a block holds: KV of a block, or the state at its end; and the number of the whole prefix through that end."""


@dataclass(eq=False)
class Block:
    number: int
    refs: int = 0
    """How many calls hold it, and one more for every pin that does."""
    name: Name | None = None
    """What it holds, once it is findable."""
    unit: list[Block] = field(default_factory=list)
    """The blocks that can be found together or not at all: the pages of a state; KV stands alone."""
    freed_ps: int = 0
    """When its last holder let go."""


class Pool:
    """[B] All blocks, and the free ones in the order they will be given out: used longest ago first.

    `merge` [G]: equal blocks are kept once, and blocks that nobody can find are given out before all others.
    `ttl_ps`: what stood free for so long is not found any more; it stays where it is in the queue.
    """

    def __init__(self, blocks: int | None, *, merge: bool = False, ttl_ps: int | None = None) -> None:
        self.infinite = blocks is None
        self.merge = merge
        self.ttl_ps = ttl_ps
        self.blocks = [Block(number) for number in range(blocks or 0)]
        self.free = list(self.blocks)
        """Findable and plain blocks alike; a findable one keeps its name until it is popped."""
        self.found: dict[Name, list[list[Block]]] = {}
        """Name -> the copies that are present, oldest registration first."""
        self.evicted = 0
        self.gone: list[Name] = []
        """What was evicted since somebody asked, in order."""
        self.now_ps = 0
        self.freed = 0
        """How often a block was freed, ever."""

    def has(self, blocks: int) -> bool:
        return self.infinite or blocks <= len(self.free)

    def pop(self) -> Block:
        """The head of the free queue, its content forgotten. An infinite pool makes a new block instead."""
        if self.infinite:
            block = Block(len(self.blocks))
            self.blocks.append(block)
        else:
            block = self.free.pop(0)
        if block.name is not None:
            self.evicted += len(block.unit)
            self.gone.append(block.name)
            self.forget(block.unit)
        block.refs = 1
        return block

    def forget(self, unit: list[Block]) -> None:
        """It cannot be found any more: its blocks are plain where they stand."""
        name = unit[0].name
        assert name is not None
        self.found[name].remove(unit)
        if not self.found[name]:
            del self.found[name]
        for block in unit:
            block.name = None

    def find(self, name: Name) -> list[Block] | None:
        """[B] Of equal copies the one registered first, of those that are fresh enough."""
        return next((unit for unit in self.found.get(name, ()) if not self.expired(unit)), None)

    def expired(self, unit: list[Block]) -> bool:
        block = unit[0]
        return block.refs == 0 and self.ttl_ps is not None and self.now_ps - block.freed_ps >= self.ttl_ps

    def touch(self, block: Block) -> None:
        """One more uses a block that was hit; it leaves the free queue, from wherever it is in it."""
        if block.refs == 0:
            self.free.remove(block)
        block.refs += 1

    def release(self, blocks: Iterable[Block]) -> None:
        """Give up blocks, last one first, so the end of a prefix is evicted before its beginning."""
        for block in reversed(list(blocks)):
            block.refs -= 1
            if block.refs == 0:
                self.freed += 1
                block.freed_ps = self.now_ps
                if self.merge and block.name is None:
                    self.free.insert(0, block)
                else:
                    self.free.append(block)

    def register(self, unit: list[Block], name: Name) -> list[Block]:
        """It is full and can be found. Returns what its holder has from now on: the other copy if they are merged."""
        if self.merge and (same := self.find(name)) is not None:
            for block in same:
                self.touch(block)
            self.release(unit)
            return same
        for block in unit:
            block.name, block.unit = name, unit
        self.found.setdefault(name, []).append(unit)
        return unit

    def check(self, held: dict[Block, int]) -> None:
        """What must always hold, given how often each block is in use."""
        free = set(self.free)
        assert len(free) == len(self.free), "a block is free once"
        assert not free & held.keys(), "no block is both free and held"
        if not self.infinite:
            assert len(free) + len(held) == len(self.blocks), "free and used are all there are"
        assert all(block.refs == held.get(block, 0) for block in self.blocks), "references are who holds a block"
        for name, copies in self.found.items():
            assert copies and all(block.name == name and block.unit is unit for unit in copies for block in unit)
        named = sum(block.name is not None for block in self.blocks)
        assert sum(len(unit) for copies in self.found.values() for unit in copies) == named
