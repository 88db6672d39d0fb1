"""`workloom probe cache`: what a hit is worth, in which steps prefixes are found, and how long they are kept."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from workloom.answers.probe import hits as pairs
from workloom.answers.probe.hits import Hit, Hits
from workloom.answers.probe.lab import ANSWER, Lab, Ran
from workloom.answers.probe.levels import Levels, levels
from workloom.answers.probe.middle import Middle
from workloom.answers.probe.retention import Asked, Bracket, idle, pressure
from workloom.errors import UsageError

PREFIX = 1024
"""Tokens of the prefixes that are asked for again, where the server says what it found."""
MOST_PRESSURE, MOST_PRESSURE_LIVE = 16_000_000, 2_000_000
MOST_IDLE_S, MOST_IDLE_LIVE_S = 4096.0, 64.0


class Cache(Struct, frozen=True):
    """`hits`: pairs by length; `pressure`, `idle`: prefixes asked for again by age, in tokens and in seconds.

    `capacity_tokens`: what the cache holds for reuse, from the largest that was seen to fit to the least that did not;
    `ttl_s`: the longest time a prefix was kept without use, and the shortest after which it was gone.
    """

    hits: list[Hit]
    block_tokens: int | None
    missed_tokens: Middle
    told: bool
    """Whether the server says what it found; if not, hits are told by TTFT."""
    prefix_tokens: int | None
    pressure: list[Asked]
    capacity_tokens: Bracket | None
    idle: list[Asked]
    ttl_s: Bracket | None
    notes: list[str]
    runs: list[str]


def cache(
    lab: Lab,
    lengths: Sequence[int] | None = None,
    repeats: int = 6,
    max_pressure: int | None = None,
    max_idle_s: float | None = None,
) -> Cache:
    """Pairs first: they say whether there is a cache, and how to know a hit. Then retention."""
    if lab.longest < 2 * (pairs.TURN + pairs.APART):
        raise UsageError("no room for a second turn", expected="calls of 250 tokens or more", found=lab.longest)
    wanted = sorted(set(lengths)) if lengths else pairs.lengths_of(lab.longest)
    if wanted[-1] + pairs.TURN + pairs.APART + 2 * ANSWER > lab.longest:
        raise UsageError(
            "a prefix is too long for this server",
            expected=f"at most {lab.longest - pairs.TURN - pairs.APART - 2 * ANSWER:,} tokens",
            found=f"{wanted[-1]:,}",
        )
    lab.warm(wanted)
    found, ran = pairs.measure(lab, wanted, repeats)
    told = any(hit.cached_share is not None for hit in found.hits)
    prefix, known = _prefix(lab, found, ran, wanted, repeats, told)
    ages: list[Asked] = []
    gaps: list[Asked] = []
    capacity = ttl = None
    if prefix is not None and not lab.spent:
        most = max_pressure or (MOST_PRESSURE_LIVE if lab.live else MOST_PRESSURE)
        longest_s = max_idle_s or (MOST_IDLE_LIVE_S if lab.live else MOST_IDLE_S)
        ages, capacity = pressure(lab, prefix, known, found.block_tokens, most, max(1, repeats // 3))
        if not lab.spent:
            gaps, ttl = idle(lab, prefix, known, found.block_tokens, longest_s)
    _remarks(lab, ages, capacity, gaps)
    return Cache(
        found.hits,
        found.block_tokens,
        found.missed_tokens,
        told,
        prefix,
        ages,
        capacity,
        gaps,
        ttl,
        lab.notes,
        lab.runs,
    )


def _prefix(
    lab: Lab, found: Hits, ran: Ran, wanted: Sequence[int], repeats: int, told: bool
) -> tuple[int | None, Levels | None]:
    """How long the prefixes are that are asked for again, and the levels that tell a hit where nobody says."""
    if told:
        if not any(hit.cached_share for hit in found.hits):
            lab.note("the server found nothing of any second turn: no prefix cache, or it is off")
            return None, None
        return max(1, min(PREFIX, lab.longest // 8)), None
    for tokens in wanted:
        rows = [ran.rows.get((f"prefix of {tokens}, {r + 1}", "cached")) for r in range(repeats)]
        cold = [ran.rows.get((f"prefix of {tokens}, {r + 1}", "equal")) for r in range(repeats)]
        known = levels(
            [float(ran.ttft_s[row]) for row in rows if row is not None],
            [float(ran.ttft_s[row]) for row in cold if row is not None],
        )
        if known is not None and known.apart:
            lab.note(f"the server does not say what it found: hits are told by TTFT, of prefixes of {tokens:,} tokens")
            return tokens + pairs.APART // 2, known  # as long as those that made the levels
    lab.note("cannot tell: the server does not say what it found, and TTFT of a second turn is as of a cold prompt")
    return None, None


def _remarks(lab: Lab, ages: Sequence[Asked], capacity: Bracket | None, gaps: Sequence[Asked]) -> None:
    unclear = sum(each.kept is None for each in (*ages, *gaps))
    if unclear:
        lab.note(f"{unclear:,} of {len(ages) + len(gaps):,} prefixes: cannot tell whether they were there")
    if capacity is not None and not capacity.orderly:
        lab.note("older prefixes outlived younger ones: this cache does not evict the least recently used first")
    if capacity is not None and capacity.high is None and ages:
        lab.note(f"nothing was lost under {max(each.age for each in ages):,.0f} tokens of others: it holds more")
