"""A slow reference of one vLLM-like replica: every step, every block and every token, one at a time.

It checks the fast engine (`workloom.engine`), so it shares nothing with it but the profile: no radix tree, no runs of
blocks, no leaping. It is written from the rules vLLM v1 publishes in its source (Apache-2.0), read and not copied:

    [S]  vllm/v1/core/sched/scheduler.py    the order of a step: running calls first, then waiting ones; preemption
    [K]  vllm/v1/core/kv_cache_manager.py   how much of a prompt may hit, what an admission needs
    [B]  vllm/v1/core/block_pool.py         the free queue, touching, evicting, duplicates
    [W]  a rule of workloom's own (DESIGN.md), where it simplifies or where leaping needs it

Time is in integer picoseconds. One boundary, in order:

    step ends -> its tokens come -> its full blocks become findable -> finished calls free theirs -> cancelled calls
    free theirs -> calls that left the front end wait -> running calls are scheduled -> waiting calls are admitted
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from workloom.engine.profile import Profile, StepCost
from workloom.errors import Refused
from workloom.prefix import Key

Token = tuple[int, int]
"""(number of the text, place in it): equal tokens behind equal tokens are equal text."""


@dataclass
class Finished:
    """How a call ended; `done_ps` of a cancelled call is when the cancel took effect."""

    first_ps: int | None
    token_times_ps: list[int]
    done_ps: int
    cached_tokens: int
    """Prompt tokens found in the cache at its first admission; 0 if it never was admitted."""
    preemptions: int
    cancelled: bool


@dataclass
class Step:
    """What one step did, in the letters of DESIGN.md."""

    start_ps: int
    end_ps: int = 0
    n: int = 0
    """Prefill tokens, recomputed ones too."""
    B: int = 0
    """Decoding calls that got their token's turn."""
    pairs: int = 0
    ctx: int = 0
    admitted: list[Hashable] = field(default_factory=list)
    """New and resumed calls, in order."""
    preempted: list[Hashable] = field(default_factory=list)


@dataclass(eq=False)
class Block:
    number: int
    refs: int = 0
    name: int | None = None
    """What it holds, once it is findable: the number of the whole prefix through its end."""


@dataclass(eq=False)
class Call:
    id: Hashable
    tokens: list[Token]
    """Prompt and the tokens generated so far."""
    prompt: int
    answer: int
    outputs: int
    exit_ps: int = 0
    computed: int = 0
    goal: int = 0
    """Tokens to compute before it decodes: all it had when it was (last) admitted."""
    given: int = 0
    """Tokens it computes in the step in progress."""
    table: list[Block] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    cached: int | None = None
    preemptions: int = 0


def step_ps(cost: StepCost, step: Step) -> int:
    """Duration of a step. [W] the form of DESIGN.md; GPU time, and a CPU floor where there is prefill."""

    def experts_ps(tokens: int) -> int:
        if cost.experts_ps == 0:
            return 0
        return round(cost.experts_ps * (1 - (1 - cost.experts_per_token / cost.experts) ** tokens))

    if step.n == 0:  # a CUDA graph: the batch is padded to the next captured size, and the padding costs too
        padded = min((size for size in cost.graph_sizes if size >= step.B), default=step.B)
        return cost.weights_ps + experts_ps(padded) + cost.sequence_ps * padded + cost.context_token_ps * step.ctx
    gpu = max(cost.weights_ps + experts_ps(step.n + step.B), cost.prefill_base_ps + cost.prefill_token_ps * step.n)
    gpu += cost.sequence_ps * step.B + cost.pair_ps * step.pairs + cost.context_token_ps * step.ctx
    return max(cost.launch_ps + cost.admit_ps * len(step.admitted), gpu)


