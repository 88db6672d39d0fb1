"""Caches of single blocks, as slow and as plain as can be: what the numbers of workloom.model.curves are held against.

A block's identity is a number: equal for two sequences if all tokens up to its end are equal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from workloom.model.paths import Access
from workloom.prefix import Key
from workloom.prompt import planned
from workloom.session import Session


class Use(NamedTuple):
    """One call: the blocks it looks up, and those it touches (the same ones and its answer's), from the first on."""

    looked_up: list[int]
    touched: list[int]
    access: Access


def uses(accesses: Iterable[Access], block_tokens: int, *, outputs: bool = True) -> list[Use]:
    """Every access as its blocks."""
    names: dict[tuple[int, tuple[tuple[int, int, int], ...]], int] = {}
    out = []
    for access in accesses:
        whole = access.prompt.plus(access.answer, access.answer_tokens) if outputs else access.prompt
        blocks, before = [], -1
        for content in _contents(whole, block_tokens):
            before = names.setdefault((before, content), len(names))
            blocks.append(before)
        out.append(Use(blocks[: access.prompt.tokens // block_tokens], blocks, access))
    return out


def _contents(key: Key, size: int) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """What is in each full block: (text, its first token here, behind its last token here)."""
    here: list[tuple[int, int, int]] = []
    room, before = size, 0
    for text, end in zip(key.ids, key.ends, strict=True):
        at, length = 0, end - before
        while at < length:
            taken = min(room, length - at)
            here.append((text, at, at + taken))
            at, room = at + taken, room - taken
            if not room:
                yield tuple(here)
                here, room = [], size
        before = end


def found(looked_up: list[int], cache: Iterable[int]) -> int:
    """Blocks of the longest prefix that is there."""
    held = cache if isinstance(cache, (set, frozenset, dict)) else set(cache)
    return next((i for i, block in enumerate(looked_up) if block not in held), len(looked_up))


def lru_hits(calls: list[Use], capacity: int) -> int:
    """Least recently used goes first; a call touches its blocks from the last to the first."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for call in calls:
        hits += found(call.looked_up, cache)
        for block in reversed(call.touched):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > capacity:
            cache.popitem(last=False)
    return hits


def belady_hits(calls: list[Use], capacity: int) -> int:
    """Keep what is looked up again soonest, of equals the earlier in the prompt; a new block may be left out too."""
    cache: set[int] = set()
    hits = 0
    for now, call in enumerate(calls):
        hits += found(call.looked_up, cache)
        soonest: dict[int, tuple[int, int]] = {}
        for block in cache.union(call.touched):
            for later in range(now + 1, len(calls)):
                if block in calls[later].looked_up:
                    soonest[block] = (later, calls[later].looked_up.index(block))
                    break
        cache = set(sorted(soonest, key=lambda block: soonest[block])[:capacity])
    return hits


def most_hits(calls: list[Use], capacity: int) -> int:
    """The best of all that any policy could do, by trying everything."""
    best = {frozenset[int](): 0}
    for call in calls:
        then: dict[frozenset[int], int] = {}
        for cache, hits in best.items():
            after = hits + found(call.looked_up, cache)
            there = sorted(cache.union(call.touched))
            for kept in combinations(there, min(capacity, len(there))):
                state = frozenset(kept)
                then[state] = max(then.get(state, 0), after)
        best = then
    return max(best.values())


class Idle(NamedTuple):
    """A block between two uses, or after its last one (until None): who touched it last, and the seconds."""

    last: int
    idle_s: float
    again: bool


def idles(calls: list[Use]) -> list[Idle]:
    """Every time a block is kept while no call uses it, if it is kept until its next use or the last end of all."""
    owner: dict[int, int] = {}
    free_ns: dict[int, int] = {}
    out = []
    for now, call in enumerate(calls):
        for block in call.touched:
            if block in owner:
                out.append(Idle(owner[block], max(0, call.access.sent_ns - free_ns[block]) / 1e9, again=True))
            owner[block] = now
            free_ns[block] = max(free_ns.get(block, 0), call.access.done_ns)
    end = max(call.access.done_ns for call in calls)
    return out + [Idle(owner[block], (end - free_ns[block]) / 1e9, again=False) for block in owner]


def in_list_order(sessions: Iterable[Session], call_s: float = 1.0) -> list[Access]:
    """One call after the other, `call_s` long and as far apart."""
    out: list[Access] = []
    for k, session in enumerate(sessions):
        first = len(out)
        number = {call.id: first + index for index, call in enumerate(session.calls)}
        for call, prompt in planned(session, k):
            sent = round(len(out) * 2e9 * call_s)
            out.append(
                Access(
                    instance=k,
                    call=call.id,
                    agent=call.agent,
                    model=call.model,
                    prompt=prompt.key,
                    answer=prompt.answer_number,
                    answer_tokens=call.answer_tokens,
                    sent_ns=sent,
                    done_ns=sent + round(1e9 * call_s),
                    base=None if call.inherit is None else number[call.inherit.call],
                    base_tokens=prompt.base_tokens,
                )
            )
    return out
