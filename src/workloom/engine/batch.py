"""A step as it is formed, and what bounds it."""

from __future__ import annotations

from msgspec import Struct

from workloom.engine.profile import Profile
from workloom.engine.sequence import Sequence
from workloom.errors import ProfileError

Chunks = list[tuple[Sequence, int]]
"""Calls that compute prompt tokens in a step, with the size of their chunk."""


class Limits(Struct, frozen=True):
    """What bounds a step."""

    max_num_seqs: int
    max_batched_tokens: int
    block_tokens: int
    max_prefill_tokens: int = 1 << 60
    watermark_blocks: int = 0
    prefill_first: bool = False
    swap: bool = False
    """Whether preempted calls are kept in a tier."""
    decode_tokens: int = 1
    """What a decoding call takes of a step's tokens."""
    acceptance_milli: int = 1000
    """Tokens that it gets from one of the server's steps, in thousandths."""

    @classmethod
    def of(cls, profile: Profile) -> Limits:
        """Those of a profile; raises ProfileError if no prefill could get anywhere."""
        budget, most = profile.max_batched_tokens, profile.max_prefill_tokens
        limits = cls(
            max_num_seqs=profile.max_num_seqs,
            max_batched_tokens=budget,
            block_tokens=profile.block_tokens,
            max_prefill_tokens=budget if most is None else most,
            watermark_blocks=profile.watermark_blocks,
            prefill_first=profile.mixing == "prefill_first",
            swap=profile.preemption == "swap",
            decode_tokens=1 if profile.speculative is None else profile.speculative.step_tokens,
            acceptance_milli=1000 if profile.speculative is None else profile.speculative.acceptance_milli,
        )
        if profile.state_groups and min(budget, limits.max_prefill_tokens) < limits.block_tokens:
            raise ProfileError(
                "a step is shorter than a block: prefills of a model with states go block by block",
                where=profile.name,
                expected=f"max_batched_tokens and max_prefill_tokens of at least {limits.block_tokens}",
                found=min(budget, limits.max_prefill_tokens),
            )
        if profile.state_groups and profile.cache == "sglang":
            raise ProfileError(
                "state pages are not simulated for sglang's cache", where=profile.name, hint="use cache: vllm"
            )
        if limits.swap and limits.prefill_first:
            raise ProfileError(
                "preemption by swap is not simulated with prefill_first", where=profile.name, hint="use decode_first"
            )
        return limits


class Batch(Struct):
    """One step, and how many times it can be repeated unless something arrives."""

    decodes: int
    context_tokens: int
    prefills: Chunks
    """Newly admitted calls are the last `admitted` of them; their `computed` is what they hit."""
    admitted: int
    steps: int
    preempted: list[Sequence]
    """In order."""
    paused: bool = False
    """Whether decoding calls stand still."""
    joined: int = 0
    """Calls of `prefills` that compute for the first time since they were loaded from a tier."""

    tokens: int = 1
    """What each decoding call gets in one step; more than one only with speculation, in a step with prefill."""
