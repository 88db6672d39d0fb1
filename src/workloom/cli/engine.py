"""Options that say which simulated engine, and how many of it."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from workloom.cli.options import Whole
from workloom.errors import UsageError

if TYPE_CHECKING:  # --help loads no engines
    from workloom.engine.fleet import Fleet
    from workloom.engine.profile import Profile
    from workloom.plan import Plan

ENGINE = Group("Simulated engine", sort_key=3)


@Parameter(name="*", group=ENGINE)
@dataclass(frozen=True)
class EngineOptions:
    """A profile, what to change in it, and how many of it."""

    engine: str | None = None
    "Name of a profile (see `workloom profiles`), a .yaml file, or roofline:MODEL@GPU."
    max_model_len: Whole = None
    "Override: longest call in tokens."
    kv_tokens: str | None = None
    "Override: KV capacity in tokens, or inf."
    max_num_seqs: Whole = None
    "Override: most calls running at once."
    max_batched_tokens: Whole = None
    "Override: tokens of one step."
    max_prefill_tokens: Whole = None
    "Override: prefill tokens of one step."
    block_tokens: Whole = None
    "Override: tokens of a KV block."
    policy: str | None = None
    "Override: who of the waiting is next: fcfs, sjf (shortest job first) or priority."
    priority: list[str] = field(default_factory=list)
    "ROLE=N for --policy priority: calls of a role with a lower number go first; may be given again."
    mixing: Literal["decode_first", "prefill_first"] | None = None
    "Override: which of both gets the tokens of a step first."
    preemption: Literal["recompute", "swap"] | None = None
    "Override: whether a preempted call computes again or is written to host memory and read back."
    cache: Literal["vllm", "sglang"] | None = None
    "Override: whose rules the prefix cache follows."
    ttl: float | None = None
    "Override: seconds after which KV that nobody used cannot be found any more."
    pinned_tokens: Whole = None
    "Override: room for the shared spans that prompts begin with, which are then not evicted."
    host_tokens: str | None = None
    "Host memory for KV below the GPU's: its capacity in tokens, or inf."
    host_bytes_per_s: float = 64e9
    "How fast KV comes from host memory and goes there (the default is PCIe 5 x16, one way)."
    disk_tokens: str | None = None
    "Disk for KV below host memory: its capacity in tokens, or inf."
    disk_bytes_per_s: float = 5e9
    "How fast KV comes from disk and goes there."
    tier_write: Literal["through", "evict"] = "evict"
    "Whether KV goes to host memory and disk when it is computed, or when it is evicted from above."
    tier_prefetch: Annotated[bool, Parameter(negative="")] = False
    "Fetch as soon as a call waits."
    acceptance: float | None = None
    "Speculative decoding: tokens a step yields (1 + accepted / drafts); needs --draft-tokens."
    draft_tokens: Whole = None
    "Speculative decoding: guesses verified in a step."
    prefix_cache: Literal["on", "off"] = "on"
    "Reuse the KV of shared prefixes."
    replicas: int = 1
    "How many of this engine."
    router: str = "round_robin"
    """How calls find their replica: round_robin, least_outstanding, least_kv, session, prefix, prefix_exact or \
