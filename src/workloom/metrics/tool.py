"""What the tool itself cost, and whether the numbers of a live run can be trusted."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from workloom.metrics.stats import Stats
from workloom.store.manifest import Manifest

LAG_P99_DEGRADED_S = 0.002
"""Calls left more than 2 ms late at p99: short TTFTs carry the tool's own delay."""
LAG_P99_INVALID_S = 0.050
"""More than 50 ms late at p99: the load was not the load that was asked for."""
CPU_DEGRADED = 0.80
"""One core does the sending and the stamping; above 80 % of it stamps begin to queue."""
CPU_INVALID = 0.97
"""The core was full: what was measured is the tool."""

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
    """None: nothing to judge (virtual time, or no call was sent)."""
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
    elif lag_s.p99 is None:
        verdict, reasons = None, ["no call was sent"]
    else:
        verdict, reasons = _verdict(lag_s.p99, share, manifest.stalled_s)
    return Tool(wall_s, cpu_s, share, manifest.loop_lag_p99_s, manifest.stalled_s, verdict, reasons)


def _verdict(lag_p99_s: float, cpu_share: float | None, stalled_s: float) -> tuple[Verdict, list[str]]:
    reasons: list[str] = []
    if lag_p99_s > LAG_P99_DEGRADED_S:
        limit_s = LAG_P99_INVALID_S if lag_p99_s > LAG_P99_INVALID_S else LAG_P99_DEGRADED_S
        reasons.append(f"dispatch lag p99 {lag_p99_s * 1000:.1f} ms > {limit_s * 1000:g} ms")
    if cpu_share is None:
        reasons.append("CPU use unknown (the run did not come to its end)")
    elif cpu_share > CPU_DEGRADED:
        limit = CPU_INVALID if cpu_share > CPU_INVALID else CPU_DEGRADED
        reasons.append(f"CPU {cpu_share:.0%} of one core > {limit:.0%}")
    if stalled_s > 0:
        reasons.append(f"the run waited {stalled_s:.2f} s for the disk")
    if lag_p99_s > LAG_P99_INVALID_S or (cpu_share or 0.0) > CPU_INVALID:
        return "invalid", reasons
    return (
        "degraded" if lag_p99_s > LAG_P99_DEGRADED_S or (cpu_share or 0.0) > CPU_DEGRADED or stalled_s > 0 else "valid"
    ), reasons
