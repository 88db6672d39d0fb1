"""Write src/workloom/engine/profiles/*.yaml from the kernel tables of aiconfigurator-core 0.12.0.

A development tool; workloom itself never needs aiconfigurator-core. In a virtual environment of its own, outside the
repository (600 MB):

    pip install aiconfigurator-core==0.12.0 scipy pyyaml
    python scripts/make_profiles.py [folder]

What is asked of the tables, for each model on its GPUs (vLLM 0.24.0):

    prefill   n new tokens after P in the cache                    predict_prefill_latency(1, n + P, P)
    decode    B calls with contexts of c tokens                    decode_step_latency(B, c, 2)
    mixed     n new tokens after P, with B decodes at c tokens     from the parts of mixed_step_breakdown

`mixed_step_breakdown(n, B, isl, 2, P)` divides the attention of a prompt evenly over ceil(isl / n) steps; here the
chunk is the whole of what is new, so its attention is taken back times that number (with B = 0 the sum is then exactly
the prefill figure), and the decodes' attention is asked for at their own context.

What is fitted: the step-time form of workloom.engine.profile. Whether a step with prefill is bound by reading weights
or by its own tokens depends on n alone (nearly so with experts), so every threshold is tried; for each, the least of
(largest relative error + MEAN_WEIGHT * mean relative error) over nonnegative coefficients is a linear programme.
The tool and the solver are deterministic: running this twice writes the same bytes.
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from aiconfigurator_core.sdk.engine import EngineHandle
from aiconfigurator_core.sdk.memory import estimate_kv_cache
from scipy.optimize import linprog

TOOL = "aiconfigurator-core 0.12.0"
VLLM = "0.24.0"
FOLDER = Path(__file__).resolve().parent.parent / "src/workloom/engine/profiles"
MEAN_WEIGHT = 3.0
PS_PER_MS = 10**9

LONGEST = 131_072
PREFILL_NEW = (256, 512, 1024, 2048, 4096, 8192)
PREFILL_SHORT = (64, 128)  # asked for to say how wrong the form is there, not fitted
PREFILL_CACHED = (0, 2048, 8192, 32_768, 65_536, 122_880)
PREFILL_WHOLE = (16_384, 32_768, 65_536)
DECODE_CALLS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DECODE_CONTEXT = (512, 2048, 8192, 32_768, 65_536, 131_072)
MIXED_NEW = (512, 2048, 8192)
MIXED_CACHED = (0, 32_768, 100_000)
MIXED_DECODES = ((4, 2048), (32, 2048), (128, 2048), (4, 32_768), (32, 32_768), (8, 100_000), (128, 8192))
SHARING = 2  # contexts of running calls may sum to this many times the KV capacity, prefixes being shared

MAX_NUM_SEQS = 1024
MAX_BATCHED_TOKENS = 8192
BLOCK_TOKENS = 16
GPU_MEMORY_SHARE = 0.9
GRAPH_SIZES = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)]
LAUNCH_PS, ADMIT_PS = 5 * PS_PER_MS, 1 * PS_PER_MS
CALL_PS, PROMPT_TOKEN_PS = 2 * PS_PER_MS, 2 * 10**6

STUDY = "a study of one H100 with Qwen3.5-35B-A3B on vLLM 0.17.1"
NOT_IDENTIFIED = {
    "step.launch_ps": "the tables hold GPU time only. Default 5 ms: the upper end of the 1-5 ms of CPU work usual in a "
    f"vLLM step; {STUDY} measured 17.2 ms (piecewise graphs) and 50 ms (eager), on a hybrid model known to be slow "
    "to launch",
    "step.admit_ps": f"not in the tables. Default 1 ms per newly admitted call; {STUDY} measured 8.4 ms",
    "front_end.call_ps": f"not in the tables. Default 2 ms for templating and HTTP; {STUDY} measured 10.4 ms",
    "front_end.prompt_token_ps": "not in the tables. Default 2 us, a tokenizer at 500,000 tokens/s; "
    f"{STUDY} measured 5.9 us",
    "step.graph_sizes": "vLLM's default capture sizes; the tables have no padding, and the fit uses sizes of this list",
    "max_num_seqs": "vLLM's default on these GPUs",
    "max_batched_tokens": "vLLM's default for its HTTP server on these GPUs",
    "block_tokens": "vLLM's default",
}
NATIVE = "131,072 as in the model's config"
YARN = "40,960 in the model's config; 131,072 is with YaRN, factor 4, as the model's card says"
NO_YARN = "40,960 as in the model's config; with YaRN 131,072, but the KV cache of one such GPU holds less"


class Model(NamedTuple):
    path: str
    dtype: str
    options: dict[str, str]
    kv_token_bytes: int
    """2 * layers * KV heads * head dimension * 2 bytes, as in the model's config."""
    experts: int = 0
    experts_per_token: int = 0


