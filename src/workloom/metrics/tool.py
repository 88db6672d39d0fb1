"""What the tool itself cost, and whether the numbers of a live run can be trusted."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from workloom.metrics.stats import Stats
from workloom.store.manifest import Manifest

LAG_DEGRADED_S = 0.002
"""Calls left more than 2 ms late at p99: short TTFTs carry the tool's own delay."""
LAG_INVALID_S = 0.050
"""More than 50 ms late at p99: the load was not the load that was asked for."""
CPU_DEGRADED = 0.80
"""One core does the sending and the stamping; above 80 % of it stamps begin to queue."""
CPU_INVALID = 0.97
"""The core was full: what was measured is the tool."""

FEW_CALLS = 100
"""Of fewer calls p99 is the burst at the start, when many leave at once: their lag is judged by its median."""
SHORT_S = 1.0
"""Of a shorter run the share of CPU is that of its start, so it is not judged."""

Verdict = Literal["valid", "degraded", "invalid"]


class Tool(Struct, frozen=True):
    """What the tool cost. Its lag per call is the latency `lag_s`."""

    wall_s: float | None = None
    cpu_s: float | None = None
    cpu_share: float | None = None
    """CPU seconds / wall seconds: 1 is one core."""
    loop_lag_p99_s: float | None = None
    """How late the event loop came to its timers."""
    stalled_s: float = 0.0
    """Seconds the run waited for the disk."""
    verdict: Verdict | None = None
    """None: nothing to judge (virtual time, or no call was sent), or nothing wrong found and not enough data."""
    reasons: list[str] = []


def judge(manifest: Manifest | None, lag_s: Stats) -> Tool:
    """The verdict on the tool's own overhead: the worst of its reasons; a simulated run has none."""
    if manifest is None:
        return Tool(reasons=["not measured"])
    wall_s, cpu_s = manifest.wall_s, manifest.cpu_s
    share = cpu_s / wall_s if cpu_s is not None and wall_s else None
    verdict: Verdict | None
    if manifest.backend == "simulated":
        verdict, reasons = None, ["virtual time: the tool's own speed is not in the numbers"]
    elif lag_s.n == 0:
        verdict, reasons = None, ["no call was sent"]
    else:
        verdict, reasons = _verdict(manifest, lag_s, share)
    return Tool(wall_s, cpu_s, share, manifest.loop_lag_p99_s, manifest.stalled_s, verdict, reasons)


def _verdict(manifest: Manifest, lag_s: Stats, cpu_share: float | None) -> tuple[Verdict | None, list[str]]:
    faults: list[tuple[Verdict, str]] = []
    level, late_s = ("p50", lag_s.p50) if lag_s.n < FEW_CALLS else ("p99", lag_s.p99)
    if late_s is not None and late_s > LAG_DEGRADED_S:
        fault, limit_s = _limit(late_s, LAG_DEGRADED_S, LAG_INVALID_S)
        faults.append((fault, f"dispatch lag {level} {late_s * 1000:.1f} ms > {limit_s * 1000:g} ms"))
    missing = _missing(manifest, cpu_share)
    if not missing and cpu_share is not None and cpu_share > CPU_DEGRADED:
        fault, limit = _limit(cpu_share, CPU_DEGRADED, CPU_INVALID)
        faults.append((fault, f"CPU {cpu_share:.0%} of one core > {limit:.0%}"))
    if manifest.stalled_s > 0:
        faults.append(("degraded", f"the run waited {manifest.stalled_s:.2f} s for the disk"))
    if not faults:
        return (None, [f"not enough data: {missing}"]) if missing else ("valid", [])
    worst = max((fault for fault, _ in faults), key=get_args(Verdict).index)
    return worst, [why for _, why in faults] + ([missing] if missing else [])


def _limit(value: float, degraded: float, invalid: float) -> tuple[Verdict, float]:
    """Which of two limits is passed, given that the lower one is."""
    return ("invalid", invalid) if value > invalid else ("degraded", degraded)


def _missing(manifest: Manifest, cpu_share: float | None) -> str:
    """Why the use of CPU cannot be judged; empty where it can."""
    if manifest.status == "running":
        return "the run is still going"
    if cpu_share is None:
        return "CPU use unknown (the run did not come to its end)"
    if manifest.wall_s is not None and manifest.wall_s < SHORT_S:
        return f"the run took less than {SHORT_S:g} s"
    return ""
