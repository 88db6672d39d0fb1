"""Options that say which simulated engine, and how many of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from workloom.cli.options import Whole
from workloom.errors import UsageError

if TYPE_CHECKING:  # --help loads no engines
    from workloom.engine.fleet import Fleet
    from workloom.engine.profile import Profile

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
        """The fleet these options ask for."""
        import msgspec

        from workloom.engine import fleet as fleets

        if self.fleet is None:
            if self.replicas < 1 or self.prefill_replicas < 0:
                raise UsageError("replicas are a count", where="--replicas", expected="1 or more", found=self.replicas)
            fleet = fleets.of(self.profile(), self.replicas, self.router, self.prefill_replicas)
            return msgspec.structs.replace(fleet, priorities=self.priorities())
        others = [name for name in self.given() if name not in ("--fleet", "--prefix-cache")]
        if others:
            raise UsageError(
                "a fleet file says what its engines are",
                where=self.fleet,
                found=", ".join(others),
                hint="put overrides of a profile into the file: `override: {kv_tokens: 400000}`",
            )
        return fleets.load(Path(self.fleet))

    def priorities(self) -> dict[str, int]:
        """Priority by role."""
        found = {}
        for text in self.priority:
            role, equals, number = text.rpartition("=")
            if not equals or not role or not number.lstrip("-").isdigit():
                raise UsageError("a priority is ROLE=N", where="--priority", expected="main=0, say", found=text)
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
                _positive("--" + name.replace("_", "-"), value)
                changes[name] = value
        for name in ("policy", "mixing", "preemption", "cache"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.kv_tokens is not None:
            changes["kv_tokens"] = _kv_tokens("--kv-tokens", self.kv_tokens)
        retention = profile.retention
        if self.ttl is not None:
            _positive("--ttl", self.ttl)
            retention = msgspec.structs.replace(retention, ttl_ps=round(self.ttl * 1e12))
        if self.pinned_tokens is not None:
            retention = msgspec.structs.replace(retention, pinned_tokens=self.pinned_tokens)
        if retention != profile.retention:
            changes["retention"] = retention
        tiers = self._tiers()
        if tiers:
            changes["tiers"] = tiers
        if self.acceptance is not None or self.draft_tokens is not None:
            changes["speculative"] = {"acceptance_length": self.acceptance, "draft_tokens": self.draft_tokens}
        if not changes:
            return profile
        try:
            return msgspec.convert({**msgspec.to_builtins(profile), **msgspec.to_builtins(changes)}, type(profile))
        except msgspec.ValidationError as fault:
            raise UsageError("a profile cannot be changed so", where=self.engine, found=fault) from fault

    def _tiers(self) -> list[dict[str, Any]]:
        made = []
        for name in ("host", "disk"):
            tokens, speed = getattr(self, name + "_tokens"), getattr(self, name + "_bytes_per_s")
            if tokens is not None:
                _positive(f"--{name}-bytes-per-s", speed)
                capacity = _kv_tokens(f"--{name}-tokens", tokens)
                tier = {"name": name, "tokens": capacity, "read_bytes_per_s": speed, "write_bytes_per_s": speed}
                made.append({**tier, "write": self.tier_write, "prefetch": self.tier_prefetch})
        return made


def _default(field: Any) -> Any:
    return [] if field.name == "priority" else field.default


def _positive(option: str, value: float) -> None:
    if not value > 0:
        raise UsageError("an engine limit is above 0", where=option, expected="1 or more", found=value)


def _kv_tokens(option: str, text: str) -> int | None:
    if text == "inf":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(
        "a KV capacity is a number of tokens", where=option, expected="a positive number or inf", found=text
    )
