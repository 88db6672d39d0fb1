"""Every metric by name. What each means is the docstring of its function; docs/metrics.md is made of them.

A metric sees a run (:class:`workloom.metrics.measured.Measured`) and says either one value for each call, gap, task or
session (a :class:`Sample`: means and percentiles of it are figures), or what each session adds to two totals whose
ratio is the figure (:class:`Totals`: shares, rates, throughputs). Both say which session a value belongs to: sessions
are what is independent in a run, so uncertainty comes from drawing sessions anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from workloom.errors import UsageError, nearest
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats

Unit = Literal["s", "tokens", "tokens/s", "1/s", "share", "ratio", "USD", "J", "W", "token-s", "count"]
Of = Literal["call", "gap", "task", "session", "run"]
Better = Literal["lower", "higher", "neither"]


@dataclass(slots=True)
class Sample:
    """Values and the session instance that each belongs to. A failure is infinite, what there is not is left out (nan).

    `weights`: how often each value was seen, where equal (or binned) values stand together; None: once each.
    `censored`: how many have no value because the run ended first; `resolution`: relative error of the values.
    `at_ns`: when each came about (a call when it was due), where that is known: what is near in time is alike.
    """

    values: Floats
    session: Floats
    weights: Floats | None = None
    censored: int = 0
    resolution: float = 0.0
    at_ns: Floats | None = None


@dataclass(slots=True)
class Totals:
    """The figure is sum(part) / sum(whole). Row i is what session instance `session[i]` adds to both; a session may
    have several rows.

    Where `whole` is one number (the seconds of the window, GPUs x seconds), it is the same however sessions are drawn.
    `at_ns`: when each part came, where that is known.
    """

    part: Floats
    whole: Floats | float
    session: Floats
    at_ns: Floats | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `observe` computes it, and its docstring says what it means; None: this run cannot say."""

    name: str
    """With its unit last: `ttft_s`."""
    title: str
    unit: Unit
    of: Of
    better: Better
    observe: Callable[[Measured], Sample | Totals | None]
    aliases: tuple[str, ...] = ()
    also: str = ""
    """What others call it; and where they mean something else, what."""
    needs: str = ""
    """What must be given besides the run before it has a value: `a price (--price-per-gpu-hour)`."""
    of_calls: bool = False
    """One number that calls add up to (a share, a rate): it can be asked of some of them, as `errors[agent=main]`."""

    @property
    def doc(self) -> str:
        """What it means."""
        return inspect.getdoc(self.observe) or ""

    @property
    def short(self) -> str:
        """The name without its unit of seconds: `ttft` of `ttft_s`."""
        return self.name.removesuffix("_s") if self.unit == "s" else self.name


@cache
def catalog() -> dict[str, Metric]:
    """All metrics by name."""
    from workloom.metrics import basic, cost, delivery, fairness, goodput, overlap, work, workflow

    return _by_name(
        [
            *basic.METRICS,
            *delivery.METRICS,
            *goodput.METRICS,
            *workflow.METRICS,
            *work.METRICS,
            *overlap.METRICS,
            *fairness.METRICS,
            *cost.METRICS,
        ]
    )


def _by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for metric in metrics:
        assert metric.name not in found, metric.name
        found[metric.name] = metric
    return found


@cache
def _names() -> dict[str, Metric]:
    """Every word that a metric goes by."""
    found: dict[str, Metric] = {}
    for metric in catalog().values():
        for word in {metric.name, metric.short, *metric.aliases}:
            assert word not in found, word
            found[word] = metric
    return found


def find(name: str, where: str | None = None) -> Metric:
    """A metric by its name, its name without the unit, or an alias. Raises UsageError with the nearest."""
    metric = _names().get(name.lower())
    if metric is None:
        close = nearest(name, sorted(_names()))
        raise UsageError(
            "there is no such metric",
            where=where,
            expected="a name of docs/metrics.md",
            found=name,
            hint=f"did you mean {close}?" if close else "`workloom metrics` lists them",
        )
    return metric
