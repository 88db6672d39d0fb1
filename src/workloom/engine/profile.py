"""Profiles: what a simulated server is made of, as data files with their source and stated error.

Step-time coefficients are integers in picoseconds, so that many steps are an exact integer series. The form is that of
DESIGN.md: a step takes the larger of a CPU launch floor (steps with prefill) and the GPU time

    max(weights + experts * (1 - (1 - k/N)^T),  prefill_base + prefill_token * n  if n > 0)
        + sequence * B + pair * pairs + context_token * ctx

with T tokens in the step (k of N experts each), n prefill tokens, B decoding calls, pairs = sum over prefill chunks of
n*P + n^2/2 (P tokens before the chunk), ctx the sum of decoding contexts. In decode-only steps B is padded to the next
graph size. Steps with few prefill tokens may run as graphs too, cheaper to launch: see `graph_tokens`.

What else a server may have is off by default: state pages beside the KV (`state_groups`), a chat template of its own
(`template`), memory below the GPU's (`tiers`), steps decided ahead (`async_scheduling`), speculative decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from workloom.errors import ProfileError, nearest

Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0, lt=1e18)]
Share = Annotated[float, Meta(ge=0, le=1)]
FOLDER = Path(__file__).parent / "profiles"


class StepCost(Struct, frozen=True, forbid_unknown_fields=True):
    """Coefficients of the step-time form, integer picoseconds."""

    weights_ps: Count
    prefill_base_ps: Count
    prefill_token_ps: Count
    sequence_ps: Count
    pair_ps: Count
    context_token_ps: Count
    experts_ps: Count = 0
    experts: Count = 0
    experts_per_token: Count = 0
    launch_ps: Count = 0
    """CPU launch floor F of a step with prefill."""
    admit_ps: Count = 0
    """H, added to the floor for every call newly admitted in the step."""
    launch_tail_ps: Count = 0
    """How long after its launch a step with prefill ends at the earliest: the last kernels launched have to run."""
    graph_tokens: Count = 0
    """Steps with prefill of at most so many tokens in all (B included) run as piecewise graphs, those above eagerly."""
    graph_launch_ps: Count = 0
    """F of a step with prefill that runs as piecewise graphs."""
    graph_token_ps: Count = 0
    """b of such a step."""
    knee_tokens: Count = 0
    """Prefill tokens of a step beyond this cost `beyond_token_ps` each instead of `prefill_token_ps`; 0: no knee."""
    beyond_token_ps: Count = 0
    mixed_sequence_ps: Count = 0
    """What a decoding call costs beside `sequence_ps` in a step with prefill."""
    padding_ps: Count = 0
    """What an empty slot of a padded batch costs beside the padding's share of the form."""
    decode_ps: tuple[tuple[Limit, Limit], ...] = ()
    """Measured decode-only steps as (calls, time without their contexts), rising. Another number of calls takes the
    nearest measured one below (if none is, above) and what the form says lies between the two."""
    graph_sizes: tuple[Limit, ...] = ()
    """Batch sizes decode-only steps are padded to, rising; above the largest there is no padding."""

    def __post_init__(self) -> None:
        if list(self.graph_sizes) != sorted(set(self.graph_sizes)):
            raise ValueError("graph_sizes must rise")
        if self.experts_ps and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError("a step that reads experts needs 1 <= experts_per_token <= experts")
        measured = [calls for calls, _ in self.decode_ps]
        if measured != sorted(set(measured)):
            raise ValueError("decode_ps must rise")


class FrontEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands between the engine and the client.

    Before the engine a serial first-come-first-served stage: templating and tokenising. Behind it the stream: the first
    chunk of an answer is delivered `first_token_ps` after its step, later ones at once, and the stream ends (so that a
    dependant call can leave) `end_ps` after the last.
    """

    call_ps: Count = 0
    prompt_token_ps: Count = 0
    first_token_ps: Count = 0
    end_ps: Count = 0
    merged_chunks: tuple[Share, ...] = ()
    """Share of chunks that carry 2, 3, ... tokens: those whose text is not whole yet come with the next."""

    def __post_init__(self) -> None:
        if sum(self.merged_chunks) >= 1:
            raise ValueError("merged_chunks are shares of less than all chunks")


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """What the server's chat template makes of a prompt.

    Tokens beyond those the client counts: `call_tokens` in every prompt, `turn_tokens` more for every call of the
    history (it may be a fraction: counts are rounded). The last `tail_tokens` of a prompt open the answer. `answers`:
    whether the next prompt repeats the answer as it was generated, so that its KV can be found, or in another form
    (thinking taken out), so that nothing from the tail on can.
    """

    call_tokens: Count = 0
    turn_tokens: Annotated[float, Meta(ge=0)] = 0.0
    tail_tokens: Count = 0
    answers: Literal["repeated", "rewritten"] = "repeated"

    def __post_init__(self) -> None:
        if self.tail_tokens > self.call_tokens:
            raise ValueError("tail_tokens are of the call_tokens")


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """Memory below the GPU's that keeps KV blocks, least recently used first out.

    `write`: a block is copied to it when it is computed (`through`) or when it is evicted from above (`evict`).
    `prefetch`: blocks are fetched as soon as a call waits, not when it is its turn. Reads, and writes, are one after
    the other.
    """

    name: str
    tokens: Limit | None
    """Capacity; None is infinite."""
    read_bytes_per_s: Positive
    write_bytes_per_s: Positive
    latency_ps: Count = 0
    """Of every transfer, before its first byte."""
    write: Literal["through", "evict"] = "evict"
    prefetch: bool = False


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """What of the KV is kept, and how long. Eviction is least recently used first."""

    ttl_ps: Annotated[int, Meta(ge=1)] | None = None
    """A block nobody used for so long cannot be found any more; None: until it is evicted."""
    pinned_tokens: Count = 0
    """Room for prefixes that calls ask to be pinned (`Hints.pin_tokens`): those are not evicted. 0: nothing is."""


class Speculative(Struct, frozen=True, forbid_unknown_fields=True):
    """Speculative decoding: each step verifies `draft_tokens` guesses a call and yields `acceptance_length` tokens.

    The acceptance length counts the token that the model itself gives, as vLLM's metric does: 1 + accepted / drafts.
    `draft_ps`: making the guesses, for each step.
    """

    draft_tokens: Limit
    acceptance_length: Annotated[float, Meta(ge=1)]
    draft_ps: Count = 0

    def __post_init__(self) -> None:
        if self.acceptance_length > 1 + self.draft_tokens:
            raise ValueError("acceptance_length is at most 1 + draft_tokens")

    @property
    def step_tokens(self) -> int:
        """Tokens of a step that one decoding call takes."""
        return 1 + self.draft_tokens

    @property
    def acceptance_milli(self) -> int:
        """The acceptance length in thousandths, which is how exactly it is simulated."""
        return round(1000 * self.acceptance_length)


class FitError(Struct, frozen=True, forbid_unknown_fields=True):
    """How far the form is from the figures it was fitted to, as a share of the figure (0.08 is 8 %)."""

    prefill_max: float
    decode_max: float
    mixed_max: float | None
    mean: float
    points: int


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """One simulated serving system: a model on some GPUs."""

    name: str
    model: str
    gpu: str
    gpus: int
    dtype: str
    source: str
    """Where the figures come from, with versions."""
    error: FitError
    not_identified: dict[str, str]
    """What the source cannot tell, by field, and where the value used instead comes from."""
    step: StepCost
    front_end: FrontEnd
    max_model_len: Limit
    max_num_seqs: Limit
    max_batched_tokens: Limit
    """Chunk budget: tokens of one step, decodes included."""
    block_tokens: Limit
    kv_tokens: Limit | None
    """KV capacity in tokens; None is infinite."""
    kv_token_bytes: Count = 0
    """Bytes of KV a token has, for transfers; 0: not known."""
    async_scheduling: bool = False
    """A step is decided while the one before it runs, and its launch holds back that one's tokens (vLLM's name)."""
    policy: str = "fcfs"
    """Who of the waiting is next: see :mod:`workloom.engine.policies`."""
    mixing: Literal["decode_first", "prefill_first"] = "decode_first"
    """Which of both gets the tokens of a step first: prefill_first decodes only when nobody prefills."""
    max_prefill_tokens: Limit | None = None
    """Most prefill tokens of one step; None: what the budget has."""
    watermark_blocks: Count = 0
    """Blocks that an admission must leave free, so that running calls can grow."""
    preemption: Literal["recompute", "swap"] = "recompute"
    """What a call that is preempted loses: its KV, or the time to write it to the first tier and read it back."""
    cache: Literal["vllm", "sglang"] = "vllm"
    """vllm: blocks computed twice at once are kept twice, and blocks nobody can find queue for eviction like others.
    sglang: they are merged, and such blocks are free at once."""
    state_groups: Count = 0
    """Groups of layers that keep a state instead of KV (Mamba, linear attention): each takes a page of a block's size a
    call, findable only where a step ended on a block's boundary, and prefills are cut at the last whole block."""
    template: Template = Template()
    retention: Retention = Retention()
    tiers: tuple[Tier, ...] = ()
    """From the fastest down."""
    speculative: Speculative | None = None

    @property
    def kv_blocks(self) -> int | None:
        """KV capacity in whole blocks; None is infinite."""
        return None if self.kv_tokens is None else self.kv_tokens // self.block_tokens

    @property
    def longest_call(self) -> int:
        """Most tokens, prompt + answer, of a call it can serve; the last token of an answer needs no KV."""
        blocks = self.kv_blocks
        if blocks is None:
            return self.max_model_len
        if self.state_groups:  # state pages, twice in the step that begins a block
            blocks = max(blocks - 2 * self.state_groups, min(1, blocks - self.state_groups), 0)
            if not blocks:
                return 0
        return min(self.max_model_len, blocks * self.block_tokens + 1)


def names() -> list[str]:
    """Names of the profiles that come with workloom, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Profile:
    """A profile by name, by the path of a YAML file, or computed: `roofline:MODEL@GPUxCOUNT`. Raises ProfileError."""
    import yaml

    if name.startswith("roofline:"):
        from workloom.engine import roofline

        return roofline.profile(name)
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        near = nearest(name, names())
        raise ProfileError(
            f"there is no engine profile called {name}",
            expected="a name from `workloom profiles`, the path of a .yaml file, or roofline:MODEL@GPUxCOUNT",
            hint=f"did you mean {near}?" if near else "run `workloom profiles` to see them",
        )
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), Profile)
    except (yaml.YAMLError, msgspec.ValidationError) as fault:
        raise ProfileError("an engine profile is malformed", where=str(path), found=fault) from fault
