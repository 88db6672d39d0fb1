"""Which figures are compared: the headline, or all that the catalog knows."""

from __future__ import annotations

from workloom.metrics.catalog import catalog
from workloom.metrics.figure import Figure, figure

STATISTICS = {
    "call": ("p50", "p95", "p99", "mean"),
    "gap": ("p50", "p95", "p99", "mean"),
    "task": ("p50", "p90", "mean"),
    "session": ("p50", "p90", "mean"),
    "run": ("",),
}
"""The usual statistics of a metric, by what it has a value for."""
HEADLINE = (
    *("task_makespan_p50", "task_makespan_p90", "ttfat_p50", "ttfat_p95", "ttft_p50", "ttft_p95", "tbc_p50", "tbc_p95"),
    *("tpot_mean", "e2e_p50", "e2e_p95", "errors", "output_tokens_per_s", "tasks_per_s", "calls_per_s", "hit_rate"),
)
"""What is looked at first, as far as the catalog has it."""


def headline() -> list[Figure]:
    """The figures of HEADLINE that there are."""
    known = {figure.say(): figure for figure in every()}
    return [known[name] for name in HEADLINE if name in known]


def every() -> list[Figure]:
    """All metrics with their usual statistics."""
    return [Figure(m.name, statistic) for m in catalog().values() for statistic in STATISTICS[m.of]]


def named(names: list[str]) -> list[Figure]:
    """Figures by name, or every usual statistic of a metric (`ttft`). Raises UsageError."""
    usual = {metric.short: metric for metric in catalog().values() if metric.of != "run"}
    found: list[Figure] = []
    for word in (word.strip() for name in names for word in _split(name)):
        if word in usual:
            found += [Figure(usual[word].name, statistic) for statistic in STATISTICS[usual[word].of]]
        else:
            found.append(figure(word, "--figure"))
    return list(dict.fromkeys(found))


def _split(text: str) -> list[str]:
    """At commas, but not at those in brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
