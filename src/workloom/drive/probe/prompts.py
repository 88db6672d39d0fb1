"""Probes of prompts: tokens of words, of the template, and of the cache."""

from __future__ import annotations

from math import gcd

from workloom.drive.probe.answer import Answer
from workloom.drive.probe.findings import Finding, found
from workloom.drive.probe.lab import Lab
from workloom.drive.probe.server import HITS, gauge

WORDS = (100, 300)
"""Lengths of the two texts that tell words from template."""
CACHED_WORDS = (640, 694, 761)
"""Lengths of the texts that are repeated; their remainders by the usual block sizes differ."""


async def words(lab: Lab) -> list[Finding]:
    """Is a word a token, and what does the template add?"""
    counts = []
    for length in WORDS:
        answer = await lab.say(lab.words(length), 1)
        if answer.prompt_tokens is None:
            why = _why(answer)
            return [found("prompt", name, "unknown", why) for name in ("word_is_token", "template")]
        counts.append(answer.prompt_tokens)
    rate = (counts[1] - counts[0]) / (WORDS[1] - WORDS[0])
    rest = round(counts[0] - rate * WORDS[0])
    lab.known.tokens_per_word, lab.known.overhead_tokens = rate, rest
    told = f"{WORDS[0]} and {WORDS[1]} words are counted as {counts[0]} and {counts[1]} tokens: {rate:.4g} a word"
    one = found("prompt", "word_is_token", "yes" if rate == 1 else "no", told)
    return [one, await _template(lab, rate, rest)]


async def _template(lab: Lab, rate: float, rest: int) -> Finding:
    """What one message costs beyond its words, and two more."""
    if lab.known.primary not in ("chat", "messages"):
        return found("prompt", "template", "yes" if rest else "no", f"{rest} tokens beyond the words")
    said = [lab.words(40) for _ in range(3)]
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    answer = await lab.say("", 1, messages=messages)
    more = ""
    if answer.prompt_tokens is not None:
        more = f", {round(answer.prompt_tokens - rate * 120) - rest} more for an answer and a second question"
    return found("prompt", "template", "yes" if rest else "no", f"{rest} tokens beyond the words of one message{more}")


async def cached(lab: Lab) -> list[Finding]:
    """Does a repeated prompt come from the cache, is that told, and in which steps?"""
    limit = lab.known.max_model_len
    shrink = min(1.0, limit / (CACHED_WORDS[-1] * 2.5)) if limit else 1.0
    seen: list[tuple[int, int]] = []
    field, hits = "", await gauge(lab, HITS)
    for length in CACHED_WORDS:
        text = lab.words(max(16, int(length * shrink)))
        first = await lab.say(text, 1)
        again = await lab.say(text, 1)
        told = again.usage.cached if again.usage is not None else None
        if told is None or again.prompt_tokens is None:
            more = await gauge(lab, HITS)
            return [_not_told(first, again, None if hits is None or more is None else more - hits)]
        seen.append((told[0], again.prompt_tokens))
        field = told[1]
    shown = ", ".join(f"{cached} of {prompt}" for cached, prompt in seen)
    if not any(cached for cached, _ in seen):
        return [found("prompt", "cached_tokens", "no", f"{field} stays 0 on repeated prompts ({shown})")]
    return [found("prompt", "cached_tokens", "yes", f"{field}, on a repeat: {shown} ({_steps(seen)})")]


def _steps(seen: list[tuple[int, int]]) -> str:
    """In which steps cached tokens are counted: by token, by blocks, or neither can be told."""
    if all(prompt - cached == 1 for cached, prompt in seen):
        return "all but the last token"
    block = gcd(*(cached for cached, _ in seen))
    if all(prompt - cached <= block for cached, prompt in seen) and block > 1:
        return f"multiples of {block}"
    return "in no step that is plain"


def _not_told(first: Answer, again: Answer, hits: float | None) -> Finding:
    name = "cached_tokens"
    if not again.ok or again.usage is None:
        return found("prompt", name, "unknown", _why(again))
    if again.cache_n is not None:
        return found("prompt", name, "no", f"usage does not tell; timings say {again.cache_n} were cached")
    if hits is not None:
        return found("prompt", name, "no", f"usage has no count of cached tokens; by its metrics {hits:.0f} were hit")
    faster = ""
    if first.chunks_ns and again.chunks_ns:
        faster = f"; first chunk after {first.chunks_ns[0] / 1e6:.1f} ms, on a repeat {again.chunks_ns[0] / 1e6:.1f} ms"
    return found("prompt", name, "no", f"usage has no count of cached tokens{faster}")


def _why(answer: Answer) -> str:
    return answer.error or "usage does not tell the tokens of prompts"
