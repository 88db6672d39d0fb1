"""Profiles: what a simulated server is made of, as data files with their source and stated error.

Step-time coefficients are integers in picoseconds, so that many steps are an exact integer series. The form is that of
DESIGN.md: a step takes the larger of a CPU launch floor (steps with prefill) and the GPU time

    max(weights + experts * (1 - (1 - k/N)^T),  prefill_base + prefill_token * n  if n > 0)
        + sequence * B + pair * pairs + context_token * ctx

with T tokens in the step (k of N experts each), n prefill tokens, B decoding calls, pairs = sum over prefill chunks of
n*P + n^2/2 (P tokens before the chunk), ctx the sum of decoding contexts. In decode-only steps B is padded to the next
graph size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.errors import ProfileError, nearest

Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1)]
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
    graph_sizes: tuple[Limit, ...] = ()
    """Batch sizes decode-only steps are padded to, rising; above the largest there is no padding."""

    def __post_init__(self) -> None:
        if list(self.graph_sizes) != sorted(set(self.graph_sizes)):
            raise ValueError("graph_sizes must rise")
        if self.experts_ps and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError("a step that reads experts needs 1 <= experts_per_token <= experts")


class FrontEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """A serial first-come-first-served stage before the engine: templating and tokenising."""

    call_ps: Count = 0
    prompt_token_ps: Count = 0


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

    @property
    def kv_blocks(self) -> int | None:
        """KV capacity in whole blocks; None is infinite."""
        return None if self.kv_tokens is None else self.kv_tokens // self.block_tokens

    @property
    def longest_call(self) -> int:
        """Most tokens, prompt + answer, of a call it can serve; the last token of an answer needs no KV."""
        blocks = self.kv_blocks
        return self.max_model_len if blocks is None else min(self.max_model_len, blocks * self.block_tokens + 1)


def names() -> list[str]:
    """Names of the profiles that come with workloom, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Profile:
    """A profile by name, or by the path of a YAML file. Raises ProfileError."""
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        near = nearest(name, names())
        raise ProfileError(
            f"there is no engine profile called {name}",
            expected="a name from `workloom profiles`, or the path of a .yaml file",
            hint=f"did you mean {near}?" if near else "run `workloom profiles` to see them",
        )
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), Profile)
    except (yaml.YAMLError, msgspec.ValidationError) as fault:
        raise ProfileError("an engine profile is malformed", where=str(path), found=fault) from fault
