"""Write docs/metrics.md from the catalog of metrics, or with --check say whether it is up to date."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from workloom.metrics import basic, cost, delivery, fairness, goodput, groups, headline, overlap, work, workflow
from workloom.metrics.catalog import Metric, catalog

TARGET = Path(__file__).parent.parent / "docs" / "metrics.md"
SECTIONS: tuple[tuple[str, tuple[Metric, ...], ModuleType], ...] = (
    ("Calls", basic.METRICS, basic),
    ("Throughput", delivery.METRICS, delivery),
    ("Goodput", goodput.METRICS, goodput),
    ("Sessions, tasks and the critical path", workflow.METRICS, workflow),
    ("New work, cache and KV", work.METRICS, work),
    ("Decodes at once", overlap.METRICS, overlap),
    ("Fairness", fairness.METRICS, fairness),
    ("Cost and energy", cost.METRICS, cost),
)
INTRO = """\
# Metrics

Written by scripts/make_metric_docs.py from the docstrings of the functions that compute them; a test keeps it true.

    workloom metrics                                        the names
    workloom metrics RUN                                    every metric of a run, with intervals
    workloom metrics RUN --figure "ttft_p95[agent=main]"    one figure; --figure may be given again
    workloom metrics RUN --headline interactive             the figures that matter for one use
    workloom metrics RUN --by turn                          figures for each kind of call

A **figure** is a metric with a statistic. `ttft_p95` is the 95th percentile of TTFT, `e2e_mean` a mean, `tbc_max` the
largest; percentiles may have a point (`ttft_p99.9`). A metric that is of a run is one number and has no statistic:
`errors`, `output_tokens_per_s`. The same names are used by `--slo`, `--gate`, `--until`, `sweep` and `compare`.

What holds for all of them:

- Calls, tasks and sessions belong to the measured window by when they were due; throughputs count what came in it.
- A failed call (an error or a time-out) has infinite latency; an infinite value is null in JSON, with an empty `why`.
  A cancelled call was never sent, a censored one was cut off by the end of the run: neither has a latency, both are
  counted.
- Sessions are what is independent in a run, so intervals come from drawing sessions anew.
- A metric that this run cannot say (a price that was not given, an instant that a live server does not tell) has no
  value, and `why` says so.
"""


def page() -> str:
    """The glossary as Markdown."""
    out = [INTRO]
    for title, metrics, module in SECTIONS:
        out += [f"## {title}", "", _paragraphs(module), "", *_table(metrics), ""]
        for metric in metrics:
            out += [_entry(metric), ""]
    out += ["## Kinds of calls", "", _paragraphs(groups), ""]
    out += ["## Headline sets", "", _paragraphs(headline), "", *_headlines(), ""]
    return "\n".join(out).rstrip() + "\n"


def _paragraphs(module: ModuleType) -> str:
    return inspect.getdoc(module) or ""


def _table(metrics: Iterable[Metric]) -> list[str]:
    rows = ["| name | what | unit | one value a | better |", "| --- | --- | --- | --- | --- |"]
    return rows + [f"| `{m.short}` | {m.title} | {m.unit} | {m.of} | {m.better} |" for m in metrics]


def _entry(metric: Metric) -> str:
    names = [metric.name, *metric.aliases] if metric.short != metric.name else list(metric.aliases)
    also = f" (also {', '.join(f'`{name}`' for name in names)})" if names else ""
    entry = _filled(f"**`{metric.short}`**{also}: {metric.doc}")
    return f"{entry}\n\n{_filled(f'*Elsewhere:* {metric.also}')}" if metric.also else entry


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _headlines() -> list[str]:
    sets = {name: [f"`{figure.say()}`" for figure in headline.figures(name)] for name in headline.HEADLINES}
    return ["| set | figures |", "| --- | --- |", *(f"| {name} | {', '.join(said)} |" for name, said in sets.items())]


def main() -> int:
    left = set(catalog()) - {metric.name for _, metrics, _ in SECTIONS for metric in metrics}
    if left:
        print(f"metrics of no section: {', '.join(sorted(left))}")
        return 1
    if "--check" in sys.argv:
        if TARGET.read_text("utf-8") == page():
            return 0
        print(f"{TARGET.name} is out of date: run scripts/make_metric_docs.py")
        return 1
    TARGET.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
