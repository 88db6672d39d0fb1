"""How long a prefix survives: against what others write into the cache, and against time.

Pressure is a ladder: one session whose prefixes lie at many ages when they are asked for again, so that one pass over
the cache shows the whole curve.

    prime 1 | others | prime 2 | others | prime 3 | others | ask 3 | ask 2 | ask 1
    the youngest first: a miss writes its prefix anew, which would age the others

The age of a prefix is the tokens written into the cache between its own call and the question, by the server's own
counts (and its blocks). A cache that evicts the least recently used first holds a prefix as long as prefix and age fit
into it; evicted from its end, what is left of one says the capacity outright: age + what was found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from workloom.answers.probe.hits import TURN
from workloom.answers.probe.lab import ANSWER, Lab, Ran
from workloom.answers.probe.levels import Levels, by_time
from workloom.session import Call, Edge, Inherit, Part, Session

ASK = TURN
"""Fresh tokens of a question: as many as of the second turns that its TTFT is held against."""
FULL = 0.9
"""Share of a prefix from which on it is there: the last block is computed again in any case."""
GONE = 0.1
STEPS = 40
"""Most rungs of a ladder."""


class Asked(Struct, frozen=True):
    """A prefix that was asked for again. `age`: tokens written since, or seconds."""

    age: float
    kept: float | None
    """Share of it that was found; None: cannot tell."""
    held_tokens: float | None
    """Age + what was found: a cache that evicts from the end of the oldest prefix holds as much. None: not told, or
    nothing or all was found."""


class Bracket(Struct, frozen=True):
    """Where keeping ends: `low` is the highest at which all was there, `high` the lowest at which nothing was.

    None: not reached. `orderly`: everything younger was there, everything older gone.
    """

    low: float | None
    high: float | None
    orderly: bool = True


def bracket(asked: Sequence[Asked], own: float = 0.0) -> Bracket:
    """From where all of a prefix was there to where nothing was; `own` is added to the ages of those that were.

    Prefixes that were there in part narrow it from both sides: each says the capacity itself.
    """
    partial = [each.held_tokens for each in asked if each.held_tokens is not None]
    there = [each.age + own for each in asked if each.kept is not None and each.kept >= FULL]
    gone = [each.held_tokens or each.age for each in asked if each.kept is not None and each.kept <= GONE]
    orderly = not there or not gone or max(there) - own < min(gone)
    if partial and orderly:
        return Bracket(min(partial), max(partial))
    low = max(there, default=None) if orderly else min(gone)
    high = min(gone, default=None) if orderly else max(there)
    return Bracket(low, high, orderly)


# -- pressure


class Ladder(NamedTuple):
    """`prefix`: tokens of each prime; `ages`: tokens that should lie between, oldest first."""

    prefix: int
    ages: list[int]

    @property
    def least_step(self) -> int:
        """Between ages: what a rung itself writes."""
        return self.prefix + ANSWER + ASK + ANSWER


def rungs(low: float, high: float, ratio: float, prefix: int) -> Ladder:
    """Ages from `high` down to `low`, each at most 1/ratio of the one before, as close as `prefix` allows."""
    least = Ladder(prefix, []).least_step
    ages = [math.ceil(high)]
    while len(ages) < STEPS:
        below = min(math.floor(ages[-1] / ratio), ages[-1] - least)
        if below < max(low, 1):
            break
        ages.append(below)
    return Ladder(prefix, ages)


def session(name: str, ladder: Ladder, piece: int) -> Session:
    """The ladder's calls in a chain; traffic of others comes in prompts of at most `piece` tokens."""
    calls: list[Call] = []

    def add(id: str, agent: str, fresh: int, inherit: Inherit | None = None) -> None:
        after = (Edge(calls[-1].id),) if calls else ()
        calls.append(Call(id, ANSWER, after=after, agent=agent, inherit=inherit, fresh=(Part("user", fresh),)))

    ages = ladder.ages
    for j, age in enumerate(ages):
        add(f"prime {j}", "prime", ladder.prefix)
        younger = ages[j + 1] + ladder.least_step if j + 1 < len(ages) else 0
        between = max(0, age - younger)
        parts = -(-between // (piece + ANSWER))
        for k in range(parts):
            share = between * (k + 1) // parts - between * k // parts
            if share > ANSWER:
                add(f"others {j}.{k}", "others", share - ANSWER)
    for j in reversed(range(len(ages))):
        add(f"ask {j}", "ask", ASK, Inherit(f"prime {j}"))
    return Session(name, tuple(calls))


def read(ran: Ran, made: Session, known: Levels | None, block: int | None) -> list[Asked]:
    """Ages and what was found, in the order they were asked for. A question whose prime failed says nothing."""
    wrote: list[tuple[str, float]] = []
    kept: dict[str, tuple[float | None, float | None]] = {}
    before: dict[str, float] = {}
    calls = ran.run.calls
    for call in made.calls:
        row = ran.rows.get((made.id, call.id))
        if row is None or not ran.ok[row]:
            continue
        prompt, answer = float(ran.prompt_tokens[row]), float(ran.run.output_tokens[row])
        told = float(calls.cached_tokens[row])
        found = 0.0 if math.isnan(told) else told
        if call.agent == "prime":
            before[call.id] = prompt + answer - 1
        elif call.inherit is not None and call.inherit.call in before:
            whole = before[call.inherit.call]
            kept[call.id] = _kept(told, whole, float(ran.ttft_s[row]), known, block)
            if math.isnan(told) and kept[call.id][0]:
                found = whole
        wrote.append((call.id, _written(prompt + answer - 1 - found, block)))
    at = {name: i for i, (name, _) in enumerate(wrote)}
    out = []
    for call in made.calls:
        if call.id in kept and call.inherit is not None:
            age = sum(tokens for _, tokens in wrote[at[call.inherit.call] + 1 : at[call.id]])
            share, found_tokens = kept[call.id]
            partly = share is not None and share < FULL and found_tokens
            out.append(Asked(age, share, age + found_tokens if partly and found_tokens is not None else None))
    return out


def _own(prefix: int, block: int | None) -> int:
    """What a prefix that is found whole takes of the cache: its last token and a block that is not full are not it."""
    tokens = prefix + ANSWER - 1
    return tokens if block is None else tokens // block * block


def _written(tokens: float, block: int | None) -> float:
    """What a call takes of the cache: whole blocks, where their size is known."""
    return tokens if block is None else math.ceil(tokens / block) * block


def _kept(
    told: float, whole: float, ttft_s: float, known: Levels | None, block: int | None
) -> tuple[float | None, float | None]:
    """Share of a prefix that was found, and how many tokens; by TTFT it is all, nothing, or cannot be told."""
    if not math.isnan(told):
        could = whole if block is None else max(1.0, whole // block * block)
        return min(1.0, told / could), told
    hit = by_time(ttft_s, known)
    return (None if hit is None else float(hit)), None


def pressure(
    lab: Lab, prefix: int, known: Levels | None, block: int | None, most: int, repeats: int
) -> tuple[list[Asked], Bracket]:
    """Ladders that reach further until one loses its oldest prefix, then finer ones about where that was."""
    piece = max(prefix, min(lab.longest // 2, 16_384)) - ANSWER
    asked: list[Asked] = []
    number = 0

    def climb(low: float, high: float, ratio: float, times: int) -> None:
        nonlocal number
        ladder = rungs(low, high, ratio, prefix)
        made = []
        for _ in range(times):
            number += 1
            made.append(session(f"ladder {number}", ladder, piece))
        lab.say(f"pressure of up to {ladder.ages[0]:,} tokens, {len(ladder.ages)} prefixes")
        ran = lab.run(f"pressure-{number}", made)
        for each in made:
            asked.extend(read(ran, each, known, block))

    reach = min(most, 16 * prefix)
    climb(0, reach, 2.0, 1)
    held = _own(prefix, block)
    where = bracket(asked, held)
    while where.high is None and reach < most and asked and not lab.spent:
        reach = min(most, 4 * reach)
        climb(reach / 5, reach, 1.5, 1)
        where = bracket(asked, held)
    for ratio, times in ((1.03, repeats), (1.003, 1)):
        if where.high is None or lab.spent or not where.orderly:
            break
        low, beside = where.low or 0.0, 2 * Ladder(prefix, []).least_step
        climb(max(0.0, low - held - beside), where.high + beside, ratio, times)
        where = bracket(asked, held)
    return sorted(asked, key=lambda each: each.age), where


# -- time


def waits(name: str, prefix: int, gaps_s: Sequence[float]) -> Session:
    """Prefixes that are primed one after another, each asked for again after a wait of its own."""
    calls: list[Call] = []
    for j in range(len(gaps_s)):
        after = (Edge(f"prime {j - 1}"),) if j else ()
        calls.append(Call(f"prime {j}", ANSWER, after=after, agent="prime", fresh=(Part("user", prefix),)))
    for j, gap in enumerate(gaps_s):
        after = (Edge(f"prime {j}", gap, "tool"),)
        inherit = Inherit(f"prime {j}")
        calls.append(Call(f"ask {j}", ANSWER, after=after, agent="ask", inherit=inherit, fresh=(Part("user", ASK),)))
    return Session(name, tuple(calls))


def idle(
    lab: Lab, prefix: int, known: Levels | None, block: int | None, longest_s: float
) -> tuple[list[Asked], Bracket]:
    """Gaps that double up to the longest, then eight between the last that was survived and the first that was not."""
    gaps = [longest_s / 2**k for k in range(12) if longest_s / 2**k >= min(1.0, longest_s)][::-1]
    asked = _wait(lab, 1, prefix, known, block, gaps)
    where = bracket(asked)
    if where.low is not None and where.high is not None and where.orderly and lab.left_s > where.high:
        step = (where.high - where.low) / 9
        asked += _wait(lab, 2, prefix, known, block, [where.low + step * (k + 1) for k in range(8)])
        where = bracket(asked)
    return sorted(asked, key=lambda each: each.age), where


def _wait(
    lab: Lab, number: int, prefix: int, known: Levels | None, block: int | None, gaps: Sequence[float]
) -> list[Asked]:
    made = waits(f"waits {number}", prefix, gaps)
    lab.say(f"{len(gaps)} prefixes asked for again after {gaps[0]:g} to {gaps[-1]:g} s")
    ran = lab.run(f"idle-{number}", [made])
    out = []
    calls = ran.run.calls
    for j in range(len(gaps)):
        prime, ask = (ran.rows.get((made.id, f"{what} {j}")) for what in ("prime", "ask"))
        if prime is None or ask is None or not ran.ok[prime] or not ran.ok[ask]:
            continue
        whole = float(ran.prompt_tokens[prime] + ran.run.output_tokens[prime]) - 1
        told = float(calls.cached_tokens[ask])
        share, _ = _kept(told, whole, float(ran.ttft_s[ask]), known, block)
        out.append(Asked(float(calls.sent_ns[ask] - calls.done_ns[prime]) / 1e9, share, None))
    return out
