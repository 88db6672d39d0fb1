"""Which figures matter, by what the agents are for.

    batch          nobody waits: reinforcement learning, synthetic data. What the GPUs deliver, and at what cost.
    background     somebody waits for the whole task: a CI agent, deep research. Tails of tasks, and the cost of one.
    interactive    somebody looks on: how soon the answer begins, and how fast it then reads.

The three contexts and their figures are Applied Compute's (TRIE); `all` is what `workloom show` prints.
"""

from __future__ import annotations

from typing import Literal, get_args

from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.figure import Figure, figure
from workloom.metrics.measured import Measured

Headline = Literal["batch", "background", "interactive", "all"]
HEADLINES: tuple[Headline, ...] = get_args(Headline)

_FIGURES: dict[Headline, tuple[str, ...]] = {
    "batch": (
        *("output_tokens_per_s_per_gpu", "output_tokens_per_s", "prompt_tokens_per_s", "uncached_tokens_per_s"),
        *("hit_rate", "ideal_hit_rate", "eviction_share", "sessions_per_s", "completed_share", "wasted_token_share"),
        *("gpu_mtok_usd", "token_mtok_usd", "output_token_energy_j"),
    ),
    "background": (
        *("task_makespan_p50", "task_makespan_p90", "task_makespan_p99", "makespan_p50", "makespan_p90"),
        *("slowdown_p50", "slowdown_p90", "completed_share", "sessions_per_s"),
        *("gpu_task_usd", "token_task_usd", "task_energy_j"),
    ),
    "interactive": (
        *("ttfat_p50", "ttfat_p90", "ttfat_p99", "ttfut_p50", "ttfut_p90"),
        *("user_tokens_per_s_p50", "user_tokens_per_s_p10", "ttft_p50", "ttft_p95", "tbc_p50", "tbc_p95", "tbc_p99"),
        *("errors", "completed_share"),
    ),
    "all": (
        *("ttft_p50", "ttft_p95", "tbc_p50", "tbc_p95", "e2e_p50", "e2e_p95", "ttfat_p50", "task_makespan_p50"),
        *("task_makespan_p90", "slowdown_p50", "output_tokens_per_s", "output_tokens_per_s_per_gpu", "hit_rate"),
        *("errors", "jain_index"),
    ),
}
SPARE = {"output_tokens_per_s_per_gpu": "output_tokens_per_s"}
"""Of two figures of which one is the other for each GPU, `all` shows the first where the run knows its GPUs."""


def figures(kind: Headline) -> list[Figure]:
    """The figures of a headline set, the most important first."""
    return [figure(text) for text in _FIGURES[kind]]


def headline(run: Measured, kind: Headline = "all") -> list[Estimate]:
    """The figures of a set with their uncertainty; without those that this run cannot say (costs without a price)."""
    asked = [f for f in figures(kind) if f.observe(run) is not None]
    if kind == "all":
        there = {f.metric for f in asked}
        asked = [f for f in asked if not any(f.metric == whole and part in there for part, whole in SPARE.items())]
    return estimates(run, asked)
