"""What runs in the next step: continuous batching with chunked prefill (as vLLM v1 does it).

    running first                       a decoding call takes 1 token, those half-prefilled share what is left
    out of blocks                       a running call is preempted and will be computed again
    then waiting, in the policy's order while budget and room last: longest cached prefix, then as much of the rest as
                                        the budget has

**Tokens.** A step has `max_batched_tokens`. Every decoding call takes one; prefills get the rest, at most
`max_prefill_tokens`: first the calls half-prefilled, in order of admission, then those newly admitted, each as much as
is left. One that gets none waits for the next step. With state pages (see :mod:`workloom.engine.prefix`) a chunk that
would end before the last whole block of the call's tokens is cut down to whole blocks (perhaps to none), and one that
would run over that block's end is cut there: steps end where a state can be kept.

**Mixing.** decode_first: as above. prefill_first: if a half-prefilled call can go on, or a waiting call can be
admitted, the step is for prefills only, with all tokens of the budget; decoding calls pause. Half-prefilled calls go in
order of admission; the first that finds no blocks ends the step's list, and nobody is admitted then. If this gives no
prefill at all the step is for the decoding calls only; if there are none either, it is as in decode_first.

**Blocks.** All blocks of a step are taken when it is formed, before anybody is admitted. If there are too few, the
running calls are served one by one in order of admission (in a decode-only step of prefill_first, the decoding ones).
One that finds too few preempts running calls, the one the policy names each time (fcfs: the newest), until there are
enough or it is gone itself; the budget of a prefill chunk reckons with the calls decoding at that moment. A preempted
call lets go of everything, of what it took for this step first, and waits at the policy's front. Nobody is admitted in
such a step. A decode-only step of prefill_first that is left without a decoding call like this is formed again at once,
for the half-prefilled calls.

**Admission.** The head of the queue is admitted if its first chunk's new blocks (and state pages) and those of its hits
that nobody holds are free, with `watermark_blocks` to spare if anything runs (calls admitted in this step count).
Blocks that hit are held before others are taken. A head that cannot be admitted holds up the queue:

- it finds no room: it is tried again only when blocks came free or another has become head since. (Until then room only
  shrinks; vLLM asks again every step, and may succeed because the call's own cached prefix was evicted meanwhile.) When
  nothing runs, pins are let go until it fits;
- with state pages: a prefill chunk of this very step ends at a boundary within the call's tokens but the last, the two
  calls are the same up to there, and it is further than the call's hit now. It is tried again in the next step.

Decoding calls are never visited step by step. All of them grow by one token a step, so how many blocks k steps need
follows from how many calls stand at each place within their last block. With state pages a leap ends where one of them
comes to a boundary, and the step after is taken alone.
"""

from __future__ import annotations

from itertools import chain

from workloom.engine.batch import Batch, Chunks, Limits
from workloom.engine.blocks import FreeQueue
from workloom.engine.decoding import Decoding, by_order
from workloom.engine.loading import Loads
from workloom.engine.policies import make_waiting
from workloom.engine.prefix import PrefixCache
from workloom.engine.sequence import Sequence


