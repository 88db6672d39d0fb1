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

import msgspec
from msgspec import Struct

from workloom.errors import ProfileError, nearest

FOLDER = Path(__file__).parent / "profiles"


class StepCost(Struct, frozen=True, forbid_unknown_fields=True):
    """Coefficients of the step-time form, integer picoseconds."""

    weights_ps: int
    prefill_base_ps: int
    prefill_token_ps: int
    sequence_ps: int
    pair_ps: int
    context_token_ps: int
    experts_ps: int = 0
    experts: int = 0
    experts_per_token: int = 0
    launch_ps: int = 0
    """CPU launch floor F of a step with prefill."""
    admit_ps: int = 0
    """H, added to the floor for every call newly admitted in the step."""
    graph_sizes: tuple[int, ...] = ()
    """Batch sizes decode-only steps are padded to; above the largest there is no padding."""


class FrontEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """A serial first-come-first-served stage before the engine: templating and tokenising."""

    call_ps: int = 0
    prompt_token_ps: int = 0


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
    max_model_len: int
    max_num_seqs: int
    max_batched_tokens: int
    """Chunk budget: tokens of one step, decodes included."""
    block_tokens: int
    kv_tokens: int | None
    """KV capacity in tokens; None is infinite."""


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
