"""What readers of transcripts and telemetry share: from observed turns to inheritance, fresh parts and edges.

Such traces tell how long a prompt was, not what it repeats. The rules here, with `before` the call it continues:

    prompt >= before.prompt + before.output     it begins with all of that, its answer included
    prompt >= before.prompt                     with the prompt alone (the answer was dropped or rewritten)
    shorter                                     the context was reset; what the provider read from its cache
                                                is all that is known to be kept

If an agent drops its reasoning from the history, the second rule holds and the visible answer is fresh text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from workloom.session import Edge, Gap, Inherit, Part, PartKind

CHARS_PER_TOKEN = 4
"""English text and code in the vocabularies in use, for estimates where a trace counts no tokens."""


class Turn(NamedTuple):
    """A call as it was observed, in tokens. `output` includes `reasoning`."""

    id: str
    prompt: int
    output: int
    reasoning: int = 0


class Continued(NamedTuple):
    """What a prompt begins with. `answer`: the visible answer where it is fresh text, to stand first."""

    inherit: Inherit | None
    tokens: int
    """How many tokens are inherited."""
    answer: tuple[Part, ...]
    reset: bool
    """Whether the prompt is shorter than the one before."""


def continued(before: Turn, prompt: int, cached: int | None, *, drops_reasoning: bool = False) -> Continued:
    """What a prompt of `prompt` tokens keeps of the call before it; `cached`: prompt tokens read from a cache."""
    whole = before.prompt + before.output
    if drops_reasoning and before.reasoning:
        visible = before.output - before.reasoning
        if prompt >= before.prompt + visible:
            answer = (Part("answer", visible, from_call=before.id),) if visible else ()
            return Continued(Inherit(before.id, before.prompt), before.prompt, answer, False)
    elif prompt >= whole:
        return Continued(Inherit(before.id), whole, (), False)
    if prompt >= before.prompt:
        return Continued(Inherit(before.id, before.prompt), before.prompt, (), False)
    kept = min(cached or 0, prompt)
    return Continued(Inherit(before.id, kept) if kept else None, kept, (), True)


def apportion(total: int, parts: Sequence[Part], other: PartKind = "user") -> tuple[Part, ...]:
    """The parts with sizes in the proportion of their estimates, adding up to `total`; none of size 0.

    Without any estimate it is one part of kind `other`.
    """
    if total <= 0:
        return ()
    estimated = sum(part.tokens for part in parts)
    if not estimated:
        kept = parts[0] if len(parts) == 1 else Part(other, 0)
        return (replace(kept, tokens=total),)
    out: list[Part] = []
    before = done = 0
    for part in parts:
        done += part.tokens
        upto = total * done // estimated
        if upto > before:
            out.append(replace(part, tokens=upto - before))
        before = upto
    return tuple(out)


class Done(NamedTuple):
    """Something a call waited for: the call `call` ended at `end_s`, its result was there at `ready_s` (>= end_s)."""

    call: str
    end_s: float
    ready_s: float
    gap: Gap


def edges(start_s: float, waited: Sequence[Done]) -> tuple[Edge, ...]:
    """Edges whose latest (end + wait) is `start_s`: what is left behind the last result is added to every wait."""
    rest = max(0.0, start_s - max((max(done.end_s, done.ready_s) for done in waited), default=start_s))
    return tuple(Edge(done.call, exact(max(0.0, done.ready_s - done.end_s) + rest), done.gap) for done in waited)


def exact(seconds: float) -> float:
    """Without the dust of binary fractions: no trace tells time finer than microseconds."""
    return round(seconds, 6)


def estimate(characters: int) -> int:
    """Tokens of a text of so many characters, at CHARS_PER_TOKEN, rounded up."""
    return -(-characters // CHARS_PER_TOKEN)
