"""Probes of the server itself: its models, its health and metrics pages, its tokenizer, its cache."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from workloom.drive.preflight import Model, Models, longest_call
from workloom.drive.probe.answer import NONSENSE, reason
from workloom.drive.probe.findings import Finding, Verdict, found
from workloom.drive.probe.lab import Lab
from workloom.drive.probe.wire import Reply

FAMILIES = {
    "vllm:": "vLLM",
    "sglang:": "SGLang",
    "llamacpp:": "llama.cpp",
    "trtllm_": "TensorRT-LLM",
    "dynamo_": "Dynamo",
    "tgi_": "TGI",
    "lmdeploy:": "LMDeploy",
}
"""By what the names of an engine's metrics begin with."""

RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "llamacpp:requests_processing",
    "dynamo_frontend_inflight_requests",
    "trtllm_num_requests_running",
)
"""Gauges of running calls."""
GENERATED = (
    "vllm:generation_tokens_total",
    "sglang:generation_tokens_total",
    "llamacpp:tokens_predicted_total",
    "dynamo_frontend_output_tokens_total",
)
"""Counters of generated tokens."""
HITS = ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "llamacpp:prompt_tokens_cached_total")
"""Counters of prompt tokens that the cache had."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)


class _Tokenized(Struct):
    tokens: list[Any] | None = None
    count: int | None = None
    max_model_len: int | None = None


async def models(lab: Lab) -> list[Finding]:
    """What the server lists, and the longest call it tells of."""
    reply = await lab.get(f"{lab.base}/models")
    if reply.status in (404, 405) and not lab.base.endswith("/v1"):
        other = await lab.get(f"{lab.base}/v1/models")
        if other.status == 200:
            lab.base, reply = f"{lab.base}/v1", other
    path = f"{lab.base}/models"
    try:
        listing = msgspec.json.decode(reply.body, type=Models).data if reply.status == 200 else None
    except NONSENSE:
        listing = None
    if listing is None:
        return [found("server", "models", "no", f"GET {path}: {_told(reply)}"), await _longest(lab, None)]
    names = [model.id for model in listing]
    lab.known.models = names
    lab.model = lab.model or (names[0] if names else "")
    mine = listing[names.index(lab.model)] if lab.model in names else None
    owned_by = mine.owned_by if mine is not None else None
    lab.known.owner = owned_by if isinstance(owned_by, str) else None
    owner = f", owned by {lab.known.owner}" if lab.known.owner else ""
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    listed: Verdict = "yes" if mine is not None else "no"
    return [found("server", "models", listed, f"listed: {shown or 'none'}{owner}"), await _longest(lab, mine)]


async def _longest(lab: Lab, model: Model | None) -> Finding:
    """The longest call, from whichever place a server says it in."""

    async def props() -> bytes | None:
        reply = await lab.get(f"{lab.root}/props")
        return reply.body if reply.status == 200 else None

    told = await longest_call([] if model is None else [model], props)
    if told is None:
        return found("server", "max_model_len", "unknown", "neither the list of models nor /props tells it")
    lab.known.max_model_len, where = told
    return found("server", "max_model_len", "yes", f"{told[0]:,} tokens ({where})")


async def health(lab: Lab) -> list[Finding]:
    """Is there a health page?"""
    reply = await lab.get(f"{lab.root}/health")
    verdict: Verdict = "yes" if reply.status == 200 else "no" if reply.status else "unknown"
    return [found("server", "health", verdict, f"GET {lab.root}/health: {_told(reply)}")]


async def metrics(lab: Lab) -> list[Finding]:
    """Is there a metrics page, and whose?"""
    reply = await lab.get(f"{lab.root}/metrics")
    where = f"GET {lab.root}/metrics"
    if reply.status != 200:
        verdict: Verdict = "no" if reply.status else "unknown"
        return [found("server", "metrics", verdict, f"{where}: {_told(reply)}")]
    names = samples(reply.body)
    counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in FAMILIES}
    prefix = max(counts, key=lambda known: counts[known])
    if not counts[prefix]:
        text = f"{where}: {len(names)} names, none of an engine that is known" if names else f"{where}: no metrics"
        return [found("server", "metrics", "unknown" if names else "no", text)]
    lab.known.family = FAMILIES[prefix]
    text = f"{counts[prefix]} names begin with {prefix} as {FAMILIES[prefix]}'s do"
    return [found("server", "metrics", "yes", text)]


async def tokenize(lab: Lab) -> list[Finding]:
    """Will the server count tokens of a text? vLLM and llama.cpp name the text differently."""
    text = lab.words(24)
    reply = await lab.post(f"{lab.root}/tokenize", {"model": lab.model, "prompt": text, "content": text})
    where = f"POST {lab.root}/tokenize"
    try:
        told = msgspec.json.decode(reply.body, type=_Tokenized) if reply.status == 200 else _Tokenized()
    except NONSENSE:
        told = _Tokenized()
    count = told.count if told.count is not None else len(told.tokens) if told.tokens is not None else None
    if count is None:
        return [found("server", "tokenize", "no" if reply.status else "unknown", f"{where}: {_told(reply)}")]
    lab.known.max_model_len = lab.known.max_model_len or told.max_model_len
    return [found("server", "tokenize", "yes", f"{where}: 24 words are {count} tokens")]


async def reset(lab: Lab) -> list[Finding]:
    """Could the prefix cache be emptied? Asked without doing it: OPTIONS tells a path that is there from one that is
    not, and llama.cpp refuses an action it does not know otherwise than one it is not set up for."""
    name = "reset_cache"
    nowhere = (await lab.wire.ask("OPTIONS", f"{lab.root}/no-such-path")).status
    for path in ("/reset_prefix_cache", "/flush_cache"):
        reply = await lab.wire.ask("OPTIONS", lab.root + path)
        if reply.status in (200, 204, 405) and reply.status != nowhere:
            return [found("server", name, "yes", f"{path} is there (not called: others may need the cache)")]
    slots = await lab.post(f"{lab.root}/slots/0?action=none", {})
    if slots.status == 400 and "action" in reason(slots.body).lower():
        return [found("server", name, "yes", "slots can be erased (not done: others may need the cache)")]
    if slots.status == 501:
        return [found("server", name, "no", f"POST /slots/0: {_told(slots)}")]
    verdict: Verdict = "no" if nowhere in (404, 405) else "unknown"
    return [found("server", name, verdict, "no /reset_prefix_cache, /flush_cache or /slots")]


def samples(page: bytes) -> dict[str, float]:
    """The samples of a page in Prometheus' format, summed over labels, by name."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page.decode("utf-8", "replace")):
        try:
            sums[name] = sums.get(name, 0.0) + float(value)
        except ValueError:
            continue  # a page of something else
    return sums


async def gauge(lab: Lab, names: tuple[str, ...]) -> float | None:
    """The first of these metrics that the server has; None: none."""
    if lab.known.family is None:
        return None
    page = samples((await lab.get(f"{lab.root}/metrics")).body)
    return next((page[name] for name in names if name in page), None)


def _told(reply: Reply) -> str:
    """A reply in a few words."""
    if reply.error is not None:
        return reply.error
    words = reason(reply.body) if reply.status != 200 else ""
    return f"status {reply.status}" + (f", {words}" if words else "")
