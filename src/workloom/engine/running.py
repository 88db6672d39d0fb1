"""The running calls: what they hold, what more steps of them need, and how their counts go on.

Decoding calls are never visited step by step. All of them grow by one token a step, so how many blocks k steps need
follows from how many calls stand at each place within their last block (see :mod:`workloom.engine.decoding`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from workloom.engine.batch import Batch, Chunks, Limits
from workloom.engine.decoding import Decoding, by_order
from workloom.engine.loading import Loads
from workloom.engine.prefix import PrefixCache
from workloom.engine.sequence import Sequence


class Running:
    """Calls that decode, that are half-prefilled, and that are loaded from a tier.

    `step` is the number of the next step; it counts up by what the engine says was done.
    """

    def __init__(self, limits: Limits, cache: PrefixCache) -> None:
        self.limits = limits
        self.cache = cache
        self.queue = cache.queue
        self.step = 0
        self.decodes = Decoding(limits.block_tokens)
        self.decoding = self.decodes.calls
        self.prefilling: dict[str, Sequence] = {}
        """Half-prefilled calls in order of admission; those of the step that was formed too."""
        self.loads = None if cache.tiers is None else Loads(cache, cache.tiers, swaps=limits.swap)
        self.joined: set[Sequence] = set()
        """Calls that were loaded and have not computed since."""
        self.groups = cache.state_groups
        self.per_block = 1 + self.groups
        """What a call takes from the pool when it begins a block."""
        self._spent: list[Sequence] = []
        """Calls that turned to new state pages in the last step."""
        self._order = 0

    def __len__(self) -> int:
        loading = 0 if self.loads is None else len(self.loads.calls)
        return len(self.decoding) + len(self.prefilling) + loading

    def by_admission(self) -> list[Sequence]:
        """Those that compute, in order of admission."""
        return sorted(chain(self.decoding.values(), self.prefilling.values()), key=by_order)

    # -- tokens of a step

    def budget(self, decodes: int) -> int:
        """Prefill tokens of a step beside so many decoding calls."""
        limits = self.limits
        return max(0, min(limits.max_batched_tokens - decodes * limits.decode_tokens, limits.max_prefill_tokens))

    def chunks(self, budget: int) -> Chunks:
        """What the half-prefilled calls get."""
        chunks = []
        for sequence in self.prefilling.values():
            chunk = self.chunk(sequence, sequence.computed, budget)
            if chunk:
                chunks.append((sequence, chunk))
                budget -= chunk
        return chunks

    def chunk(self, sequence: Sequence, computed: int, budget: int) -> int:
        """Tokens of a call that go into a step, of those behind `computed`."""
        tokens = sequence.prompt_tokens + sequence.generated
        chunk = min(tokens - computed, budget)
        if self.groups:
            size = self.limits.block_tokens
            last, end = tokens // size * size, computed + chunk
            if end < last:
                return max(0, end // size * size - computed)
            if computed < last < end:
                return last - computed
        return chunk

    # -- blocks

    def need(self) -> int:
        """Blocks that the next step of the decoding calls takes."""
        return self.decodes.next_blocks() * self.per_block

    def later(self, steps: int) -> int:
        """Blocks that `steps` steps of theirs take in all, behind those of the first."""
        return self.decodes.later_blocks(steps) * self.per_block

    def growth(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that a prefill needs for so many more tokens; with states, of one chunk."""
        size = self.limits.block_tokens
        blocks = -(-(sequence.computed + tokens) // size) - -(-sequence.computed // size)
        return blocks + self.groups if blocks else 0

    def more(self, batch: Batch, steps: int) -> int:
        """Blocks that `steps` steps need beyond those taken for the first."""
        more = 0 if batch.paused else self.later(steps)
        for sequence, chunk in batch.prefills:
            more += self.growth(sequence, steps * chunk) - self.growth(sequence, chunk)
        return more

    def grow(self, sequence: Sequence, need: int) -> None:
        """Take blocks for a chunk."""
        if need:
            self.cache.pop(need)
            if self.groups:
                self.turn(sequence)

    def turn(self, sequence: Sequence) -> None:
        """A call begins a block: its state goes on in new pages."""
        self.cache.turn_page(sequence)
        self._spent.append(sequence)

    def drop_spent(self) -> bool:
        """The state pages that calls turned from are not needed any more; whether blocks came free."""
        if not self._spent:
            return False
        free = self.queue.free
        for sequence in sorted(self._spent, key=by_order):
            self.cache.drop_spent(sequence)
        self._spent.clear()
        return self.queue.free > free

    # -- coming and going

    def start(self, sequence: Sequence) -> None:
        """A call is half-prefilled from what it hit on."""
        self._admit(sequence)
        self.prefilling[sequence.call] = sequence

    def go_on(self, sequence: Sequence) -> None:
        """A call decodes on, from the next step on."""
        self._admit(sequence)
        self.decodes.add(sequence, self.step)

    def _admit(self, sequence: Sequence) -> None:
        self._order += 1
        sequence.state, sequence.order = "running", self._order

    def done(self, batch: Batch, steps: int) -> None:
        """`steps` repetitions of a batch are over: count on, make blocks findable."""
        cache, decodes = self.cache, self.decodes
        counted = steps * batch.tokens
        self.step += counted
        if batch.paused:
            decodes.pause(self.step - steps, self.step)
        else:
            decodes.ticks += counted
            if self.groups:
                for sequence in decodes.beginning():
                    cache.register(sequence, self.computed(sequence))
        for sequence, chunk in batch.prefills:
            computed = sequence.computed = sequence.computed + chunk * steps
            cache.register(sequence, computed)
            if computed == sequence.prompt_tokens + sequence.generated:
                del self.prefilling[sequence.call]
                sequence.generated += 1
                decodes.add(sequence, self.step - 1)

    def release(self, sequence: Sequence) -> None:
        """Take a call out: settle its counts and free its blocks, the last first."""
        if self.loads is not None:
            if sequence.load is not None:
                self.loads.abandon(sequence)
                return
            self.joined.discard(sequence)
        if self.prefilling.pop(sequence.call, None) is None:
            self.decodes.remove(sequence, self.step)
            self.cache.register(sequence, sequence.computed)
        self.cache.release(sequence, -(-sequence.computed // self.limits.block_tokens))

    # -- what calls did

    def computed(self, sequence: Sequence) -> int:
        """Tokens of a call that were computed by the last step that ended."""
        return self.decodes.computed(sequence)

    def oldest_step(self, waiting: Iterable[Sequence]) -> int:
        """The earliest step whose instant may still be asked for; pauses before it are forgotten."""
        loading = [] if self.loads is None else self.loads.calls.values()
        spells = (s.spells[0][0] for s in chain(waiting, self.prefilling.values(), loading) if s.spells)
        running = (s.spells[0][0] if s.spells else s.since for s in self.decoding.values())
        oldest = min(chain(spells, running), default=self.step)
        self.decodes.forget(oldest)
        return oldest
