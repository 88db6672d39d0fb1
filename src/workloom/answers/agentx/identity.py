"""What a result is a result of: the fields that no run can know, given as tags, and the GPUs they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from workloom.answers.agentx.shape import Component
from workloom.errors import UsageError, nearest
from workloom.store.manifest import Manifest

COMPONENTS = ("kv_offload_backend", "router")


class Identity(Struct, kw_only=True, forbid_unknown_fields=True):
    """The identity fields of the aggregate; what is None is taken from the manifest, or left empty."""

    hw: str | None = None
    conc: int | None = None
    image: str = ""
    recipe_fingerprint: str | None = None
    model: str | None = None
    infmax_model_prefix: str = ""
    framework: str | None = None
    precision: str | None = None
    spec_decoding: str = "none"
    disagg: bool = False
    is_multinode: bool = False
    tp: int | None = None
    ep: int = 1
    dp_attention: bool = False
    pp: int = 1
    dcp_size: int = 1
    pcp_size: int = 1
    prefill_num_workers: int = 0
    prefill_tp: int = 0
    prefill_pp: int = 1
    prefill_dcp_size: int = 1
    prefill_pcp_size: int = 1
    prefill_ep: int = 1
    prefill_dp_attention: bool = False
    prefill_hw: str | None = None
    decode_num_workers: int = 0
    decode_tp: int = 0
    decode_pp: int = 1
    decode_dcp_size: int = 1
    decode_pcp_size: int = 1
    decode_ep: int = 1
    decode_dp_attention: bool = False
    decode_hw: str | None = None
    kv_offloading: str = "none"
    kv_offload_backend: Component | None = None
    allocated_cpu_dram_gb: int = 0
    router: Component | None = None
    kv_p2p_transfer: str | None = None
    kv_cache_pool_tokens: int | None = None
    """Where the server's metrics do not tell it: vLLM only logs it."""


class Gpus(Struct, frozen=True):
    """The parallelism as the aggregate tells it, and the fields of it that only one of the two shapes has."""

    count: int
    tp: int
    ep: int
    dp_attention: str
    fields: dict[str, int | str]


def identity_of(tags: Iterable[str]) -> Identity:
    """An identity from `KEY=VALUE` words; a component is `NAME` or `NAME:VERSION`. Raises UsageError."""
    known = [field.name for field in structs.fields(Identity)]
    values: dict[str, Any] = {}
    for tag in tags:
        key, pair, value = tag.partition("=")
        if not pair or key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near}?" if near and near != key else "the keys: " + ", ".join(known)
            raise UsageError("a tag is KEY=VALUE, with a known key", where="--tag", found=tag, hint=hint)
        if key in COMPONENTS:
            name, _, version = value.partition(":")
            values[key] = {"name": name, "version": version or None}
        else:
            values[key] = value
    try:
        found = msgspec.convert(values, Identity, strict=False)
    except msgspec.ValidationError as fault:
        raise UsageError("a tag has a value of the wrong kind", where="--tag", found=str(fault)) from fault
    _check(found)
    return found


def _check(identity: Identity) -> None:
    for name in ("conc", "tp", "pp", "dcp_size", "pcp_size"):
        value = getattr(identity, name)
        if value is not None and value < 1:
            raise UsageError("a size is 1 or more", where=f"--tag {name}", found=value)
    if (identity.prefill_hw is None) != (identity.decode_hw is None):
        raise UsageError("prefill_hw and decode_hw go together", where="--tag", hint="give both, or neither")


def known(identity: Identity, manifest: Manifest) -> Identity:
    """The identity with what the manifest of the run tells filled in."""
    config = manifest.config
    engine, server = config.get("engine") or {}, config.get("server") or {}
    load = (config.get("recipe") or {}).get("load") or {}
    simulated = manifest.backend == "simulated"
    filled: dict[str, Any] = {
        "hw": engine.get("gpu") or "",
        "conc": load.get("concurrency") or 0,
        "model": (engine if simulated else server).get("model") or "",
        "framework": "workloom-simulated" if simulated else "",
        "precision": engine.get("dtype") or "",
        "tp": engine.get("gpus") or 1,
        "kv_cache_pool_tokens": engine.get("kv_tokens"),
    }
    return structs.replace(
        identity, **{name: value for name, value in filled.items() if getattr(identity, name) is None}
    )


def gpus(identity: Identity) -> Gpus:
    """GPUs = tp * pp * pcp on one node; else those of all prefill and decode workers (of the latter there may be none:
    then one kind of worker does both, and the decode side is left out)."""
    i = identity
    if not i.is_multinode:
        tp = i.tp or 1
        fields: dict[str, int | str] = {"pp": i.pp, "dcp_size": i.dcp_size, "pcp_size": i.pcp_size}
        return Gpus(tp * i.pp * i.pcp_size, tp, i.ep, _word(i.dp_attention), fields)
    prefill = i.prefill_num_workers * i.prefill_tp * i.prefill_pp * i.prefill_pcp_size
    decode = i.decode_num_workers * i.decode_tp * i.decode_pp * i.decode_pcp_size
    split = decode > 0
    fields = {
        "prefill_num_workers": i.prefill_num_workers,
        "prefill_tp": i.prefill_tp,
        "prefill_pp": i.prefill_pp,
        "prefill_dcp_size": i.prefill_dcp_size,
        "prefill_pcp_size": i.prefill_pcp_size,
        "prefill_ep": i.prefill_ep,
        "prefill_dp_attention": _word(i.prefill_dp_attention),
        "num_prefill_gpu": prefill,
        "decode_num_workers": i.decode_num_workers,
        "decode_tp": i.decode_tp if split else 0,
        "decode_pp": i.decode_pp if split else 1,
        "decode_dcp_size": i.decode_dcp_size if split else 1,
        "decode_pcp_size": i.decode_pcp_size if split else 1,
        "decode_ep": i.decode_ep if split else 0,
        "decode_dp_attention": _word(i.decode_dp_attention),
        "num_decode_gpu": decode,
    }
    if i.prefill_hw is not None and i.decode_hw is not None:
        fields |= {"prefill_hw": i.prefill_hw, "decode_hw": i.decode_hw}
    tp = i.prefill_tp + (i.decode_tp if split else 0)
    ep = max(i.prefill_ep, i.decode_ep if split else 0)
    return Gpus(prefill + decode, tp, ep, _word(i.prefill_dp_attention or i.decode_dp_attention), fields)


def given(value: str | Component | None) -> Any:
    """A value, or nothing at all in the JSON."""
    missing: UnsetType = UNSET
    return missing if value is None else value


def _word(truth: bool) -> str:
    return "true" if truth else "false"
