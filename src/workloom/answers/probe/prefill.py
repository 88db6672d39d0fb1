"""`workloom probe prefill`: TTFT against prompt length, of cold prompts that come one at a time.

What an unloaded server takes is

    TTFT = a + b*n + q*n^2/2        a: fixed, b: a prompt token, q: a query-key pair

with a floor for short prompts, whose computing hides behind the reading of the weights or the launch of a step: the
fit begins where the sum holds. A server that prefills in chunks adds its fixed cost of a step to `b` of long prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from workloom.answers.probe.fit import Fit, fit
from workloom.answers.probe.lab import ANSWER, Lab, Ran, geometric
from workloom.answers.probe.middle import Middle, middle
from workloom.errors import UsageError
from workloom.metrics.stats import Floats
from workloom.session import Call, Part, Session

TERMS = ("fixed_s", "prompt_token_s", "pair_s")
SHORTEST = 64
HOLDS = 0.03
"""The sum of terms holds from the length on from which it is within so much of every median (or their noise)."""
FEWEST = 4
"""Lengths that a fit needs: one more than it has terms."""
FOUND = 0.01
"""Share of fresh prompts that a cache must have held to be worth a remark."""


class Length(Struct, frozen=True):
    """One prompt length: `prompt_tokens` as the server counted (median), `asked` calls, `failed` of them."""

    tokens: int
    prompt_tokens: float
    asked: int
    failed: int
    ttft_s: Middle
    fitted_s: float | None
    """By the fit; None below where it holds."""
    tokens_per_s: float | None
    """Prompt tokens over TTFT."""


class Prefill(Struct, frozen=True):
    """`fit` is None where too few lengths were measured; it is about prompts from `holds_from_tokens` on, or, where the
    sum holds for none (None), as good as it gets for all."""

    lengths: list[Length]
    fit: Fit | None
    holds_from_tokens: float | None
    floor_s: float | None
    """TTFT of the shortest prompts, where the sum does not hold for them."""
    cached_tokens: float
    """Prompt tokens that the server found in its cache, though all text was new."""
    untold: list[str]
    """What these runs cannot tell."""
    notes: list[str]
    runs: list[str]

    def ttft_s(self, prompt_tokens: float) -> float | None:
        """What an unloaded server would take for a cold prompt: the ideal that slowdowns are measured against."""
        if self.fit is None:
            return None
        fixed, token, pair = (term.value for term in self.fit.terms)
        return max(self.floor_s or 0.0, fixed + token * prompt_tokens + pair * prompt_tokens**2 / 2)


def lengths_of(longest: int) -> list[int]:
    """Prompt lengths for calls of at most so many tokens: doubling, up to the longest there is room for."""
    if longest < 8 * ANSWER:
        raise UsageError("no room for prompts", expected="calls of 32 tokens or more", found=longest)
    top = longest - ANSWER
    return geometric(min(SHORTEST, max(1, top // 16)), top)


def sessions(lengths: Sequence[int], repeats: int) -> list[Session]:
    """One call each. The agent names its length, so that figures of the run can be asked for by it."""
    return [
        Session(_name(tokens, r), (Call("0", ANSWER, agent=f"prompt-{tokens}", fresh=(Part("user", tokens),)),))
        for r in range(repeats)
        for tokens in lengths
    ]


def prefill(lab: Lab, lengths: Sequence[int] | None = None, repeats: int = 6) -> Prefill:
    """Measure and fit."""
    wanted = sorted(set(lengths)) if lengths else lengths_of(lab.longest)
    if wanted[-1] + ANSWER > lab.longest:
        raise UsageError(
            "a prompt is too long for this server",
            expected=f"at most {lab.longest - ANSWER:,} tokens",
            found=f"{wanted[-1]:,}",
        )
    made = sessions(wanted, repeats)
    total = sum(wanted) * repeats
    lab.say(f"{len(made):,} cold prompts of {wanted[0]:,} to {wanted[-1]:,} tokens, {total:,} in all")
    lab.warm(wanted)
    return analyse(lab, lab.run("prefill", made), wanted, repeats)


def analyse(lab: Lab, ran: Ran, wanted: Sequence[int], repeats: int) -> Prefill:
    """What the rows say."""
    found = [_length(ran, tokens, repeats) for tokens in wanted]
    if ran.unsent:
        lab.note(f"{ran.unsent:,} of {len(wanted) * repeats:,} calls were not made: there was no time (--seconds)")
    cached = float(np.nansum(ran.run.calls.cached_tokens[ran.ok]))
    sent = float(np.sum(ran.prompt_tokens[ran.ok]))
    if cached > FOUND * sent:
        lab.note(
            f"the server found {cached:,.0f} of {sent:,.0f} prompt tokens in its cache though all text was new: "
            "these are not cold (is it a mock, or does it count its template?)"
        )
    begin, fitted = fit_from(found)
    holds = None if begin is None else found[begin].prompt_tokens
    below = [each.ttft_s.value for each in found[: begin or 0] if each.ttft_s.value is not None]
    floor = float(np.median(below)) if below else None
    found = [each if i < (begin or 0) else _fitted(each, fitted) for i, each in enumerate(found)]
    return Prefill(found, fitted, holds, floor, cached, _untold(fitted, found), lab.notes, lab.runs)


def _name(tokens: int, repeat: int) -> str:
    return f"prompt of {tokens}, {repeat + 1}"


def _length(ran: Ran, tokens: int, repeats: int) -> Length:
    names = [(_name(tokens, r), "0") for r in range(repeats)]
    rows = np.array([ran.rows[name] for name in names if name in ran.rows], dtype=np.int64)
    counted = ran.prompt_tokens[rows[ran.ok[rows]]]
    took = middle(ran.ttft_s[rows].tolist())
    length = float(np.median(counted)) if len(counted) else float(tokens)
    usable = took.value is not None and np.isfinite(took.value) and took.value > 0
    speed = length / took.value if usable and took.value is not None else None
    failed = int(np.count_nonzero(ran.run.calls.failed[rows]))
    return Length(tokens, length, repeats, failed, took, None, speed)


def columns(prompt_tokens: Floats) -> Floats:
    """What the terms multiply: 1, n, n^2/2."""
    return np.stack([np.ones_like(prompt_tokens), prompt_tokens, prompt_tokens**2 / 2], axis=1)


def fit_from(found: Sequence[Length]) -> tuple[int | None, Fit | None]:
    """From which length on the sum holds, and its fit; None where it never does, and the fit of all lengths."""
    good = [i for i, each in enumerate(found) if each.tokens_per_s is not None]
    times = np.array([found[i].ttft_s.value or np.nan for i in good])
    tokens = np.array([found[i].prompt_tokens for i in good])
    noise = [_noise(found[i].ttft_s) for i in good]
    allowed = max(HOLDS, 3 * float(np.median(noise))) if noise else HOLDS
    if len(good) < FEWEST:
        return None, None
    for begin in range(len(good) - FEWEST + 1):
        fitted = fit(TERMS, columns(tokens[begin:]), times[begin:])
        if fitted is not None and fitted.off <= allowed:
            return good[begin], fitted
    return None, fit(TERMS, columns(tokens), times)


def _noise(took: Middle) -> float:
    if not took.value or took.low is None or took.high is None:
        return 0.0
    return (took.high - took.low) / 2 / took.value


def _fitted(each: Length, fitted: Fit | None) -> Length:
    if fitted is None:
        return each
    weights = np.array([term.value for term in fitted.terms])
    value = float(columns(np.array([each.prompt_tokens]))[0] @ weights)
    return Length(each.tokens, each.prompt_tokens, each.asked, each.failed, each.ttft_s, value, each.tokens_per_s)


_WORDS = {
    "fixed_s": "the fixed part",
    "prompt_token_s": "the cost of a prompt token",
    "pair_s": "the cost of attention (pairs)",
}


def _untold(fitted: Fit | None, found: Sequence[Length]) -> list[str]:
    """What cannot be told apart, in sentences."""
    if fitted is None:
        return [f"no fit: it needs {FEWEST} lengths with answers"]
    longest = max(each.prompt_tokens for each in found)
    out = [
        f"{_WORDS[term.name]} is not told from 0 by prompts of up to {longest:,.0f} tokens"
        for term in fitted.terms
        if not term.seen
    ]
    out += [f"{_WORDS[one]} and {_WORDS[other]} are not told apart" for one, other in fitted.alike]
    if fitted.off > HOLDS:
        out.append(f"the sum is off by up to {fitted.off:.0%}: in between, read the table rather than the fit")
    out.append(
        "network, templating and launch of a step are all in the fixed part; tokenising is in the cost of a prompt "
        "token, as is the fixed cost of every chunk of a long prompt"
    )
    return out
