"""What a worker process cost, as a run keeps it."""

from __future__ import annotations

from msgspec import Struct


class WorkerCost(Struct, frozen=True, kw_only=True):
    """What one worker process of a live run cost in the measured window. Shares: 1 is one core, or all of the time."""

    worker: int = 0
    pid: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """User and system."""
    cpu_share_p95: float | None = None
    """CPU seconds a second, of the 95th percentile of seconds. Timers that watch the clock are in it."""
    busy_share: float | None = None
    """Of the event loop's time, what it spent serving something (see `workloom.drive.lag`)."""
    busy_share_p95: float | None = None
    """The same of the 95th percentile of seconds."""
    rss_bytes: int | None = None
    """Resident memory at the end."""
    rss_max_bytes: int | None = None
    """At its peak, whenever that was."""
    loop_looks: int = 0
    """How often the event loop was looked at; its lags are of these looks."""
    loop_lag_p50_s: float | None = None
    loop_lag_p90_s: float | None = None
    loop_lag_p99_s: float | None = None
    loop_lag_max_s: float | None = None
    handling_s: float | None = None
    """Spent reading chunks: from the arrival of a read to the end of its handling, summed."""
    bytes_sent: int | None = None
    bytes_received: int | None = None
    stalled_s: float = 0.0
    """Waited for the disk."""
    clock_source: str = ""
    clock_resolution_s: float | None = None
    """The smallest step of the clock that was seen."""
