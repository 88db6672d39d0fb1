"""What is known of a server before anything is fitted: its metrics page, the model's configuration, options.

Each figure remembers where it came from; what nobody said is a default of vLLM's, and is said to be one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from workloom.engine import cards
from workloom.engine.cards import GpuCard, ModelCard
from workloom.engine.profile import Template
from workloom.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

GRAPHS = (1, 2, 4, *range(8, 257, 8))
"""Batch sizes vLLM captures decode-only graphs of, up to its default of 256."""
PEAKS = {"h100_sxm": (989e12, 3.35e12), "h200_sxm": (989e12, 4.8e12)}
"""BF16 dense FLOP/s and HBM bytes/s by GPU (aiconfigurator-core's systems files)."""
HBM_SHARE, FLOP_SHARE = 0.91, 0.4
"""Shares of those that streaming KV and attention reach: the prior where no run can tell."""
NULL_BLOCKS = 1
"""Blocks of vLLM's pool that are never given out."""


class Server(Struct, frozen=True, kw_only=True):
    """A server's shape. `source`: by field, who said so."""

    model: str = "unknown"
    gpu: str = "unknown"
    gpus: int = 1
    dtype: str = "bf16"
    block_tokens: int = 16
    kv_blocks: int | None = None
    """Blocks that can be given out; None: infinite."""
    state_groups: int = 0
    prefix_cache: bool = True
    max_model_len: int = 131_072
    max_num_seqs: int = 1024
    max_batched_tokens: int = 8192
    graph_tokens: int = 512
    """Steps with prefill of at most so many tokens may run as piecewise graphs; whether they do is fitted."""
    graph_sizes: tuple[int, ...] = GRAPHS
    experts: int = 0
    experts_per_token: int = 0
    kv_token_bytes: int = 0
    pair_flops: int = 0
    """Floating-point operations of one query-key pair over all attention layers: 4 * heads * head_dim * layers."""
    card: ModelCard | None = None
    """Of its model, where there is one."""
    template: Template = Template()
    source: dict[str, str] = {}

    def gpu_card(self) -> GpuCard | None:
        """Of its GPU, where there is one."""
        name = self.gpu.removesuffix("_sxm")
        return cards.gpu(name) if name in cards.gpus() else None

    def peak(self) -> tuple[float, float] | None:
        """FLOP/s and bytes/s of all its GPUs, where they are known."""
        peak = PEAKS.get(self.gpu)
        return None if peak is None else (peak[0] * self.gpus, peak[1] * self.gpus)

    def pair_ps(self) -> int:
        """The prior for a query-key pair, picoseconds; 0: nothing is known."""
        peak = self.peak()
        return 0 if peak is None else round(self.pair_flops / (FLOP_SHARE * peak[0]) * 1e12)

    def context_token_ps(self) -> int:
        """The prior for reading a context token's KV, picoseconds; 0: nothing is known."""
        peak = self.peak()
        return 0 if peak is None else round(self.kv_token_bytes / (HBM_SHARE * peak[1]) * 1e12)


def gather(page: Path | None, config: Path | None, given: dict[str, Any]) -> Server:
    """Page, then the model's configuration, then options: each overrules those before it. Raises UsageError."""
    fields: dict[str, Any] = {}
    source: dict[str, str] = {}
    for found, said in (
        (_page(page) if page is not None else {}, "the metrics page"),
        (_config(config) if config is not None else {}, "the model's configuration"),
        (given, "an option"),
    ):
        fields |= found
        source |= dict.fromkeys(found, said)
    card = _card(fields.get("model", ""), fields)
    if card is not None:
        of_card = _of_card(card)
        fields = of_card | fields | {"card": card}
        source = dict.fromkeys(of_card, f"the card {card.name}") | source
    if "graph_sizes" not in fields and fields.get("graph_tokens") == 0:
        fields["graph_sizes"] = ()
    for name in ("block_tokens", "kv_blocks", "max_model_len", "max_num_seqs", "max_batched_tokens", "graph_tokens"):
        source.setdefault(name, "a default")
    return Server(**fields, source=source)


def hit_rate(page: Path) -> float | None:
    """Cached over all prompt tokens so far, by a vLLM metrics page saved at the end of a run; None: it does not say."""
    counted = {"vllm:prompt_tokens_cached_total": 0.0, "vllm:prompt_tokens_total": 0.0}
    for sample in _samples(page):
        if sample.name in counted:
            counted[sample.name] += sample.value
    cached, prompts = counted.values()
    return cached / prompts if prompts else None


def _card(model: str, said: dict[str, Any]) -> ModelCard | None:
    """The card of a model by its full or its short name, unless the server is said to be of another shape."""
    for name in cards.models():
        card = cards.model(name)
        if model.lower() not in (card.name.lower(), card.model.lower()):
            continue
        shape = _of_card(card)
        if all(said.get(field, value) == value for field, value in shape.items() if field != "state_groups"):
            return card
    return None


def _of_card(card: ModelCard) -> dict[str, Any]:
    return {
        "kv_token_bytes": card.kv_token_bytes,
        "pair_flops": 4 * card.attention_layers * card.heads * card.head_dim,
        "state_groups": card.state_groups,
        "experts": card.experts,
        "experts_per_token": card.experts_per_token,
    }


def _samples(path: Path) -> list[Sample]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError("a metrics page cannot be read", where=str(path), found=error) from error
    return [sample for family in families for sample in family.samples]


def _page(path: Path) -> dict[str, Any]:
    """Block size, count and mode from `cache_config_info` of a vLLM metrics page, the model from any label."""
    found: dict[str, Any] = {}
    for sample in _samples(path):
        labels = sample.labels
        if labels.get("model_name"):
            found["model"] = labels["model_name"]
        if not sample.name.endswith("cache_config_info"):
            continue
        found["block_tokens"] = _count(path, labels, "block_size")
        found["kv_blocks"] = _count(path, labels, "num_gpu_blocks") - NULL_BLOCKS
        found["prefix_cache"] = labels.get("enable_prefix_caching", "True") == "True"
        if labels.get("mamba_cache_mode", "none") != "align":
            found["state_groups"] = 0
    if "block_tokens" not in found:
        raise UsageError(
            "a metrics page says nothing of the cache",
            where=str(path),
            expected="cache_config_info with block_size and num_gpu_blocks",
            hint="give --block-tokens and --kv-tokens instead",
        )
    return found


def _count(path: Path, labels: dict[str, str], name: str) -> int:
    try:
        return int(labels[name])
    except (KeyError, ValueError) as error:
        raise UsageError(
            "a metrics page does not say what the cache is",
            where=f"{path}, cache_config_info",
            expected=f"a number as {name}",
            found=labels.get(name),
        ) from error


def _config(path: Path) -> dict[str, Any]:
    """From a Hugging Face config.json: experts, KV bytes, attention work, and groups of layers that keep states.

    vLLM makes groups of as many layers as its rarest kind has, so 30 state layers beside 10 of attention are 3 groups.
    """
    try:
        whole = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError("a model's configuration cannot be read", where=str(path), found=error) from error
    text = whole.get("text_config", whole)
    layers = int(text["num_hidden_layers"]) if "num_hidden_layers" in text else 0
    kinds = text.get("layer_types") or ["full_attention"] * layers
    attention = sum(kind != "linear_attention" for kind in kinds)
    states = len(kinds) - attention
    heads = int(text.get("num_attention_heads", 0))
    head_dim = int(text.get("head_dim") or (text.get("hidden_size", 0) // heads if heads else 0))
    kv_heads = int(text.get("num_key_value_heads", heads))
    found: dict[str, Any] = {
        "kv_token_bytes": 2 * attention * kv_heads * head_dim * 2,
        "pair_flops": 4 * attention * heads * head_dim,
        "state_groups": -(-states // max(1, min(attention, states))) if states else 0,
    }
    if text.get("num_experts"):
        found["experts"] = int(text["num_experts"])
        found["experts_per_token"] = int(text["num_experts_per_tok"])
    if text.get("max_position_embeddings"):
        found["max_model_len"] = int(text["max_position_embeddings"])
    return found
