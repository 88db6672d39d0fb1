"""The auditor's books of memory tiers: what calls wait for, and when it must have come.

A read is known from the admission that asked for it: its bytes, and its turn on the link. Not told are whether a state
was read too, when something was fetched ahead and what a swapped call found on the GPU: where these are possible an
instant is an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from workloom.engine.profile import Profile, Tier

PS_PER_S = 10**12


@dataclass
class Between:
    """An instant that lies between two; `end` None: nobody knows how late."""

    begin: int = 0
    end: int | None = 0


@dataclass
class Line:
    """The read link of a tier: transfers one after the other, so their ends rise."""

    tier: Tier
    free: Between = field(default_factory=Between)

    def takes_ps(self, size: int) -> int:
        return self.tier.latency_ps + math.ceil(size * PS_PER_S / Fraction(self.tier.read_bytes_per_s))

    def write_ps(self, size: int) -> int:
        return self.tier.latency_ps + math.ceil(size * PS_PER_S / Fraction(self.tier.write_bytes_per_s))

    def read(self, at_ps: int, least: int, most: int | None, *, surely: bool = True) -> Between:
        """A transfer of so many bytes, asked for then at the earliest. `surely`: there is one at all."""
        begin, end = self.free.begin, self.free.end
        begin = max(begin, at_ps) + self.takes_ps(least) if surely or least else begin
        end = None if end is None or most is None else max(end, at_ps) + self.takes_ps(most)
        self.free = Between(begin, end)
        return Between(begin, end)


@dataclass
class Saved:
    """What a swapped call had; its pages are lent by the first tier."""

    computed: int
    decoding: bool
    pages: int
    written_ps: int
    """At the earliest."""


class LoadBooks:
    """Reads from tiers, and pages lent to swapped calls."""

    def __init__(self, profile: Profile) -> None:
        self.lines = [Line(tier) for tier in profile.tiers]
        self.groups = profile.state_groups
        self.size = profile.block_tokens
        self.page_bytes = profile.block_tokens * profile.kv_token_bytes
        self.guessed = any(tier.prefetch for tier in profile.tiers) or profile.preemption == "swap"
        """Whether links carry what no event tells of."""
        self.lent = self.read_pages = 0
        """Pages; those read for KV by all that were told."""

    def asked(self, at_ps: int, fetched: tuple[tuple[str, int], ...]) -> Between:
        """A call was admitted that waits for so many tokens of tiers; when it has them."""
        pages = self._pages(fetched)
        self.read_pages += sum(pages)
        if self.guessed:
            return Between(0, None)
        extra = self.groups  # perhaps a state, from one of them
        ready = Between(at_ps, at_ps)
        for line, count in zip(self.lines, pages, strict=True):
            if count or extra:
                most = (count + extra) * self.page_bytes
                came = line.read(at_ps, count * self.page_bytes, most, surely=count > 0)
                ready.begin = max(ready.begin, came.begin if count else at_ps)
                ready.end = None if came.end is None or ready.end is None else max(ready.end, came.end)
        return ready

    def _pages(self, fetched: tuple[tuple[str, int], ...]) -> list[int]:
        tokens = dict(fetched)
        assert len(tokens) == len(fetched) and tokens.keys() <= {line.tier.name for line in self.lines}, fetched
        assert all(count > 0 and count % self.size == 0 for count in tokens.values()), "whole blocks are read"
        return [tokens.get(line.tier.name, 0) // self.size for line in self.lines]

    def save(self, at_ps: int, computed: int, *, decoding: bool) -> Saved | None:
        """A call that computed is preempted: its pages, if there is room for them beside those lent already."""
        pages = -(-computed // self.size) + self.groups
        tokens = self.lines[0].tier.tokens
        if not computed or (tokens is not None and self.lent + pages > tokens // self.size):
            return None
        self.lent += pages
        written_ps = at_ps + self.lines[0].write_ps(pages * self.page_bytes)
        return Saved(computed, decoding, pages, written_ps)

    def read_back(self, at_ps: int, saved: Saved, found_blocks: int) -> Between:
        """The same of a swapped call that was admitted; the GPU may have had some of its blocks."""
        found = 0 if self.groups else min(found_blocks, saved.computed // self.size)
        least = self.lines[0].takes_ps((saved.pages - found) * self.page_bytes)
        return Between(max(at_ps, saved.written_ps) + least, None)

    def give_back(self, saved: Saved | None) -> None:
        if saved is not None:
            self.lent -= saved.pages
            assert self.lent >= 0
