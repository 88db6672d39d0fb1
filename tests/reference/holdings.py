"""What calls hold: blocks, states, names for what is in them, and what is kept of them elsewhere."""

from __future__ import annotations

import math

from reference.call import Call, Saved, Token
from reference.pins import Pins
from reference.pool import Block, Name, Pool
from reference.tiers import SlowTier, Tiers
from workloom.engine.profile import Profile

Hit = tuple[list[Block], list[Block]]
"""KV blocks from the start of a call on, and the pages of the state at their end."""


class Holdings:
    """All calls that left the front end, by what they hold, and the memory that is of."""

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
        self.tiers = Tiers(profile)
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        """In the order of admission."""
        self.loading: list[Call] = []
        """In the order of admission: calls that wait for blocks from tiers. They hold blocks and compute nothing."""
        self.ahead: list[Call] = []
        """In the order in which it was asked for: calls that wait, and hold blocks that are fetched meanwhile."""
        self._names: dict[tuple[int | None, tuple[Token, ...]], int] = {}

    # -- what can be found

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

    def name(self, call: Call, index: int) -> int:
        """Identity of a call's first `index` + 1 blocks of tokens: equal for equal tokens, and only for them."""
        while len(call.names) <= index:
            begin = len(call.names) * self.block
            content = (call.names[-1] if call.names else None, tuple(call.tokens[begin : begin + self.block]))
            call.names.append(self._names.setdefault(content, len(self._names)))
        return call.names[index]

    # -- what is held

    def _take(self, call: Call, kv: list[Block], state: list[Block], reads: list[tuple[SlowTier, Name]]) -> None:
        """A hit: blocks found and blocks for what is to be read, and one transfer for each tier."""
        for block in (*kv, *state):  # [K] touched before anything is popped: a call cannot evict its own hits
            self.pool.touch(block)
        call.table, call.pages, call.told, call.goal = list(kv), list(state), len(kv), len(call.tokens)
        call.computed = (len(kv) + sum(kind == "kv" for _, (kind, _) in reads)) * self.block
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
                call.loaded_ps = max(call.loaded_ps, tier.read(self.pool.now_ps, names))

    def _loaded(self, call: Call) -> None:
        """What it read can be found."""
        first = len(call.table) - sum(kind == "kv" for _, (kind, _) in call.reads)
        for index in range(first, len(call.table)):
            self._find_from_now_on(call, index)
        self._tell(call, len(call.table))
        if call.reads[-1][1][0] == "state":
            call.pages = list(self.pool.register(call.pages, call.reads[-1][1]))
            self.tiers.registered.append(call.reads[-1][1])
        call.reads = []

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

    # -- what is let go of

    def drop(self, call: Call) -> None:
        """A running call is gone, its blocks go: the states first, then KV. So does one that waits and has some."""
        if call in self.waiting:
            self.waiting.remove(call)
        loading = call not in self.running
        for calls in (self.running, self.loading, self.ahead):
            if call in calls:
                calls.remove(call)
        self._pin(call)
        if not loading:
            self._tell(call, call.computed // self.block)
        for blocks in (call.pages, call.spent, call.table):
            self._let_go(blocks)
        call.table, call.pages, call.spent, call.reads, call.told, call.merged = [], [], [], [], 0, set()
        call.joined = False

    def _pin(self, call: Call) -> None:
        """[W] What a call asks to be kept: as much of its prompt's beginning as can be found now."""
        tokens = min(call.hints.pin_tokens, call.prompt)
        kv, state = self.lookup(call, tokens)
        while len(kv) + len(state) > self.pins.room:
            kv, state = self.lookup(call, (len(kv) - 1) * self.block)
        if kv:
            self.pins.add(self.name(call, len(kv) - 1), kv, state)

    def _let_go(self, blocks: list[Block]) -> None:
        """Of blocks in the order of the sequence; tiers that have them too take that for a use."""
        names: list[Name] = []
        for block in reversed(blocks):
            if block.name is not None and block.name not in names:
                names.append(block.name)
        self.tiers.use(names)
        self.pool.release(blocks)

    # -- swapped calls

    def _save(self, call: Call) -> None:
        """[W] Preemption by swap: pages of all it computed, if the first tier has room."""
        if self.profile.preemption == "swap" and call.computed:
            pages = self._blocks(call.computed) + self.groups
            ready_ps = self.tiers.lend(self.pool.now_ps, pages)
            if ready_ps is not None:
                call.saved = Saved(call.computed, not call.prefilling, pages, ready_ps)

    def _go_on(self, call: Call, saved: Saved) -> None:
        """A swapped call has what it had."""
        call.joined = not saved.decoding
        if saved.decoding:
            call.goal = saved.computed
        self._register(call, call.told)
        self.gone(call)

    def gone(self, call: Call) -> None:
        """It does not come back: nothing is kept of it."""
        if call.saved is not None:
            self.tiers.tiers[0].lent -= call.saved.pages
            call.saved = None

    # -- counts

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
