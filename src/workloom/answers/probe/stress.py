"""`workloom probe stress`: throughput against load, up to the knee.

A closed loop of so many calls (or sessions of a workload) at once, each level a run: twice the load of the one before,
until it brings no more, calls fail, or the levels end. Then two levels more on either side of the knee.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.answers.probe.knee import PAYS, Knee, Rate, bound, gain, knee
from workloom.answers.probe.lab import Lab, Ran
from workloom.answers.probe.middle import Middle, middle
from workloom.clock import NS
from workloom.errors import UsageError
from workloom.metrics.chunks import delivered_tokens
from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.figure import figure
from workloom.metrics.frame import Bools, Window
from workloom.metrics.measured import Measured
from workloom.plan import Closed, Limits, Plan, Warmup
from workloom.session import Call, Part, Session

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 256
MADE = 256
"""Sessions that are told apart."""
FIRST_CALLS = 6
"""Of the first level, which tells how long a call takes."""
SETTLE, LASTS = 1.5, 6.0
"""A level settles and is measured for so many times what a session took at the level before."""
BLOCKS = 8
"""Throughput is measured in so many equal blocks of the window; its interval is Student's over them."""
MOST_FAILED = 0.1
MOST_LIVE, MOST_SIMULATED = 256, 1024
FIGURES = ("ttft_p50", "ttft_p95")
GAPS = ("tbc_p50", "tbc_p95")
GAPS_OF = 200
"""Calls of a level whose gaps are looked at: calls are what is independent, and each has hundreds of gaps."""

Offer = Callable[[int, Limits, Warmup], Plan]
"""The plan of a level: so many sessions at once."""


class Level(Struct, frozen=True):
    """One level of load. Rates are of what was delivered in the window."""

    concurrency: int
    calls: int
    """Due in the window."""
    failed: int
    output_tokens_per_s: float
    low: float | None
    high: float | None
    user_tokens_per_s: float
    """Output tokens/s over the sessions at once."""
    ended_per_s: float
    """Calls that ended well in the window."""
    session_s: Middle
    figures: list[Estimate]


class Stress(Struct, frozen=True):
    """`knee`: see :mod:`workloom.answers.probe.knee`; `bound`: the load below which saturation is impossible."""

    workload: str
    levels: list[Level]
    knee: Knee
    bound: float | None
    notes: list[str]
    runs: list[str]


def sessions(prompt: int, output: int, seed: int) -> list[Session]:
    """Single calls of half to one and a half times the lengths, evenly: equal ones would go in lockstep."""
    rng = seeds.stream(seed, "probe", "stress")
    shares = rng.uniform(0.5, 1.5, (MADE, 2)).tolist()
    return [
        Session(
            f"call {k + 1}",
            (Call("0", max(1, round(output * b)), fresh=(Part("user", max(1, round(prompt * a))),)),),
        )
        for k, (a, b) in enumerate(shares)
    ]


def offered(lab: Lab, prompt: int = PROMPT_TOKENS, output: int = OUTPUT_TOKENS) -> tuple[Offer, str]:
    """Single calls as a load, and what it is called. Raises UsageError where the longest does not fit."""
    made = sessions(prompt, output, lab.seed)
    longest = max(call.output_tokens + call.fresh_tokens for each in made for call in each.calls)
    if longest > lab.longest:
        expected, found = f"at most {lab.longest:,} tokens", f"{longest:,} in the longest of them"
        raise UsageError(
            "calls are too long for this server",
            expected=expected,
            found=found,
            hint="fewer --prompt-tokens or --output-tokens",
        )
    path = lab.trace("stress", made)

    def offer(concurrency: int, limits: Limits, warmup: Warmup) -> Plan:
        return lab.plan(path, Closed(concurrency), limits, warmup)

    return offer, f"single calls of about {prompt:,} prompt and {output:,} output tokens"


