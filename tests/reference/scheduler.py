"""Who runs in a step, and which blocks that takes. Rules and their sources: see the package."""

from __future__ import annotations

import math
from collections import Counter

from reference.call import Call, Step, Token
from reference.pins import Pins
from reference.pool import Block, Name, Pool
from reference.tiers import SlowTier, Tiers
from workloom.engine.profile import Profile

Hit = tuple[list[Block], list[Block]]
"""KV blocks from the start of a call on, and the pages of the state at their end."""


class Scheduler:
    """Waiting and running calls, and the blocks they hold."""

    def __init__(self, profile: Profile, *, prefix_cache: bool) -> None:
        self.profile = profile
        self.prefix_cache = prefix_cache
        self.block = profile.block_tokens
        self.groups = profile.state_groups
        self.pool = Pool(
            None if profile.kv_tokens is None else profile.kv_tokens // profile.block_tokens,
            merge=profile.cache == "sglang",
            ttl_ps=profile.retention.ttl_ps,
        )
        self.pins = Pins(self.pool, self._let_go, profile.retention.pinned_tokens // profile.block_tokens)
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        """In the order of admission."""
        self.tiers = Tiers(profile)
        self.loading: list[Call] = []
        """In the order of admission: calls that wait for blocks from tiers. They hold blocks and compute nothing."""
        self.loads_ever = self.preemptions = 0
        self._arrivals = 0
        self._refused: tuple[Call, int] | None = None
        """The waiting call that found no room, and how often blocks had been freed by then."""
        self._names: dict[tuple[int | None, tuple[Token, ...]], int] = {}

    # -- a step

    def wait(self, call: Call) -> None:
        """A call has left the front end."""
        self._arrivals += 1
        call.arrival = self._arrivals
        self.waiting.append(call)

    def schedule(self, step: Step) -> None:
        """Form a step: give tokens and blocks to running calls, then to waiting ones."""
        self.pool.now_ps = step.start_ps
        for call in self.running:
            # [M] The state that a step began from is let go a step later.
            self._let_go(call.spent)
            call.spent = []
        if self.profile.mixing == "decode_first":
            self._mixed(step, self.running)
        elif not self._prefill_only(step):
            decoding = [call for call in self.running if not call.prefilling]
            self._mixed(step, decoding or self.running, admit=not decoding)
            if not any(call.given for call in self.running) and not self._prefill_only(step):  # all were preempted
                self._mixed(step, self.running)
        self.close()
        for call in self.running:
            if call.given and call.prefilling:
                step.n += call.given
                step.pairs += call.given * call.computed + call.given * call.given // 2
            elif call.given:
                step.B += 1
                step.ctx += call.computed + 1

    def settle(self, at_ps: int) -> tuple[list[Call], list[Call]]:
        """A step is over: (calls that got a token, those of them that are complete now)."""
        self.pool.now_ps = at_ps
        got = []
        for call in self.running:
            full_before = call.computed // self.block
            call.computed += call.given
            self._register(call, full_before)
            # [S] Whoever has computed all its tokens gets the next one, after prefill and decoding alike.
            if call.given and call.computed == len(call.tokens):
                call.tokens.append((call.answer, call.made))
                call.made += 1
                got.append(call)
            call.given = call.taken = 0
        complete = [call for call in self.running if call.made == call.outputs]
        for call in complete:
            assert call.computed == call.prompt + call.outputs - 1
            self.drop(call)
        return got, complete

    def close(self) -> None:
        """All that happens at an instant has happened: tiers get what there is for them."""
        evicted, self.pool.gone = self.pool.gone, []
        self.tiers.hand_over(self.pool.now_ps, evicted)

    def drop(self, call: Call) -> None:
        """A running call is gone, its blocks go: the states first, then KV."""
        (self.running if call in self.running else self.loading).remove(call)
        self._pin(call)
        if not call.reads:
            self._tell(call, call.computed // self.block)
        for blocks in (call.pages, call.spent, call.table):
            self._let_go(blocks)
        call.table, call.pages, call.spent, call.reads, call.told, call.merged = [], [], [], [], 0, set()
        call.joined = False

    # -- running calls

    def _mixed(self, step: Step, calls: list[Call], *, admit: bool = True) -> None:
        """[W] Decoding calls have a token each, prefills what is left: the running in order, then who waits."""
        for call in list(calls):
            if call in self.running:
                self._serve(call, step)
        if admit and not step.preempted:  # [S] no admissions in a step that had to preempt
            self._admit_waiting(step)

    def _prefill_only(self, step: Step) -> bool:
        """[W] prefill_first: whoever can prefill does, and nobody decodes meanwhile. False: there is nobody."""
        for call in [call for call in self.running if call.prefilling]:
            new = self._chunk(call, call.computed, decoding=0)
            if new and not self.pool.has(self._lacking(call, call.computed + new)):
                break
            self._give(call, new, step)
        else:
            if not step.preempted:
                self._admit_waiting(step, decoding=0)
        return any(call.given for call in self.running)

    def _serve(self, call: Call, step: Step) -> None:
        """Its tokens and blocks of this step; who is to give way for it loses what it has."""
        while call in self.running:
            new = self._chunk(call, call.computed)
            if self.pool.has(self._lacking(call, call.computed + new) if new else 0):
                self._give(call, new, step)
                return
            if self.loading:
                self._preempt(self.loading[-1], step)
            elif not (self.running == [call] and self.pins.let_go_oldest()):
                self._preempt(self._victim(), step)

    def _chunk(self, call: Call, computed: int, decoding: int | None = None) -> int:
        """How many tokens a call computes next.

        [M] With states a prefill stops at the last whole block it will have, before that only at whole blocks.
        """
        left = len(call.tokens) - computed
        if call in self.running and not call.prefilling:
            return 1
        if decoding is None:
            decoding = sum(not other.prefilling for other in self.running)
        given = sum(other.given for other in self.running if other.prefilling)
        budget = self.profile.max_batched_tokens - decoding - given
        if self.profile.max_prefill_tokens is not None:
            budget = min(budget, self.profile.max_prefill_tokens - given)
        new = max(0, min(left, budget))
        last = len(call.tokens) // self.block * self.block
        if self.groups and computed + new < last:
            new = new // self.block * self.block
        elif self.groups and computed < last:
            new = last - computed
        return new

    def _victim(self) -> Call:
        """[S] The newest running call makes room; under priorities the least urgent, of these the last to arrive."""
        if self.profile.policy == "priority":
            return max(self.running, key=lambda call: (call.hints.priority, call.arrival))
        return self.running[-1]

    def _preempt(self, call: Call, step: Step) -> None:
        """[S] By recomputation: it loses everything but its tokens, and is the next to be admitted."""
        if call.taken:
            self.pool.release(call.table[-call.taken :])
            del call.table[-call.taken :]
        if call.spent:
            self.pool.release(call.pages)
            call.pages, call.spent = call.spent, []
        self.drop(call)
        call.computed = call.given = call.taken = 0
        call.preemptions += 1
        self.preemptions += 1
        call.preempted_as = self.preemptions
        step.preempted.append(call.id)
        self.waiting.append(call)

    # -- waiting calls

    def _head(self) -> Call:
        """Who is next, by the profile's policy."""
        return min(self.waiting, key=self._rank)

    def _rank(self, call: Call) -> tuple[float, ...]:
        if self.profile.policy == "priority":
            return (call.hints.priority, call.arrival)
        if call.preempted_as:
            return (0, -call.preempted_as)
        if self.profile.policy == "sjf":
            return (1, call.prompt + (call.hints.expected_output_tokens or 0), call.arrival)
        return (1, call.arrival)

    def _admit_waiting(self, step: Step, decoding: int | None = None) -> None:
        """[S] A head that does not fit holds up everything behind it."""
        while self.waiting and len(self.running) + len(self.loading) < self.profile.max_num_seqs:
            call = self._head()
            if self._refused == (call, self.pool.freed):
                return  # [W] not tried again before a block is freed; vLLM would, and so could never be leapt over
            self._refused = None
            if self._state_to_come(call):
                return  # [M] a state that this step makes can be used from the next one on
            kv, state, reads = self._search(call)
            hit = (len(kv) + sum(kind == "kv" for _, (kind, _) in reads)) * self.block
            new = self._chunk(call, hit, decoding)
            if new == 0:
                return
            read_state = any(kind == "state" for _, (kind, _) in reads)
            lacking = self._blocks(hit + new) - len(kv) + self.groups * (1 + read_state)
            # [K] Hits that nobody uses stand in the free queue: using them takes as many out of it.
            lacking += sum(block.refs == 0 for block in (*kv, *state))
            others = self.running or self.loading
            if not self.pool.has(lacking + (self.profile.watermark_blocks if others else 0)):
                if not others and self.pins.let_go_oldest():
                    continue
                self._refused = (call, self.pool.freed)
                return
            self.waiting.remove(call)
            for block in (*kv, *state):  # [K] touched before anything is popped: a call cannot evict its own hits
                self.pool.touch(block)
            call.table, call.pages, call.told = list(kv), list(state), len(kv)
            call.computed, call.goal = hit, len(call.tokens)
            if call.cached is None:
                call.cached = hit
            if reads:
                self._load(call, reads, step.start_ps)
                continue
            self.running.append(call)
            self._give(call, new, step)
            step.admitted.append(call.id)

    def _search(self, call: Call) -> tuple[list[Block], list[Block], list[tuple[SlowTier, Name]]]:
        """What a call need not compute: on the GPU, and behind that in tiers, the fastest first."""
        limit, now_ps = len(call.tokens) - 1, self.pool.now_ps
        if not (self.tiers.tiers and self.prefix_cache):
            return *self.lookup(call, limit), []
        kv: list[Block] = []
        reads: list[tuple[SlowTier, Name]] = []
        for index in range(limit // self.block):
            name: Name = ("kv", self.name(call, index))
            unit = None if reads else self.pool.find(name)
            tier = self.tiers.find(name, now_ps)
            if unit is not None:
                kv += unit
            elif tier is not None:
                reads.append((tier, name))
            else:
                break
        while self.groups and (kv or reads):
            name = ("state", self.name(call, len(kv) + len(reads) - 1))
            state, tier = self.pool.find(name), self.tiers.find(name, now_ps)
            if state is not None:
                return kv, state, reads
            if tier is not None:
                return kv, [], [*reads, (tier, name)]
            (reads or kv).pop()
        return kv, [], reads

    def _load(self, call: Call, reads: list[tuple[SlowTier, Name]], at_ps: int) -> None:
        """Blocks for what is to be read, and one transfer for each tier."""
        self.loads_ever += 1
        self.loading.append(call)
        call.reads = reads
        for _, (kind, _) in reads:
            if kind == "kv":
                call.table.append(self.pool.pop())
            else:
                call.pages = [self.pool.pop() for _ in range(self.groups)]
        call.loaded_ps = 0
        for tier in self.tiers.tiers:
            names = [name for source, name in reads if source is tier]
            if names:
                call.loaded_ps = max(call.loaded_ps, tier.read(at_ps, names))

    def join(self, by_ps: int, at_ps: int) -> None:
        """Loads that are over by then: what was read can be found, and the call goes on."""
        self.pool.now_ps = at_ps
        over = [call for call in self.loading if call.loaded_ps <= by_ps]
        for call in over:
            self.loading.remove(call)
            self.running.append(call)
            call.joined = True
            first = len(call.table) - sum(kind == "kv" for _, (kind, _) in call.reads)
            for index in range(first, len(call.table)):
                self._find_from_now_on(call, index)
            self._tell(call, len(call.table))
            if call.reads[-1][1][0] == "state":
                call.pages = list(self.pool.register(call.pages, call.reads[-1][1]))
                self.tiers.registered.append(call.reads[-1][1])
            call.reads = []

    def _find_from_now_on(self, call: Call, index: int) -> None:
        own = call.table[index]
        (call.table[index],) = self.pool.register([own], ("kv", self.name(call, index)))
        if call.table[index] is not own:
            call.merged.add(index)

    def _tell(self, call: Call, blocks: int) -> None:
        """Tiers that write through hear of so many blocks of a call."""
        if self.prefix_cache:
            own = [index for index in range(call.told, blocks) if index not in call.merged]
            self.tiers.registered += [("kv", self.name(call, index)) for index in own]
        call.told = max(call.told, blocks)

    def _let_go(self, blocks: list[Block]) -> None:
        """Of blocks in the order of the sequence; tiers that have them too take that for a use."""
        names: list[Name] = []
        for block in reversed(blocks):
            if block.name is not None and block.name not in names:
                names.append(block.name)
        self.tiers.use(names)
        self.pool.release(blocks)

    def lookup(self, call: Call, limit: int) -> Hit:
        """[K] The longest run of findable whole blocks, that ends where a state is findable too; and that state.

        `limit`: tokens it may have at most. (The last token is always computed: its logits are needed.)
        """
        kv: list[Block] = []
        while len(kv) < limit // self.block and self.prefix_cache:
            unit = self.pool.find(("kv", self.name(call, len(kv))))
            if unit is None:
                break
            kv += unit
        while kv and self.groups:
            state = self.pool.find(("state", self.name(call, len(kv) - 1)))
            if state is not None:
                return kv, state
            kv.pop()
        return kv, []

    def _state_to_come(self, call: Call) -> bool:
        """Whether a prefill of this very step ends where this call, computed a step later, could begin from."""
        if not (self.groups and self.prefix_cache):
            return False
        hit = len(self.lookup(call, len(call.tokens) - 1)[0])
        for other in self.running:
            end = other.computed + other.given
            if other.prefilling and other.given and end % self.block == 0 and hit * self.block < end < len(call.tokens):
                last = end // self.block - 1
                if self.name(other, last) == self.name(call, last):
                    return True
        return False

    # -- blocks

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.block)

    def most_blocks(self, tokens: int) -> int:
        """What a call of so many tokens in all may need at once."""
        return self._blocks(tokens) + self.groups

    def _lacking(self, call: Call, tokens: int) -> int:
        """How many blocks more a call needs to have so many tokens computed."""
        return self._blocks(tokens) - len(call.table) + (self.groups if self._crosses(call, tokens) else 0)

    def _crosses(self, call: Call, tokens: int) -> bool:
        """[M] The running state stands in the page of its last block: a step into another one writes to new pages."""
        return self._blocks(tokens) > self._blocks(call.computed)

    def _give(self, call: Call, new: int, step: Step) -> None:
        """So many tokens of this step, and the blocks they need."""
        if not new:
            return
        if call.joined:
            step.admitted.append(call.id)
        if self._crosses(call, call.computed + new):
            call.spent, call.pages = call.pages, [self.pool.pop() for _ in range(self.groups)]
        call.taken = self._blocks(call.computed + new) - len(call.table)
        call.table += [self.pool.pop() for _ in range(call.taken)]
        call.given = new
        call.joined = False

    def _register(self, call: Call, full_before: int) -> None:
        """[W] A block is findable once the step that filled it is over ([K] in vLLM once that step is scheduled)."""
        if not self.prefix_cache:
            return
        full = call.computed // self.block
        for index in range(full_before, full):
            self._find_from_now_on(call, index)
        if call.prefilling or call.computed == call.goal:
            self._tell(call, full)
        if self.groups and full > full_before and call.computed % self.block == 0:
            # [M] A state is of the place where a step ended. Tiers hear of the blocks before it too, an answer's also.
            self._tell(call, full)
            self.tiers.registered.append(("state", self.name(call, full - 1)))
            call.pages = list(self.pool.register(call.pages, ("state", self.name(call, full - 1))))

    def _pin(self, call: Call) -> None:
        """[W] What a call asks to be kept: as much of its prompt's beginning as can be found now."""
        tokens = min(call.hints.pin_tokens, call.prompt)
        kv, state = self.lookup(call, tokens)
        while len(kv) + len(state) > self.pins.room:
            kv, state = self.lookup(call, (len(kv) - 1) * self.block)
        if kv:
            self.pins.add(self.name(call, len(kv) - 1), kv, state)

    def name(self, call: Call, index: int) -> int:
        """Identity of a call's first `index` + 1 blocks of tokens: equal for equal tokens, and only for them."""
        while len(call.names) <= index:
            begin = len(call.names) * self.block
            content = (call.names[-1] if call.names else None, tuple(call.tokens[begin : begin + self.block]))
            call.names.append(self._names.setdefault(content, len(self._names)))
        return call.names[index]

    def check(self) -> None:
        """What must hold after every step and every schedule."""
        held = Counter(block for call in self.running for block in (*call.table, *call.pages, *call.spent))
        held.update(block for call in self.loading for block in (*call.table, *call.pages))
        held.update(self.pins.blocks())
        self.pool.check(held)
        for call in self.running:
            assert len(call.table) == self._blocks(call.computed + call.given), "a call holds what it needs, no more"
            assert len(call.pages) == self.groups and len(call.spent) in (0, self.groups)
        assert all(not (call.table or call.pages or call.spent) for call in self.waiting), "who waits holds nothing"
        assert len(self.running) + len(self.loading) <= self.profile.max_num_seqs