class Target(NamedTuple):
    name: str
    model: Model
    gpu: str
    gpus: int
    max_model_len: int = LONGEST
    why_len: str = NATIVE


class Point(NamedTuple):
    """A step and its time by the tables. kind: prefill, decode, mixed, or short (a prefill that is not fitted)."""

    kind: str
    new: int
    cached: int
    calls: int
    context: int
    ms: float


LLAMA_8B = Model("meta-llama/Meta-Llama-3.1-8B", "bf16", {}, 2 * 32 * 8 * 128 * 2)
LLAMA_70B = Model(
    "meta-llama/Meta-Llama-3.1-70B", "fp8 weights, bf16 KV", {"gemm_quant_mode": "fp8"}, 2 * 80 * 8 * 128 * 2
)
QWEN_32B = Model("Qwen/Qwen3-32B", "bf16", {}, 2 * 64 * 8 * 128 * 2)
QWEN_30B_A3B = Model("Qwen/Qwen3-30B-A3B", "bf16", {}, 2 * 48 * 4 * 128 * 2, experts=128, experts_per_token=8)

TARGETS = (
    Target("llama-3.1-8b-h100x1", LLAMA_8B, "h100_sxm", 1),
    Target("llama-3.1-8b-h200x1", LLAMA_8B, "h200_sxm", 1),
    Target("llama-3.1-70b-h100x4", LLAMA_70B, "h100_sxm", 4),
    Target("llama-3.1-70b-h100x8", LLAMA_70B, "h100_sxm", 8),
    Target("llama-3.1-70b-h200x4", LLAMA_70B, "h200_sxm", 4),
    Target("qwen3-32b-h100x2", QWEN_32B, "h100_sxm", 2, why_len=YARN),
    Target("qwen3-32b-h200x2", QWEN_32B, "h200_sxm", 2, why_len=YARN),
    Target("qwen3-30b-a3b-h100x1", QWEN_30B_A3B, "h100_sxm", 1, 40_960, NO_YARN),
    Target("qwen3-30b-a3b-h100x2", QWEN_30B_A3B, "h100_sxm", 2, why_len=YARN),
    Target("qwen3-30b-a3b-h200x1", QWEN_30B_A3B, "h200_sxm", 1, why_len=YARN),
)


def options(target: Target) -> dict[str, Any]:
    """Keyword arguments that both entry points of the tool take."""
    out: dict[str, Any] = {"backend_version": VLLM, "tp_size": target.gpus, **target.model.options}
    if target.model.experts:
        out["moe_tp_size"] = target.gpus
    return out


def kv_tokens(target: Target) -> int:
    """KV capacity by the tool's memory model, in whole blocks."""
    found = estimate_kv_cache(
        target.model.path,
        target.gpu,
        "vllm",
        max_num_tokens=MAX_BATCHED_TOKENS,
        max_batch_size=MAX_NUM_SEQS,
        memory_fraction_kind="of_total",
        memory_fraction_value=GPU_MEMORY_SHARE,
        **options(target),
    )
    return int(found["total_kv_size_tokens"]) // BLOCK_TOKENS * BLOCK_TOKENS


def ask(tables: EngineHandle, capacity: int) -> list[Point]:
    """The steps of the grids that this system could be in, with their times."""
    points = []
    for new in (*PREFILL_SHORT, *PREFILL_NEW, *PREFILL_WHOLE):
        for cached in PREFILL_CACHED if new not in PREFILL_WHOLE else (0,):
            if new + cached <= LONGEST:
                kind = "short" if new in PREFILL_SHORT else "prefill"
                ms = tables.predict_prefill_latency(1, new + cached, cached)
                points.append(Point(kind, new, cached, 0, 0, ms))
    for calls in DECODE_CALLS:
        for context in DECODE_CONTEXT:
            if calls * context <= SHARING * capacity:
                ms = tables.decode_step_latency(calls, context, 2)
                points.append(Point("decode", 0, 0, calls, context, ms))
    for new in MIXED_NEW:
        for cached in MIXED_CACHED:
            for calls, context in MIXED_DECODES:
                if calls * context <= SHARING * capacity:
                    ms = mixed_ms(tables, new, cached, calls, context)
                    points.append(Point("mixed", new, cached, calls, context, ms))
    return points


