"""What tests of writers share: sessions whose calls can be told apart again, and what must be equal then."""

from __future__ import annotations

from msgspec.structs import replace

from workloom.prefix import common
from workloom.prompt import planned
from workloom.session import Session, validate

Told = tuple[int, int]
"""Two calls by their outputs."""


def told_apart(session: Session) -> Session:
    """The session with an output of its own for every call, longer than before."""
    calls = tuple(replace(call, output_tokens=1000 + place) for place, call in enumerate(session.calls))
    changed = replace(session, calls=calls)
    validate(changed)
    return changed


def sizes(session: Session) -> dict[int, int]:
    """Prompt tokens of every call, by its output."""
    return {call.answer_tokens: prompt.tokens for call, prompt in planned(session)}


def waits(session: Session) -> dict[int, dict[int, float]]:
    """What every call waits for and how long, by outputs."""
    output = {call.id: call.answer_tokens for call in session.calls}
    return {
        call.answer_tokens: {output[edge.call]: round(edge.wait_s, 6) for edge in call.after} for call in session.calls
    }


def shared(session: Session, block_tokens: int = 1) -> dict[Told, int]:
    """How many whole blocks every two prompts share, by outputs."""
    prompts = planned(session)
    return {
        (mine.answer_tokens, other.answer_tokens): common(a.key, b.key) // block_tokens
        for place, (mine, a) in enumerate(prompts)
        for other, b in prompts[:place]
    }
