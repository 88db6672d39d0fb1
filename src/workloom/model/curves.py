"""What a prefix cache of every size, and of every patience, would hit: worked out exactly from one table.

A hit rate is the tokens of prompt blocks that were found / all prompt tokens. A capacity is what lasts from one call
to the next; what calls under way need besides is not counted. The table is :class:`workloom.model.paths.Table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import ceil
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workloom.model.distribution import SHARES, Distribution
from workloom.model.paths import Ints, Table

Floats = NDArray[np.float64]
KNEES = (0.5, 0.9, 0.95, 0.99)
"""Shares of the reachable hits whose capacity is told."""
LADDER = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Capacities are these times powers of ten: round figures, and the same for every trace."""
MOST_CAPACITIES = 24
KEEP_S = (1.0, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, None)
"""Times to live that are tried, in seconds; None: for ever."""


class Knee(Struct, frozen=True):
    """The least capacity at which LRU has so large a share of the hits of an infinite cache."""

    share: float
    capacity_tokens: int


class Curve(Struct, frozen=True):
    """Hit rates by capacity: of LRU, and of the best policy there can be, one that knows the future.

    The capacities go from 1 % of the reachable hits to all of them.
    """

    capacity_tokens: tuple[int, ...]
    lru_hit_rate: tuple[float, ...]
    optimal_hit_rate: tuple[float, ...]
    knees: tuple[Knee, ...]
    reachable_hit_rate: float
    """Of an infinite cache."""
    distinct_tokens: int
    """In full blocks: all that an infinite cache would hold in the end."""


class Retention(Struct, frozen=True):
    """What it brings and costs to keep every block for so long after the last call that used it has ended.

    `idle_token_s`: tokens times the seconds for which they are kept and no call uses them: until their next use, the
    end of their time or the end of the plan, whatever comes first. `mean_idle_tokens`: the same / the plan's makespan.
    """

    keep_s: tuple[float | None, ...]
    hit_rate: tuple[float, ...]
    idle_token_s: tuple[float, ...]
    mean_idle_tokens: tuple[float, ...]


class KvUse(NamedTuple):
    """What each access presses on the KV cache with, in token-seconds.

    busy: prompt + answer tokens times the seconds the call runs; a block that two calls use at once counts for both.
    idle: of blocks that are used again, the tokens times the seconds from the end of their use to the next; it is put
    to the last call that was sent before that next one.
    """

    busy_token_s: Floats
    idle_token_s: Floats


class LruCurve:
    """How many blocks a least-recently-used cache hits: exact at every capacity.

    A block is hit if it and the blocks touched since it was fit into the cache. Along a row of the table these stack
    positions go up one by one, so the hits are a sum of ramps over the capacity.
    """

    def __init__(self, table: Table) -> None:
        offsets, lengths = stack_offsets(table), table.b - table.a
        self.reachable = table.hit_blocks
        """Hits of an infinite cache."""
        self._begins, self._ends = np.sort(offsets), np.sort(offsets + lengths)
        self._sum_begins, self._sum_ends = _sums(self._begins), _sums(self._ends)

    def hits(self, capacity_blocks: int) -> int:
        """Blocks hit with room for so many."""
        above = int(np.searchsorted(self._begins, capacity_blocks))
        past = int(np.searchsorted(self._ends, capacity_blocks))
        return capacity_blocks * (above - past) - int(self._sum_begins[above]) + int(self._sum_ends[past])

    def capacity_blocks(self, hits: int) -> int:
        """The least capacity with so many hits."""
        low, high = 0, int(self._ends[-1]) if len(self._ends) else 0
        while low < high:
            middle = (low + high) // 2
            if self.hits(middle) >= hits:
                high = middle
            else:
                low = middle + 1
        return low


def _sums(values: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(values)))


def stack_offsets(table: Table) -> Ints:
    """Per row: the distinct blocks that are more recently used than its first one when its access comes."""
    accesses = len(table.blocks)
    tree = [0] * (accesses + 1)  # a Fenwick tree over accesses: blocks each of them touched last

    def add(access: int, blocks: int) -> None:
        at = access + 1
        while at <= accesses:
            tree[at] += blocks
            at += at & -at

    offsets, total, row = np.zeros(len(table.t), dtype=np.int64), 0, 0
    ts, ps, lengths = table.t.tolist(), table.p.tolist(), (table.b - table.a).tolist()
    for access, touched in enumerate(table.blocks.tolist()):
        taken = 0
        while row < len(ts) and ts[row] == access:
            older, at = 0, ps[row] + 1
            while at:
                older += tree[at]
                at &= at - 1
            # What the access took over from others until now is before this row on its path, and more recent as well.
            offsets[row] = total - older + taken
            add(ps[row], -lengths[row])
            taken, total, row = taken + lengths[row], total - lengths[row], row + 1
        add(access, touched)
        total += touched
    return offsets


def optimal_hits(table: Table, capacities_blocks: Sequence[int]) -> list[int]:
    """Blocks hit by the optimal policy at each capacity: Belady's MIN that may also leave a block out.

    It keeps the blocks that are used again soonest. Next uses never come sooner further down a path, so of the blocks
    next used by one access it keeps a beginning of that access's path: a number says which.
    """
    uses: list[list[tuple[int, int]]] = [[] for _ in table.blocks]
    for t, p, length in zip(table.t.tolist(), table.p.tolist(), (table.b - table.a).tolist(), strict=True):
        uses[p].append((t, length))
    return [_optimal_hits(uses, capacity) for capacity in capacities_blocks]


