"""Who of the waiting calls begins to run. The rules are in :mod:`workloom.engine.scheduler`, under Admission."""

from __future__ import annotations

from workloom.engine.batch import Batch, Chunks
from workloom.engine.policies import make_waiting
from workloom.engine.running import Running
from workloom.engine.sequence import Sequence


class Admission:
    """The waiting calls, in a policy's order, and the way from there among the running ones."""

    def __init__(self, running: Running, policy: str) -> None:
        self.waiting = make_waiting(policy)
        self.again = False
        """Whether somebody may be admitted in the next step though nothing happens until then."""
        self.queries_tokens = 0
        """Prompt tokens of the calls that were admitted so far, each counted once."""
        self.hits_tokens = 0
        """Of these, those found in the prefix cache or a tier."""
        self.received: list[tuple[Sequence, int]] = []
        """Calls with KV of another engine's that were admitted for the step in formation, and what of it was here."""
        self._running, self._limits = running, running.limits
        self._cache, self._queue = running.cache, running.queue
        self._loads, self._tiers = running.loads, running.cache.tiers
        self._groups = running.groups
        self._refused: Sequence | None = None
        self._short = False
        """Whether a prefetch found no room, while no blocks came free."""

    def wait(self, sequence: Sequence) -> None:
        """A call left the front end."""
        sequence.state = "waiting"
        self.waiting.append(sequence)
        if self._loads is not None:
            self._loads.waits(sequence)

    def wait_again(self, sequence: Sequence) -> None:
        """A call was preempted."""
        sequence.computed = 0
        sequence.state = "waiting"
        self.waiting.appendleft(sequence)
        if self._loads is not None:
            self._loads.waits(sequence, first=True)

    def freed(self) -> None:
        """Blocks came free: whoever found none may try again."""
        self._refused, self._short = None, False

    def admit(self, prefills: Chunks, budget: int) -> int:
        """Admit from the head of the queue, behind the prefills there are; how many were."""
        for _, chunk in prefills:
            budget -= chunk
        admitted, seats = 0, self._limits.max_num_seqs
        while self.waiting and budget > 0 and len(self._running) < seats:
            sequence = self.waiting.head()
            if sequence is self._refused:
                break
            if sequence.received and not sequence.preemptions:
                if self._limits.prefill_first or not self._receive(sequence):
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

    def receive_all(self) -> None:
        """The step is for decoding calls: those whose KV another engine made join them."""
        running, limits = self._running, self._limits
        while self.waiting and len(running.decoding) < limits.max_batched_tokens:
            sequence = self.waiting.head()
            if not sequence.received or sequence.preemptions or sequence is self._refused:
                return
            if len(running) >= limits.max_num_seqs or not self._receive(sequence):
                return

    def _try(self, sequence: Sequence, prefills: Chunks, budget: int) -> int:
        """Admit the head of the queue if it can be; the size of its first chunk, or 0."""
        if self._loads is not None and sequence.load is not None:
            return self._try_fetched(sequence, budget)
        if self._loads is not None and sequence.saved is not None:
            self._try_saved(sequence)
            return 0
        spare = self._spare
        while True:
            hit = self._cache.lookup(sequence)
            if (
                self._groups
                and prefills
                and any(self._expects(sequence, hit.tokens, other, n) for other, n in prefills)
            ):
                self.again = True
                return 0
            chunk = self._running.chunk(sequence, hit.tokens, budget)
            if not chunk:
                return 0
            need = -(-(hit.tokens + chunk) // self._limits.block_tokens) - hit.blocks + self._groups
            if need + hit.pages_below + hit.evictable + spare <= self._queue.free:
                break
            if not self._make_room(sequence):
                return 0
        self.waiting.popleft()
        if self._loads is not None and hit.reads:
            self._loads.begin(sequence, hit)
            self._load(sequence)
            return 0
        self._cache.take(sequence, hit)
        sequence.computed, sequence.fetched = hit.tokens, ()
        self._running.grow(sequence, need)
        self._note_hit(sequence)
        self._running.start(sequence)
        return chunk

    def _try_fetched(self, sequence: Sequence, budget: int) -> int:
        """The same of a call whose blocks were fetched ahead, or are on their way."""
        assert self._loads is not None
        spare = self._spare
        chunk = self._running.chunk(sequence, sequence.computed, budget)
        if not chunk:
            return 0
        need = self._running.growth(sequence, chunk)
        while need + spare > self._queue.free:
            if not self._make_room(sequence):
                return 0
        self.waiting.popleft()
        if not self._loads.over(sequence):
            self._load(sequence)
            return 0
        self._loads.finish(sequence)
        self._running.grow(sequence, need)
        self._note_hit(sequence)
        self._running.start(sequence)
        return chunk

    def _try_saved(self, sequence: Sequence) -> None:
        """The same of a call that was swapped out."""
        assert self._loads is not None and sequence.saved is not None
        spare = self._spare
        while True:
            hit = self._loads.found(sequence, sequence.saved)
            if hit.pages_below + hit.evictable + spare <= self._queue.free:
                break
            if not self._make_room(sequence):
                return
        self.waiting.popleft()
        self._loads.read_back(sequence, sequence.saved, hit)
        self._load(sequence)

    def _receive(self, sequence: Sequence) -> bool:
        """Admit the head of the queue, whose KV another engine made, among those that decode; False without room.

        States came with it, so of a hit it needs the KV blocks only, unless it is the whole prompt.
        """
        size, groups = self._limits.block_tokens, self._groups
        spare = self._spare
        begins = groups > 0 and sequence.prompt_tokens % size == 0  # its next token begins a block
        while True:
            hit = self._cache.lookup(sequence, below=False)
            whole = begins and hit.tokens == sequence.prompt_tokens
            hit = hit if whole else hit.without_state()
            need = sequence.prompt_tokens // size + 1 - hit.blocks + groups * (1 + begins - whole)
            if need + hit.evictable + spare <= self._queue.free:
                break
            if not self._make_room(sequence):
                return False
        self.waiting.popleft()
        self._cache.take(sequence, hit)
        self._cache.pop(need)
        if groups and not whole:
            sequence.page = None
            self._cache.turn_page(sequence)
        sequence.computed, sequence.cached_tokens = sequence.prompt_tokens, 0
        sequence.admitted_ps = self._queue.now_ps
        self.received.append((sequence, hit.tokens))
        self._cache.register(sequence, sequence.computed)
        if begins:
            self._running.turn(sequence)
        self._running.go_on(sequence)
        return True

    @property
    def _spare(self) -> int:
        """Blocks that an admission leaves free."""
        return self._limits.watermark_blocks if len(self._running) else 0

    def _make_room(self, sequence: Sequence) -> bool:
        """Let go of something kept ahead of its use, that the head of the queue may fit; else it is refused."""
        if self._loads is not None and self._loads.take_back(sparing=sequence):
            return True
        if not len(self._running) and self._cache.pins.drop_oldest():
            return True
        self._refused = sequence
        return False

    def _load(self, sequence: Sequence) -> None:
        """Out of the queue among the running, to wait for its blocks."""
        assert self._loads is not None
        self._note_hit(sequence)
        self._loads.admit(sequence)

    def _note_hit(self, sequence: Sequence) -> None:
        """What a call had not to compute when it was admitted first."""
        if sequence.cached_tokens is not None:
            return
        sequence.cached_tokens = sequence.computed
        self.queries_tokens += sequence.prompt_tokens
        self.hits_tokens += sequence.computed
        if self._tiers is not None:
            read = sum(tokens for _, tokens in sequence.fetched)
            self._tiers.queries_tokens += sequence.prompt_tokens - sequence.computed + read
            self._tiers.hits_tokens += read
            sequence.external_tokens = read

    def _expects(self, sequence: Sequence, hit_tokens: int, other: Sequence, chunk: int) -> bool:
        """Whether the step in formation makes a state of `other` that `sequence` could go on from."""
        end = other.computed + chunk
        if end % self._limits.block_tokens or not hit_tokens < end < sequence.tokens or not self._cache.enabled:
            return False
        return _same(sequence, other, end)

    def prefetch(self, batch: Batch) -> None:
        """Fetch for those who began to wait, beside a step that was formed."""
        if self._loads is None or self._short:
            return
        running, free = self._running, self._queue.free
        spare = running.later(batch.tokens) if batch.tokens > 1 else 0
        self._short = not self._loads.prefetch(spare)
        if self._queue.free < free:  # for how many steps blocks last was reckoned with these
            batch.steps = 1


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
