"""Prefill on one replica, decode on another: what becomes of a call between the two.

    arrival   prefill replica: prompt and first token   link: KV   decode replica: the other tokens
    --|-------------------------------------------|-------------|------------------------------------|--> end
                                                  ^ first token                ^ second token

The first token is the prefill replica's, so TTFT does not know of the transfer; the gap behind it holds the transfer
and the wait for a place. Bytes go for those prompt tokens that the decode replica's prefix cache does not hold when
the transfer begins. The decode replica takes blocks when it admits the call and computes nothing of the prompt; a call
that it preempts it computes again itself. Its tokens are already tokens: it has no front end.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from workloom.engine.engine import PS, Finished, Steps
from workloom.engine.fleet import Pool
from workloom.engine.hints import Hints
from workloom.engine.profile import FrontEnd, Profile
from workloom.errors import Refused
from workloom.prefix import Key


class Split(Struct, eq=False):
    """A call whose prompt is computed on one replica and whose answer on another."""

    call: str
    prompt: Key
    answer: int
    output_tokens: int
    hints: Hints
    model: str
    pool: int
    """The number of the pool that computes its prompt."""
    first: Finished | None = None
    """How the prefill ended, once it has."""
    on_way: bool = False
    """Its KV is on its way, and somebody waits for it."""


def as_stage(pool: Pool) -> Profile:
    """The profile of a pool's replicas: of the front end, what stands before the prefill is there and no more."""
    profile, front = pool.profile, pool.profile.front_end
    if pool.role == "prefill":
        return replace(profile, front_end=FrontEnd(front.call_ps, front.prompt_token_ps))
    if pool.role == "decode":
        return replace(profile, front_end=FrontEnd(end_ps=front.end_ps))
    return profile


def refuse_too_long(profile: Profile, call: str, prompt_tokens: int, output_tokens: int) -> None:
    """Raise Refused when a decode replica could never hold the call."""
    total = prompt_tokens + output_tokens
    if total > profile.longest_call:
        raise Refused(
            "the call is longer than the model's context or the KV cache of a decode replica",
            where=f"call {call}",
            expected=f"at most {profile.longest_call} tokens",
            found=total,
        )


def joined(first: Finished, rest: Finished | None, front: FrontEnd) -> Finished:
    """The call as its client saw it: the prefill's token, delivered as its front end delivers, and the others.

    `front` is that of the prefill pool's profile; `rest` None: there was nothing more to come, or it never came.
    """
    tokens = delivered_first(first.tokens, rest.tokens if rest is not None else [], front)
    if rest is None:
        late = front.first_token_ps + (front.end_ps if first.status == "done" else 0)
        return first._replace(tokens=tokens, done_ns=-(-(first.done_ns * PS + late) // PS))
    return first._replace(
        tokens=tokens,
        status=rest.status,
        done_ns=rest.done_ns,
        output_tokens=first.output_tokens + sum(steps.length for steps in rest.tokens),
        preemptions=first.preemptions + rest.preemptions,
        replica=rest.replica,
    )


def delivered_first(first: list[Steps], rest: list[Steps], front: FrontEnd) -> list[Steps]:
    """The first token leaves `first_token_ps` after it came, but not after the second."""
    if not first or not front.first_token_ps:
        return [*first, *rest]
    at = first[0].end_ps + front.first_token_ps
    if rest:
        at = min(at, rest[0].end_ps)
    return [Steps(first[0].first_step, at, 0, 0, 1), *rest]
