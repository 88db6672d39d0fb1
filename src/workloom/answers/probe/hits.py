"""Cached against cold prefill, and how finely a cache tells prefixes apart.

One session a length, its calls one after another:

    cold      n fresh tokens
    cached    all of that and its answer, and a short turn more: m tokens, all but the turn seen before
    equal     m fresh tokens

So cached and equal are a pair of equal length, measured within moments of each other. Some more sessions of cold and
cached alone tell the block size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.answers.probe.lab import ANSWER, Lab, Ran, geometric
from workloom.answers.probe.middle import Middle, middle
from workloom.session import Call, Edge, Inherit, Part, Session

TURN = 64
"""Fresh tokens of the second turn."""
APART = 61
"""Lengths of repeats differ by less than so many tokens, so that they end anywhere in a block."""
ENOUGH_COUNTS = 8
"""Different cached counts that a block size is told from: that random multiples of it share a larger size too has a
probability of about 2^-8."""
SIZES = 12
"""Second turns that are there for the block size alone, of prompts of any length from half of the shortest to the
shortest, so that counts differ."""


class Hit(Struct, frozen=True):
    """Pairs of equal length. `speedup`: TTFT cold over cached, of each pair."""

    prompt_tokens: int
    cached_s: Middle
    cold_s: Middle
    speedup: Middle
    cached_share: float | None
    """Of the tokens that had been seen before, those found in the cache by the server's count; None: it does not
    say."""


class Hits(Struct, frozen=True):
    """`block_tokens`: what every cached count is a multiple of; None: not told."""

    hits: list[Hit]
    block_tokens: int | None
    missed_tokens: Middle
    """Tokens seen before that were computed again, of each pair: below a block where blocks are all it costs."""


def lengths_of(longest: int) -> list[int]:
    """First prompts: from 512 tokens, four times as long each."""
    top = max(16, longest - TURN - 2 * ANSWER - APART)
    return geometric(min(512, max(8, top // 8)), top if top < 32_768 else 32_768, 4.0)


def sessions(lengths: Sequence[int], repeats: int, seed: int) -> list[Session]:
    """`repeats` triples of each length."""
    rng = seeds.stream(seed, "probe", "cache")
    out = [_triple(_name(tokens, r), tokens + int(rng.integers(APART))) for r in range(repeats) for tokens in lengths]
    half = lengths[0] // 2
    for k in range(SIZES):
        whole = _triple(_size(k), half + 1 + int(rng.integers(half + 1)))
        out.append(Session(whole.id, whole.calls[:2]))
    return out


def _triple(name: str, first: int) -> Session:
    """The calls of a pair: `first` fresh tokens, a second turn, and as many tokens cold."""
    again, wait = Inherit("cold"), 0.1
    cold = Call("cold", ANSWER, agent="cold", fresh=(Part("user", first),))
    cached = Call(
        "cached",
        ANSWER,
        after=(Edge("cold", wait, "tool"),),
        agent="cached",
        inherit=again,
        fresh=(Part("user", TURN),),
    )
    whole = (Part("user", first + ANSWER + TURN),)
    return Session(name, (cold, cached, Call("equal", ANSWER, (Edge("cached", wait, "tool"),), "equal", fresh=whole)))


def _size(k: int) -> str:
    return f"block size, {k + 1}"


def _name(tokens: int, repeat: int) -> str:
    return f"prefix of {tokens}, {repeat + 1}"


def measure(lab: Lab, lengths: Sequence[int], repeats: int) -> tuple[Hits, Ran]:
    """Run the triples."""
    made = sessions(lengths, repeats, lab.seed)
    pairs = len(lengths) * repeats
    lab.say(f"{pairs} pairs of a cold and a cached prompt, of {lengths[0]:,} to {lengths[-1]:,} tokens")
    ran = lab.run("hits", made)
    found = [_hit(ran, tokens, [_name(tokens, r) for r in range(repeats)]) for tokens in lengths]
    turns = [turn for session in made if (turn := seen_again(ran, session.id)) is not None]
    missed = middle(max(0.0, turn.before - turn.found) for turn in turns)
    return Hits(found, block_of({round(turn.found) for turn in turns}), missed), ran


class Again(NamedTuple):
    """A second turn: tokens that had been seen before, and of them those the server says it found."""

    before: float
    found: float


def seen_again(ran: Ran, session: str) -> Again | None:
    """The second turn of a session; None where it or the first failed, or the server does not say."""
    cold, cached = ran.rows.get((session, "cold")), ran.rows.get((session, "cached"))
    if cold is None or cached is None or not ran.ok[cold] or not ran.ok[cached]:
        return None
    told = float(ran.run.calls.cached_tokens[cached])
    before = float(ran.prompt_tokens[cold] + ran.run.output_tokens[cold]) - 1
    return None if math.isnan(told) else Again(before, told)


def _hit(ran: Ran, tokens: int, names: Sequence[str]) -> Hit:
    """The pairs of a length."""
    cached_s, cold_s, ratios, sizes = [], [], [], []
    for name in names:
        cached, equal = ran.rows.get((name, "cached")), ran.rows.get((name, "equal"))
        if cached is None or equal is None:
            continue
        cached_s.append(float(ran.ttft_s[cached]))
        cold_s.append(float(ran.ttft_s[equal]))
        if ran.ok[cached] and ran.ok[equal]:
            ratios.append(cold_s[-1] / cached_s[-1])
            sizes.append(float(ran.prompt_tokens[cached]))
    turns = [turn for name in names if (turn := seen_again(ran, name)) is not None]
    shares = [min(1.0, turn.found / turn.before) for turn in turns]
    share = float(np.median(shares)) if shares else None
    size = round(float(np.median(sizes))) if sizes else tokens
    return Hit(size, middle(cached_s), middle(cold_s), middle(ratios), share)


def block_of(counts: set[int]) -> int | None:
    """The largest size that all cached counts are multiples of; 1: single tokens. None: too few different counts."""
    there = counts - {0}
    return math.gcd(*there) if len(there) >= ENOUGH_COUNTS else None
