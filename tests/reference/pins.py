"""Beginnings of prompts that are kept because calls asked for it."""

from __future__ import annotations

from collections.abc import Callable

from reference.pool import Block, Pool


class Pins:
    """Pinned blocks, the oldest pin first. `room`: how many blocks may be pinned."""

    def __init__(self, pool: Pool, let_go: Callable[[list[Block]], None], room: int) -> None:
        self.pool = pool
        self.let_go = let_go
        self.room = room
        self._pins: dict[int, tuple[list[Block], list[Block]]] = {}
        """By the name of the prefix that is pinned: KV blocks, and pages of the state at their end."""

    def add(self, name: int, kv: list[Block], state: list[Block]) -> None:
        """The newest pin: one of the same prefix if there is one. While there is too much, the oldest is let go."""
        before = self._pins.pop(name, None)
        if before is None:
            for block in (*kv, *state):
                self.pool.touch(block)
        self._pins[name] = before or (kv, state)
        while len(set(self.blocks())) > self.room:
            self.let_go_oldest()

    def let_go_oldest(self) -> bool:
        """False if there is none."""
        if not self._pins:
            return False
        self._release(*self._pins.pop(next(iter(self._pins))))
        return True

    def _release(self, kv: list[Block], state: list[Block]) -> None:
        self.let_go(state)
        self.let_go(kv)

    def blocks(self) -> list[Block]:
        """What pins hold, once for each that does."""
        return [block for kv, state in self._pins.values() for block in (*kv, *state)]
