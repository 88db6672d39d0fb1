"""Caps on idle time: what is due far in the future moves up when nothing is going on.

    now, nothing in flight        first timer due
    |--- cap ---|<---- skipped ---->|             every timer of the session (or of all sessions) moves by `skipped`

Gaps between the timers stay as they are, so the order of a session's calls, and its joins, do not change.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from workloom.clock import to_ns

if TYPE_CHECKING:
    from workloom.drive.driver import _Drive
    from workloom.drive.tree import Tree


class Idle:
    """Watches for idle sessions and for an idle system."""

    def __init__(self, drive: _Drive) -> None:
        waits = drive.plan.recipe.waits
        self._drive = drive
        self._tree_ns = None if waits.tree_idle_s is None else to_ns(waits.tree_idle_s)
        self._system_ns = None if waits.system_idle_s is None else to_ns(waits.system_idle_s)
        self._calls = 0
        self._changing = 0
        """Slots whose session has ended and whose next one has not begun."""

    def launched(self) -> None:
        self._calls += 1

    def landed(self, tree: Tree) -> None:
        """A call of the session is over, and what waited for it has its timer or is under way."""
        self._calls -= 1
        self.rests(tree)

    def rests(self, tree: Tree) -> None:
        """Look whether the session is idle now."""
        if self._tree_ns is not None and not tree.flights:
            self._drive.progress.skipped_tree_ns += tree.move_up(self._tree_ns)
        self._look()

    def left(self) -> None:
        """A session has ended."""
        self._changing += 1

    def arrived(self) -> None:
        """A session has begun, or a slot has ended."""
        self._changing = max(0, self._changing - 1)
        self._look()

    def _look(self) -> None:
        if self._system_ns is not None and not self._calls and not self._changing:
            asyncio.get_running_loop().call_soon(self._system)

    def _system(self) -> None:
        """Nothing is in flight: what is due next comes at most the cap from now."""
        if self._calls or self._changing or self._system_ns is None:
            return
        trees = [tree for tree in self._drive.trees.values() if tree.next_due_ns is not None]
        first = min((tree.next_due_ns or 0 for tree in trees), default=None)
        if first is None:
            return
        excess = first - self._drive.clock.now() - self._system_ns
        if excess > 0:
            for tree in trees:
                tree.shift(excess)
            self._drive.progress.skipped_system_ns += excess
