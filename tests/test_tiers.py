"""Memory tiers and links, alone: against a slow model that keeps block by block."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.engine.blocks import Gone, Run
from workloom.engine.link import Link
from workloom.engine.node import Node
from workloom.engine.profile import Tier as Spec
from workloom.engine.tier import Part
from workloom.engine.tiers import Tiers

STATE_PAGES = 3
PAGE_BYTES = 100


def spec(name: str, tokens: int | None, *, write: str = "evict", read: float = 1e12, written: float = 1e12) -> Spec:
    """A tier; at 1e12 bytes a second a page takes 100 ps."""
    return Spec(name, tokens, read, written, latency_ps=7, write=write)  # type: ignore[arg-type]


# -- the link


def test_transfers_queue_one_behind_the_other_and_each_pays_the_latency() -> None:
    link = Link(1e12, latency_ps=50)
    assert link.transfer(1_000, 100) == 1_150
    assert link.transfer(1_000, 10) == 1_210, "behind the first"
    assert link.transfer(5_000, 10) == 5_060, "the link stood idle"
    assert (link.transfers, link.bytes, link.busy_ps) == (3, 120, 150 + 60 + 60)


def test_a_transfer_takes_whole_picoseconds_rounded_up() -> None:
    assert Link(3e12).transfer(0, 1) == 1
    assert Link(3e12).transfer(0, 3) == 1
    assert Link(3e12).transfer(0, 4) == 2
    assert Link(64e9).transfer(0, 131_072) == 2_048_000, "an 8B model's token over PCIe: 2.0 us"


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10**12)), max_size=20), st.floats(1.0, 1e13))
@settings(max_examples=50, deadline=None)
def test_a_link_is_never_faster_than_its_bandwidth_nor_idle_while_something_waits(
    asked: list[tuple[int, int]], rate: float
) -> None:
    link, done = Link(rate, latency_ps=3), 0
    for at, size in asked:
        begin = max(at, done)
        done = link.transfer(at, size)
        exact = size * 1e12 / rate
        assert exact * (1 - 1e-12) <= done - begin - 3 <= exact * (1 + 1e-12) + 1


@pytest.mark.parametrize(("rate", "latency"), [(0.0, 0), (-1.0, 0), (1.0, -1)])
def test_a_link_without_bandwidth_is_refused(rate: float, latency: int) -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        Link(rate, latency)


# -- tiers against a slow model

Block = tuple[int, int, bool]
"""(number of the node, number of the block, whether it is the state there)."""


class SlowTier:
    """The rules of the module's text, block by block."""

    def __init__(self, tier: Spec, block_tokens: int) -> None:
        self.spec = tier
        self.capacity = 1 << 60 if tier.tokens is None else tier.tokens // block_tokens
        self.kept: OrderedDict[Block, int] = OrderedDict()
        self.lent = 0
        self.reads_free = self.writes_free = 0

    def transfer(self, free: int, at: int, pages: int, rate: float) -> int:
        return max(free, at) + self.spec.latency_ps + -(-pages * PAGE_BYTES * 10**12 // int(rate))

    def put(self, at: int, blocks: list[Block]) -> list[Block]:
        new = []
        for block in blocks:
            if block not in self.kept:
                self.kept[block] = 1 << 62
                new.append(block)
            self.kept.move_to_end(block)
        if new:
            pages = sum(map(weight, new))
            self.writes_free = self.transfer(self.writes_free, at, pages, self.spec.write_bytes_per_s)
            for block in new:
                self.kept[block] = self.writes_free
        return self.trim()

    def trim(self) -> list[Block]:
        out = []
        while sum(map(weight, self.kept)) + self.lent > self.capacity:
            out.append(self.kept.popitem(last=False)[0])
        return out

    def read(self, at: int, blocks: list[Block]) -> int:
        for block in reversed(blocks):
            self.kept.move_to_end(block)
        pages = sum(map(weight, blocks))
        self.reads_free = self.transfer(self.reads_free, at, pages, self.spec.read_bytes_per_s)
        return self.reads_free


class SlowTiers:
    def __init__(self, specs: tuple[Spec, ...], block_tokens: int) -> None:
        self.tiers = [SlowTier(tier, block_tokens) for tier in specs]

    def put(self, number: int, at: int, blocks: list[Block]) -> None:
        out = self.tiers[number].put(at, blocks)
        self.down(number, at, out)

    def down(self, number: int, at: int, out: list[Block]) -> None:
        if out and number + 1 < len(self.tiers) and self.tiers[number + 1].spec.write == "evict":
            self.put(number + 1, at, out)

    def find(self, at: int, node: int, first: int, end: int, state: bool) -> list[tuple[int, Block]]:
        found = []
        for index in range(first, end):
            block = (node, index, state)
            where = [i for i, tier in enumerate(self.tiers) if tier.kept.get(block, 1 << 62) <= at]
            if not where:
                break
            found.append((where[0], block))
        return found


def weight(block: Block) -> int:
    return STATE_PAGES if block[2] else 1


parts = st.builds(
    lambda node, first, length, state: (node, first, first + length, state),
    st.integers(0, 2),
    st.integers(0, 12),
    st.integers(1, 9),
    st.sampled_from([False, False, False, True]),
)
deeds = st.one_of(
    st.tuples(st.just("registered"), st.lists(parts, min_size=1, max_size=3)),
    st.tuples(st.just("evicted"), st.lists(parts, min_size=1, max_size=3)),
    st.tuples(st.just("used"), st.lists(parts, min_size=1, max_size=1)),
    st.tuples(st.just("read"), st.lists(parts, min_size=1, max_size=1)),
    st.tuples(st.just("lend"), st.integers(1, 12)),
    st.tuples(st.just("give back"), st.just(0)),
    st.tuples(st.just("clear"), st.just(0)),
)
sizes = st.sampled_from([None, 0, 4, 40, 64, 100])
stacks = st.lists(
    st.builds(
        lambda tokens, write: spec("t", tokens, write=write, read=3e11, written=1e12),
        sizes,
        st.sampled_from(["evict", "through"]),
    ),
    min_size=1,
    max_size=3,
)


def blocks_of(part: tuple[int, int, int, bool]) -> list[Block]:
    """In the order of eviction: the last first."""
    node, first, end, state = part
    return [(node, index, state) for index in range(end - 1, first - 1, -1)]


def registered(tiers: Tiers, at_ps: int, *parts: Part) -> None:
    """One group, put in in this order."""
    for node, first, end, state in reversed(parts):
        tiers.registered(node, first, end, state=state)
    tiers.close(at_ps)


def evicted(tiers: Tiers, at_ps: int, *parts: Part) -> None:
    for node, first, end, state in parts:
        states = [Gone(node, 0, STATE_PAGES, index + 1) for index in range(end - 1, first - 1, -1)]
        tiers.evicted(states if state else [Gone(node, first, end, 0)])
    tiers.close(at_ps)


def used(tiers: Tiers, at_ps: int, part: Part) -> None:
    node, first, end, state = part
    for index in range(end - 1, first - 1, -1) if state else [0]:
        run = Run(node, 0, STATE_PAGES, 0) if state else Run(node, first, end, 0)
        run.boundary = index + 1 if state else 0
        tiers.used(at_ps, run)


@given(stacks, st.lists(st.tuples(st.sampled_from([0, 1, 60, 400, 5_000]), deeds), max_size=25))
@settings(max_examples=150, deadline=None)
def test_tiers_equal_a_slow_model_block_for_block(
    specs: list[Spec], story: list[tuple[int, tuple[str, object]]]
) -> None:
    root = Node(None, (0, 0))
    nodes = [Node(root, (0, i)) for i in range(3)]
    pruned: list[Node] = []
    fast = Tiers(tuple(specs), 4, PAGE_BYTES, pruned.append, STATE_PAGES)
    slow = SlowTiers(tuple(specs), 4)
    loans, at = [], 0

    def part(p: tuple[int, int, int, bool]) -> Part:
        return Part(nodes[p[0]], *p[1:])

    for wait, (deed, what) in story:
        at += wait
        if deed in ("registered", "evicted", "used", "read"):
            assert isinstance(what, list)
            blocks = [block for p in what for block in blocks_of(p)]
            if deed == "registered":
                registered(fast, at, *(part(p) for p in what))
                for number, tier in enumerate(slow.tiers):
                    if tier.spec.write == "through":
                        slow.put(number, at, blocks)
            elif deed == "evicted":
                evicted(fast, at, *(part(p) for p in what))
                if specs[0].write == "evict":
                    slow.put(0, at, blocks)
            elif deed == "used":
                used(fast, at, part(what[0]))
                for tier in slow.tiers:
                    for block in blocks:
                        if block in tier.kept and specs[slow.tiers.index(tier)].tokens is not None:
                            tier.kept.move_to_end(block)
            else:
                reach, found = fast.find(part(what[0]), at)
                expected = slow.find(at, *what[0])
                assert [
                    (where, (nodes.index(p.node), i, p.state)) for where, p in found for i in range(p.first, p.end)
                ] == expected
                assert reach == what[0][1] + len(expected)
                done = at
                for number, tier in enumerate(slow.tiers):
                    mine = [block for where, block in expected if where == number]
                    if mine:
                        done = max(done, tier.read(at, mine))
                assert fast.read(at, found) == done
        elif deed == "lend":
            assert isinstance(what, int)
            first = slow.tiers[0]
            loan = fast.lend(at, what)
            assert (loan is not None) == (first.lent + what <= first.capacity)
            if loan is not None:
                loans.append(loan)
                first.lent += what
                first.writes_free = first.transfer(first.writes_free, at, what, specs[0].write_bytes_per_s)
                assert loan.ready_ps == first.writes_free
                slow.down(0, at, first.trim())
        elif deed == "give back" and loans:
            loan = loans.pop(0)
            slow.tiers[0].lent -= loan.pages
            fast.tiers[0].give_back(loan)
        elif deed == "clear":
            fast.clear()
            for tier in slow.tiers:
                tier.kept.clear()
        for tier, model in zip(fast.tiers, slow.tiers, strict=True):
            seen = [
                ((nodes.index(p.node), i, p.state), ready)
                for p, ready in tier.queue()
                for i in range(p.end - 1, p.first - 1, -1)
            ]
            # Runs became one when nobody could tell any more: what is there already has no instant.
            assert [(block, max(at, ready)) for block, ready in seen] == [
                (b, max(at, r)) for b, r in model.kept.items()
            ]
            assert tier.pages == sum(map(weight, model.kept))
            assert tier.capacity is None or tier.pages + tier.lent <= tier.capacity
    held = [
        sum(bool(any(b[0] == i and b[2] == s for b in m.kept)) for m in slow.tiers for s in (False, True))
        for i in range(3)
    ]
    assert [node.pins for node in nodes] == held, "a node is pinned while a tier has any of it"


def stack(*specs: Spec) -> tuple[Tiers, Node, Node]:
    root = Node(None, (0, 0))
    return Tiers(specs, 4, PAGE_BYTES, lambda node: None), Node(root, (0, 1)), Node(root, (0, 2))


def test_each_block_is_read_from_the_fastest_tier_that_has_it_and_the_tiers_work_side_by_side() -> None:
    tiers, a, _ = stack(spec("host", 64, write="through"), spec("disk", None, write="through", read=1e11))
    registered(tiers, 0, Part(a, 0, 12))
    registered(tiers, 0, Part(a, 20, 28))
    registered(tiers, 0, Part(a, 0, 4), Part(a, 12, 16))
    assert [(p.first, p.end) for p, _ in tiers.tiers[0].queue()] == [(20, 28), (0, 4), (12, 16)]
    reach, found = tiers.find(Part(a, 0, 30), 10_000)
    assert [(f.tier, f.part.first, f.part.end) for f in found] == [(0, 0, 4), (1, 4, 12), (0, 12, 16)]
    assert reach == 16
    assert tiers.read(10_000, found) == 10_000 + 7 + 8 * 1_000, "8 pages of the disk, 8 of the host meanwhile"
    assert tiers.tiers[0].reads.free_ps == 10_000 + 7 + 8 * 100


def test_what_is_read_last_in_the_sequence_goes_first() -> None:
    tiers, a, b = stack(spec("host", 40))
    evicted(tiers, 0, Part(b, 4, 8), Part(a, 0, 4))
    assert tiers.read(5_000, [found for part in (Part(a, 0, 4), Part(b, 4, 6)) for found in tiers.find(part, 5_000)[1]])
    order = [(p.node is a, p.first, p.end) for p, _ in tiers.tiers[0].queue()]
    assert order == [(False, 6, 8), (False, 4, 6), (True, 0, 4)]


def test_a_block_is_found_when_its_write_is_over_not_before() -> None:
    tiers, a, _ = stack(spec("host", 40))
    evicted(tiers, 1_000, Part(a, 0, 4))
    assert tiers.find(Part(a, 0, 9), 1_406)[0] == 0
    assert tiers.find(Part(a, 0, 9), 1_407)[0] == 4


def test_what_the_host_has_no_room_for_goes_to_the_disk() -> None:
    tiers, a, b = stack(spec("host", 16), spec("disk", 1_000))
    evicted(tiers, 0, Part(a, 0, 4))
    evicted(tiers, 1_000, Part(b, 0, 2))
    host, disk = tiers.tiers
    assert [(p.node is a, p.first, p.end) for p, _ in host.queue()] == [(True, 0, 2), (False, 0, 2)]
    assert [(p.node is a, p.first, p.end) for p, _ in disk.queue()] == [(True, 2, 4)], "the end of a goes first"
    assert [(f.tier, f.part.first, f.part.end) for f in tiers.find(Part(a, 0, 4), 9_000)[1]] == [(0, 0, 2), (1, 2, 4)]
