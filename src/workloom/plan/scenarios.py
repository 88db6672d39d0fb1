"""Protocols that others publish results by, as the fields of a recipe and the options of a run.

agentx-mvp    the first AgentX protocol: trees at once, started within 0-70 % of their sessions, waits capped at 60 s,
              a quiet 5 s after the prefill, 1,800 s measured (at least 900)
agentx-v1     InferenceX AgentX v1.0 as its harness runs it: start within 25-75 % of recorded time, 10 one-token calls
              a slot, a tree idle for 300 s or the system idle for 10 s moves up, 3,600 s measured
trie          Applied Compute's harness: sessions as chains, waits as recorded, what runs at the end is cancelled

What each fixes, and why a figure is so, is in docs/scenarios.md.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from workloom.plan.context import Context
from workloom.plan.plan import Waits
from workloom.plan.start import Start, Warmup
from workloom.prompt import Isolation


class Preset(Struct, frozen=True, kw_only=True):
    """What a scenario sets. `locked`: options that make another scenario of it when they are given."""

    waits: Waits
    duration_s: float
    least_duration_s: float = 0.0
    start: Start | None = None
    warmup: Warmup = Warmup()
    isolation: Isolation = "after"
    context: Context = Context()
    history: Literal["live", "recorded", "text"] = "live"
    output: Literal["exact", "cap", "free"] = "exact"
    drain_s: float = 120.0
    timeout_s: float = 1800.0
    retries: int = 0
    """How often a call is sent again that failed before its first token."""
    max_failed: float = 1.0
    after_error: Literal["cancel", "advance"] = "cancel"
    one_model: bool = True
    """All agents go to one served model."""
    endpoint: Literal["chat", "completions"] = "chat"
    affinity_headers: tuple[str, ...] = ()
    body: dict[str, Any] = {}
    seed: int = 0


SCENARIOS: dict[str, Preset] = {
    "agentx-mvp": Preset(
        waits=Waits(max_s=60.0),
        duration_s=1800.0,
        least_duration_s=900.0,
        start=Start(0.0, 0.7, "index"),
        warmup=Warmup(pause_s=5.0),
        isolation="before",
    ),
    "agentx-v1": Preset(
        waits=Waits(max_s=None, tree_idle_s=300.0, system_idle_s=10.0),
        duration_s=3600.0,
        least_duration_s=900.0,
        start=Start(0.25, 0.75, "clock"),
        warmup=Warmup(calls_per_slot=10, max_s=1800.0, max_failed=0.0),
        isolation="play",
        history="recorded",
        max_failed=0.10,
        after_error="advance",
        seed=42,
    ),
    "trie": Preset(
        waits=Waits(max_s=None),
        duration_s=300.0,
        drain_s=0.0,
        timeout_s=600.0,
        retries=2,
        endpoint="completions",
        affinity_headers=("X-SMG-Routing-Key",),
    ),
}
