"""What runs in the next step: continuous batching with chunked prefill, first come first served (as vLLM v1 does it).

    running first, in the order of admission      a decoding call takes 1 token, the one half-prefilled what is left
    out of blocks                                 the newest running call is preempted and will be computed again
    then waiting, while budget and room last      longest cached prefix, then as much of the rest as the budget has

One rule is ours: a call refused for want of blocks is tried again only when blocks came free. (Until then room only
shrinks; vLLM asks again every step, and may succeed because the call's own cached prefix was evicted meanwhile.)

Decoding calls are never visited step by step. All of them grow by one token a step, so how many blocks k steps need
follows from how many calls stand at each place within their last block.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import chain

from msgspec import Struct

from workloom.engine.blocks import FreeQueue
from workloom.engine.prefix import PrefixCache
from workloom.engine.sequence import Sequence


class Limits(Struct, frozen=True):
    """What bounds a step."""

    max_num_seqs: int
    max_batched_tokens: int
    block_tokens: int


class Batch(Struct):
    """One step, and how many times it can be repeated unless something arrives."""

    decodes: int
    context_tokens: int
    prefills: list[tuple[Sequence, int]]
    """Calls that compute prompt tokens, with the size of their chunk."""
    admitted: int
    steps: int


class Scheduler:
    """The queues. `step` is the number of the next step; it counts up by what the engine says was done."""

    def __init__(self, limits: Limits, cache: PrefixCache) -> None:
        self.limits = limits
        self.cache = cache
        self.queue: FreeQueue = cache.queue
        self.step = 0
        self.waiting: deque[Sequence] = deque()
        self.decoding: dict[str, Sequence] = {}
        self.partial: Sequence | None = None
        self.preemptions = 0
        self._lags = 0
        self._phases = [0] * limits.block_tokens
        self._finishing: list[tuple[int, int, Sequence]] = []
        self._refused: Sequence | None = None
        self._order = 0

    @property
    def running(self) -> int:
        return len(self.decoding) + (self.partial is not None)

    def schedule(self) -> Batch:
        """Form the next step and take the blocks it needs."""
        preempted = self._take_blocks()
        prefills: list[tuple[Sequence, int]] = []
        budget = self.limits.max_batched_tokens - len(self.decoding)
        if self.partial is not None:
            chunk = min(self.partial.tokens - self.partial.computed, budget)
            prefills.append((self.partial, chunk))
            budget -= chunk
        admitted = 0 if preempted else self._admit(prefills, budget)
        decodes = len(self.decoding)
        context = self._lags + decodes * (self.step + 1)
        batch = Batch(decodes, context, prefills, admitted, 1)
        if not preempted and not admitted:
            batch.steps = self._repeats(prefills)
        return batch

    def _take_blocks(self) -> bool:
        """Blocks for one more step of everything that runs; True when somebody had to be preempted for it."""
        need = self._need(1)
        partial = self.partial
        if partial is not None:
            budget = self.limits.max_batched_tokens - len(self.decoding)
            need += self._growth(partial, min(partial.tokens - partial.computed, budget))
        if need <= self.queue.free:
            self.cache.pop(need)
            return False
        return self._squeeze()

    def _squeeze(self) -> bool:
        """The same call by call, preempting the newest while blocks are short."""
        before = self.preemptions
        scheduled = 0
        for sequence in [*self.decoding.values(), *([self.partial] if self.partial is not None else [])]:
            if sequence.state != "running":
                break
            rest = 1
            if sequence is self.partial:
                rest = min(sequence.tokens - sequence.computed, self.limits.max_batched_tokens - scheduled)
                need = self._growth(sequence, rest)
            else:
                need = int((self.step + sequence.lag) % self.limits.block_tokens == 0)
            while need > self.queue.free and sequence.state == "running":
                self._preempt(self._newest())
            if sequence.state != "running":
                break
            self.cache.pop(need)
            scheduled += rest
        return self.preemptions > before

    def _newest(self) -> Sequence:
        return self.partial if self.partial is not None else next(reversed(self.decoding.values()))

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        sequence.preemptions += 1
        self.release(sequence)
        sequence.computed = 0
        sequence.state = "waiting"
        self.waiting.appendleft(sequence)

    def _admit(self, prefills: list[tuple[Sequence, int]], budget: int) -> int:
        size, admitted = self.limits.block_tokens, 0
        while self.waiting and budget > 0 and self.running + admitted < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            if sequence is self._refused:
                break
            hit = self.cache.lookup(sequence)
            chunk = min(sequence.tokens - hit.tokens, budget)
            need = -(-(hit.tokens + chunk) // size) - hit.blocks
            if need + hit.evictable > self.queue.free:
                self._refused = sequence
                break
            self.waiting.popleft()
            self.cache.take(sequence, hit)
            self.cache.pop(need)
            sequence.computed = hit.tokens
            if sequence.cached_tokens is None:
                sequence.cached_tokens = hit.tokens
            sequence.state = "running"
            self._order += 1
            sequence.order = self._order
            prefills.append((sequence, chunk))
            budget -= chunk
            admitted += 1
        return admitted

    def _repeats(self, prefills: list[tuple[Sequence, int]]) -> int:
        """How many equal steps can follow one another before a call ends, a prefill ends or blocks run short."""
        budget = self.limits.max_batched_tokens - len(self.decoding) - sum(chunk for _, chunk in prefills)
        closed = (
            not self.waiting
            or self.waiting[0] is self._refused
            or self.running >= self.limits.max_num_seqs
            or budget <= 0
        )
        if not closed:
            return 1
        steps = 1 << 60
        if prefills:
            sequence, chunk = prefills[0]
            steps = (sequence.tokens - sequence.computed - 1) // chunk
        finish = self._next_finish()
        if finish is not None:
            steps = min(steps, finish - self.step)
        if steps <= 1:
            return 1
        low, high = 1, steps
        if self._more(prefills, high) > self.queue.free:
            while low + 1 < high:
                middle = (low + high) // 2
                if self._more(prefills, middle) > self.queue.free:
                    high = middle
                else:
                    low = middle
            return low
        return steps

    def _need(self, steps: int) -> int:
        """Blocks that `steps` more steps of the decoding calls need beyond those they hold."""
        size = self.limits.block_tokens
        need = 0
        for phase, calls in enumerate(self._phases):
            if calls:
                place = (phase + self.step) % size
                need += calls * (-(-(place + steps) // size) - -(-place // size))
        return need

    def _growth(self, sequence: Sequence, tokens: int) -> int:
        size = self.limits.block_tokens
        return -(-(sequence.computed + tokens) // size) - -(-sequence.computed // size)

    def _more(self, prefills: list[tuple[Sequence, int]], steps: int) -> int:
        """Blocks that `steps` steps need beyond those taken for the first."""
        more = self._need(steps) - self._need(1)
        for sequence, chunk in prefills:
            more += self._growth(sequence, steps * chunk) - self._growth(sequence, chunk)
        return more

    def done(self, batch: Batch, steps: int) -> list[Sequence]:
        """`steps` repetitions of the batch are over: make blocks findable, return the calls that are complete."""
        if steps > 1:
            self.cache.pop(self._more(batch.prefills, steps))
        self.step += steps
        self.partial = None
        for sequence, chunk in batch.prefills:
            sequence.computed += chunk * steps
            self.cache.register(sequence, sequence.computed)
            if sequence.computed < sequence.tokens:
                self.partial = sequence
            else:
                self._start_decoding(sequence)
        finished = []
        while (finish := self._next_finish()) is not None and finish <= self.step:
            finished.append(heapq.heappop(self._finishing)[2])
        finished.sort(key=_by_order)
        for sequence in finished:
            self.release(sequence)
            sequence.state = "done"
        return finished

    def _start_decoding(self, sequence: Sequence) -> None:
        sequence.generated += 1
        sequence.lag = sequence.computed - self.step
        sequence.since = self.step - 1
        sequence.finish_step = self.step + sequence.output_tokens - sequence.generated
        self.decoding[sequence.call] = sequence
        self._lags += sequence.lag
        self._phases[sequence.lag % self.limits.block_tokens] += 1
        heapq.heappush(self._finishing, (sequence.finish_step, sequence.order, sequence))

    def _next_finish(self) -> int | None:
        while self._finishing:
            step, order, sequence = self._finishing[0]
            if sequence.state == "running" and sequence.order == order:
                return step
            heapq.heappop(self._finishing)
        return None

    def release(self, sequence: Sequence) -> None:
        """Take a running call out: settle its counts and free its blocks, the last first."""
        if self.partial is sequence:
            self.partial = None
        else:
            del self.decoding[sequence.call]
            self._lags -= sequence.lag
            self._phases[sequence.lag % self.limits.block_tokens] -= 1
            sequence.computed = self.step + sequence.lag
            sequence.generated = sequence.computed - sequence.prompt_tokens + 1
            sequence.spells.append((sequence.since, self.step))
            self.cache.register(sequence, sequence.computed)
        held = -(-sequence.computed // self.limits.block_tokens)
        self.cache.release(sequence, held)
        self._refused = None

    def drop(self, sequence: Sequence) -> None:
        """A cancelled call that runs or waits is gone."""
        if sequence.state == "running":
            self.release(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.state = "cancelled"

    def oldest_step(self) -> int:
        """The earliest step whose instant may still be asked for."""
        spells = (s.spells[0][0] for s in chain(self.waiting, [self.partial] if self.partial else []) if s.spells)
        running = (s.spells[0][0] if s.spells else s.since for s in self.decoding.values())
        return min(chain(spells, running), default=self.step)


def _by_order(sequence: Sequence) -> int:
    return sequence.order
