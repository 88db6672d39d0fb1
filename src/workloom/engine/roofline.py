"""Profiles from what a model has to read and compute and what its GPUs can do: `roofline:MODEL@GPUxN[,share=value]`.

For a system nobody has measured. The shares of the peaks that are reached are stated (`Shares`) and can be given; what
the result is worth is known where profiles fitted to kernel tables exist, and is stated in every profile made here
(`ERROR`, checked by tests/test_roofline.py). The terms, per step, on N GPUs (tensor parallel):

    w   weights every token passes through / (N * HBM * weights) + layers * operations of a layer * OPERATION_S
    E   all experts / (N * HBM * experts)
    b   2 * parameters of a token / (N * FLOP/s * gemm) + its activations / HBM + two all-reduces a layer
    a   what reading the weights does not hide behind b, and all of E
    q   4 * attention layers * heads * head_dim / (N * FLOP/s * attention)
    d   KV of a token / (N * HBM * kv)
    c   `exposed` of b (small products of decoding calls do not hide behind the reading of weights), and the head
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.engine import cards
from workloom.engine.cards import DTYPE_BYTES, GpuCard, ModelCard
from workloom.engine.profile import FitError, FrontEnd, Profile, StepCost
from workloom.errors import ProfileError, nearest

SCHEME = "roofline:"
PS = 10**12
OPERATION_S = 3e-6
"""A memory-bound operation takes at least so long (aiconfigurator-core's `mem_empirical_constant`)."""
REDUCE_S = 10e-6
"""Two GPUs or more: an all-reduce takes at least so long (its `p2p` latency)."""
OPERATIONS, QUANTIZING, ROUTING = 10, 4, 9
"""Of a layer; more of them with 8-bit weights, and with experts."""
RESERVED_BYTES = 2 * 10**9
"""Of each GPU's memory, for activations and graphs."""
GRAPH_SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))

Share = Annotated[float, Meta(gt=0, le=1.25)]


class Shares(Struct, frozen=True, forbid_unknown_fields=True):
    """What of a peak is reached. Defaults: what the kernel tables of aiconfigurator-core 0.12.0 show, rounded."""

    gemm: Share | None = None
    """Of the FLOP/s, in matrix products; None: 0.78 in bf16, 0.6 in fp8."""
    attention: Share = 0.66
    """Of the FLOP/s, in the attention of a prefill."""
    weights: Share = 0.8
    """Of the bandwidth, reading weights."""
    experts: Share = 1.05
    """The same for experts: above 1, since calls choose alike, so fewer experts are read than by chance."""
    kv: Share = 0.88
    """The same for KV of decoding calls."""
    link: Share = 0.8
    """Of the bandwidth between GPUs."""
    hidden: Share = 0.5
    """Of the reading of dense weights, behind the products of a prefill."""
    exposed: Share = 0.6
    """Of a decoding token's products, not behind the reading of weights."""
    memory: Share = 0.9
    """Of the GPU's memory, for weights, KV and what is reserved (vLLM's gpu_memory_utilization)."""


GEMM = {"bf16": 0.78, "fp8": 0.6}
ERROR = FitError(prefill_max=0.20, decode_max=0.22, mixed_max=0.16, mean=0.05, points=1321)
"""Against the ten profiles fitted to kernel tables, over the steps of tests/test_roofline.py, mean over all. Those are
within 4-11 % of the tables themselves (fp8: 27 %)."""


def profile(name: str) -> Profile:
    """The profile of a name like ``roofline:llama-3.1-8b@h100x1,gemm=0.7``. Raises ProfileError."""
    found = re.fullmatch(rf"{SCHEME}(?P<model>[^@]+)@(?P<gpu>[^,]+?)x(?P<gpus>[1-9]\d*)(?P<shares>(,[^,]*)*)", name)
    if found is None:
        raise ProfileError(
            "a roofline's name cannot be read",
            expected=f"{SCHEME}MODEL@GPUxCOUNT[,share=value], for example {SCHEME}llama-3.1-8b@h100x1",
            found=name,
        )
    shares = _shares([part for part in found["shares"].split(",") if part])
    return make(cards.model(found["model"]), cards.gpu(found["gpu"]), int(found["gpus"]), shares, name)


def _shares(parts: list[str]) -> Shares:
    given = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in Shares.__struct_fields__:
            near = nearest(name, list(Shares.__struct_fields__))
            raise ProfileError(
                f"a roofline has no share called {name}",
                expected=f"one of {', '.join(Shares.__struct_fields__)}",
                hint=f"did you mean {near}?" if near else None,
            )
        given[name] = value
    try:
        return msgspec.convert(given, Shares, strict=False)
    except msgspec.ValidationError as fault:
        raise ProfileError("a share of a roofline is malformed", found=fault) from fault


