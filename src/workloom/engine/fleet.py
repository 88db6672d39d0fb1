"""What a cluster is made of: pools of equal replicas, a router before them, and what joins prefill to decode.

    calls -> router -> pool a   replica 0, 1       (role both)
                    -> pool b   replica 2          (another profile, or another model)

    calls -> router -> prefill pool  =transfer=>  router -> decode pool

A fleet comes from options (so many replicas of one profile) or from a YAML file:

    router: prefix
    pools:
      - engine: llama-3.1-8b-h200x1
        replicas: 4
        override: {kv_tokens: 400000}
        autoscale: {most: 8, up_outstanding: 16, start_s: 120}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from workloom.engine import profile as profiles
from workloom.engine.profile import Profile
from workloom.errors import Refused, UsageError, nearest

Role = Literal["both", "prefill", "decode"]
Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0, lt=1e18)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Autoscale(Struct, frozen=True, forbid_unknown_fields=True):
    """Reactive scaling of a pool: it looks every `every_s` and never ahead.

    It grows by one when calls in flight per replica (those starting included) are above `up_outstanding`, or the mean
    KV use above `up_kv`; it shrinks by one when they are below `down_outstanding` and, where `up_kv` is given, the KV
    use is below `down_kv`. A replica is there `start_s` after it was asked for, and costs from then on that it was
    asked for; one that goes takes no more calls and is gone when it has none. After growing or shrinking it rests for
    `cool_down_s`.
    """

    most: Limit
    least: Limit = 1
    up_outstanding: Positive = 16.0
    down_outstanding: Positive = 4.0
    up_kv: Annotated[float, Meta(gt=0, le=1)] | None = None
    down_kv: Annotated[float, Meta(gt=0, le=1)] = 0.3
    every_s: Annotated[float, Meta(ge=0.001, le=1e9)] = 15.0
    start_s: Seconds = 60.0
    cool_down_s: Seconds = 60.0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("least is at most most")
        if self.down_outstanding >= self.up_outstanding or (self.up_kv is not None and self.down_kv >= self.up_kv):
            raise ValueError("the down thresholds lie below the up thresholds")


class Transfer(Struct, frozen=True, forbid_unknown_fields=True):
    """The way of KV from a prefill replica to a decode replica: each prefill replica has one link, first come first
    served."""

    bytes_per_s: Positive = 50e9
    """What one link of 400 Gbit/s carries."""
    latency_s: Seconds = 10e-6


class Pool(Struct, frozen=True, forbid_unknown_fields=True):
    """Equal replicas. `models`: the names of models it answers to; none: to every name."""

    profile: Profile
    replicas: Limit = 1
    name: str = ""
    models: tuple[str, ...] = ()
    role: Role = "both"
    autoscale: Autoscale | None = None

    def serves(self, model: str) -> bool:
        """True when a call for this model may come here."""
        return not self.models or model in self.models


class Fleet(Struct, frozen=True, forbid_unknown_fields=True):
    """Pools, the router that calls meet, and the one that finds a decode replica (None: least_outstanding).

    Calls ask for `model` (empty: the first that is named) unless `served` says otherwise, by agent role or by the
    trace's name of a model.
    """

    pools: tuple[Pool, ...]
    router: str = "round_robin"
    decode_router: str | None = None
    transfer: Transfer = Transfer()
    model: str = ""
    served: dict[str, str] = {}
    priorities: dict[str, int] = {}
    """Of calls, by agent role, for pools whose policy is priority; lower is more urgent, 0 where none is given."""
    seed: int = 0
    """Of routers that draw."""

    @property
    def alone(self) -> bool:
        """One replica for ever: no router has anything to choose."""
        pools = self.pools
        return len(pools) == 1 and pools[0].replicas == 1 and pools[0].autoscale is None

    @property
    def gpus(self) -> int:
        """GPUs of the replicas it begins with."""
        return sum(pool.replicas * pool.profile.gpus for pool in self.pools)

    @property
    def models(self) -> list[str]:
        """Every name of a model that some pool answers to, each once."""
        return list(dict.fromkeys(name for pool in self.pools for name in pool.models))

    def serving(self, agent: str, model: str) -> str:
        """The name by which a call's model is asked for: by role first, then by the trace's own name."""
        role = agent.partition(":")[0]  # explorer:1 and explorer:2 are of one
        return self.served.get(agent) or self.served.get(role) or self.served.get(model) or self.usual_model

    @property
    def usual_model(self) -> str:
        """What a call asks for that names no model."""
        return self.model or next(iter(self.models), "")

    def of(self, model: str) -> list[int]:
        """The numbers of the pools that a call for this model may go to. Raises Refused when there is none."""
        model = model or self.usual_model
        found = [number for number, pool in enumerate(self.pools) if pool.serves(model)]
        if not found:
            names = self.models
            near = nearest(model, names)
            raise Refused(
                "no replica serves this model",
                expected=", ".join(names),
                found=model,
                hint=f"did you mean {near}?" if near else None,
            )
        return found


def of(profile: Profile, replicas: int = 1, router: str = "round_robin", prefill_replicas: int = 0) -> Fleet:
    """A fleet of one profile: `replicas` of them, and where `prefill_replicas` are given these before them."""
    if not prefill_replicas:
        return checked(Fleet((Pool(profile, replicas),), router))
    first = Pool(profile, prefill_replicas, "prefill", role="prefill")
    return checked(Fleet((first, Pool(profile, replicas, "decode", role="decode")), router))


def checked(fleet: Fleet) -> Fleet:
    """The fleet, if it can work. Raises UsageError."""
    from workloom.engine.routers import named

    if not fleet.pools:
        raise UsageError("a fleet has at least one pool", where="pools")
    for name in (fleet.router, fleet.decode_router):
        if name is not None:
            named(name)
    for model in fleet.models or [""]:
        roles = {fleet.pools[number].role for number in fleet.of(model)}
        if roles not in ({"both"}, {"prefill", "decode"}):
            raise UsageError(
                "prefill and decode belong together",
                where=f"pools of model {model}" if model else "pools",
                expected="pools of role both, or of both roles prefill and decode",
                found=", ".join(sorted(roles)),
            )
        _check_templates(fleet, model)
    for name in (fleet.model, *fleet.served.values()):
        fleet.of(name)
    for number, pool in enumerate(fleet.pools):
        _check_pool(number, pool)
    return fleet


def _check_templates(fleet: Fleet, model: str) -> None:
    """What a prompt is must be settled before it is routed, so the pools of a model have one chat template."""
    first, *others = fleet.of(model)
    for other in others:
        if fleet.pools[other].profile.template != fleet.pools[first].profile.template:
            raise UsageError(
                "the pools of a model have one chat template",
                where=f"pools[{other}]: profile {fleet.pools[other].profile.name}",
                expected=f"the template of pools[{first}], {fleet.pools[first].profile.name}",
                found="another one",
                hint="say it in the file, `override: {template: {...}}`, or give the models names of their own",
            )


def _check_pool(number: int, pool: Pool) -> None:
    where = f"pools[{number}]"
    scale = pool.autoscale
    if scale is not None and not scale.least <= pool.replicas <= scale.most:
        raise UsageError(
            "a pool begins within its limits",
            where=f"{where}.replicas",
            expected=f"{scale.least} to {scale.most}, as autoscale says",
            found=pool.replicas,
        )
    if pool.role != "both" and not pool.profile.kv_token_bytes:
        raise UsageError(
            "how much KV has to go from prefill to decode is not known",
            where=f"{where}: profile {pool.profile.name}",
            expected="kv_token_bytes, the bytes of KV that a token has",
            hint="set it in the profile: 2 * layers * KV heads * head size * bytes",
        )


class _PoolFile(Struct, forbid_unknown_fields=True):
    engine: str
    replicas: Limit = 1
    name: str = ""
    models: tuple[str, ...] = ()
    role: Role = "both"
    autoscale: Autoscale | None = None
    override: dict[str, Any] = {}
    """Fields of the profile that are to be otherwise."""


class _FleetFile(Struct, forbid_unknown_fields=True):
    pools: tuple[_PoolFile, ...]
    router: str = "round_robin"
    decode_router: str | None = None
    transfer: Transfer = Transfer()
    model: str = ""
    served: dict[str, str] = {}
    priorities: dict[str, int] = {}
    seed: int = 0


def load(path: Path) -> Fleet:
    """A fleet from a YAML file; profiles are named as everywhere, files among them from where it lies itself.

    Raises UsageError or ProfileError.
    """
    import yaml

    try:
        file = msgspec.convert(yaml.safe_load(path.read_bytes()), _FleetFile, strict=False)  # to YAML 40e9 is a text
    except OSError as fault:
        hint = "--fleet names a .yaml file of pools"
        raise UsageError("the fleet cannot be read", where=str(path), found=fault.strerror, hint=hint) from fault
    except (yaml.YAMLError, msgspec.ValidationError) as fault:
        raise UsageError("the fleet is malformed", where=str(path), found=fault, hint=_HINT) from fault
    pools = tuple(_pool(path, number, pool) for number, pool in enumerate(file.pools))
    parts = {name: getattr(file, name) for name in file.__struct_fields__ if name != "pools"}
    try:
        return checked(Fleet(pools, **parts))
    except (UsageError, Refused) as fault:
        where = str(path) if fault.where is None else f"{path}: {fault.where}"
        hint = fault.hint or _HINT
        raise UsageError(fault.what, where=where, expected=fault.expected, found=fault.found, hint=hint) from fault


_HINT = "docs/engine.md has an example under Fleets"


def _pool(path: Path, number: int, pool: _PoolFile) -> Pool:
    near = path.parent / pool.engine
    is_file = pool.engine.endswith((".yaml", ".yml"))
    profile = profiles.load(str(near) if is_file and near.is_file() else pool.engine)
    if pool.override:
        try:
            profile = msgspec.convert({**msgspec.to_builtins(profile), **pool.override}, Profile, strict=False)
        except msgspec.ValidationError as fault:
            raise UsageError(
                "a profile cannot be changed so",
                where=f"{path}: pools[{number}].override",
                found=fault,
                hint="its fields are those that `workloom profiles --json` prints",
            ) from fault
    return Pool(profile, pool.replicas, pool.name, pool.models, pool.role, pool.autoscale)
