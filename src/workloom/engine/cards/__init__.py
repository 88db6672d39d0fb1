"""Cards of models and GPUs: the figures a roofline is drawn from, each as a data file with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from workloom.errors import ProfileError, nearest

Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
FOLDER = Path(__file__).parent
DTYPE_BYTES = {"bf16": 2, "fp8": 1}
STATE_BYTES = 4
"""Of a value of a linear layer's state: float32, as vLLM keeps it; the inputs of its convolution are bf16."""
ALIGNED_TOKENS = 16
"""vLLM makes the blocks of a model with state layers a multiple of so many tokens."""


class LinearAttention(Struct, frozen=True, forbid_unknown_fields=True):
    """Layers that keep a state instead of KV (gated delta net)."""

    layers: Limit
    key_heads: Limit
    value_heads: Limit
    head_dim: Limit
    convolution: Limit
    """Tokens its convolution looks at."""

    @property
    def mixed(self) -> int:
        """Width of what is convolved: queries, keys and values."""
        return (2 * self.key_heads + self.value_heads) * self.head_dim

    @property
    def state_bytes(self) -> int:
        """Of one layer of one call."""
        state = self.value_heads * self.head_dim * self.head_dim * STATE_BYTES
        return state + (self.convolution - 1) * self.mixed * DTYPE_BYTES["bf16"]


class ModelCard(Struct, frozen=True, forbid_unknown_fields=True):
    """A decoder's shape, as in its published config."""

    name: str
    model: str
    source: str
    layers: Limit
    hidden: Limit
    heads: Limit
    kv_heads: Limit
    head_dim: Limit
    vocab: Limit
    max_model_len: Limit
    dtype: str = "bf16"
    """Of the weights; KV and activations are bf16."""
    intermediate: Count = 0
    """Width of the dense feed-forward part of every layer; 0: there is none."""
    experts: Count = 0
    experts_per_token: Count = 0
    expert_intermediate: Count = 0
    shared_intermediate: Count = 0
    """Width of what every token passes through beside its experts."""
    gated_attention: bool = False
    """Attention has a gate as wide as its queries."""
    linear: LinearAttention | None = None
    """Those of the layers that have linear attention."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"dtype is one of {', '.join(DTYPE_BYTES)}")
        if not (self.intermediate or self.experts):
            raise ValueError("a layer has an intermediate size or experts")
        if bool(self.experts) != bool(self.expert_intermediate) or self.experts_per_token > self.experts:
            raise ValueError("experts need experts_per_token <= experts and an expert_intermediate")

    @property
    def attention_layers(self) -> int:
        return self.layers - (self.linear.layers if self.linear else 0)

    @property
    def kv_token_bytes(self) -> int:
        """2 * layers * KV heads * head dimension * 2 bytes."""
        return 2 * self.attention_layers * self.kv_heads * self.head_dim * DTYPE_BYTES["bf16"]

    @property
    def dense_parameters(self) -> int:
        """Those that every token passes through; embedding and head left out."""
        queries = self.heads * self.head_dim * (2 if self.gated_attention else 1)
        attention = self.hidden * (queries + 2 * self.kv_heads * self.head_dim + self.heads * self.head_dim)
        every = 3 * self.hidden * (self.intermediate + self.shared_intermediate) + self.hidden * self.experts
        total = self.attention_layers * attention + self.layers * every
        if self.linear is not None:
            value = self.linear.value_heads * self.linear.head_dim
            gates = 2 * self.linear.value_heads
            total += self.linear.layers * self.hidden * (self.linear.mixed + 2 * value + gates)
        return total

    @property
    def expert_parameters(self) -> int:
        """Of all experts of all layers."""
        return 3 * self.layers * self.experts * self.hidden * self.expert_intermediate

    @property
    def head_parameters(self) -> int:
        """Of the output layer; the embedding has as many."""
        return self.vocab * self.hidden

    @property
    def token_parameters(self) -> int:
        """Those that one token passes through, but for the head."""
        share = self.expert_parameters * self.experts_per_token // self.experts if self.experts else 0
        return self.dense_parameters + share

    @property
    def state_groups(self) -> int:
        """State pages of a call: groups of as many linear layers as there are layers with attention."""
        return -(-self.linear.layers // self.attention_layers) if self.linear else 0

    @property
    def block_tokens(self) -> int:
        """vLLM's default; with state layers, so many tokens that a block of KV is as large as a state."""
        if self.linear is None:
            return ALIGNED_TOKENS
        layer_token_bytes = self.kv_token_bytes // self.attention_layers
        return -(-self.linear.state_bytes // (layer_token_bytes * ALIGNED_TOKENS)) * ALIGNED_TOKENS


class GpuCard(Struct, frozen=True, forbid_unknown_fields=True):
    """What one GPU can do at most."""

    name: str
    source: str
    flops: dict[str, Positive]
    """Dense, a second, by dtype of the factors."""
    hbm_bytes: Limit
    hbm_bytes_per_s: Positive
    link_bytes_per_s: Positive
    """To the other GPUs of its machine, one way."""
    pcie_bytes_per_s: Positive
    """To the host's memory, one way."""


Card = TypeVar("Card", ModelCard, GpuCard)


def models() -> list[str]:
    """Names of the model cards, sorted."""
    return _names("models")


def gpus() -> list[str]:
    """Names of the GPU cards, sorted."""
    return _names("gpus")


def model(name: str) -> ModelCard:
    """A model card by name, or by the path of a YAML file. Raises ProfileError."""
    return _load("models", name, ModelCard, "model")


def gpu(name: str) -> GpuCard:
    """A GPU card by name, or by the path of a YAML file. Raises ProfileError."""
    return _load("gpus", name, GpuCard, "GPU")


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / folder).glob("*.yaml"))


def _load(folder: str, name: str, kind: type[Card], what: str) -> Card:
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / folder / f"{name}.yaml"
    if not path.is_file():
        known = _names(folder)
        near = nearest(name, known)
        raise ProfileError(
            f"there is no card of a {what} called {name}",
            expected=f"one of {', '.join(known)}, or the path of a .yaml file",
            hint=f"did you mean {near}?" if near else "run `workloom profiles` to see them",
        )
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), kind)
    except (yaml.YAMLError, msgspec.ValidationError) as fault:
        raise ProfileError(f"a card of a {what} is malformed", where=str(path), found=fault) from fault