def make(model: ModelCard, gpu: GpuCard, gpus: int, shares: Shares, name: str) -> Profile:
    """The profile of a model on so many GPUs."""
    capacity = kv_tokens(model, gpu, gpus, shares)
    said = ", ".join(f"{field} {value:g}" for field, value in _said(model, shares).items())
    return Profile(
        name=name,
        model=model.model,
        gpu=gpu.name,
        gpus=gpus,
        dtype=model.dtype if model.dtype == "bf16" else f"{model.dtype} weights, bf16 KV",
        source=f"roofline of the cards {model.name} and {gpu.name}, tensor parallel {gpus}; shares of the peaks: "
        f"{said}; nothing of it is measured",
        error=ERROR,
        not_identified=NOT_IDENTIFIED,
        step=step_cost(model, gpu, gpus, shares),
        front_end=FrontEnd(call_ps=2 * 10**9, prompt_token_ps=2 * 10**6),
        max_model_len=min(model.max_model_len, capacity),
        max_num_seqs=1024,
        max_batched_tokens=8192,
        block_tokens=model.block_tokens,
        kv_tokens=capacity,
        kv_token_bytes=model.kv_token_bytes,
        state_groups=model.state_groups,
    )


NOT_IDENTIFIED = {
    "step": "computed, not measured; the stated error is against profiles fitted to kernel tables, for models and GPUs "
    "that have both. Of the one measured server at hand (Qwen3.5-35B-A3B on an H100, vLLM 0.17.1) decode steps are "
    "computed 7 to 29 % too short, and a prefill token cost 2.5 to 3 times as much",
    "step.launch_ps": "GPU time only. Default 5 ms: the upper end of the 1-5 ms of CPU work usual in a vLLM step",
    "step.admit_ps": "default 1 ms per newly admitted call",
    "front_end": "default 2 ms for templating and HTTP, and 2 us a prompt token, a tokenizer at 500,000 tokens/s",
    "kv_tokens": "memory less weights and 2 GB for activations; the tables' memory model gives 2-7 % less, and 18 % "
    "less where weights fill most of it",
}


def _said(model: ModelCard, shares: Shares) -> dict[str, float]:
    return msgspec.structs.asdict(shares) | {"gemm": shares.gemm or GEMM[model.dtype]}


def kv_tokens(model: ModelCard, gpu: GpuCard, gpus: int, shares: Shares) -> int:
    """KV capacity in whole blocks. Raises ProfileError when the weights leave no room."""
    parameters = model.dense_parameters + model.expert_parameters + 2 * model.head_parameters
    free = gpu.hbm_bytes * shares.memory - RESERVED_BYTES - parameters * DTYPE_BYTES[model.dtype] / gpus
    blocks = int(free // (_kv_bytes(model, gpus) * model.block_tokens))
    if blocks < 1:
        raise ProfileError(
            f"{model.name} does not fit on {gpus} x {gpu.name}",
            expected=f"{parameters * DTYPE_BYTES[model.dtype] / 1e9:,.0f} GB of weights, and room for KV",
            found=f"{gpus} x {gpu.hbm_bytes * shares.memory / 1e9:,.0f} GB",
            hint="ask for more GPUs",
        )
    return blocks * model.block_tokens


def _kv_bytes(model: ModelCard, gpus: int) -> float:
    """Of a token, on each GPU: heads are shared out, and one is the least."""
    return model.kv_token_bytes / min(gpus, model.kv_heads)


def step_cost(model: ModelCard, gpu: GpuCard, gpus: int, shares: Shares) -> StepCost:
    """The coefficients that the module's docstring explains."""
    hbm, width = gpu.hbm_bytes_per_s, DTYPE_BYTES[model.dtype]
    products = gpus * gpu.flops[model.dtype] * (shares.gemm or GEMM[model.dtype])
    dense = (model.dense_parameters + model.head_parameters) * width / gpus / (hbm * shares.weights)
    experts = model.expert_parameters * width / gpus / (hbm * shares.experts)
    fixed = model.layers * _layer_s(model, gpus)
    token = 2 * model.token_parameters / products + _activations_s(model, gpu, gpus, shares)
    head = 2 * model.head_parameters / products
    pairs = 4 * model.attention_layers * model.heads * model.head_dim / (gpus * gpu.flops["bf16"] * shares.attention)
    return StepCost(
        weights_ps=round((dense + fixed) * PS),
        experts_ps=round(experts * PS),
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        prefill_base_ps=round((fixed + dense * (1 - shares.hidden) + experts) * PS),
        prefill_token_ps=round(token * PS),
        sequence_ps=round((shares.exposed * token + head) * PS),
        pair_ps=2 * round(pairs * PS / 2),
        context_token_ps=round(_kv_bytes(model, gpus) / (hbm * shares.kv) * PS),
        launch_ps=5 * 10**9,
        admit_ps=10**9,
        graph_sizes=GRAPH_SIZES,
    )


def _layer_s(model: ModelCard, gpus: int) -> float:
    """What a layer takes at least, however little it has to do."""
    operations = OPERATIONS + QUANTIZING * (model.dtype != "bf16") + ROUTING * (model.experts > 0)
    return operations * OPERATION_S + (2 * REDUCE_S if gpus > 1 else 0.0)


def _activations_s(model: ModelCard, gpu: GpuCard, gpus: int, shares: Shares) -> float:
    """Moving one token's activations: through memory between products, and between GPUs by a ring."""
    inner = 3 * (model.intermediate + model.shared_intermediate + model.experts_per_token * model.expert_intermediate)
    inner += 4 * model.heads * model.head_dim
    outer = (10 + 2 * model.experts_per_token) * model.hidden
    moved = model.layers * 2 * (outer + inner / gpus) / (gpu.hbm_bytes_per_s * shares.weights)
    ring = 2 * (gpus - 1) / gpus * 2 * model.layers * model.hidden * 2
    return moved + ring / (gpu.link_bytes_per_s * shares.link)
