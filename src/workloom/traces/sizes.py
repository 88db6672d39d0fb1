"""What prompts repeat, where a format can only say: all of an earlier prompt and its answer, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from workloom.session import Call, Session, prompt_tokens

MORE = "prompts that repeat most of an earlier prompt and answer: written as repeating all of it"
LESS = "prompts that repeat a part of an earlier prompt and answer: written as repeating less, the rest as new text"
NOTHING = "prompts that repeat a part of an earlier prompt and answer: written as new text"


class History(NamedTuple):
    """The call whose whole prompt and answer a prompt begins with, None: none; `changed` says what had to be bent."""

    call: str | None
    changed: str | None = None


def histories(session: Session, *, further: bool) -> list[History]:
    """What each prompt repeats where that can only be all of an ancestor's prompt and answer.

        c0  ====---             = prompt, - answer
        c1  ====---====---      begins with all of c0
        c2  ====---====..       begins with the prompt of c1: all of c0 is the most that fits

    A part of an ancestor becomes all of it (if the prompt is long enough), or else nothing; `further`: or all of the
    last call that lies in the part. What is nearest in tokens is taken.
    """
    calls = {call.id: call for call in session.calls}
    prompts = prompt_tokens(session)
    wholes = {call.id: prompts[call.id] + call.answer_tokens for call in session.calls}
    return [_history(call, prompts[call.id], calls if further else {}, wholes) for call in session.calls]


def _history(call: Call, prompt: int, calls: Mapping[str, Call], wholes: Mapping[str, int]) -> History:
    inherit = call.inherit
    if inherit is None or inherit.tokens == 0:
        return History(None)
    shared, whole = inherit.tokens, wholes[inherit.call]
    if shared is None or shared >= whole:
        return History(inherit.call)
    inside = _last_inside(inherit.call, shared, calls, wholes)
    missing = shared - (0 if inside is None else wholes[inside])
    if prompt >= whole and whole - shared <= missing:
        return History(inherit.call, MORE)
    return History(inside, NOTHING if inside is None else LESS if missing else None)


def _last_inside(call: str, shared: int, calls: Mapping[str, Call], wholes: Mapping[str, int]) -> str | None:
    """The last of `calls` whose prompt and answer lie in the first `shared` tokens of those of `call`."""
    while wholes[call] > shared:
        inherit = calls[call].inherit if call in calls else None
        if inherit is None:
            return None
        if inherit.tokens is not None:
            shared = min(shared, inherit.tokens)
        call = inherit.call
    return call
