"""A profile from a server's shape and what was fitted, with the error of each and what could not be told."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from workloom.answers.calibrate.estimate import Estimate
from workloom.answers.calibrate.launch import Launches
from workloom.answers.calibrate.server import Server
from workloom.engine.profile import FitError, FrontEnd, Profile, StepCost


class Fitted(NamedTuple):
    """All coefficients, by who fitted them."""

    decode: dict[str, Estimate]
    launches: Launches
    compute: dict[str, Estimate]
    front: dict[str, Estimate]

    def estimates(self) -> dict[str, Estimate]:
        """By field of the profile."""
        launches = {name: value for name, value in self.launches._asdict().items() if isinstance(value, Estimate)}
        return {**{f"step.{n}": e for n, e in {**self.decode, **launches, **self.compute}.items()},
                **{f"front_end.{n}": e for n, e in self.front.items()}}  # fmt: skip


def assemble(name: str, source: str, server: Server, fitted: Fitted, error: FitError) -> Profile:
    """The profile."""
    estimates = fitted.estimates()
    step: dict[str, Any] = {
        n.removeprefix("step."): round(e.value) for n, e in estimates.items() if n.startswith("step.")
    }
    step["pair_ps"] += step["pair_ps"] % 2  # half of it times a whole number is whole
    front: dict[str, Any] = {
        n.removeprefix("front_end."): round(e.value) for n, e in estimates.items() if n.startswith("front_end.")
    }
    return Profile(
        name=name,
        model=server.model,
        gpu=server.gpu,
        gpus=server.gpus,
        dtype=server.dtype,
        source=source,
        error=error,
        not_identified={n: e.why for n, e in estimates.items() if not e.identified},
        step=StepCost(
            **step,
            experts=server.experts,
            experts_per_token=server.experts_per_token,
            graph_tokens=server.graph_tokens if fitted.launches.graphs else 0,
            graph_sizes=server.graph_sizes,
        ),
        front_end=FrontEnd(**front),
        max_model_len=server.max_model_len,
        max_num_seqs=server.max_num_seqs,
        max_batched_tokens=server.max_batched_tokens,
        block_tokens=server.block_tokens,
        kv_tokens=None if server.kv_blocks is None else server.kv_blocks * server.block_tokens,
        kv_token_bytes=server.kv_token_bytes,
        async_scheduling=fitted.launches.ahead,
        state_groups=server.state_groups,
        template=server.template,
    )


def written(profile: Profile, head: str) -> str:
    """The profile as a YAML file, without fields at their defaults. `head`: a comment that says how it was made."""
    import yaml

    fields = msgspec.to_builtins(profile)
    bare = {
        name: value for name, value in _given(fields, _defaults()).items() if value != {} or name == "not_identified"
    }
    text = "".join(
        yaml.safe_dump(
            {name: value},
            sort_keys=False,
            allow_unicode=True,
            width=110,
            default_flow_style=None if isinstance(value, dict) and name != "not_identified" else False,
        )
        for name, value in bare.items()
    )
    return "".join(f"# {line}\n" for line in head.splitlines()) + text


def _defaults() -> dict[str, Any]:
    """Defaults of the optional fields, nested ones too."""
    out: dict[str, Any] = {}
    for struct, place in (
        (Profile, out),
        (StepCost, out.setdefault("step", {})),
        (FrontEnd, out.setdefault("front_end", {})),
    ):
        for field in msgspec.structs.fields(struct):
            if not field.required and field.default is not msgspec.NODEFAULT:
                place[field.name] = msgspec.to_builtins(field.default)
    return out


def _given(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict) and name in ("step", "front_end"):
            out[name] = _given(value, defaults[name])
        elif name not in defaults or value != defaults[name]:
            out[name] = list(value) if isinstance(value, tuple) else value
    return out