def mixed_ms(tables: EngineHandle, new: int, cached: int, calls: int, context: int) -> float:
    """A step of one prefill chunk and `calls` decodes, put together as the module's docstring says."""
    _, shared, attention, _ = tables.mixed_step_breakdown(new, calls, new + cached, 2, cached)
    *_, decode_attention = tables.mixed_step_breakdown(new, calls, context, 2, 0)
    return float(shared + attention * math.ceil((new + cached) / new) + decode_attention)


def matrices(points: list[Point], model: Model) -> tuple[Any, Any]:
    """Both branches of the form as rows over (w, E, a, b, c, q, d), in ps."""
    weights, tokens = [], []
    for p in points:
        miss = (1 - model.experts_per_token / model.experts) ** (p.new + p.calls) if model.experts else 1.0
        tail = [p.calls, p.new * p.cached + p.new * p.new / 2, p.calls * p.context]
        weights.append([1, 1 - miss, 0, 0, *tail])
        tokens.append([0, 0, 1, p.new, *tail])
    return np.array(weights, dtype=float), np.array(tokens, dtype=float)


SCALE = np.array([1, 1, 1, 1e3, 1, 1e6, 1e5]) / PS_PER_MS  # so that the programme's unknowns are all near 1


def fit(points: list[Point], model: Model) -> list[int]:
    """Coefficients in whole ps, pair_ps even so that pair_ps * n^2 / 2 is whole too."""
    ms = np.array([p.ms for p in points])
    new = np.array([p.new for p in points])
    weights, tokens = (rows / SCALE / ms[:, None] / PS_PER_MS for rows in matrices(points, model))
    best: tuple[float, Any] | None = None
    for threshold in sorted({p.new for p in points if p.new} | {LONGEST + 1}):
        found = programme(weights, tokens, new > 0, new >= threshold, bool(model.experts))
        if found is not None and (best is None or found[0] < best[0] - 1e-9):
            best = found
    assert best is not None, "the linear programme has a solution: all zeros"
    ps = [round(float(value)) for value in best[1] / SCALE]
    ps[5] = 2 * round(float(best[1][5] / SCALE[5]) / 2)
    return ps


def programme(weights: Any, tokens: Any, prefill: Any, by_tokens: Any, experts: bool) -> tuple[float, Any] | None:
    """Least of (largest + MEAN_WEIGHT * mean) relative error where `by_tokens` says which branch is the larger."""
    count, unknowns = weights.shape
    rows, limits = [], []

    def bound(branch: Any, chosen: Any, sign: int) -> None:
        """sign * (branch * x - 1) <= error, at the chosen points."""
        for i in np.flatnonzero(chosen):
            row = np.zeros(unknowns + count + 1)
            row[:unknowns] = sign * branch[i]
            row[unknowns + i] = -1
            rows.append(row)
            limits.append(sign)

    bound(weights, np.full(count, True), 1)
    bound(tokens, prefill, 1)
    bound(weights, ~by_tokens, -1)
    bound(tokens, by_tokens, -1)
    for i in range(count):  # no error above the largest, the last unknown
        row = np.zeros(unknowns + count + 1)
        row[unknowns + i], row[-1] = 1, -1
        rows.append(row)
        limits.append(0)
    cost = np.r_[np.zeros(unknowns), np.full(count, MEAN_WEIGHT / count), 1]
    bounds: list[tuple[float, float | None]] = [(0, None)] * len(cost)
    if not experts:
        bounds[1] = (0, 0)
    found = linprog(cost, np.array(rows), np.array(limits, dtype=float), bounds=bounds, method="highs")
    return (float(found.fun), found.x[:unknowns]) if found.status == 0 else None


