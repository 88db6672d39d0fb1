"""Memory tiers: KV blocks kept below the GPU, and what it takes to bring them back.

    GPU   --write-->  tier 0 (host)  --write-->  tier 1 (disk)         each tier: one read link, one write link,
     ^ \\------read----------/  \\--------read---------/                  both serial; reads go straight to the GPU

A **page** is one block of KV: `block_tokens * kv_token_bytes` bytes. A state (`state_groups` G > 0) is G pages that
come and go together. A tier keeps a block once, by what is in it (node of the prefix tree and number of the block), and
its capacity counts pages: `tokens // block_tokens` of them.

**Write.** A tier with `write: through` gets what is registered, that is what becomes findable on the GPU: blocks of a
prompt at the end of the step that filled them, blocks of an answer when its call lets go of them, states when they are
kept. A tier with `write: evict` gets findable blocks and states that are evicted from above: from the GPU, when they
are popped from the free queue (a state as a whole, with its first page), or from the tier above it. They are collected
and handed over as one group of each kind, those registered first, twice at a boundary: when the step that ended is
settled (completions and cancels included), and when the next step has been formed (joins, preemptions and admissions
included). A group is put in like this, at that instant:

1. one by one, those evicted in that order, those registered in the reverse order (the last call first, its state before
   its blocks, its last block first): one that is there already becomes the most recently used, one that is not is put
   in as the most recently used;
2. the new ones, if any, are one transfer on the write link, and can be found from its end on, not before;
3. while the tier is over its capacity the least recently used one is taken out, new ones not excepted; those taken out
   are, in this order, a group for the tier below if that one writes on eviction, at the same instant.

The GPU's copy is free at once (the engine copies it aside), and a block taken out of a tier whose write or read is
under way costs the link its time all the same.

**Use.** When a call lets go of findable blocks or a state on the GPU (at its end, at a preemption, of a state that is
spent; a pin likewise), those of them that a tier has become its most recently used, in the order in which the GPU's own
queue would get them, even if others still hold them there. So do blocks that are read, in the tier they are read from,
the last first (of a hit: the state, then the blocks). Both take effect at once, before groups are handed over.

**Find.** Behind the blocks found on the GPU the search goes on block by block: each is looked for in the first tier,
then the next; it ends at the first block that no tier can give (nor does it come back to blocks the GPU has behind such
a hole). With states the hit is the longest that ends where a state is, on the GPU or else in the first tier that has
it. What is found is read by one transfer for each tier, asked for when the step is formed that admits the call; blocks
that two calls read at once are read twice. Time to live and pins are the GPU's; a tier knows neither.

**Loading.** A call whose hit is partly in tiers is admitted under the same conditions as any other (room for the hit
and the first chunk that the budget would have given it, a seat among `max_num_seqs`), but is given only the blocks of
the hit: those found on the GPU are held, those to be read are popped. It is *loading* then: it counts among the
running, computes nothing, takes nothing of the budget, and those behind it have their turn in the same step. A load
that ended at t counts at boundaries as a call that left the front end at t - 1 does: the first step boundary at or
after t (when scheduling ahead, the first step decided at or after t); an engine with nothing to run begins at t. At
that boundary, first of all and in the order of admission, loads that are over *join*: the blocks read become findable
on the GPU, and the call is the newest of those running, half-prefilled up to its hit. It counts as newly admitted
(`admit_ps`) in the first step in which it computes. When a running call finds no block, loading calls are preempted
first, the last admitted first; the time of their transfers is lost. A cancelled one ends at the next boundary like a
running one, or at once when no step is under way.

**Prefetch.** If a tier has `prefetch`, then whenever a step was formed, those who have begun to wait since, in that
order (preempted ones before all others), are looked at once: one with a hit in such a tier takes the blocks of its
whole hit and asks for its reads, if they are free; the first that does not get them ends the round, and is tried again
when blocks came free. On its turn such a call goes on with the hit it has: it is loading, or joins then and there if
its load is over, and computes in this step. What was fetched is given back, the last fetched first, before an admission
is refused (but not the head's own) and before anybody is preempted for want of blocks. Cancelled, such a call ends like
one that is loading.

**Swap.** With `preemption: swap` the first tier lends room to calls that are preempted while they compute: pages of
their own (of all blocks they had computed anything of, and of the state), which nobody else can find and which are not
taken out. They are asked of the tier at the preemption, before the call lets go of anything: if its capacity less what
is lent already is enough, least recently used blocks make room (they go below, as ever) and all pages are one transfer
on the write link; if not, the call is computed again. On its turn it is admitted if there is room for all it had: the
hit that the GPU alone gives is held (with states, or if it is longer than what was saved: nothing is), other blocks are
popped and read back (no other tier is searched), by a transfer that starts when it is asked for, but not before the
write is over. It is loading, and when it joins its whole blocks are registered and it goes on where it was: a decoding
call decodes. Then, or when it is cancelled, the pages are given back; a call preempted while it loads them keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from workloom.engine.node import Hit, Node
from workloom.engine.prefix import PrefixCache
from workloom.engine.tier import Lent, Part, Tier
from workloom.errors import ProfileError

if TYPE_CHECKING:
    from workloom.engine.blocks import Gone, Run
    from workloom.engine.profile import Profile
    from workloom.engine.profile import Tier as Spec
    from workloom.engine.sequence import Sequence


class Found(NamedTuple):
    """A part that tier number `tier` can give."""

    tier: int
    part: Part


class StateBelow(NamedTuple):
    """A state in a tier, after so many blocks."""

    boundary: int
    found: Found


class Tiers:
    """All tiers of an engine, from the fastest down. `prune` is told of nodes that a tier needs no longer."""

    def __init__(
        self,
        specs: tuple[Spec, ...],
        block_tokens: int,
        page_bytes: int,
        prune: Callable[[Node], None],
        state_pages: int = 0,
    ) -> None:
        self.tiers = [Tier(spec, block_tokens, page_bytes, state_pages) for spec in specs]
        self._prune = prune
        self._block_tokens = block_tokens
        self.queries_tokens = 0
        """Prompt tokens of admitted calls that the GPU did not have."""
        self.hits_tokens = 0
        """Of these, those read from tiers."""
        self.through = [i for i, spec in enumerate(specs) if spec.write == "through"]
        """Numbers of the tiers that get what is registered."""
        self.takes_evicted = bool(specs) and specs[0].write == "evict"
        """Whether the first tier gets what the GPU evicts."""
        self._registered: list[Part] = []
        self._evicted: list[Part] = []

    @classmethod
    def of(cls, profile: Profile, cache: PrefixCache) -> Tiers | None:
        """Those of a profile, told by its cache from now on; None if it has none. Raises ProfileError."""
        if not profile.tiers:
            if profile.preemption == "swap":
                raise ProfileError(
                    "preemption by swap needs a tier to swap to",
                    where=profile.name,
                    hint="give host memory: --host-tokens N, or tiers in the profile",
                )
            return None
        if not profile.kv_token_bytes:
            raise ProfileError(
                "tiers need the bytes of KV that a token has", where=profile.name, expected="kv_token_bytes above 0"
            )
        page_bytes = profile.block_tokens * profile.kv_token_bytes
        tiers = cls(profile.tiers, profile.block_tokens, page_bytes, cache.prune, profile.state_groups)
        cache.tiers, cache.on_evict = tiers, tiers.evicted
        return tiers

    def find(self, part: Part, at_ps: int) -> tuple[int, list[Found]]:
        """How far a part can be read from its first block on, each block from the first tier that has it."""
        first, found = part.first, []
        while first < part.end and (next_part := self._nearest(part._replace(first=first), at_ps)) is not None:
            found.append(next_part)
            first = next_part.part.end
        return first, found

    def _nearest(self, part: Part, at_ps: int) -> Found | None:
        """What of a part, from its first block on, is to be read from one tier before another has its turn."""
        upto = part.end
        for number, tier in enumerate(self.tiers):
            end = tier.reach(part._replace(end=upto), at_ps)
            if end > part.first:
                return Found(number, part._replace(end=end))
            upto = tier.begins(part._replace(end=upto), at_ps)  # the tiers below are not asked for what this one has
        return None

    def search(self, cache: PrefixCache, sequence: Sequence, limit: int) -> Hit:
        """The longest prefix of at most `limit` tokens that is on the GPU or, behind that, in tiers."""
        size, since_ps, now_ps = cache.block_tokens, cache.since_ps, cache.queue.now_ps
        node, used, start, index = cache.root, 0, 0, 0
        blocks = 0
        runs: list[tuple[Run, int, int]] = []
        reads: list[Found] = []
        state, behind = None, (0, node, 0, 0)
        gpu_end: tuple[int, Node, int, int] | None = None
        while True:
            here = (index, node, used, start)
            text, end = sequence.ids[index], sequence.ends[index]
            child = node.branches.get((used, text))
            if child is None:
                break
            wanted = min(end, limit) // size
            if blocks < wanted and gpu_end is None:
                blocks = child.cover(blocks, wanted, runs, since_ps)
            if blocks < wanted:
                gpu_end = gpu_end or here
                blocks, more = self.find(Part(child, blocks, wanted), now_ps)
                reads += more
            if cache.state_groups and (last := self._state(child, blocks, since_ps, now_ps)) is not None:
                state, behind = last, here
            if blocks < wanted or end >= limit:
                break
            index, node, used, start = index + 1, child, end - start, end
        cursor = gpu_end or (index, node, used, start)
        if cache.state_groups:
            blocks = state.boundary if state is not None else 0
            runs = [(run, first, min(end, blocks)) for run, first, end in runs if first < blocks]
            reads = [Found(tier, p._replace(end=min(p.end, blocks))) for tier, p in reads if p.first < blocks]
            cursor = gpu_end if reads and gpu_end is not None else behind
        pages = sum(part.end - part.first for _, part in reads)
        evictable = sum(end - first for run, first, end in runs if not run.refs)
        run = None
        if isinstance(state, StateBelow):
            reads.append(state.found)
            pages += cache.state_groups
        elif state is not None:
            run = state
            evictable += 0 if run.refs else len(run)
        return Hit(blocks, blocks * size, evictable, runs, cursor, run, tuple(reads), pages)

    def _state(self, node: Node, blocks: int, since_ps: int, now_ps: int) -> Run | StateBelow | None:
        """The last state of a node within so many blocks: on the GPU, or else in the first tier that has it."""
        best: Run | StateBelow | None = node.state(blocks, since_ps) if node.states else None
        for number, tier in enumerate(self.tiers):
            first = best.boundary if best is not None else 0
            if first < blocks and (last := tier.latest(Part(node, first, blocks, state=True), now_ps)) is not None:
                best = StateBelow(last + 1, Found(number, Part(node, last, last + 1, state=True)))
        return best

    # -- what the GPU's cache tells

    def registered(self, node: Node, first: int, end: int, *, state: bool = False) -> None:
        """Blocks, or a state, became findable on the GPU."""
        if self.through:
            self._note(self._registered, Part(node, first, end, state))

    def evicted(self, gone: list[Gone]) -> None:
        """Findable blocks were taken from the GPU, in this order."""
        if self.takes_evicted:
            for node, first, end, boundary in gone:
                part = Part(node, boundary - 1, boundary, state=True) if boundary else Part(node, first, end)
                self._note(self._evicted, part)

    def _note(self, group: list[Part], part: Part) -> None:
        part.node.pins += 1
        group.append(part)

    def used(self, at_ps: int, run: Run) -> None:
        """Somebody let go of blocks on the GPU."""
        assert run.node is not None
        limited = [tier for tier in self.tiers if tier.capacity is not None]  # elsewhere order does not matter
        if not limited:
            return
        for part in _parts(run, run.node):
            for tier in limited:
                tier.use(part, at_ps)

    def close(self, at_ps: int) -> None:
        """Hand on what was registered and evicted since the last time: a group each."""
        if self._registered:
            group, self._registered = self._registered, []
            for number in self.through:
                self._write(number, at_ps, group[::-1])
            self._unpin([part.node for part in group])
        if self._evicted:
            group, self._evicted = self._evicted, []
            self._write(0, at_ps, group)
            self._unpin([part.node for part in group])

    # -- transfers

    def read(self, at_ps: int, found: list[Found]) -> int:
        """Read what a search found, in the order of the sequence; returns when all of it is on the GPU."""
        done = at_ps
        for number, tier in enumerate(self.tiers):
            parts = [part for where, part in found if where == number]
            if parts:
                done = max(done, tier.read(at_ps, parts))
        return done

    def tokens(self, reads: tuple[Found, ...]) -> tuple[tuple[str, int], ...]:
        """Tokens of KV that come from each tier, those without any left out."""
        out = []
        for number, tier in enumerate(self.tiers):
            blocks = sum(part.end - part.first for where, part in reads if where == number and not part.state)
            if blocks:
                out.append((tier.spec.name, blocks * self._block_tokens))
        return tuple(out)

    def lend(self, at_ps: int, pages: int) -> Lent | None:
        """Room for a preempted call's pages in the first tier."""
        lent, out, emptied = self.tiers[0].lend(at_ps, pages)
        self._hand_on(0, at_ps, out, emptied)
        return lent

    def clear(self) -> None:
        """Forget everything but what is lent."""
        for tier in self.tiers:
            self._unpin(tier.clear())

    def _write(self, number: int, at_ps: int, parts: list[Part]) -> None:
        out, emptied = self.tiers[number].write(at_ps, parts)
        self._hand_on(number, at_ps, out, emptied)

    def _hand_on(self, number: int, at_ps: int, out: list[Part], emptied: list[Node]) -> None:
        below = number + 1
        if out and below < len(self.tiers) and self.tiers[below].spec.write == "evict":
            self._write(below, at_ps, out)
        self._unpin(emptied)

    def _unpin(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.pins -= 1
            self._prune(node)


def _parts(run: Run, node: Node) -> list[Part]:
    """A run by the nodes that it spans, the last first."""
    if run.boundary:
        return [Part(node, run.boundary - 1, run.boundary, state=True)]
    parts, end = [], run.end
    while end > run.start:
        node = node.owner(end - 1)
        first = max(run.start, node.first)
        parts.append(Part(node, first, end))
        end = first
    return parts