power_of_two."""
    prefill_replicas: int = 0
    "So many replicas for prefill alone; --replicas then decode, and KV goes over a link between them."
    fleet: str | None = None
    "A .yaml file of pools of replicas, instead of all of these: several models, autoscaling; see docs/engine.md."

    def given(self) -> list[str]:
        return ["--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != _default(f)]

    def target(self) -> Fleet:
        """The fleet these options ask for, every engine of which can be made."""
        import msgspec

        from workloom.engine import fleet as fleets

        if self.fleet is None:
            for option, value, least in (
                ("--replicas", self.replicas, 1),
                ("--prefill-replicas", self.prefill_replicas, 0),
            ):
                if value < least:
                    raise UsageError("replicas are a count", where=option, expected=f"{least} or more", found=value)
            profile = self.profile()
            if self.priority and profile.policy != "priority":
                raise _idle(["--priority"], "--policy priority")
            fleet = fleets.of(profile, self.replicas, self.router, self.prefill_replicas)
            return _workable(msgspec.structs.replace(fleet, priorities=self.priorities()))
        others = [name for name in self.given() if name not in ("--fleet", "--prefix-cache")]
        if others:
            raise UsageError(
                "a fleet file says what its engines are",
                where=self.fleet,
                found=", ".join(others),
                hint="put overrides of a profile into the file: `override: {kv_tokens: 400000}`",
            )
        return _workable(fleets.load(Path(self.fleet)), self.fleet)

    def priorities(self) -> dict[str, int]:
        """Priority by role."""
        found = {}
        for text in self.priority:
            role, _, number = text.rpartition("=")
            if not role or not re.fullmatch(r"-?[0-9]+", number):
                raise UsageError("a priority is ROLE=N", where="--priority", expected="main=0, say", found=text)
            if role in found:
                raise UsageError("a role has one priority", where="--priority", expected=f"{role} once", found=text)
            found[role] = int(number)
        return found

    def profile(self) -> Profile:
        """The profile with its overrides."""
        import msgspec

        from workloom.engine import profile as profiles

        if self.engine is None:
            raise UsageError("an engine is needed", where="--engine", hint="`workloom profiles` lists them")
        profile = profiles.load(self.engine)
        changes: dict[str, Any] = {}
        for name in ("max_model_len", "max_num_seqs", "max_batched_tokens", "max_prefill_tokens", "block_tokens"):
            value = getattr(self, name)
            if value is not None:
                if value < 1:
                    option = "--" + name.replace("_", "-")
                    raise UsageError("an engine limit is above 0", where=option, expected="1 or more", found=value)
                changes[name] = value
        for name in ("policy", "mixing", "preemption", "cache"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.kv_tokens is not None:
            changes["kv_tokens"] = _kv_tokens("--kv-tokens", self.kv_tokens)
        retention = profile.retention
        if self.ttl is not None:
            _positive("--ttl", self.ttl)
            retention = msgspec.structs.replace(retention, ttl_ps=max(1, round(self.ttl * 1e12)))
        if self.pinned_tokens is not None:
            retention = msgspec.structs.replace(retention, pinned_tokens=self.pinned_tokens)
        if retention != profile.retention:
            changes["retention"] = retention
        tiers = self._tiers()
        if tiers:
            changes["tiers"] = tiers
        if (self.acceptance is None) != (self.draft_tokens is None):
            given, missing = ("--acceptance", "--draft-tokens")[:: 1 if self.draft_tokens is None else -1]
            raise UsageError("speculative decoding is two figures", where=given, expected=f"{missing} besides")
        if self.acceptance is not None:
            changes["speculative"] = {"acceptance_length": self.acceptance, "draft_tokens": self.draft_tokens}
        if not changes:
            return profile
        try:
            return msgspec.convert({**msgspec.to_builtins(profile), **msgspec.to_builtins(changes)}, type(profile))
        except msgspec.ValidationError as fault:
            raise UsageError("a profile cannot be changed so", where=self.engine, found=fault) from fault

    def _tiers(self) -> list[dict[str, Any]]:
        idle = [name for name in self.given() if name.startswith("--tier-")]
        if idle and self.host_tokens is None and self.disk_tokens is None:
            raise _idle(idle, "--host-tokens or --disk-tokens")
        made = []
        for name in ("host", "disk"):
            tokens, speed = getattr(self, name + "_tokens"), getattr(self, name + "_bytes_per_s")
            if tokens is None:
                if f"--{name}-bytes-per-s" in self.given():
                    raise _idle([f"--{name}-bytes-per-s"], f"--{name}-tokens")
            else:
                _positive(f"--{name}-bytes-per-s", speed)
                capacity = _kv_tokens(f"--{name}-tokens", tokens)
                tier = {"name": name, "tokens": capacity, "read_bytes_per_s": speed, "write_bytes_per_s": speed}
                made.append({**tier, "write": self.tier_write, "prefetch": self.tier_prefetch})
        return made


def tell_unheard(fleet: Fleet) -> None:
    """Say what of a fleet calls over HTTP cannot ask for: they tell neither their role nor which spans they share."""
    unheard = {
        "priorities": bool(fleet.priorities),
        "served": bool(fleet.served),
        "pinned_tokens": any(pool.profile.retention.pinned_tokens for pool in fleet.pools),
    }
    without = ", ".join(name for name, given in unheard.items() if given)
    if without:
        what = "calls over HTTP tell neither roles nor shared spans"
        print(f"warning: {what}, so these change nothing here: {without}", file=sys.stderr)


def _default(field: Any) -> Any:
    return [] if field.name == "priority" else field.default


def _idle(options: list[str], without: str) -> UsageError:
    """For options that would change nothing."""
    return UsageError("an option stands alone that says nothing so", where=", ".join(options), expected=without)


def _positive(option: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError("a number cannot be used", where=option, expected="a finite one above 0", found=value)


def _workable(fleet: Fleet, file: str | None = None) -> Fleet:
    """The fleet, if its engines can be made: what fields say together is found out here, and not in the run."""
    from workloom.engine.engine import Engine
    from workloom.errors import ProfileError

    for number, pool in enumerate(fleet.pools):
        try:
            Engine(pool.profile)
        except ProfileError as fault:
            where = fault.where if file is None else f"{file}: pools[{number}]"
            raise UsageError(
                fault.what, where=where, expected=fault.expected, found=fault.found, hint=fault.hint
            ) from fault
        if pool.profile.longest_call < 2:
            raise UsageError(
                "this engine has no room for any call",
                where=pool.profile.name if file is None else f"{file}: pools[{number}]",
                expected="calls of 2 tokens or more",
                found=f"max_model_len {pool.profile.max_model_len}, kv_tokens {pool.profile.kv_tokens} in blocks of "
                f"{pool.profile.block_tokens}",
                hint="more --kv-tokens or --max-model-len, or smaller --block-tokens",
            )
    return fleet


def tell_strangers(fleet: Fleet, plan: Plan) -> None:
    """Say it when a fleet has a word for a role or model that no call of a plan has, or a priority that nobody asks."""
    if not fleet.served and not fleet.priorities:
        return
    calls = [call for i in range(len(plan.source)) for call in plan.source[i].calls]
    roles = {call.agent.partition(":")[0] for call in calls}
    named = {"served": {call.agent for call in calls} | {call.model for call in calls} | roles, "priorities": roles}
    for what, known in named.items():
        strange = ", ".join(sorted(set(getattr(fleet, what)) - known))
        if strange:
            there = ", ".join(sorted(known - {""})) or "no names at all"
            print(f"warning: {what}: no call of this plan is of {strange}; there are {there}", file=sys.stderr)
    if fleet.priorities and not any(pool.profile.policy == "priority" for pool in fleet.pools):
        print("warning: no pool schedules by priority, so priorities change nothing", file=sys.stderr)


def _kv_tokens(option: str, text: str) -> int | None:
    if text == "inf":
        return None
    if re.fullmatch("[0-9]+", text) and int(text) > 0:
        return int(text)
    raise UsageError(
        "a KV capacity is a number of tokens", where=option, expected="a positive number or inf", found=text
    )
