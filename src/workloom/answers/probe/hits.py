"""Cached against cold prefill, and how finely a cache tells prefixes apart.

One session a length, its calls one after another:

    cold      n fresh tokens
    cached    all of that and its answer, and a short turn more: m tokens, all but the turn seen before
    equal     m fresh tokens

so cached and equal are a pair of equal length, measured within moments of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
ENOUGH_COUNTS = 5
"""Different cached counts that a block size is told from."""


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
    out = []
    for r in range(repeats):
        for tokens in lengths:
            first = tokens + int(rng.integers(0, APART))
            whole = first + ANSWER + TURN
            out.append(
                Session(
                    _name(tokens, r),
                    (
                        Call("cold", ANSWER, agent="cold", fresh=(Part("user", first),)),
                        Call(
                            "cached",
                            ANSWER,
                            after=(Edge("cold", 0.1, "tool"),),
                            agent="cached",
                            inherit=Inherit("cold"),
                            fresh=(Part("user", TURN),),
                        ),
                        Call(
                            "equal",
                            ANSWER,
                            after=(Edge("cached", 0.1, "tool"),),
                            agent="equal",
                            fresh=(Part("user", whole),),
                        ),
                    ),
                )
            )
    return out


def _name(tokens: int, repeat: int) -> str:
    return f"prefix of {tokens}, {repeat + 1}"


def measure(lab: Lab, lengths: Sequence[int], repeats: int) -> tuple[Hits, Ran]:
    """Run the triples."""
    made = sessions(lengths, repeats, lab.seed)
    lab.say(f"{len(made)} pairs of a cold and a cached prompt, of {lengths[0]:,} to {lengths[-1]:,} tokens")
    ran = lab.run("hits", made)
    calls = ran.run.calls
    found, counts, missed = [], set(), []
    for tokens in lengths:
        cached_s, cold_s, ratios, shares, sizes = [], [], [], [], []
        for r in range(repeats):
            rows = [ran.rows.get((_name(tokens, r), call)) for call in ("cold", "cached", "equal")]
            if None in rows:
                continue
            cold, cached, equal = (row for row in rows if row is not None)
            cached_s.append(float(ran.ttft_s[cached]))
            cold_s.append(float(ran.ttft_s[equal]))
            if ran.ok[cached] and ran.ok[equal]:
                ratios.append(cold_s[-1] / cached_s[-1])
                sizes.append(ran.prompt_tokens[cached])
            told = float(calls.cached_tokens[cached])
            if ran.ok[cold] and ran.ok[cached] and not math.isnan(told):
                before = float(ran.prompt_tokens[cold] + ran.run.output_tokens[cold]) - 1
                shares.append(min(1.0, told / before))
                missed.append(max(0.0, before - told))
                counts.add(round(told))
        share = float(np.median(shares)) if shares else None
        size = round(float(np.median(sizes))) if sizes else tokens
        found.append(Hit(size, middle(cached_s), middle(cold_s), middle(ratios), share))
    return Hits(found, block_of(counts), middle(missed)), ran


def block_of(counts: set[int]) -> int | None:
    """The largest size that all cached counts are multiples of; 1: single tokens. None: too few different counts."""
    there = counts - {0}
    return math.gcd(*there) if len(there) >= ENOUGH_COUNTS else None