class Pool:
    """[B] All blocks, and the free ones in the order they will be given out: used longest ago first."""

    def __init__(self, blocks: int | None) -> None:
        self.infinite = blocks is None
        self.blocks = [Block(number) for number in range(blocks or 0)]
        self.free = list(self.blocks)
        """Findable and plain blocks alike; a findable one keeps its name until it is popped."""
        self.found: dict[int, list[Block]] = {}
        """Name -> the copies that are present, oldest registration first. Copies are never merged."""
        self.evicted = 0

    def has(self, blocks: int) -> bool:
        return self.infinite or blocks <= len(self.free)

    def pop(self) -> Block:
        """The head of the free queue, its content forgotten. An infinite pool makes a new block instead."""
        if self.infinite:
            block = Block(len(self.blocks))
            self.blocks.append(block)
        else:
            block = self.free.pop(0)
        if block.name is not None:
            self.evicted += 1
            self.found[block.name].remove(block)
            if not self.found[block.name]:
                del self.found[block.name]
            block.name = None
        block.refs = 1
        return block

    def touch(self, block: Block) -> None:
        """One more call uses a block that was hit; it leaves the free queue, from wherever it is in it."""
        if block.refs == 0:
            self.free.remove(block)
        block.refs += 1

    def release(self, table: list[Block]) -> int:
        """A call gives up its blocks, last one first, so the end of a prefix is evicted before its beginning."""
        freed = 0
        for block in reversed(table):
            block.refs -= 1
            if block.refs == 0:
                self.free.append(block)
                freed += 1
        return freed

    def register(self, block: Block, name: int) -> None:
        block.name = name
        self.found.setdefault(name, []).append(block)