def _optimal_hits(uses: list[list[tuple[int, int]]], capacity: int) -> int:
    kept = [0] * len(uses)
    """By access: blocks in the cache that it uses next."""
    latest: list[int] = []
    """A heap of -access; those that are past sink to its end and stay."""
    hits = total = 0
    for access, next_uses in enumerate(uses):
        hits += kept[access]
        total -= kept[access]
        kept[access] = 0
        for later, blocks in next_uses:
            if not kept[later]:
                heappush(latest, -later)
            kept[later] += blocks
            total += blocks
        while total > capacity:
            later = -latest[0]
            cut = min(kept[later], total - capacity)
            kept[later] -= cut
            total -= cut
            if not kept[later]:
                heappop(latest)
    return hits


def curve(table: Table) -> Curve:
    """The hit rates at round capacities, and the capacities of the knees."""
    lru, size = LruCurve(table), table.block_tokens
    capacities = capacities_tokens(lru, size)
    blocks = [capacity // size for capacity in capacities]
    knees = [Knee(share, lru.capacity_blocks(ceil(share * lru.reachable - 1e-6)) * size) for share in KNEES]
    return Curve(
        capacity_tokens=capacities,
        lru_hit_rate=tuple(hit_rate(table, lru.hits(capacity)) for capacity in blocks),
        optimal_hit_rate=tuple(hit_rate(table, hits) for hits in optimal_hits(table, blocks)),
        knees=tuple(knees) if lru.reachable else (),
        reachable_hit_rate=hit_rate(table, lru.reachable),
        distinct_tokens=table.distinct_blocks * size,
    )


def hit_rate(table: Table, hit_blocks: int) -> float:
    """Hit tokens / prompt tokens."""
    return hit_blocks * table.block_tokens / max(1, int(table.prompt_tokens.sum()))


def capacities_tokens(lru: LruCurve, block_tokens: int) -> tuple[int, ...]:
    """Round capacities from the last one below 1 % of the reachable hits to the first one with all of them."""
    if not lru.reachable:
        return ()
    low = lru.capacity_blocks(-(-lru.reachable // 100)) * block_tokens
    high = lru.capacity_blocks(lru.reachable) * block_tokens
    for steps in (LADDER, (1.0, 2.0, 5.0), (1.0,)):
        rungs = sorted({round(step * 10**power) for power in range(19) for step in steps})
        first = max(0, int(np.searchsorted(rungs, low, "right")) - 1)
        last = int(np.searchsorted(rungs, high))
        if last - first < MOST_CAPACITIES:
            break
    return tuple(rungs[first : last + 1])


def idle_s(table: Table) -> Floats:
    """Per row: seconds for which no call used the blocks, until they were used again."""
    return np.asarray(np.maximum(table.sent_ns[table.t] - table.free_ns, 0) / 1e9)


def idle_distribution(table: Table) -> Distribution:
    """The idle times of reused tokens, in seconds: every token counts (quantiles are times that occur)."""
    weights = (table.b - table.a) * table.block_tokens
    if not len(weights):
        return Distribution()
    idle = idle_s(table)
    order = np.argsort(idle, kind="stable")
    ordered, upto = idle[order], np.cumsum(weights[order])
    tokens = int(upto[-1])

    def quantiles(shares: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(ordered[np.searchsorted(upto, np.array(shares) * tokens)].tolist())

    p10, p50, p90, p99 = quantiles((0.1, 0.5, 0.9, 0.99))
    mean = float(np.average(idle, weights=weights))
    return Distribution(
        n=tokens,
        mean=mean,
        sd=float(np.sqrt(np.average((idle - mean) ** 2, weights=weights))),
        p10=p10,
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(ordered[-1]),
        quantiles=quantiles(SHARES),
    )


def makespan_s(table: Table) -> float:
    """From the first call sent to the last end."""
    return float(table.done_ns.max() - table.sent_ns.min()) / 1e9 if len(table.done_ns) else 0.0


def retention(table: Table, keep_s: Sequence[float | None] = KEEP_S) -> Retention:
    """Hits and costs of times to live. A block is still there if it was idle for at most that long."""
    size, makespan = table.block_tokens, makespan_s(table)
    blocks, idle = table.b - table.a, idle_s(table)
    rest = (table.done_ns.max(initial=0) - table.end_free_ns) / 1e9
    rates: list[float] = []
    costs: list[float] = []
    for limit in keep_s:
        longest = np.inf if limit is None else limit
        rates.append(hit_rate(table, int(blocks[idle <= longest].sum())))
        reused = float(blocks @ np.minimum(idle, longest))
        costs.append(size * (reused + float(table.end_blocks @ np.minimum(rest, longest))))
    means = tuple(cost / makespan if makespan else 0.0 for cost in costs)
    return Retention(tuple(keep_s), tuple(rates), tuple(costs), means)


def kv_use(table: Table) -> KvUse:
    """Token-seconds of every access."""
    tokens = table.prompt_tokens + table.answer_tokens
    busy = tokens * ((table.done_ns - table.sent_ns) / 1e9)
    weights = (table.b - table.a) * table.block_tokens * idle_s(table)
    return KvUse(busy, np.bincount(table.p, weights, minlength=len(tokens)).astype(np.float64))
