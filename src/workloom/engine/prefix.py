"""The prefix cache: which blocks of a sequence are still there.

Sequences are pieces of named text (:class:`workloom.prefix.Key`), so a context of 100,000 tokens is a few nodes. A node
is one text standing behind one history; what follows it branches off at the number of its tokens that were used:

    root -(0, system)-> [system] -(14000, a)-> [a] -(310, answer of a)-> ...
                                 -(14000, b)-> [b]

Block j of a sequence holds tokens j*size .. (j+1)*size - 1 and belongs to the node its last token lies in: that place
fixes everything before it. A block can be found from the end of the step that filled it. Two calls that compute the
same text at once keep a copy each (as vLLM does); a search takes the copy that came first. A hit has at most all tokens
but the last, in whole blocks.

**States** (`state_groups` G > 0). A running call of L computed tokens holds, beside its ceil(L/size) KV blocks, G state
pages, drawn from the same pool. The step that computes the first token of a block (but for a call's very first) reads
the pages of the block before and writes G new ones, so during that step it holds 2 G; the old ones are let go when the
next step is formed, before anything is taken for it, in the order in which the calls were admitted. A call that was hit
begins like this: the pages it was hit at are the old ones in its first step. When a step ends with a call's computed
tokens at a multiple of the block size, its pages become findable as the state of that boundary. A hit of j blocks needs
KV blocks 0..j-1 and a state of boundary j: the longest such j counts. The G pages of a state come and go together:
copies are not mixed, and when one page is taken the other G - 1 are plain blocks where they stand in the queue.

**Free order.** What a call lets go of goes to the tail of the free queue: its state pages, then the old ones if it
still holds them, then its KV blocks, the last first. A block that others hold stays where it is.

**Time to live** (`retention.ttl_ps`). A block, or a state, that nobody has held for ttl or longer (a step that begins
at the instant it was let go + ttl, or later) cannot be found. It keeps its place in the queue all the same.

**Pins** (`retention.pinned_tokens`). When a call lets go of its blocks (it is preempted, too), the cache first takes
hold of the hit that the call's first `Hints.pin_tokens` tokens, but not more than its prompt, would find at that
instant: whole blocks; with states up to the last boundary that has one. A pin that ends where another does (same text,
as many blocks) changes nothing but that the other is now the newest. There is room for R = pinned_tokens // size
blocks; state pages count as blocks, and blocks that several pins hold count once. A pin is of at most R - G KV blocks;
while more than R are pinned in all, the oldest pin is let go: its state, then its blocks, the last first. The oldest
are also let go, one at a time, when nothing runs and the first waiting call finds no room, and when a call that runs
alone would be preempted, until it is enough.

**sglang** (`cache: sglang`). A block that is computed while another with the same content can be found is a duplicate:
at the end of the step its own copy is free and the call holds the other. Blocks that nobody can find go to the head of
the free queue, so that they are all taken before any that can be found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workloom.engine.blocks import FreeQueue, Gone, Run
from workloom.engine.node import NEVER, Hit, Node
from workloom.engine.pins import Pins
from workloom.engine.profile import Profile, Retention
from workloom.engine.sequence import Hold, Sequence, parts

if TYPE_CHECKING:
    from workloom.engine.tiers import Tiers


class PrefixCache:
    """Blocks by what is in them. `enabled` False: nothing is ever found.

    `on_evict` is told what was evicted, in order, whenever something was.
    """

    def __init__(
        self,
        queue: FreeQueue,
        block_tokens: int,
        *,
        enabled: bool = True,
        state_groups: int = 0,
        retention: Retention | None = None,
        merge: bool = False,
    ) -> None:
        retention = retention or Retention()
        self.queue = queue
        self.block_tokens = block_tokens
        self.enabled = enabled
        self.state_groups = state_groups
        self.merge = merge
        """Whether duplicates are merged."""
        self.on_evict: Callable[[list[Gone]], None] | None = None
        self.tiers: Tiers | None = None
        """Memory below the GPU's."""
        self.root = Node(None, (0, 0))
        self.root.pins = 1
        self.pins = Pins(self, retention.pinned_tokens // block_tokens)
        self._ttl_ps = retention.ttl_ps

    @classmethod
    def of(cls, profile: Profile, *, enabled: bool = True) -> PrefixCache:
        """The cache of a profile's server, all its blocks free."""
        sglang = profile.cache == "sglang"
        return cls(
            FreeQueue(profile.kv_blocks, plain_first=sglang),
            profile.block_tokens,
            enabled=enabled,
            state_groups=profile.state_groups,
            retention=profile.retention,
            merge=sglang,
        )

    @property
    def since_ps(self) -> int:
        """What nobody has held after this instant is too old to be found."""
        return NEVER if self._ttl_ps is None else self.queue.now_ps - self._ttl_ps

    def lookup(self, sequence: Sequence, *, below: bool = True) -> Hit:
        """The longest prefix of whole blocks; the last token is always computed. `below`: in tiers too."""
        if below and self.tiers is not None and self.enabled:
            return self.tiers.search(self, sequence, sequence.tokens - 1)
        return self._find(sequence, sequence.tokens - 1)

    def _find(self, sequence: Sequence, limit: int) -> Hit:
        """The longest findable prefix of at most `limit` tokens."""
        size, since_ps = self.block_tokens, NEVER if self._ttl_ps is None else self.since_ps
        node, used, start, blocks = self.root, 0, 0, 0
        runs: list[tuple[Run, int, int]] = []
        state, behind = None, (0, node, 0, 0)
        index, last = 0, None
        ids, ends = sequence.ids, sequence.ends
        while self.enabled:
            end = ends[index]
            child = node.branches.get((used, ids[index]))
            if child is None:
                break
            wanted = (end if end < limit else limit) // size
            if blocks < wanted:
                copies = child.copies
                if last is not None and len(copies) == 1 and copies[0] is last:  # it goes on, noted when it ends
                    blocks = min(wanted, last.end, child.leaves[0])
                else:
                    _reach(runs, blocks)
                    blocks = child.cover(blocks, wanted, runs, since_ps)
                    last = runs[-1][0] if runs else None
            if child.states:
                found = child.state(blocks, since_ps)
                if found is not None:
                    state, behind = found, (index, node, used, start)
            if blocks < wanted or end >= limit:
                break
            index, node, used, start = index + 1, child, end - start, end
        _reach(runs, blocks)
        cursor = (index, node, used, start)
        if self.state_groups:
            blocks, cursor = (state.boundary if state is not None else 0), behind
            runs = [(run, first, min(end, blocks)) for run, first, end in runs if first < blocks]
        evictable = 0
        for run, first, end in runs:
            if not run.refs:
                evictable += end - first
        if state is not None and not state.refs:
            evictable += len(state)
        return Hit(blocks, blocks * size, evictable, runs, cursor, state)

    def take(self, sequence: Sequence, hit: Hit) -> None:
        """Hold the blocks of a hit for a sequence."""
        self.hold(hit, sequence.holds)
        sequence.page = hit.state
        if hit.blocks and hit.state is None:
            self.fresh_page(sequence)  # popped by the caller, to be read
        sequence.registered = hit.blocks - hit.blocks_below if hit.reads else hit.blocks
        sequence.cursor = hit.cursor
        hit.cursor[1].pins += 1

    def hold(self, hit: Hit, holds: list[Hold]) -> None:
        """Hold the blocks of a hit, noted in `holds`, and its state."""
        for run, first, end in hit.runs:
            while run.end <= first and run.right is not None:  # it was cut just now: the hit goes through it twice
                run = run.right
            part = self.queue.split(run, first) if run.start < first else run
            if part.end > end:
                self.queue.split(part, end)
            self._use(part)
            holds.append(Hold(part, end))
        if hit.state is not None:
            self._use(hit.state)

    def _use(self, run: Run) -> None:
        if not run.refs:
            self.queue.withdraw(run)
        run.refs += 1

    def pop(self, count: int) -> None:
        """Take free blocks; forget what was in them."""
        gone = self.queue.pop(count)
        if gone:
            if self.on_evict is not None:
                self.on_evict(gone)
            for lost in gone:
                self.prune(lost.node)

    def nothing(self) -> Hit:
        """The hit of a call of which nothing can be found."""
        return Hit(0, 0, 0, [], (0, self.root, 0, 0))

    def fresh_page(self, sequence: Sequence) -> None:
        """State pages, where there are states, that were popped and have nothing yet."""
        if self.state_groups:
            sequence.page = Run(None, 0, self.state_groups, 1)

    def turn_page(self, sequence: Sequence) -> None:
        """A sequence begins another block: its state goes on in new pages, which were popped."""
        sequence.spent, sequence.page = sequence.page, Run(None, 0, self.state_groups, 1)

    def drop_spent(self, sequence: Sequence) -> None:
        """The old pages are not needed any more."""
        if sequence.spent is not None:
            self._let_go(sequence.spent)
            sequence.spent = None

    def _let_go(self, run: Run) -> None:
        if self.tiers is not None and run.node is not None:
            self.tiers.used(self.queue.now_ps, run)
        run.refs -= 1
        if not run.refs:
            self.queue.put(run)

    def register(self, sequence: Sequence, computed: int) -> None:
        """Make the full blocks among the first `computed` tokens findable, and the state if it ends with them."""
        if not self.enabled:
            return
        end_block = computed // self.block_tokens
        if sequence.registered >= end_block:
            return
        index, node, used, start = sequence.cursor
        while True:
            end = sequence.ends[index]
            place = (used, sequence.ids[index])
            child = node.branches.get(place)
            if child is None:
                child = node.branches[place] = Node(node, place, start // self.block_tokens)
            upto = min(end // self.block_tokens, end_block)
            if sequence.registered < upto:
                if self.merge:
                    self._merge(sequence, child, upto)
                else:
                    self._add(sequence, child, upto)
            if upto == end_block:
                break
            child.pins += 1
            node.pins -= 1
            index, node, used, start = index + 1, child, end - start, end
        sequence.cursor = (index, node, used, start)
        page = sequence.page
        if page is not None and page.node is None and computed == end_block * self.block_tokens:
            self._keep_state(page, child, end_block)

    def _keep_state(self, page: Run, node: Node, boundary: int) -> None:
        page.node, page.boundary = node, boundary
        node.states.setdefault(boundary, []).append(page)
        if self.tiers is not None:
            self.tiers.registered(node, boundary - 1, boundary, state=True)

    def loaded(self, sequence: Sequence, node: Node, blocks: int) -> None:
        """The first `blocks` blocks of a call, and the state there, came from below; `node` is where they end."""
        self.register(sequence, blocks * self.block_tokens)
        page = sequence.page
        if page is not None and page.node is None:
            self._keep_state(page, node, blocks)

    def _add(self, sequence: Sequence, node: Node, upto: int) -> None:
        first, sequence.registered = sequence.registered, upto
        if self.tiers is not None:
            self.tiers.registered(node, first, upto)
        last = sequence.holds[-1] if sequence.holds else None
        if last is not None and last.run.refs == 1 and last.run.end == last.end == first:
            run, before = last.run, last.run.node
            if before is not node or node.copies == [run]:  # the call's own: it goes on
                if before is not node and before is not None:
                    before.leave(run, first)
                    node.add(run)
                    run.node = node
                run.end = last.end = upto
                return
        run = Run(node, first, upto, 1)
        node.add(run)
        sequence.holds.append(Hold(run, upto))

    def _merge(self, sequence: Sequence, node: Node, upto: int) -> None:
        """Add what is not there; of the rest hold what is, and free the own copy."""
        while sequence.registered < upto:
            first = sequence.registered
            runs: list[tuple[Run, int, int]] = []
            reach = node.cover(first, upto, runs, self.since_ps)
            if runs:
                self.hold(Hit(reach, 0, 0, runs, sequence.cursor), sequence.holds)
                self.queue.put_plain(reach - first)
                sequence.registered = reach
            else:
                later = [run.start for run in node.copies if first < run.start < upto]
                self._add(sequence, node, min(later, default=upto))

    def release(self, sequence: Sequence, held_blocks: int) -> None:
        """Let go of all `held_blocks` blocks of a sequence, the last block first; before them of its states."""
        if self.pins.room and sequence.hints.pin_tokens:
            self._pin(sequence)
        if sequence.page is not None:
            self._let_go(sequence.page)
            sequence.page = None
        self.drop_spent(sequence)
        self.queue.put_plain(held_blocks - sequence.registered)
        self._release(sequence.holds)
        sequence.holds.clear()
        sequence.registered = 0
        if self.enabled:
            node = sequence.cursor[1]
            node.pins -= 1
            self.prune(node)

    def _release(self, holds: list[Hold]) -> None:
        for hold in reversed(holds):
            if hold.run.end >= hold.end:
                self._let_go(hold.run)
                continue
            for run in reversed(parts(hold)):
                self._let_go(run)

    def _pin(self, sequence: Sequence) -> None:
        """Hold what the call wants to be kept."""
        room = (self.pins.room - self.state_groups) * self.block_tokens
        hit = self._find(sequence, min(sequence.hints.pin_tokens, sequence.prompt_tokens, room))
        if hit.blocks:
            self.pins.add(hit)

    def let_go(self, holds: list[Hold], state: Run | None) -> None:
        """Of a state, then of blocks, the last first."""
        if state is not None:
            self._let_go(state)
        self._release(holds)

    def forget(self) -> None:
        """Let go of pins and make every free block one that nobody can find again. What calls hold stays."""
        while self.pins.drop_oldest():
            pass
        if self.tiers is not None:
            self.tiers.clear()
        for run in self.queue:
            node = run.node
            if node is None:
                continue
            if run.boundary:
                node.lose(run)
            else:
                run.node, above = None, node
                while True:
                    if run in above.copies:
                        above.drop(run)
                    if above.first <= run.start or above.parent is None:
                        break
                    above = above.parent
            self.prune(node)

    def prune(self, node: Node) -> None:
        """A node may hold nothing any more: it is gone then, and those before it that only led to it."""
        while node.empty and node.parent is not None:
            parent = node.parent
            if parent.branches.get(node.place) is node:
                del parent.branches[node.place]
            node = parent


def _reach(runs: list[tuple[Run, int, int]], end: int) -> None:
    """The last of the runs is used up to a block."""
    if runs and runs[-1][2] < end:
        run, first, _ = runs[-1]
        runs[-1] = (run, first, end)