class ReferenceEngine:
    """One replica. Submit and cancel in any order of time from `now_ps` on, then run.

    `run_until(t)` ends every step that ends by t and begins every step that begins before t: a step beginning at t
    itself still waits for what the caller submits or cancels at t because of what ended then. `next_ps()` closes the
    present instant (a step due now begins) and says when to look again.
    """

    def __init__(self, profile: Profile, *, prefix_cache: bool = True, check: bool = True) -> None:
        self.profile = profile
        self.prefix_cache = prefix_cache
        self.checking = check
        self.block = profile.block_tokens
        self.pool = Pool(None if profile.kv_tokens is None else profile.kv_tokens // profile.block_tokens)
        self.now_ps = 0
        self.finished: dict[Hashable, Finished] = {}
        """Ended calls, in the order in which they ended."""
        self.steps: list[Step] = []
        self.preemptions = 0
        self._calls: dict[Hashable, Call] = {}
        self._inputs: list[tuple[int, int, Call, bool]] = []
        """Heap of (at, sequence, call, is it a cancel) that time has not reached."""
        self._sequence = 0
        self._front: deque[Call] = deque()
        self._front_free_ps = 0
        self._waiting: deque[Call] = deque()
        self._running: list[Call] = []
        self._cancelled: list[Call] = []
        """Running calls to be dropped at the end of the step in progress."""
        self._refused: Call | None = None
        """The waiting call that found no room, while no block has been freed since."""
        self._step: Step | None = None
        self._boundary_ps = 0
        self._names: dict[tuple[int | None, tuple[Token, ...]], int] = {}

    @property
    def evicted_blocks(self) -> int:
        return self.pool.evicted

    def submit(self, at_ps: int, id: Hashable, key: Key, answer: int, output_tokens: int) -> None:
        """A call arrives at the front end. Raises Refused for one that could never be served."""
        total, limit = key.tokens + output_tokens, self.profile.max_model_len
        if total > limit:
            raise Refused("prompt and output are longer than the model allows", expected=f"<= {limit}", found=total)
        # The last token is never fed back, so its KV is never needed.
        if not self.pool.infinite and (need := self._blocks(total - 1)) > len(self.pool.blocks):
            raise Refused("larger than the KV cache", expected=f"<= {len(self.pool.blocks)} blocks", found=need)
        assert at_ps >= self.now_ps and id not in self._calls and key.tokens > 0 and output_tokens > 0
        begins = (0, *key.ends)
        tokens = [(text, i) for text, a, b in zip(key.ids, begins, key.ends, strict=False) for i in range(b - a)]
        self._calls[id] = Call(id, tokens, len(tokens), answer, output_tokens)
        self._enqueue(at_ps, self._calls[id], cancel=False)

    def cancel(self, at_ps: int, id: Hashable) -> None:
        """The client of a submitted call hangs up; nothing happens if the call has ended by then."""
        assert at_ps >= self.now_ps
        self._enqueue(at_ps, self._calls[id], cancel=True)

    def run_until(self, to_ps: int) -> None:
        assert to_ps >= self.now_ps
        while True:
            if self._step is not None:
                if self._step.end_ps > to_ps:
                    break
                self._end_step(self._step)
            else:
                start_ps = self._next_start_ps(to_ps)
                if start_ps is None or start_ps >= to_ps:
                    break
                self._begin_step(start_ps)
        self._take_inputs(to_ps)
        self.now_ps = to_ps

    def next_ps(self) -> int | None:
        """End of the step in progress, which begins if it is due now; else when something next happens; else None."""
        if self._step is None:
            start_ps = self._next_start_ps(self.now_ps)
            if start_ps is None or start_ps > self.now_ps:
                return start_ps
            self._begin_step(start_ps)
        assert self._step is not None
        return self._step.end_ps

    def drain(self) -> None:
        """Run until nothing is left to do."""
        while (at_ps := self.next_ps()) is not None:
            self.run_until(at_ps)

    def _enqueue(self, at_ps: int, call: Call, *, cancel: bool) -> None:
        self._sequence += 1
        heapq.heappush(self._inputs, (at_ps, self._sequence, call, cancel))

    def _take_inputs(self, to_ps: int) -> None:
        while self._inputs and self._inputs[0][0] <= to_ps:
            self._take_input(*heapq.heappop(self._inputs))

    def _take_input(self, at_ps: int, _: int, call: Call, cancel: bool) -> None:
        if not cancel:
            # [W] Templating and tokenising: one call at a time, first come first served.
            begin_ps, cost = max(self._front_free_ps, at_ps), self.profile.front_end
            self._front_free_ps = call.exit_ps = begin_ps + cost.call_ps + cost.prompt_token_ps * call.prompt
            self._front.append(call)
        elif call in self._running:
            # [W] Aborts are handled between steps: the step in flight goes on, and its token still counts.
            self._cancelled.append(call)
            if self._step is None:
                self._drop_cancelled()
        elif call.id not in self.finished:
            # Nothing is held by a call that waits. What it reserved of the front end stays reserved.
            (self._front if call in self._front else self._waiting).remove(call)
            self._finish(call, at_ps, cancelled=True)

    def _drop_cancelled(self) -> None:
        for call in self._cancelled:
            if call.id not in self.finished:
                self._running.remove(call)
                self._release(call)
                self._finish(call, self._boundary_ps, cancelled=True)
        self._cancelled.clear()

    def _next_start_ps(self, to_ps: int) -> int | None:
        """When the next step begins (or, if none is known to, the next input is due), given all inputs up to `to_ps`.

        At a boundary with work the next step begins at once. Idle, it begins when a call leaves the front end.
        Inputs at the very instant come before the step.
        """
        while True:
            if self._running or self._waiting:
                start_ps = self._boundary_ps
            elif self._front:
                start_ps = self._front[0].exit_ps
            elif self._inputs:
                start_ps = self._inputs[0][0]
            else:
                return None
            if not self._inputs or self._inputs[0][0] > min(start_ps, to_ps):
                return start_ps
            self._take_input(*heapq.heappop(self._inputs))

    def _finish(self, call: Call, at_ps: int, *, cancelled: bool) -> None:
        first_ps = call.times[0] if call.times else None
        self.finished[call.id] = Finished(first_ps, call.times, at_ps, call.cached or 0, call.preemptions, cancelled)

    def _begin_step(self, start_ps: int) -> None:
        if not self._running and not self._waiting:
            # Idle: an arrival starts the step itself, so here calls that leave at this very instant count.
            while self._front and self._front[0].exit_ps <= start_ps:
                self._waiting.append(self._front.popleft())
        step = Step(start_ps)
        budget = self._schedule_running(step, self.profile.max_batched_tokens)
        if not step.preempted:  # [S] no admissions in a step that had to preempt
            self._admit_waiting(step, budget)
        assert step.n + step.B > 0, "a step must do something"
        step.end_ps = start_ps + step_ps(self.profile.step, step)
        self.steps.append(step)
        self._step = step
        self._check()

    def _schedule_running(self, step: Step, budget: int) -> int:
        """[S] Running calls in order of admission, each up to the end of what it has; 1 token if it decodes."""
        turn = 0
        while turn < len(self._running) and budget > 0:
            call = self._running[turn]
            new = min(len(call.tokens) - call.computed, budget)
            lacking = self._blocks(call.computed + new) - len(call.table)
            while not self.pool.has(lacking):
                # [S] The newest running call makes room. It has no tokens of this step to give back: those that have
                # stand before `turn`, and the last one never does.
                newest = self._running.pop()
                assert newest.given == 0
                self._preempt(newest, step)
                if newest is call:
                    return budget  # it was the last of the list
            call.table += [self.pool.pop() for _ in range(lacking)]
            self._give(call, new, step)
            budget -= new
            turn += 1
        return budget

    def _preempt(self, call: Call, step: Step) -> None:
        """[S] By recomputation: it loses everything but its tokens, and is the next to be admitted."""
        self._release(call)
        call.computed = 0
        call.preemptions += 1
        self.preemptions += 1
        step.preempted.append(call.id)
        self._waiting.appendleft(call)

    def _admit_waiting(self, step: Step, budget: int) -> None:
        """[S] First come first served: a head that does not fit holds up everything behind it."""
        while self._waiting and budget > 0 and len(self._running) < self.profile.max_num_seqs:
            call = self._waiting[0]
            if call is self._refused:
                return  # [W] not tried again before a block is freed; vLLM would, and so could never be leapt over
            hits = self._lookup(call)
            hit = len(hits) * self.block
            new = min(len(call.tokens) - hit, budget)
            lacking = self._blocks(hit + new) - len(hits)
            # [K] Hits that nobody uses stand in the free queue: using them takes as many out of it.
            if not self.pool.has(lacking + sum(block.refs == 0 for block in hits)):
                self._refused = call
                return
            self._running.append(self._waiting.popleft())
            for block in hits:  # [K] touched before anything is popped, so a call cannot evict its own hits
                self.pool.touch(block)
            call.table = hits + [self.pool.pop() for _ in range(lacking)]
            call.computed, call.goal = hit, len(call.tokens)
            if call.cached is None:
                call.cached = hit
            step.admitted.append(call.id)
            self._give(call, new, step)
            budget -= new

    def _lookup(self, call: Call) -> list[Block]:
        """[K] The longest run of findable whole blocks. The last token is always computed: its logits are needed."""
        hits: list[Block] = []
        if self.prefix_cache:
            for index in range((len(call.tokens) - 1) // self.block):
                copies = self.pool.found.get(self._name(call, index))
                if copies is None:
                    break
                hits.append(copies[0])  # [B] of equal blocks, the one registered first
        return hits

    def _give(self, call: Call, new: int, step: Step) -> None:
        call.given = new
        if call.computed < call.goal:
            step.n += new
            step.pairs += new * call.computed + new * new // 2
        else:
            step.B += 1
            step.ctx += call.computed + 1

    def _end_step(self, step: Step) -> None:
        now_ps = self._boundary_ps = step.end_ps
        self._take_inputs(now_ps)
        self._step = None
        for call in self._running:
            full_before = call.computed // self.block
            call.computed += call.given
            # [W] A block is findable once the step that filled it is over ([K] in vLLM once that step is scheduled).
            if self.prefix_cache:
                for index in range(full_before, call.computed // self.block):
                    self.pool.register(call.table[index], self._name(call, index))
            # [S] Whoever has computed all its tokens gets the next one, after prefill and decoding alike.
            if call.given and call.computed == len(call.tokens):
                call.tokens.append((call.answer, len(call.times)))
                call.times.append(now_ps)
            call.given = 0
        for call in [call for call in self._running if len(call.times) == call.outputs]:
            assert call.computed == call.prompt + call.outputs - 1
            self._running.remove(call)
            self._release(call)
            self._finish(call, now_ps, cancelled=False)
        self._drop_cancelled()
        while self._front and self._front[0].exit_ps < now_ps:
            self._waiting.append(self._front.popleft())
        self._check()

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.block)

    def _release(self, call: Call) -> None:
        if self.pool.release(call.table):
            self._refused = None
        call.table = []

    def _name(self, call: Call, index: int) -> int:
        """Identity of a call's first `index` + 1 blocks of tokens: equal for equal tokens, and only for them."""
        while len(call.names) <= index:
            begin = len(call.names) * self.block
            content = (call.names[-1] if call.names else None, tuple(call.tokens[begin : begin + self.block]))
            call.names.append(self._names.setdefault(content, len(self._names)))
        return call.names[index]

    def _check(self) -> None:
        """What must hold after every step and every schedule."""
        if not self.checking:
            return
        pool = self.pool
        held = Counter(block for call in self._running for block in call.table)
        free = set(pool.free)
        assert len(free) == len(pool.free), "a block is free once"
        assert not free & held.keys(), "no block is both free and held"
        assert len(free) + len(held) == len(pool.blocks), "free and used are all there are"
        assert all(block.refs == held[block] for block in pool.blocks), "references are the tables that hold a block"
        for name, copies in pool.found.items():
            assert copies and all(block.name == name for block in copies)
        assert sum(map(len, pool.found.values())) == sum(block.name is not None for block in pool.blocks)
        for call in self._running:
            assert len(call.table) == self._blocks(call.computed + call.given), "a call holds what it needs, no more"
        assert all(not call.table for call in (*self._front, *self._waiting)), "who waits holds nothing"
        assert len(self._running) <= self.profile.max_num_seqs
