"""What a sweep tells where nobody says what."""

from __future__ import annotations

ACROSS = "user_tokens_per_s_p50"
"""Interactivity: tokens/s that the user of a call sees, 1 / TPOT, the median call."""
UP = "output_tokens_per_s_per_gpu"
UP_WITHOUT_GPUS = "output_tokens_per_s"
"""Where a live server does not say on how many GPUs it runs, and nobody else does."""


def usual(up: str) -> list[str]:
    """The figures of the table, `up` first: what it delivers, how it feels, what came of the tasks, and why."""
    return [
        up,
        ACROSS,
        "ttft_p50",
        "ttft_p95",
        "tbc_p50",
        "task_makespan_p50",
        "task_makespan_p90",
        "hit_rate",
        "errors",
    ]
