"""Probes of output lengths: does an answer get exactly the tokens that a plan asks for?

A natural end must be seen first: only where an answer ends early of itself does a long one prove that a field works.
"""

from __future__ import annotations

import asyncio
from typing import Any

from workloom.clock import NS
from workloom.drive.probe.answer import Answer
from workloom.drive.probe.findings import Finding, Verdict, found
from workloom.drive.probe.lab import Lab

LIMITS = (24, 128)
"""Fewest and most tokens asked for; natural answers to the question below are shorter than most."""
ANSWER_S = 5.0
"""About how long one answer may take."""
TRIES = 2
"""Answers of each kind: a random one may happen to be long."""
_QUESTION = "What is the capital of France? Answer with its name alone."


async def exact(lab: Lab) -> list[Finding]:
    """ignore_eos, min_tokens, and the two together with max_tokens."""
    if lab.known.primary not in ("chat", "completions"):
        text = f"the {lab.known.primary} API has no such field"
        return [found("length", name, "no", text) for name in ("ignore_eos", "min_tokens", "exact_length")]
    limit = _limit(lab.known.streams[lab.known.primary])
    natural = await _answers(lab, limit)
    early = [answer for answer in natural if answer.ok and _count(answer) < limit and answer.finish == "stop"]
    told = f"without it {min(_count(answer) for answer in early)} tokens" if early else ""
    return [
        await _field(lab, limit, "ignore_eos", True, told),
        await _field(lab, limit, "min_tokens", limit, told),
        await _both(lab, limit),
    ]


def _limit(first: Answer) -> int:
    """How many tokens an answer may have, by the pace of the first one."""
    gaps = len(first.chunks_ns) - 1
    gap_s = (first.chunks_ns[-1] - first.chunks_ns[0]) / NS / gaps if gaps > 0 else 0.0
    fewest, most = LIMITS
    return most if gap_s * most <= ANSWER_S else max(fewest, int(ANSWER_S / gap_s))


async def _answers(lab: Lab, limit: int, **fields: Any) -> list[Answer]:
    answers = await asyncio.gather(*(lab.say(_QUESTION, limit, **fields) for _ in range(TRIES)))
    good = [answer for answer in [lab.known.longest, *answers] if answer is not None and answer.ok]
    lab.known.longest = max(good, key=_count, default=None)
    return answers


async def _field(lab: Lab, limit: int, name: str, value: object, natural: str) -> Finding:
    """What one field does. `natural` says how early answers end without it, "" that none did."""
    answers = await _answers(lab, limit, **{name: value})
    failed = [answer for answer in answers if not answer.ok and answer.error != _SILENT]
    if failed:
        refused = failed[0].refused
        if refused:
            lab.known.exact_refused.append(name)
        return found("length", name, "no" if refused else "unknown", f"{failed[0].error}")
    short = [answer for answer in answers if _count(answer) < limit]
    if short:
        ended = f"{_count(short[0])} of {limit} tokens came ({_finish(short[0])})"
        return found("length", name, "ignored", f"taken, but {ended}")
    if not natural:
        return found("length", name, "unknown", f"{limit} of {limit} tokens came, but no answer ended early without it")
    return found("length", name, "yes", f"{limit} of {limit} tokens came; {natural}")


async def _both(lab: Lab, limit: int) -> Finding:
    """As a run with exact lengths asks; leaving out what is refused."""
    asked = {"ignore_eos": True, "min_tokens": limit}
    fields = {name: value for name, value in asked.items() if name not in lab.known.exact_refused}
    answers = await _answers(lab, limit, **fields)
    with_what = ", ".join(["max_tokens", *fields])
    failed = next((answer for answer in answers if not answer.ok and answer.error != _SILENT), None)
    if failed is not None:
        return found("length", "exact_length", "no" if failed.refused else "unknown", f"{with_what}: {failed.error}")
    counts = [_count(answer) for answer in answers]
    lab.known.exact_count = all(count == limit for count in counts)
    verdict: Verdict = "yes" if lab.known.exact_count and fields else "no"
    if lab.known.exact_count and not fields:
        verdict = "unknown"
    came = " and ".join(str(count) for count in counts)
    return found("length", "exact_length", verdict, f"asked for {limit} with {with_what}: {came} tokens came")


_SILENT = "a stream that says nothing"
"""An answer may be ended by its first token."""


def _count(answer: Answer) -> int:
    return answer.output_tokens if answer.output_tokens is not None else len(answer.chunks_ns)


def _finish(answer: Answer) -> str:
    return f"finish reason {answer.finish}" if answer.finish else "no finish reason"
