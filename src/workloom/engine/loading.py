"""Calls whose blocks are on their way from a tier to the GPU: what they hold meanwhile, and how it ends.

The rules are in :mod:`workloom.engine.tiers`, under Loading and Prefetch.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from workloom.engine.tier import Lent
from workloom.engine.tiers import Found, Tiers

if TYPE_CHECKING:
    from workloom.engine.node import Hit, Node
    from workloom.engine.prefix import PrefixCache
    from workloom.engine.sequence import Sequence


class Load(NamedTuple):
    """What a call reads, when all of it is on the GPU, and the node it ends at, which is kept until then."""

    reads: tuple[Found, ...]
    ready_ps: int
    node: Node


class Saved(NamedTuple):
    """What a call had computed when it was preempted and swapped out."""

    lent: Lent
    computed: int
    decoding: bool


class Loads:
    """All loads under way: `calls` are those that were admitted, in that order."""

    def __init__(self, cache: PrefixCache, tiers: Tiers, *, swaps: bool = False) -> None:
        self.swaps = swaps
        """Whether preempted calls are kept in the first tier."""
        self.calls: dict[str, Sequence] = {}
        self.begun: list[Sequence] = []
        """Admitted for the step in formation, to be told."""
        self.by_ps = 0
        """Loads that end by this instant are over for the step in formation."""
        self.ahead: dict[str, Sequence] = {}
        """Calls that wait while their blocks are fetched, or after."""
        self._cache, self._tiers = cache, tiers
        self._prefetch = any(tier.spec.prefetch for tier in tiers.tiers)
        self._newcomers: deque[Sequence] = deque()
        """Calls that began to wait and were not looked at yet."""

    @property
    def next_ps(self) -> int | None:
        """When the next load of an admitted call ends."""
        ready = [call.load.ready_ps for call in self.calls.values() if call.load is not None]
        return min(ready, default=None)

    def begin(self, sequence: Sequence, hit: Hit) -> None:
        """Give a call the blocks of its hit and ask for those that are to be read; they are free."""
        node = hit.reads[-1].part.node
        node.pins += 1
        self._cache.take(sequence, hit)
        self._cache.pop(hit.pages_below)
        sequence.computed = hit.tokens
        sequence.fetched = self._tiers.tokens(hit.reads)
        ready_ps = self._tiers.read(self._cache.queue.now_ps, list(hit.reads))
        sequence.load = Load(hit.reads, ready_ps, node)

    def admit(self, sequence: Sequence) -> None:
        """A call with a load counts among the running."""
        self.ahead.pop(sequence.call, None)
        sequence.state = "loading"
        self.calls[sequence.call] = sequence
        self.begun.append(sequence)

    def due(self) -> list[Sequence]:
        """Calls whose load is over, in order of admission; they load no longer and their blocks can be found."""
        over = [call for call in self.calls.values() if call.load is not None and call.load.ready_ps <= self.by_ps]
        for sequence in over:
            del self.calls[sequence.call]
            self.finish(sequence)
        return over

    def over(self, sequence: Sequence) -> bool:
        """Whether a call's load is over for the step in formation."""
        return sequence.load is not None and sequence.load.ready_ps <= self.by_ps

    def finish(self, sequence: Sequence) -> None:
        """What was read is on the GPU and can be found there."""
        load = sequence.load
        assert load is not None
        self.ahead.pop(sequence.call, None)
        if sequence.saved is None:
            self._cache.loaded(sequence, load.node, sequence.computed // self._cache.block_tokens)
        else:
            self._cache.register(sequence, sequence.computed)
        self._end(sequence)

    def abandon(self, sequence: Sequence) -> None:
        """A call gives back the blocks of its hit."""
        self.calls.pop(sequence.call, None)
        self.ahead.pop(sequence.call, None)
        self._cache.release(sequence, -(-sequence.computed // self._cache.block_tokens))
        sequence.computed = 0
        sequence.fetched = ()
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        load, sequence.load = sequence.load, None
        assert load is not None
        load.node.pins -= 1
        self._cache.prune(load.node)

    # -- swapped calls

    def save(self, sequence: Sequence, computed: int, *, decoding: bool) -> None:
        """A running call is about to be preempted: keep what it computed, if the first tier has room for it."""
        if self.swaps and computed:
            lent = self._tiers.lend(self._cache.queue.now_ps, self._pages(computed))
            if lent is not None:
                sequence.saved = Saved(lent, computed, decoding)

    def found(self, sequence: Sequence, saved: Saved) -> Hit:
        """What of a swapped call the GPU still has; what is to be read back is `pages_below`."""
        hit = self._cache.lookup(sequence, below=False)
        if self._cache.state_groups or hit.tokens > saved.computed:
            hit = self._cache.nothing()
        return replace(hit, pages_below=self._pages(saved.computed) - hit.blocks)

    def read_back(self, sequence: Sequence, saved: Saved, hit: Hit) -> None:
        """Give a swapped call blocks for all it had and ask for what the GPU has not; they are free."""
        node = hit.cursor[1]
        node.pins += 1
        self._cache.take(sequence, hit)
        self._cache.pop(hit.pages_below)
        self._cache.fresh_page(sequence)
        sequence.computed, sequence.fetched = saved.computed, ()
        ready_ps = self._tiers.tiers[0].read_back(self._cache.queue.now_ps, saved.lent, hit.pages_below)
        sequence.load = Load((), ready_ps, node)

    def forget(self, sequence: Sequence) -> Saved | None:
        """A call that goes on, or is gone, needs what was saved no longer; what that was."""
        saved, sequence.saved = sequence.saved, None
        if saved is not None:
            self._tiers.tiers[0].give_back(saved.lent)
        return saved

    def _pages(self, computed: int) -> int:
        return -(-computed // self._cache.block_tokens) + self._cache.state_groups

    # -- before their turn

    def waits(self, sequence: Sequence, *, first: bool = False) -> None:
        """A call began to wait."""
        if not self._prefetch:
            return
        if first:
            self._newcomers.appendleft(sequence)
        else:
            self._newcomers.append(sequence)

    def prefetch(self, spare: int) -> bool:
        """Fetch for those who began to wait; False if one found too few free blocks, `spare` of them not counted."""
        while self._newcomers:
            sequence = self._newcomers[0]
            if sequence.state == "waiting" and sequence.load is None and sequence.saved is None:
                hit = self._cache.lookup(sequence)
                if any(self._tiers.tiers[tier].spec.prefetch for tier, _ in hit.reads):
                    if hit.pages_below + hit.evictable + spare > self._cache.queue.free:
                        return False
                    self.begin(sequence, hit)
                    self.ahead[sequence.call] = sequence
            self._newcomers.popleft()
        return True

    def take_back(self, sparing: Sequence | None = None) -> bool:
        """Free the blocks fetched last for a call that waits, but not for one of them; False if there are none."""
        for sequence in reversed(self.ahead.values()):
            if sequence is not sparing:
                self.abandon(sequence)
                return True
        return False
