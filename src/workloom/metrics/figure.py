"""Figures by name: a metric, which statistic of it, and of which calls.

    ttft_p95                 the 95th percentile of TTFT over the calls due in the window
    ttft_p95[agent=main]     the same over the calls of one role
    tbc_mean  errors  goodput_tasks_per_s          a metric that is one number has no statistic

SLOs, gates, stopping rules and comparisons all name what they are about in this way.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from msgspec import Struct

from workloom.errors import UsageError
from workloom.metrics.catalog import Metric, Sample, Totals, find
from workloom.metrics.measured import Measured

By = Literal["agent", "model", "turn", "depth"]
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0, "h": 3600.0}
"""What a limit or a width of a time may be written in."""
_PATTERN = re.compile(
    r"(?P<name>[a-z0-9_]+?)(?:_(?P<statistic>mean|max|p[0-9]+(?:\.[0-9]+)?))?(?:\[(?P<of>[^\]]*)\])?", re.I
)


class Figure(Struct, frozen=True):
    """`statistic`: mean, max or pNN of a metric with a value a call (gap, task, session); empty of one number."""

    metric: str
    statistic: str = ""
    of: tuple[tuple[By, str], ...] = ()
    """Only of calls like this."""

    @property
    def quantile(self) -> float | None:
        """0.95 of p95; None of a mean or of one number."""
        return float(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None

    def say(self) -> str:
        """As it is written: `ttft_p95[agent=main]`."""
        name = find(self.metric).short
        of = f"[{','.join(f'{key}={value}' for key, value in self.of)}]" if self.of else ""
        return (f"{name}_{self.statistic}" if self.statistic else name) + of

    @property
    def about(self) -> Metric:
        return find(self.metric)

    def observe(self, run: Measured) -> Sample | Totals | None:
        """The metric over those calls that it is about; None: this run cannot say."""
        if self.of:
            from workloom.metrics.groups import rows_of

            run = run.looking_at(rows_of(run, self.of))
        return self.about.observe(run)


def figure(text: str, where: str | None = None) -> Figure:
    """Read a figure's name; `where` is the option it was given to. Raises UsageError."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError("a figure is METRIC_STATISTIC", where=where, expected="ttft_p95, tbc_mean, errors", found=text)
    name, statistic = match["name"], (match["statistic"] or "").lower()
    try:
        metric = find(name, where)
    except UsageError:  # a name may end like a statistic
        if not statistic:
            raise
        metric, statistic = find(name, where), ""
    single = metric.of == "run"
    if single and statistic:
        raise UsageError(f"{metric.short} is one number", where=where, expected=metric.short, found=text)
    if not single and not statistic:
        expected = f"{metric.short}_p50, {metric.short}_p95, {metric.short}_mean"
        raise UsageError(f"{metric.short} is a value a {metric.of}", where=where, expected=expected, found=text)
    if statistic.startswith("p") and not 0 < float(statistic[1:]) < 100:
        raise UsageError("a percentile is between 0 and 100", where=where, found=text)
    return Figure(metric.name, statistic, _of(metric, match["of"], text, where))


def _of(metric: Metric, said: str | None, text: str, where: str | None) -> tuple[tuple[By, str], ...]:
    if said is None:
        return ()
    if metric.of not in ("call", "gap") and not metric.of_calls:
        raise UsageError(
            f"{metric.short} is no figure of calls", where=where, found=text, hint="leave out what is in []"
        )
    pairs: list[tuple[By, str]] = []
    for word in said.split(","):
        key, _, value = (piece.strip() for piece in word.partition("="))
        if key not in get_args(By) or not value:
            raise UsageError(
                "calls are told by", where=where, expected=" or ".join(f"{k}=..." for k in get_args(By)), found=text
            )
        pairs.append((key, value))  # type: ignore[arg-type]
    return tuple(pairs)
