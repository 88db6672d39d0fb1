"""How well a figure must be known before a run may end: `ttft_p95±5%`.

ttft_p95±5%      the 95 % interval of the figure reaches at most 5 % of it to either side, on average
tbc_p95±2ms      the same in seconds (ms, us, s, min, h) or, of other figures, in their own unit
errors±0.5pp     of a share: percentage points
ttft_p95+-5%     for keyboards without ±
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from workloom.errors import UsageError, WorkloomError
from workloom.metrics.catalog import find
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import SECONDS, Figure, figure

OPTION = "--until"
_GOAL = re.compile(
    r"(?P<figure>[^±<>]+?)\s*(?:±|\+/?-)\s*(?P<number>[0-9.]+(?:e[+-]?[0-9]+)?)\s*(?P<unit>[%a-zµ]*)", re.I
)
_FORM = "FIGURE±5%, FIGURE±50ms"


class Goal(Struct, frozen=True):
    """`half_width`: a share of the figure where `relative`, else in the unit of the metric."""

    figure: Figure
    half_width: float
    relative: bool

    def say(self) -> str:
        """As it is written, in one spelling: equal goals are equal words."""
        unit = find(self.figure.metric).unit
        if self.relative:
            wide = f"{100 * self.half_width:g}%"
        elif unit == "s":
            wide = f"{self.half_width:g}s" if self.half_width >= 1 else f"{1000 * self.half_width:g}ms"
        else:
            wide = f"{100 * self.half_width:g}pp" if unit == "share" else f"{self.half_width:g}"
        return f"{self.figure.say()}±{wide}"

    def reached(self, estimate: Estimate) -> bool:
        """Whether an interval is narrow enough. What has none, or has no end, is not."""
        wide = half_width(estimate)
        return wide is not None and math.isfinite(wide) and wide <= self.wanted(estimate)

    def wanted(self, estimate: Estimate) -> float:
        """The half width that is asked for, in the unit of the metric."""
        return self.half_width * abs(estimate.value or 0.0) if self.relative else self.half_width

    def times(self, estimate: Estimate) -> float:
        """How many times as wide as asked for the interval is; inf where there is none."""
        wide, wanted = half_width(estimate), self.wanted(estimate)
        if wide is None or not math.isfinite(wide):
            return math.inf
        return wide / wanted if wanted else (math.inf if wide else 0.0)


def half_width(estimate: Estimate) -> float | None:
    """Half of what lies between the ends of an interval; None without one."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return math.inf if math.isinf(estimate.high) else (estimate.high - estimate.low) / 2


def goal(text: str) -> Goal:
    """Read one goal. Raises UsageError."""
    match = _GOAL.fullmatch(text.strip())
    if match is None:
        slo = bool(re.search("[<>]", text))
        hint = "a limit on a figure is an SLO: --slo" if slo else "quote it: --until 'ttft_p95±5%'"
        raise UsageError(
            "this says not how well a figure must be known", where=OPTION, expected=_FORM, found=text, hint=hint
        )
    about = figure(match["figure"], OPTION)
    if about.statistic == "max":
        raise UsageError("a largest value grows with the run: it has no interval", where=OPTION, found=text)
    try:
        number = float(match["number"])
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError("a half width is a number above 0", where=OPTION, expected=_FORM, found=text)
    return _of(about, number, match["unit"].lower(), text)


def _of(about: Figure, number: float, unit: str, text: str) -> Goal:
    kind = find(about.metric).unit
    if unit == "%":
        if number >= 100:
            raise UsageError(
                "a half width of the figure itself tells nothing", where=OPTION, expected="below 100%", found=text
            )
        return Goal(about, number / 100, relative=True)
    if unit == "pp" and kind == "share":
        return Goal(about, number / 100, relative=False)
    if unit in SECONDS and kind == "s":
        return Goal(about, number * SECONDS[unit], relative=False)
    if not unit and kind != "s":
        return Goal(about, number, relative=False)
    units = {"s": "%, s, ms, us, min or h", "share": "%, pp, or a share without a unit"}
    raise UsageError(
        f"{about.say()} is not measured in that",
        where=OPTION,
        expected=units.get(kind, f"% or a number ({kind})"),
        found=text,
    )


def goals(texts: Iterable[str]) -> tuple[Goal, ...]:
    """Read several, all faults together. Raises UsageError."""
    found, faults = [], []
    for text in texts:
        try:
            found.append(goal(text))
        except WorkloomError as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        said = "; ".join(f"{fault.what} ({fault.found})" for fault in faults)
        raise UsageError(f"{len(faults)} goals cannot be read: {said}", where=OPTION, expected=_FORM)
    return tuple(dict.fromkeys(found))


def worst(goals: Sequence[Goal], estimates: Sequence[Estimate]) -> float:
    """How many times as wide as asked for the interval is that lacks most; 1 or less: all are reached."""
    return max(goal.times(estimate) for goal, estimate in zip(goals, estimates, strict=True))
