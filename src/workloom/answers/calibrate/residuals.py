"""How far an engine is from what was measured, quantity by quantity, and how far a repetition would be."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.answers.calibrate.observed import Bools, Floats, Observed

DRAWS, BLOCKS = 40, 20
"""Resamplings, and stretches of time a run is cut into for them."""
STALLED = 2.0
"""A gap is stalled when it is more than so many times the median gap of its call."""


class Residual(Struct, frozen=True):
    """`noise`: one standard error of the measured figure as a share of it, by resampling stretches of the run.
    `spread`: one standard deviation of the predicted one over replays, the same; `predicted` is their median."""

    quantity: str
    unit: str
    measured: float | None
    predicted: float | None
    noise: float | None = None
    spread: float | None = None

    @property
    def ratio(self) -> float | None:
        """Predicted over measured."""
        if self.measured is None or self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured


def residuals(
    measured: Observed, predicted: list[Observed], hit_rate: float | None = None, seed: int = 0
) -> list[Residual]:
    """All quantities. `predicted`: one replay or more; `hit_rate`: the measured one, where the calls do not say."""
    ours, noise = figures(measured), _noise(measured, seed)
    if ours["hit rate"] is None:
        ours["hit rate"] = hit_rate
    theirs = [figures(each) for each in predicted]
    out = []
    for name, unit in UNITS.items():
        values = [value for each in theirs if (value := each[name]) is not None]
        middle = float(np.median(values)) if values else None
        spread = float(np.std(values) / middle) if middle and len(values) > 1 else None
        out.append(Residual(name, unit, ours[name], middle, noise.get(name), spread))
    return out


UNITS = {
    "TTFC p50": "s",
    "TTFC p95": "s",
    "TTFC p99": "s",
    "TBC p50": "s",
    "TBC p95": "s",
    "TBC p99": "s",
    "stalled gaps": "share",
    "E2E p50": "s",
    "E2E p95": "s",
    "hit rate": "share",
    "completed calls": "calls",
}


def figures(observed: Observed) -> dict[str, float | None]:
    """Every quantity of a run. TTFC and E2E (to the last chunk) count from when a call was sent, TBC pools all gaps."""
    parts = _parts(observed)
    out: dict[str, float | None] = dict(_percentiles(*parts))
    known = ~np.isnan(observed.cached_tokens) & ~np.isnan(observed.server_tokens)
    prompts = observed.server_tokens[known].sum()
    out["hit rate"] = float(observed.cached_tokens[known].sum() / prompts) if prompts else None
    out["completed calls"] = float(len(observed.session))
    return out


def _parts(observed: Observed) -> tuple[Floats, Floats, list[Floats], list[Bools]]:
    gaps = [np.diff(chunks) for chunks in observed.chunks]
    stalled = [mine > STALLED * (np.median(mine) if len(mine) else np.inf) for mine in gaps]
    return observed.first_s - observed.start_s, observed.last_s - observed.start_s, gaps, stalled


def _percentiles(ttfc: Floats, e2e: Floats, gaps: list[Floats], stalled: list[Bools]) -> dict[str, float]:
    pooled = np.concatenate(gaps) if gaps else np.zeros(0)
    if not len(pooled):
        pooled = np.array([np.nan])
    first, between = np.percentile(ttfc, (50, 95, 99)), np.percentile(pooled, (50, 95, 99))
    whole = np.percentile(e2e, (50, 95))
    return {
        "TTFC p50": float(first[0]),
        "TTFC p95": float(first[1]),
        "TTFC p99": float(first[2]),
        "TBC p50": float(between[0]),
        "TBC p95": float(between[1]),
        "TBC p99": float(between[2]),
        "stalled gaps": float(np.concatenate(stalled).mean()) if stalled else float("nan"),
        "E2E p50": float(whole[0]),
        "E2E p95": float(whole[1]),
    }


def _noise(observed: Observed, seed: int) -> dict[str, float]:
    """Relative standard errors over resampled stretches of time: what disturbs a server lasts for seconds, so neither
    calls nor sessions are independent."""
    low, high = float(observed.start_s.min()), float(observed.start_s.max())
    block = np.minimum((observed.start_s - low) / max(high - low, 1e-9) * BLOCKS, BLOCKS - 1).astype(np.int64)
    calls = [np.flatnonzero(block == number).tolist() for number in range(BLOCKS)]
    if min(map(len, calls)) < 2:
        return {}
    ttfc, e2e, gaps, stalled = _parts(observed)
    stream = seeds.stream(seed, "calibrate", "noise")
    draws: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        drawn = [call for number in stream.integers(0, BLOCKS, BLOCKS).tolist() for call in calls[number]]
        found = _percentiles(ttfc[drawn], e2e[drawn], [gaps[i] for i in drawn], [stalled[i] for i in drawn])
        for name, value in found.items():
            draws.setdefault(name, []).append(value)
    return {name: float(np.std(values) / np.mean(values)) for name, values in draws.items() if np.mean(values)}