def errors(points: list[Point], model: Model, ps: list[int]) -> dict[str, Any]:
    """Relative errors of the rounded coefficients, by kind of step."""
    weights, tokens = matrices(points, model)
    prefill = np.array([p.new > 0 for p in points])
    step = np.maximum(weights @ ps, np.where(prefill, tokens @ ps, 0.0)) / PS_PER_MS
    error = np.abs(step / np.array([p.ms for p in points]) - 1)
    kinds = np.array([p.kind for p in points])
    return {kind: error[kinds == kind] for kind in ("prefill", "decode", "mixed", "short")}


def up(share: float) -> float:
    """To three places, never down: a stated largest error must hold."""
    return math.ceil(share * 1000) / 1000


def profile(target: Target) -> dict[str, Any]:
    """The whole profile as the YAML file will hold it."""
    model = target.model
    capacity = kv_tokens(target)
    tables = EngineHandle.compile(model.path, target.gpu, "vllm", **options(target))
    points = ask(tables, capacity)
    ps = fit([p for p in points if p.kind != "short"], model)
    error = errors(points, model, ps)
    fitted = np.concatenate([error["prefill"], error["decode"], error["mixed"]])
    counts = ", ".join(f"{len(error[kind])} {kind}" for kind in ("prefill", "decode", "mixed"))
    source = (
        f"scripts/make_profiles.py: {TOOL}, tables for vLLM {VLLM} on {target.gpu}, tensor parallel {target.gpus}; "
        f"{counts} steps: chunks of 256 tokens to 8,192 (cold: 65,536) after up to 122,880 cached, 1 to 512 decodes "
        f"of contexts from 512 to 131,072, their sum at most {SHARING} times the KV capacity. Chunks of 64 and 128 "
        f"tokens, not fitted, are off by at most {up(error['short'].max()):.1%}. KV capacity: estimate_kv_cache "
        f"of the same tool at {GPU_MEMORY_SHARE} of GPU memory and {MAX_BATCHED_TOKENS:,} tokens a step"
    )
    if "fp8" in model.dtype:
        jump = tables.predict_prefill_latency(1, 513, 0) / tables.predict_prefill_latency(1, 512, 0) - 1
        source += (
            f". The tables' fp8 matrix products jump after 512 tokens (the step by {jump:.0%} from 512 to 513), which "
            "no smooth form can follow: the largest errors lie on its two sides"
        )
    step: dict[str, Any] = dict(
        zip(
            ("weights_ps", "experts_ps", "prefill_base_ps", "prefill_token_ps", "sequence_ps", "pair_ps"),
            ps,
            strict=False,
        )
    )
    step["context_token_ps"] = ps[6]
    if model.experts:
        step |= {"experts": model.experts, "experts_per_token": model.experts_per_token}
    else:
        del step["experts_ps"]
    step |= {"launch_ps": LAUNCH_PS, "admit_ps": ADMIT_PS, "graph_sizes": GRAPH_SIZES}
    return {
        "name": target.name,
        "model": model.path,
        "gpu": target.gpu,
        "gpus": target.gpus,
        "dtype": model.dtype,
        "source": source,
        "error": {
            "prefill_max": up(error["prefill"].max()),
            "decode_max": up(error["decode"].max()),
            "mixed_max": up(error["mixed"].max()),
            "mean": up(fitted.mean()),
            "points": len(fitted),
        },
        "not_identified": NOT_IDENTIFIED | {"max_model_len": target.why_len},
        "step": step,
        "front_end": {"call_ps": CALL_PS, "prompt_token_ps": PROMPT_TOKEN_PS},
        "max_model_len": target.max_model_len,
        "max_num_seqs": MAX_NUM_SEQS,
        "max_batched_tokens": MAX_BATCHED_TOKENS,
        "block_tokens": BLOCK_TOKENS,
        "kv_tokens": capacity,
        "kv_token_bytes": model.kv_token_bytes,
    }


class Dumper(yaml.SafeDumper):
    """Block style, with lists of numbers on as few lines as they need."""


Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def main() -> None:
    logging.disable(logging.WARNING)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        made = profile(target)
        text = yaml.dump(made, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
        (folder / f"{target.name}.yaml").write_text("# Written by scripts/make_profiles.py: do not edit.\n" + text)
        print(target.name, made["error"], {k: v for k, v in made["step"].items() if k != "graph_sizes"})


if __name__ == "__main__":
    main()
