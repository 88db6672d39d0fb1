"""What a run cannot know of itself and somebody must say: how many GPUs served it, what they and tokens cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from workloom.metrics.frame import Bools
from workloom.metrics.stats import Floats

if TYPE_CHECKING:
    from workloom.store.manifest import Manifest

PER_MTOK = 1e6


class Limit(Struct, frozen=True):
    """`metric` of one call (gap, task, session) may be `at_most` so much, in the metric's unit."""

    metric: str
    at_most: float
    strict: bool = False
    """Less than that, not equal."""
    statistic: str = ""
    """Of a metric of gaps: which statistic of a call's own gaps: mean, max or pNN (default p95)."""
    of: tuple[tuple[str, str], ...] = ()
    """Only of calls like this; the others keep it."""

    def kept(self, values: Floats) -> Bools:
        """Which values keep it; what there is not does."""
        with np.errstate(invalid="ignore"):
            within: Bools = (values < self.at_most) if self.strict else (values <= self.at_most)
        return within | np.isnan(values)


class Given(Struct, frozen=True):
    """Assumptions about the servers, named wherever they are used. None: not said."""

    gpus: float | None = None
    """GPUs that served the run; None: what the manifest of a simulated run says."""
    usd_per_gpu_hour: float | None = None
    usd_per_mtok_input: float | None = None
    """A million prompt tokens that were computed."""
    usd_per_mtok_cached: float | None = None
    """A million prompt tokens from the prefix cache; None: as the computed ones."""
    usd_per_mtok_output: float | None = None
    power_w: float | None = None
    """Power of one GPU; None: what the servers' samples say, if they do."""
    limits: tuple[Limit, ...] = ()
    """What was promised of every call, task or session: goodput is what kept them."""

    @property
    def tokens_priced(self) -> bool:
        """Whether any token has a price."""
        return self.usd_per_mtok_input is not None or self.usd_per_mtok_output is not None

    def say(self) -> str:
        """The assumptions in words; empty without any."""
        said = []
        if self.gpus is not None:
            said.append(f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}")
        if self.usd_per_gpu_hour is not None:
            said.append(f"{self.usd_per_gpu_hour:g} USD a GPU-hour")
        if self.tokens_priced:
            paid = self.usd_per_mtok_input or 0.0
            cached = paid if self.usd_per_mtok_cached is None else self.usd_per_mtok_cached
            prices = f"{paid:g} computed, {cached:g} cached, {self.usd_per_mtok_output or 0.0:g} output"
            said.append(f"{prices} (USD a million tokens)")
        if self.power_w is not None:
            said.append(f"{self.power_w:g} W a GPU")
        return "; ".join(said)


def gpus_of(manifest: Manifest | None) -> float | None:
    """GPUs of a simulated run's engine or fleet; None: not known, or not the same all the time (autoscaled)."""
    if manifest is None:
        return None
    engine, fleet = manifest.config.get("engine"), manifest.config.get("fleet")
    if isinstance(fleet, Mapping) and any(pool.get("autoscale") for pool in _pools(fleet)):
        return None
    found = engine.get("gpus") if isinstance(engine, Mapping) else None
    return float(found) if isinstance(found, int | float) and found > 0 else None


def _pools(fleet: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    pools = fleet.get("pools")
    return [pool for pool in pools if isinstance(pool, Mapping)] if isinstance(pools, list | tuple) else []
