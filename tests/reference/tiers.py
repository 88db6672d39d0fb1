"""Memory below the GPU's: what it keeps, block by block, and when a transfer is over."""

from __future__ import annotations

import math
from fractions import Fraction

from reference.pool import Name
from workloom.engine.profile import Profile, Tier


class Link:
    """One transfer after the other, in the order in which they are asked for."""

    def __init__(self, bytes_per_s: float, latency_ps: int) -> None:
        self.bytes_per_s = Fraction(bytes_per_s)
        self.latency_ps = latency_ps
        self.free_ps = 0

    def transfer(self, at_ps: int, size: int) -> int:
        """When it is over."""
        self.free_ps = max(self.free_ps, at_ps) + self.latency_ps + math.ceil(size * 10**12 / self.bytes_per_s)
        return self.free_ps


class SlowTier:
    """One tier. `order`: what it keeps, used longest ago first; `ready_ps`: when it was written, so can be found."""

    def __init__(self, tier: Tier, profile: Profile) -> None:
        self.name = tier.name
        self.write = tier.write
        self.prefetch = tier.prefetch
        self.capacity = None if tier.tokens is None else tier.tokens // profile.block_tokens
        self.page_bytes = profile.block_tokens * profile.kv_token_bytes
        self.groups = profile.state_groups
        self.reading = Link(tier.read_bytes_per_s, tier.latency_ps)
        self.writing = Link(tier.write_bytes_per_s, tier.latency_ps)
        self.lent = 0
        """Pages that hold what swapped calls had."""
        self.order: list[Name] = []
        self.ready_ps: dict[Name, int] = {}

    def pages(self, names: list[Name]) -> int:
        return sum(self.groups if kind == "state" else 1 for kind, _ in names)

    def put(self, at_ps: int, names: list[Name]) -> list[Name]:
        """Write a group; what it takes out for it, in order."""
        new = []
        for name in names:
            if name in self.ready_ps:
                self.order.remove(name)
            else:
                new.append(name)
                self.ready_ps[name] = -1
            self.order.append(name)
        if new:
            done_ps = self.writing.transfer(at_ps, self.pages(new) * self.page_bytes)
            self.ready_ps |= dict.fromkeys(new, done_ps)
        return self.trim()

    def trim(self) -> list[Name]:
        """What has to go, used longest ago first."""
        out = []
        while self.capacity is not None and self.pages(self.order) + self.lent > self.capacity:
            out.append(self.order.pop(0))
            del self.ready_ps[out[-1]]
        return out

    def lend(self, at_ps: int, pages: int) -> int | None:
        """Write so many pages of a call that is swapped out: when they are there; None if there is no room."""
        if self.capacity is not None and self.lent + pages > self.capacity:
            return None
        self.lent += pages
        return self.writing.transfer(at_ps, pages * self.page_bytes)

    def use(self, name: Name) -> None:
        if name in self.ready_ps:
            self.order.remove(name)
            self.order.append(name)

    def has(self, name: Name, now_ps: int) -> bool:
        return name in self.ready_ps and self.ready_ps[name] <= now_ps

    def read(self, at_ps: int, names: list[Name]) -> int:
        """Ask for some, in the order of the sequence; when they are there."""
        for name in reversed(names):
            self.use(name)
        return self.reading.transfer(at_ps, self.pages(names) * self.page_bytes)


class Tiers:
    """All tiers of a server, from the fastest down."""

    def __init__(self, profile: Profile) -> None:
        self.tiers = [SlowTier(tier, profile) for tier in profile.tiers]
        self.registered: list[Name] = []
        """What became findable on the GPU since the last group."""

    def find(self, name: Name, now_ps: int) -> SlowTier | None:
        return next((tier for tier in self.tiers if tier.has(name, now_ps)), None)

    def use(self, names: list[Name]) -> None:
        for tier in self.tiers:
            for name in names:
                tier.use(name)

    def hand_over(self, at_ps: int, evicted: list[Name]) -> None:
        """What was registered, the last first, and what the GPU let go of, in order: a group each."""
        registered, self.registered = self.registered[::-1], []
        for depth, tier in enumerate(self.tiers):
            if tier.write == "through" and registered:
                self._put(depth, at_ps, registered)
        if self.tiers and self.tiers[0].write == "evict" and evicted:
            self._put(0, at_ps, evicted)

    def lend(self, at_ps: int, pages: int) -> int | None:
        """Of the first tier, which makes room for them."""
        ready_ps = self.tiers[0].lend(at_ps, pages)
        self._hand_down(0, at_ps, self.tiers[0].trim())
        return ready_ps

    def _put(self, depth: int, at_ps: int, names: list[Name]) -> None:
        self._hand_down(depth, at_ps, self.tiers[depth].put(at_ps, names))

    def _hand_down(self, depth: int, at_ps: int, out: list[Name]) -> None:
        if out and depth + 1 < len(self.tiers) and self.tiers[depth + 1].write == "evict":
            self._put(depth + 1, at_ps, out)