class Scheduler:
    """The queues. `step` is the number of the next step; it counts up by what the engine says was done.

    With speculation a step counts here as often as it gave a token to each decoding call (see Speculation in
    :mod:`workloom.engine.engine`).
    """

    def __init__(self, limits: Limits, cache: PrefixCache, policy: str = "fcfs") -> None:
        self.limits = limits
        self.cache = cache
        self.queue: FreeQueue = cache.queue
        self.step = 0
        self.waiting = make_waiting(policy)
        self._decodes = Decoding(limits.block_tokens)
        self.decoding = self._decodes.calls
        self.prefilling: dict[str, Sequence] = {}
        """Half-prefilled calls in order of admission; those of the step that was formed too."""
        self.preemptions = 0
        self._groups = cache.state_groups
        self._spent: list[Sequence] = []
        """Calls that turned to new state pages in the last step."""
        self._refused: Sequence | None = None
        self._again = False
        """Whether somebody may be admitted in the next step though nothing happens until then."""
        self._order = 0
        self._owed_milli = 0
        """Tokens, in thousandths, that steps with prefill still owe each decoding call."""
        self._tiers = cache.tiers
        self.loads = None if cache.tiers is None else Loads(cache, cache.tiers, swaps=limits.swap)
        self._joined: set[Sequence] = set()
        """Calls that were loaded and have not computed since."""
        self._short: bool = False
        """Whether a prefetch found no room, while no blocks came free."""

    @property
    def running(self) -> int:
        loading = 0 if self.loads is None else len(self.loads.calls)
        return len(self.decoding) + len(self.prefilling) + loading

    @property
    def computing(self) -> int:
        """Of the running calls, those that do not wait for blocks from a tier."""
        return len(self.decoding) + len(self.prefilling)

    def wait(self, sequence: Sequence) -> None:
        """A call left the front end."""
        sequence.state = "waiting"
        self.waiting.append(sequence)
        if self.loads is not None:
            self.loads.waits(sequence)

    def join(self, at_ps: int, by_ps: int) -> None:
        """Calls whose load ended by an instant compute from the step on that begins now."""
        if self.loads is None:
            return
        self.queue.now_ps, self.loads.by_ps = at_ps, by_ps
        for sequence in self.loads.due():
            saved = self.loads.forget(sequence)
            if saved is not None and saved.decoding:
                self._order += 1
                sequence.state, sequence.order = "running", self._order
                self._decodes.add(sequence, self.step)
                continue
            self._start_running(sequence)
            self._joined.add(sequence)

    def close(self, at_ps: int) -> None:
        """All that is to be done at this boundary, before or after a step is formed, is done: tiers are told."""
        if self._tiers is not None:
            self._tiers.close(at_ps)

    # -- forming a step

    def schedule(self, at_ps: int) -> Batch:
        """Form the step that begins at an instant and take the blocks it needs."""
        if self.loads is not None:
            self.loads.begun.clear()
        batch = self._schedule(at_ps)
        if self.loads is not None:
            if self._joined:
                batch.joined = sum(sequence in self._joined for sequence, _ in batch.prefills)
                self._joined.difference_update(sequence for sequence, _ in batch.prefills)
                batch.steps = 1 if batch.joined else batch.steps
            if not self._short:
                free = self.queue.free
                spare = self._need(batch.tokens) - self._need(1) if batch.tokens > 1 else 0
                self._short = not self.loads.prefetch(spare)
                if self.queue.free < free:  # for how many steps blocks last was reckoned with these
                    batch.steps = 1
        return batch

    def _schedule(self, at_ps: int) -> Batch:
        self.queue.now_ps = at_ps
        self._again = False
        self._drop_spent()
        if self.limits.prefill_first:
            batch = self._prefill_step()
            if batch is not None:
                return batch
        prefills, preempted = self._take_blocks()
        if preempted and not self.decoding and not prefills:  # in a step for decoding calls only: none is left
            prefills, more = self._take_blocks()
            preempted += more
        admitted = 0
        if not preempted and not (self.limits.prefill_first and self.decoding):
            admitted = self._admit(prefills, self._budget(len(self.decoding)))
        if not preempted and not prefills and self.limits.prefill_first:
            self._receive_all()
        decodes = len(self.decoding)
        batch = Batch(decodes, self._decodes.context_tokens, prefills, admitted, 1, preempted)
        if not preempted and not admitted:
            batch.steps = self._repeats(batch)
        if self.limits.acceptance_milli > 1000 and decodes and prefills:
            batch.steps, batch.tokens = 1, self._accepted()
        return batch

    def _accepted(self) -> int:
        """Tokens a decoding call gets in a step with prefill: whole ones, in the mean the acceptance length.

        Not more than the next call that is complete needs, nor than there are blocks for, nor, with state pages, than
        lead to a boundary; what is left out is owed.
        """
        self._owed_milli += self.limits.acceptance_milli
        most = self._owed_milli // 1000
        finish = self._decodes.next_finish()
        if finish is not None:
            most = min(most, finish - self._decodes.ticks)
        if self._groups:
            most = min(most, self._decodes.to_boundary())
        while most > 1 and self._need(most) - self._need(1) > self.queue.free:
            most -= 1
        most = max(1, most)
        self._owed_milli -= 1000 * most
        return most

    def _prefill_step(self) -> Batch | None:
        """A step of prefills only, if there is any to do."""
        prefills: Chunks = []
        budget = self._budget(0)
        for sequence, chunk in self._chunks(budget):
            need = self._growth(sequence, chunk)
            if need > self.queue.free:
                break
            self._grow(sequence, need)
            prefills.append((sequence, chunk))
        admitted = self._admit(prefills, budget) if len(prefills) == len(self.prefilling) else 0
        if not prefills:
            return None
        batch = Batch(0, 0, prefills, admitted, 1, [], paused=True)
        if not admitted:
            batch.steps = self._repeats(batch)
        return batch

    def _budget(self, decodes: int) -> int:
        """Prefill tokens of a step beside so many decoding calls."""
        limits = self.limits
        return max(0, min(limits.max_batched_tokens - decodes * limits.decode_tokens, limits.max_prefill_tokens))

    def _chunks(self, budget: int) -> Chunks:
        """What the half-prefilled calls get."""
        chunks = []
        for sequence in self.prefilling.values():
            chunk = self._chunk(sequence, sequence.computed, budget)
            if chunk:
                chunks.append((sequence, chunk))
                budget -= chunk
        return chunks

    def _chunk(self, sequence: Sequence, computed: int, budget: int) -> int:
        """Tokens of a call that go into a step, of those behind `computed`."""
        chunk = min(sequence.tokens - computed, budget)
        if self._groups:
            size = self.limits.block_tokens
            last, end = sequence.tokens // size * size, computed + chunk
            if end < last:
                return max(0, end // size * size - computed)
            if computed < last < end:
                return last - computed
        return chunk

    def _take_blocks(self) -> tuple[Chunks, list[Sequence]]:
        """Blocks for one more step of what runs: its prefills, and who had to be preempted for it."""
        paused = self.limits.prefill_first and self.decoding
        prefills = [] if paused else self._chunks(self._budget(len(self.decoding)))
        need = self._need(1) + sum(self._growth(sequence, chunk) for sequence, chunk in prefills)
        if need > self.queue.free:
            return self._squeeze([*self.decoding.values()] if paused else self._by_admission())
        self.cache.pop(need)
        if self._groups:
            for sequence in self._decodes.beginning():
                self._turn(sequence)
            for sequence, chunk in prefills:
                if self._growth(sequence, chunk):
                    self._turn(sequence)
        return prefills, []

    def _squeeze(self, sequences: list[Sequence]) -> tuple[Chunks, list[Sequence]]:
        """The same call by call, preempting while blocks are short."""
        preempted: list[Sequence] = []
        chunks: dict[Sequence, int] = {}
        took: dict[Sequence, int] = {}
        for sequence in sequences:
            while sequence.state == "running":
                chunk, need = self._want(sequence, sum(chunks.values()))
                if need <= self.queue.free:
                    self.cache.pop(need)
                    took[sequence] = need
                    if chunk:
                        chunks[sequence] = chunk
                    break
                if self.loads is not None and self.loads.take_back():
                    continue
                if self.running == 1 and self.cache.pins.drop_oldest():
                    self._freed()
                    self._again = True
                    continue
                victim = self._victim()
                self.queue.put_plain(took.pop(victim, 0))
                chunks.pop(victim, None)
                self._preempt(victim)
                preempted.append(victim)
        if self._groups:
            for sequence, need in took.items():
                if need:
                    self._turn(sequence)
        return [*chunks.items()], preempted

    def _want(self, sequence: Sequence, prefilled: int) -> tuple[int, int]:
        """Prefill tokens of a running call in this step, behind those of others, and blocks it needs."""
        if sequence.call in self.decoding:
            return 0, self._per_block if self._decodes.begins(sequence) else 0
        chunk = self._chunk(sequence, sequence.computed, self._budget(len(self.decoding)) - prefilled)
        return chunk, self._growth(sequence, chunk)

    def _victim(self) -> Sequence:
        """Who is preempted next: whoever loads, the last admitted first, then whom the policy names."""
        if self.loads is not None and self.loads.calls:
            return next(reversed(self.loads.calls.values()))
        return self.waiting.victim(reversed(self._by_admission()))

    def _by_admission(self) -> list[Sequence]:
        return sorted(chain(self.decoding.values(), self.prefilling.values()), key=by_order)

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        sequence.preemptions += 1
        if self.loads is not None and sequence.load is None:
            self.loads.save(sequence, self.computed(sequence), decoding=sequence.call in self.decoding)
        self.release(sequence)
        sequence.computed = 0
        sequence.state = "waiting"
        self.waiting.appendleft(sequence)
        if self.loads is not None:
            self.loads.waits(sequence, first=True)

    def _freed(self) -> None:
        """Blocks came free: whoever found none may try again."""
        self._refused, self._short = None, False

    def _admit(self, prefills: Chunks, budget: int) -> int:
        """Admit from the head of the queue, behind the prefills there are; how many were."""
        budget -= sum(chunk for _, chunk in prefills)
        admitted = 0
        while self.waiting and budget > 0 and self.running < self.limits.max_num_seqs:
            sequence = self.waiting.head()
            if sequence is self._refused:
                break
            if sequence.received and not sequence.preemptions:
                if self.limits.prefill_first or not self._receive(sequence):
                    break
                budget -= 1
                continue
            chunk = self._try(sequence, prefills, budget)
            if sequence.state == "loading":
                continue
            if not chunk:
                break
            prefills.append((sequence, chunk))
            budget -= chunk
            admitted += 1
        return admitted

    def _try(self, sequence: Sequence, prefills: Chunks, budget: int) -> int:
        """Admit the head of the queue if it can be; the size of its first chunk, or 0."""
        if self.loads is not None and sequence.load is not None:
            return self._try_fetched(sequence, budget)
        if self.loads is not None and sequence.saved is not None:
            self._try_saved(sequence)
            return 0
        spare = self.limits.watermark_blocks if self.running else 0
        while True:
            hit = self.cache.lookup(sequence)
            if self._groups and any(self._expects(sequence, hit.tokens, other, n) for other, n in prefills):
                self._again = True
                return 0
            chunk = self._chunk(sequence, hit.tokens, budget)
            if not chunk:
                return 0
            need = -(-(hit.tokens + chunk) // self.limits.block_tokens) - hit.blocks + self._groups
            if need + hit.pages_below + hit.evictable + spare <= self.queue.free:
                break
            if not self._make_room(sequence):
                self._refused = sequence
                return 0
        self.waiting.popleft()
        if self.loads is not None and hit.reads:
            self.loads.begin(sequence, hit)
            self._load(sequence)
            return 0
        self.cache.take(sequence, hit)
        self.cache.pop(need)
        if self._groups:
            self._turn(sequence)
        sequence.computed, sequence.fetched = hit.tokens, ()
        self._note_hit(sequence)
        self._start_running(sequence)
        return chunk

    def _start_running(self, sequence: Sequence) -> None:
        """Half-prefilled from what it hit on."""
        sequence.state = "running"
        self._order += 1
        sequence.order = self._order
        self.prefilling[sequence.call] = sequence

    def _make_room(self, sequence: Sequence) -> bool:
        """Let go of something kept ahead of its use, that the head of the queue may fit; False if there is nothing."""
        if self.loads is not None and self.loads.take_back(sparing=sequence):
            return True
        return not self.running and self.cache.pins.drop_oldest()

    def _load(self, sequence: Sequence) -> None:
        """Out of the queue among the running, to wait for its blocks."""
        assert self.loads is not None
        self._note_hit(sequence)
        self.loads.admit(sequence)

    def _note_hit(self, sequence: Sequence) -> None:
        """What a call had not to compute when it was admitted first."""
        if sequence.cached_tokens is not None:
            return
        sequence.cached_tokens = sequence.computed
        if self._tiers is not None:
            read = sum(tokens for _, tokens in sequence.fetched)
            self._tiers.queries_tokens += sequence.prompt_tokens - sequence.computed + read
            self._tiers.hits_tokens += read

    def _try_fetched(self, sequence: Sequence, budget: int) -> int:
        """The same of a call whose blocks were fetched ahead, or are on their way."""
        assert self.loads is not None
        spare = self.limits.watermark_blocks if self.running else 0
        chunk = self._chunk(sequence, sequence.computed, budget)
        if not chunk:
            return 0
        need = self._growth(sequence, chunk)
        while need + spare > self.queue.free:
            if not self._make_room(sequence):
                self._refused = sequence
                return 0
        self.waiting.popleft()
        if not self.loads.over(sequence):
            self._load(sequence)
            return 0
        self.loads.finish(sequence)
        self._grow(sequence, need)
        self._note_hit(sequence)
        self._start_running(sequence)
        return chunk

    def _receive_all(self) -> None:
        """The step is for decoding calls: those whose KV another engine made join them."""
        while self.waiting and len(self.decoding) < self.limits.max_batched_tokens:
            sequence = self.waiting.head()
            if not sequence.received or sequence.preemptions or sequence is self._refused:
                return
            if self.running >= self.limits.max_num_seqs or not self._receive(sequence):
                return

    def _try_saved(self, sequence: Sequence) -> None:
        """The same of a call that was swapped out."""
        assert self.loads is not None and sequence.saved is not None
        spare = self.limits.watermark_blocks if self.running else 0
        while True:
            hit = self.loads.found(sequence, sequence.saved)
            if hit.pages_below + hit.evictable + spare <= self.queue.free:
                break
            if not self._make_room(sequence):
                self._refused = sequence
                return
        self.waiting.popleft()
        self.loads.read_back(sequence, sequence.saved, hit)
        self._load(sequence)

    def _receive(self, sequence: Sequence) -> bool:
        """Admit the head of the queue, whose KV another engine made, among those that decode; False without room.

        States came with it, so of a hit it needs the KV blocks only, unless it is the whole prompt.
        """
        size, groups = self.limits.block_tokens, self._groups
        spare = self.limits.watermark_blocks if self.running else 0
        begins = groups > 0 and sequence.prompt_tokens % size == 0  # its next token begins a block
        while True:
            hit = self.cache.lookup(sequence, below=False)
            whole = begins and hit.tokens == sequence.prompt_tokens
            hit = hit if whole else hit.without_state()
            need = sequence.prompt_tokens // size + 1 - hit.blocks + groups * (1 + begins - whole)
            if need + hit.evictable + spare <= self.queue.free:
                break
            if not self._make_room(sequence):
                self._refused = sequence
                return False
        self.waiting.popleft()
        self.cache.take(sequence, hit)
        self.cache.pop(need)
        if groups and not whole:
            sequence.page = None
            self.cache.turn_page(sequence)
        sequence.computed, sequence.cached_tokens = sequence.prompt_tokens, 0
        sequence.admitted_ps = self.queue.now_ps
        sequence.state = "running"
        self._order += 1
        sequence.order = self._order
        self.cache.register(sequence, sequence.computed)
        if begins:
            self._turn(sequence)
        self._decodes.add(sequence, self.step)
        return True

    def _expects(self, sequence: Sequence, hit_tokens: int, other: Sequence, chunk: int) -> bool:
        """Whether the step in formation makes a state of `other` that `sequence` could go on from."""
        end = other.computed + chunk
        if end % self.limits.block_tokens or not hit_tokens < end < sequence.tokens or not self.cache.enabled:
            return False
        return _same(sequence, other, end)

    # -- how long it can be repeated

    def _repeats(self, batch: Batch) -> int:
        """How many equal steps can follow one another before a call ends, a prefill ends or blocks run short."""
        through = self._tiers is not None and self._tiers.through
        if self._again or (batch.prefills and (self._groups or self.cache.merge or through)):
            return 1
        steps = 1 << 60
        for sequence, chunk in batch.prefills:
            steps = min(steps, (sequence.tokens - sequence.computed - 1) // chunk)
        if not batch.paused:
            finish = self._decodes.next_finish()
            if finish is not None:
                steps = min(steps, finish - self._decodes.ticks)
            if self._groups and steps > 1:
                steps = min(steps, self._decodes.to_boundary())
        if steps <= 1:
            return 1
        low, high, room = 1, steps, self.queue.free
        if self._tiers is not None and self._tiers.takes_evicted:  # which has to know when a block goes
            room = self.queue.plain_ahead
        if self._at_most(batch, high) > room and self._more(batch, high) > room:
            while low + 1 < high:
                middle = (low + high) // 2
                if self._more(batch, middle) > room:
                    high = middle
                else:
                    low = middle
            return low
        return steps

    @property
    def _per_block(self) -> int:
        """What a call takes from the pool when it begins a block."""
        return 1 + self._groups

    def _need(self, steps: int) -> int:
        """Blocks that `steps` more steps of the decoding calls need beyond those they hold."""
        return self._decodes.blocks(steps) * self._per_block

    def _growth(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that a prefill needs for so many more tokens; with states, of one chunk."""
        size = self.limits.block_tokens
        blocks = -(-(sequence.computed + tokens) // size) - -(-sequence.computed // size)
        return blocks + self._groups if blocks else 0

    def free_in(self, batch: Batch, steps: int) -> int:
        """Free blocks while repetition `steps` (from 1) of a batch that was formed runs."""
        return self.queue.free - (self._more(batch, steps) if steps > 1 else 0)

    def _more(self, batch: Batch, steps: int) -> int:
        """Blocks that `steps` steps need beyond those taken for the first."""
        more = 0 if batch.paused else self._need(steps) - self._need(1)
        for sequence, chunk in batch.prefills:
            more += self._growth(sequence, steps * chunk) - self._growth(sequence, chunk)
        return more

    def _at_most(self, batch: Batch, steps: int) -> int:
        """A bound on `_more` that needs no look at every call."""
        blocks = 0 if batch.paused else self._decodes.most_blocks(steps) * self._per_block
        return blocks + sum(self._growth(sequence, steps * chunk) for sequence, chunk in batch.prefills)

    # -- state pages

    def _grow(self, sequence: Sequence, need: int) -> None:
        self.cache.pop(need)
        if self._groups and need:
            self._turn(sequence)

    def _turn(self, sequence: Sequence) -> None:
        self.cache.turn_page(sequence)
        self._spent.append(sequence)

    def _drop_spent(self) -> None:
        free = self.queue.free
        for sequence in sorted(self._spent, key=by_order):
            self.cache.drop_spent(sequence)
        self._spent.clear()
        if self.queue.free > free:
            self._freed()

    # -- when steps are over

    def done(self, batch: Batch, steps: int, at_ps: int) -> list[Sequence]:
        """`steps` repetitions of the batch ended at an instant: make blocks findable, return the calls complete."""
        self.queue.now_ps = at_ps
        if steps > 1:
            self.cache.pop(self._more(batch, steps))
        elif batch.tokens > 1:
            self.cache.pop(self._need(batch.tokens) - self._need(1))
        free = self.queue.free
        self.step += steps * batch.tokens
        if batch.paused:
            self._decodes.pause(self.step - steps, self.step)
        else:
            self._decodes.ticks += steps * batch.tokens
            if self._groups:
                for sequence in self._decodes.beginning():
                    self.cache.register(sequence, self.computed(sequence))
        for sequence, chunk in batch.prefills:
            sequence.computed += chunk * steps
            self.cache.register(sequence, sequence.computed)
            if sequence.computed == sequence.tokens:
                self._start_decoding(sequence)
        if self.queue.free > free:
            self._freed()
        finished = self._decodes.complete()
        for sequence in finished:
            self.release(sequence)
            sequence.state = "done"
        return finished

    def _start_decoding(self, sequence: Sequence) -> None:
        del self.prefilling[sequence.call]
        sequence.generated += 1
        self._decodes.add(sequence, self.step - 1)

    def release(self, sequence: Sequence) -> None:
        """Take a running call out: settle its counts and free its blocks, the last first."""
        if self.loads is not None and sequence.load is not None:
            self.loads.abandon(sequence)
            self._freed()
            return
        self._joined.discard(sequence)
        if sequence.call in self.prefilling:
            del self.prefilling[sequence.call]
        else:
            self._decodes.remove(sequence, self.step)
            self.cache.register(sequence, sequence.computed)
        held = -(-sequence.computed // self.limits.block_tokens)
        self.cache.release(sequence, held)
        self._freed()

    def drop(self, sequence: Sequence) -> None:
        """A cancelled call that runs or waits is gone."""
        if self.loads is not None:
            self.loads.forget(sequence)
        if sequence.state == "waiting":
            self.waiting.remove(sequence)
        if sequence.state != "waiting" or sequence.load is not None:
            self.release(sequence)
        sequence.state = "cancelled"

    # -- what calls did

    def computed(self, sequence: Sequence) -> int:
        """Tokens of a call that were computed by the last step that ended."""
        return self._decodes.computed(sequence)

    def spells(self, sequence: Sequence) -> list[tuple[int, int]]:
        """Ranges of the steps that made a call's tokens so far."""
        return self._decodes.spells(sequence, self.step)

    def oldest_step(self) -> int:
        """The earliest step whose instant may still be asked for; pauses before it are forgotten."""
        loading = [] if self.loads is None else self.loads.calls.values()
        spells = (s.spells[0][0] for s in chain(self.waiting, self.prefilling.values(), loading) if s.spells)
        running = (s.spells[0][0] if s.spells else s.since for s in self.decoding.values())
        oldest = min(chain(spells, running), default=self.step)
        self._decodes.forget(oldest)
        return oldest


def _same(a: Sequence, b: Sequence, tokens: int) -> bool:
    """Whether two calls agree in their first tokens."""
    for text_a, end_a, text_b, end_b in zip(a.ids, a.ends, b.ids, b.ends, strict=False):
        if text_a != text_b:
            return False
        if min(end_a, end_b) >= tokens:
            return True
        if end_a != end_b:
            return False
    return False
