"""What happens to a session that outgrows the context of the model it is sent to."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from workloom.errors import PlanError
from workloom.prompt import Prompt, Prompts
from workloom.session import Call, Inherit, Part, Session

ContextPolicy = Literal["stop", "cut", "skip", "refuse"]


class Context(Struct, frozen=True):
    """The most tokens (prompt + answer) a call may have; None: no limit.

    stop: the session ends before the first call that is longer (and before everything that needs it). cut: the oldest
    text after the scaffold is left out. skip: the whole session is left out. refuse: the plan is.
    """

    max_tokens: int | None = None
    policy: ContextPolicy = "stop"


class Fitted(Struct, frozen=True):
    """A session as it will run, None if nothing of it is left, and what had to go."""

    session: Session | None
    calls_left_out: int = 0
    calls_cut: int = 0


def fit(session: Session, context: Context) -> Fitted:
    """Apply a context limit to a session."""
    limit = context.max_tokens
    if limit is None:
        return Fitted(session)
    prompts = Prompts(session, 0)
    calls: list[Call] = []
    gone: set[str] = set()
    cuts: set[str] = set()
    for original in session.calls:
        if any(edge.call in gone for edge in original.after):
            gone.add(original.id)
            continue
        call = _after_cuts(original, prompts, cuts)
        prompt = prompts.make(call)
        prompt.answer_tokens = call.answer_tokens
        if prompt.tokens + call.output_tokens > limit:
            if context.policy == "refuse":
                raise PlanError(
                    "a call is longer than the context allows",
                    where=f"session {session.id}, call {call.id}",
                    expected=f"at most {limit} tokens (prompt + answer)",
                    found=prompt.tokens + call.output_tokens,
                    hint="raise --max-context, or use --context-policy stop, cut or skip",
                )
            if context.policy == "skip":
                return Fitted(None, calls_left_out=len(session.calls))
            shorter = _cut(call, prompt, calls, limit) if context.policy == "cut" else None
            if shorter is None:
                gone.add(call.id)
                continue
            call = shorter
            prompt = prompts.make(call)
            prompt.answer_tokens = call.answer_tokens
        if call is not original:
            cuts.add(call.id)
        calls.append(call)
    if not gone and not cuts:
        return Fitted(session)
    kept = replace(session, calls=tuple(calls)) if calls else None
    return Fitted(kept, calls_left_out=len(gone), calls_cut=len(cuts))


def _after_cuts(call: Call, prompts: Prompts, cuts: set[str]) -> Call:
    """A call that inherits so many tokens of one that was cut: as many as are left, the rest as text of its own.

    (Tokens counted from the start mean other text behind the hole; what counts here is how many there are.)
    """
    inherit = call.inherit
    if inherit is None or inherit.tokens is None or inherit.call not in cuts:
        return call
    ancestor = prompts.made[inherit.call]
    whole = ancestor.tokens + (ancestor.answer_tokens or 0)
    if inherit.tokens <= whole:
        return call
    rest = Part("injected", inherit.tokens - whole)
    return replace(call, inherit=Inherit(inherit.call), spans=(), fresh=(rest, *_as_fresh(call), *call.fresh))


def _as_fresh(call: Call) -> tuple[Part, ...]:
    return tuple(Part("injected", span.tokens) for span in call.spans)


def _cut(call: Call, prompt: Prompt, earlier: list[Call], limit: int) -> Call | None:
    """The call with whole pieces of its history left out, the oldest after the scaffold first; None if that is no help.

    What stays comes after a hole, so it can be found in no cache: it is fresh text now.
    """
    root, root_call = prompt, call
    while root.base is not None:
        root = root.base
    by_id = {c.id: c for c in earlier}
    while root_call.inherit is not None:
        root_call = by_id[root_call.inherit.call]
    scaffold = root_call.span_tokens
    for part in root_call.fresh:
        if part.kind != "definition":
            break
        scaffold += part.tokens
    inherited = prompt.tokens - call.span_tokens - call.fresh_tokens
    if call.inherit is None or inherited < scaffold:
        return None
    own = call.span_tokens + call.fresh_tokens
    room = limit - call.output_tokens - scaffold - own
    if room < 0:
        return None
    ends = [scaffold, *(end for end in prompt.key.ends if scaffold < end < inherited), inherited]
    kept = next(inherited - start for start in ends if inherited - start <= room)
    fresh = (Part("injected", kept),) if kept else ()
    return replace(
        call, inherit=Inherit(root_call.id, scaffold), spans=(), fresh=(*fresh, *_as_fresh(call), *call.fresh)
    )