def levels_of(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    found = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return found if found[-1] == most else [*found, most]


def stress(lab: Lab, offer: Offer, workload: str, levels: Sequence[int] | None = None, *, fine: bool = True) -> Stress:
    """Raise the load, then look more closely about the knee (`fine`)."""
    wanted = sorted(set(levels)) if levels else levels_of(MOST_LIVE if lab.live else MOST_SIMULATED)
    if wanted[0] < 1:
        raise UsageError("a load is at least one session at once", where="--streams", found=wanted[0])
    lab.say(f"{workload}: {wanted[0]} to {wanted[-1]} at once, until throughput rises by less than {PAYS:.0%}")
    found: list[Level] = []
    idle = 0
    before = measure(lab, offer, wanted[0], None)
    for concurrency in wanted:
        if lab.spent:
            break
        level = before = measure(lab, offer, concurrency, before)
        found.append(level)
        lab.say(f"{concurrency} at once: {level.output_tokens_per_s:,.0f} tokens/s")
        if level.failed > MOST_FAILED * max(1, level.calls):
            lab.note(f"stopped at {concurrency} at once: {level.failed:,} of {level.calls:,} calls failed")
            break
        if len(found) > 1:
            idle = 0 if gain(_rate(found[-2]), _rate(found[-1]))[0] >= PAYS else idle + 1
        if idle == 2:
            break
    if fine and levels is None:
        for concurrency in _between(found):
            if lab.spent:
                break
            below = max((each for each in found if each.concurrency < concurrency), key=lambda each: each.concurrency)
            found.append(measure(lab, offer, concurrency, below))
            found.sort(key=lambda each: each.concurrency)
            lab.say(f"{concurrency} at once: {_at(found, concurrency).output_tokens_per_s:,.0f} tokens/s")
    rates = [_rate(level) for level in found if level.output_tokens_per_s > 0]
    return Stress(workload, found, knee(rates), bound(rates) if rates else None, lab.notes, lab.runs)


def _at(found: Sequence[Level], concurrency: int) -> Level:
    return next(level for level in found if level.concurrency == concurrency)


def _rate(level: Level) -> Rate:
    return Rate(level.concurrency, level.output_tokens_per_s, level.low, level.high)


def _between(found: Sequence[Level]) -> list[int]:
    """Levels half-way (in ratio) to the neighbours of the knee."""
    where = knee([_rate(level) for level in found]).at
    tried = [level.concurrency for level in found]
    if where is None:
        return []
    at = tried.index(int(where))
    near = tried[max(0, at - 1) : at + 2]
    middles = [round(math.sqrt(one * two)) for one, two in pairwise(near)]
    return [each for each in middles if each not in tried]


def measure(lab: Lab, offer: Offer, concurrency: int, before: Level | None) -> Level:
    """One level. How long it settles and is measured comes from the level before; without one it is a pilot: a few
    calls that tell how long they take."""
    took_s = None if before is None else before.session_s.value
    left = lab.left_s
    if took_s is None or not math.isfinite(took_s) or before is None:
        name, limits, warmup = "pilot", Limits(sessions=max(FIRST_CALLS, 2 * concurrency)), Warmup()
        if not math.isinf(left):
            limits = Limits(math.ceil(left), limits.sessions)
    else:
        slower = max(1.0, concurrency / before.concurrency) if _saturated(before) else 1.25
        lasts = min(round(LASTS * slower * took_s, 3), left)
        name, limits, warmup = (
            f"stress-{concurrency}",
            Limits(max(lasts, 0.001)),
            Warmup(settle_s=round(SETTLE * slower * took_s, 3)),
        )
    return _level(lab.carry_out(name, offer(concurrency, limits, warmup)), concurrency, lab.seed)


def _saturated(before: Level) -> bool:
    """Whether calls already wait for one another: TTFT is a good part of a session."""
    ttft = before.figures[0].value
    return bool(ttft is not None and before.session_s.value and ttft > 0.2 * before.session_s.value)


def _level(ran: Ran, concurrency: int, seed: int) -> Level:
    run = ran.run
    due = run.due
    value, low, high = throughput(run)
    ended = ran.ok & ~run.calls.warmup & run.window.holds(run.calls.done_ns)
    seconds = max(run.window.seconds, 1e-9)
    made = (run.sessions.end_ns - run.sessions.start_ns) / NS
    return Level(
        concurrency=concurrency,
        calls=int(due.sum()),
        failed=int((due & run.calls.failed).sum()),
        output_tokens_per_s=value,
        low=low,
        high=high,
        user_tokens_per_s=value / concurrency,
        ended_per_s=float(ended.sum()) / seconds,
        session_s=middle(made[run.sessions.ok].tolist()),
        figures=[
            *estimates(run, [figure(name) for name in FIGURES], seed=seed),
            *estimates(_some(run, due), [figure(name) for name in GAPS], seed=seed),
        ],
    )


def _some(run: Measured, due: Bools) -> Measured:
    """The run with at most GAPS_OF of its calls looked at, evenly spread over it."""
    rows = np.flatnonzero(due)
    keep = np.zeros(len(run.calls), dtype=np.bool_)
    keep[rows[:: max(1, -(-len(rows) // GAPS_OF))]] = True
    return run.looking_at(keep)


def throughput(run: Measured) -> tuple[float, float | None, float | None]:
    """Output tokens delivered in the window a second, and the interval of its mean over blocks of time."""
    from scipy.special import stdtrit

    start, end = run.window.start_ns, run.window.end_ns
    if end <= start:
        return 0.0, None, None
    edges = np.linspace(start, end, BLOCKS + 1).round().astype(np.int64).tolist()
    blocks = np.zeros(BLOCKS)
    for piece in run.pieces():
        for b in range(BLOCKS):
            blocks[b] += float(delivered_tokens(piece, Window(edges[b], edges[b + 1])).sum())
    rates = blocks * BLOCKS / run.window.seconds
    half = float(stdtrit(BLOCKS - 1, 0.975) * np.std(rates, ddof=1) / math.sqrt(BLOCKS))
    value = float(rates.mean())
    return value, max(0.0, value - half), value + half
