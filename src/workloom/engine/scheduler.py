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

With state pages a leap ends where a decoding call comes to a boundary, and the step after is taken alone.
"""

from __future__ import annotations

from workloom.engine.admission import Admission
from workloom.engine.batch import Batch, Chunks, Limits
from workloom.engine.prefix import PrefixCache
from workloom.engine.running import Running
from workloom.engine.sequence import Sequence


class Scheduler:
    """Forms steps of what runs and what waits.

    With speculation a step counts here as often as it gave a token to each decoding call (see Speculation in
    :mod:`workloom.engine.engine`).
    """

    def __init__(self, limits: Limits, cache: PrefixCache, policy: str = "fcfs") -> None:
        self.limits = limits
        self.cache = cache
        self.queue = cache.queue
        self.calls = Running(limits, cache)
        self.decodes = self.calls.decodes
        self.decoding, self.prefilling, self.loads = self.calls.decoding, self.calls.prefilling, self.calls.loads
        self.admission = Admission(self.calls, policy)
        self.waiting = self.admission.waiting
        self.preemptions = 0
        self._owed_milli = 0
        """Tokens, in thousandths, that steps with prefill still owe each decoding call."""
        self._tiers = cache.tiers

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self.calls.step

    @property
    def running(self) -> int:
        return len(self.calls)

    @property
    def received(self) -> list[tuple[Sequence, int]]:
        """Calls with KV of another engine's that were admitted for the step in formation, and what of it was here."""
        return self.admission.received

    def wait(self, sequence: Sequence) -> None:
        """A call left the front end."""
        self.admission.wait(sequence)

    def join(self, at_ps: int, by_ps: int) -> None:
        """Calls whose load ended by an instant compute from the step on that begins now."""
        if self.loads is None:
            return
        self.queue.now_ps, self.loads.by_ps = at_ps, by_ps
        for sequence in self.loads.due():
            saved = self.loads.forget(sequence)
            if saved is not None and saved.decoding:
                self.calls.go_on(sequence)
            else:
                self.calls.start(sequence)
                self.calls.joined.add(sequence)

    def close(self, at_ps: int) -> None:
        """All that is to be done at this boundary, before or after a step is formed, is done: tiers are told."""
        if self._tiers is not None:
            self._tiers.close(at_ps)

    # -- forming a step

    def schedule(self, at_ps: int) -> Batch:
        """Form the step that begins at an instant and take the blocks it needs."""
        if self.admission.received:
            self.admission.received = []
        if self.loads is None:
            return self._schedule(at_ps)
        self.loads.begun.clear()
        batch = self._schedule(at_ps)
        if joined := self.calls.joined:
            batch.joined = sum(sequence in joined for sequence, _ in batch.prefills)
            joined.difference_update(sequence for sequence, _ in batch.prefills)
            batch.steps = 1 if batch.joined else batch.steps
        self.admission.prefetch(batch)
        return batch

    def _schedule(self, at_ps: int) -> Batch:
        limits, calls, admission = self.limits, self.calls, self.admission
        self.queue.now_ps = at_ps
        admission.again = False
        if calls.groups and calls.drop_spent():
            admission.freed()
        if limits.prefill_first:
            batch = self._prefill_step()
            if batch is not None:
                return batch
        prefills, preempted = self._take_blocks()
        if preempted and not self.decoding and not prefills:  # in a step for decoding calls only: none is left
            prefills, more = self._take_blocks()
            preempted += more
        admitted = 0
        if self.waiting and not preempted:
            if not (limits.prefill_first and self.decoding):
                admitted = admission.admit(prefills, calls.budget(len(self.decoding)))
            if not prefills and limits.prefill_first:
                admission.receive_all()
        decodes = len(self.decoding)
        batch = Batch(decodes, self.decodes.context_tokens, prefills, admitted, 1, preempted)
        if not preempted and not admitted:
            batch.steps = self._repeats(batch)
        if prefills and decodes and limits.acceptance_milli > 1000:
            batch.steps, batch.tokens = 1, self._accepted()
        return batch

    def _accepted(self) -> int:
        """Tokens a decoding call gets in a step with prefill: whole ones, in the mean the acceptance length.

        Not more than the next call that is complete needs, nor than there are blocks for, nor, with state pages, than
        lead to a boundary; what is left out is owed.
        """
        calls, decodes = self.calls, self.decodes
        self._owed_milli += self.limits.acceptance_milli
        most = self._owed_milli // 1000
        finish = decodes.next_finish()
        if finish is not None:
            most = min(most, finish - decodes.ticks)
        if calls.groups:
            most = min(most, decodes.to_boundary())
        while most > 1 and calls.later(most) > self.queue.free:
            most -= 1
        most = max(1, most)
        self._owed_milli -= 1000 * most
        return most

    def _prefill_step(self) -> Batch | None:
        """A step of prefills only, if there is any to do."""
        calls = self.calls
        prefills: Chunks = []
        budget = calls.budget(0)
        for sequence, chunk in calls.chunks(budget):
            need = calls.growth(sequence, chunk)
            if need > self.queue.free:
                break
            calls.grow(sequence, need)
            prefills.append((sequence, chunk))
        admitted = self.admission.admit(prefills, budget) if len(prefills) == len(self.prefilling) else 0
        if not prefills:
            return None
        batch = Batch(0, 0, prefills, admitted, 1, [], paused=True)
        if not admitted:
            batch.steps = self._repeats(batch)
        return batch

    def _take_blocks(self) -> tuple[Chunks, list[Sequence]]:
        """Blocks for one more step of what runs: its prefills, and who had to be preempted for it."""
        calls = self.calls
        paused = self.limits.prefill_first and self.decoding
        prefills: Chunks = []
        need = decoding_need = calls.need()
        if self.prefilling and not paused:
            prefills = calls.chunks(calls.budget(len(self.decoding)))
            for sequence, chunk in prefills:
                need += calls.growth(sequence, chunk)
        if not need:
            return prefills, []
        if need > self.queue.free:
            return self._squeeze([*self.decoding.values()] if paused else calls.by_admission())
        self.cache.pop(need)
        if calls.groups:
            if decoding_need:
                for sequence in self.decodes.beginning():
                    calls.turn(sequence)
            for sequence, chunk in prefills:
                if calls.growth(sequence, chunk):
                    calls.turn(sequence)
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
                    self.admission.freed()
                    self.admission.again = True
                    continue
                victim = self._victim()
                self.queue.put_plain(took.pop(victim, 0))
                chunks.pop(victim, None)
                self._preempt(victim)
                preempted.append(victim)
        if self.calls.groups:
            for sequence, need in took.items():
                if need:
                    self.calls.turn(sequence)
        return [*chunks.items()], preempted

    def _want(self, sequence: Sequence, prefilled: int) -> tuple[int, int]:
        """Prefill tokens of a running call in this step, behind those of others, and blocks it needs."""
        calls = self.calls
        if sequence.call in self.decoding:
            return 0, calls.per_block if self.decodes.begins(sequence) else 0
        chunk = calls.chunk(sequence, sequence.computed, calls.budget(len(self.decoding)) - prefilled)
        return chunk, calls.growth(sequence, chunk)

    def _victim(self) -> Sequence:
        """Who is preempted next: whoever loads, the last admitted first, then whom the policy names."""
        if self.loads is not None and self.loads.calls:
            return next(reversed(self.loads.calls.values()))
        return self.waiting.victim(reversed(self.calls.by_admission()))

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        sequence.preemptions += 1
        if self.loads is not None and sequence.load is None:
            self.loads.save(sequence, self.computed(sequence), decoding=sequence.call in self.decoding)
        self._release(sequence)
        self.admission.wait_again(sequence)

    # -- how long it can be repeated

    def _repeats(self, batch: Batch) -> int:
        """How many equal steps can follow one another before a call ends, a prefill ends or blocks run short."""
        calls, decodes = self.calls, self.decodes
        through = self._tiers is not None and self._tiers.through
        if self.admission.again or (batch.prefills and (calls.groups or self.cache.merge or through)):
            return 1
        steps = 1 << 60
        for sequence, chunk in batch.prefills:
            steps = min(steps, (sequence.tokens - sequence.computed - 1) // chunk)
        if not batch.paused:
            finish = decodes.next_finish()
            if finish is not None:
                steps = min(steps, finish - decodes.ticks)
            if calls.groups and steps > 1:
                steps = min(steps, decodes.to_boundary())
        if steps <= 1:
            return 1
        if calls.groups:  # no block begins before the next boundary
            return steps
        room = self.queue.free
        if self._tiers is not None and self._tiers.takes_evicted:  # which has to know when a block goes
            room = self.queue.plain_ahead
        if calls.more(batch, steps) <= room:
            return steps
        low, high = 1, steps
        while low + 1 < high:
            middle = (low + high) // 2
            if calls.more(batch, middle) > room:
                high = middle
            else:
                low = middle
        return low

    def free_in(self, batch: Batch, steps: int) -> int:
        """Free blocks while repetition `steps` (from 1) of a batch that was formed runs."""
        return self.queue.free - (self.calls.more(batch, steps) if steps > 1 else 0)

    # -- when steps are over

    def done(self, batch: Batch, steps: int, at_ps: int) -> list[Sequence]:
        """`steps` repetitions of the batch ended at an instant: make blocks findable, return the calls complete."""
        calls, queue = self.calls, self.queue
        queue.now_ps = at_ps
        if steps > 1:
            if not calls.groups and (more := calls.more(batch, steps)):
                self.cache.pop(more)
        elif batch.tokens > 1:
            self.cache.pop(calls.later(batch.tokens))
        free = queue.free
        calls.done(batch, steps)
        if queue.free > free:
            self.admission.freed()
        finished = self.decodes.complete()
        for sequence in finished:
            self._release(sequence)
            sequence.state = "done"
        return finished

    def _release(self, sequence: Sequence) -> None:
        self.calls.release(sequence)
        self.admission.freed()

    def drop(self, sequence: Sequence) -> None:
        """A cancelled call that runs or waits is gone."""
        if self.loads is not None:
            self.loads.forget(sequence)
        if sequence.state == "waiting":
            self.waiting.remove(sequence)
        if sequence.state != "waiting" or sequence.load is not None:
            self._release(sequence)
        sequence.state = "cancelled"

    # -- what calls did

    def computed(self, sequence: Sequence) -> int:
        """Tokens of a call that were computed by the last step that ended."""
        return self.decodes.computed(sequence)

    def spells(self, sequence: Sequence) -> list[tuple[int, int]]:
        """Ranges of the steps that made a call's tokens so far."""
        return self.decodes.spells(sequence, self.calls.step)

    def oldest_step(self) -> int:
        """The earliest step whose instant may still be asked for."""
        return self.calls.oldest_step(self.waiting)
