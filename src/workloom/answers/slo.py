"""Promises about figures, and whether a run kept them: pass, fail, or not enough data.

    ttft_p95<=0.75s    tbc_p95<=75ms    errors<2%    ttft_p95[agent=main]<=1s    output_tokens_per_s>=1000

A figure is known to within an interval. Where all of it is on the right side of the limit the promise was kept, where
all of it is on the wrong side it was broken, and where the limit lies inside the run cannot tell. Judged by the point,
the figure alone decides, as long as the run holds enough to speak of it at all.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, structs

from workloom.errors import UsageError, WorkloomError
from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.figure import SECONDS, Figure, figure
from workloom.metrics.measured import Measured

if TYPE_CHECKING:
    from workloom.metrics.goodput import Limit

Verdict = Literal["pass", "fail", "not enough data"]
JudgeBy = Literal["interval", "point"]
Sign = Literal["<=", "<", ">=", ">"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 3, "not enough data": 4}
"""What a command that judges ends with. 1 and 2 are errors and wrong options, as everywhere."""

BEYOND = 5
"""Values that must lie beyond a percentile before its point alone may be judged: 100 calls for a p95."""

_NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?|[-+]?inf|nan"
_PATTERN = re.compile(rf"(?P<figure>[^<>≤≥]+?)\s*(?P<sign><=|>=|<|>|≤|≥)\s*(?P<number>{_NUMBER})\s*(?P<unit>\S*)", re.I)
_SIGNS: dict[str, Sign] = {"≤": "<=", "≥": ">=", "<=": "<=", "<": "<", ">=": ">=", ">": ">"}


class Slo(Struct, frozen=True):
    """`figure` is to be on the right side of `limit`, which is in the unit of its metric (seconds, shares)."""

    figure: Figure
    sign: Sign
    limit: float
    text: str
    """As it was written."""

    @property
    def upper(self) -> bool:
        """Whether the limit is one from above."""
        return self.sign in ("<", "<=")

    def kept(self, value: float) -> bool:
        """Whether a value is on the right side."""
        if self.upper:
            return value < self.limit or (self.sign == "<=" and value == self.limit)
        return value > self.limit or (self.sign == ">=" and value == self.limit)

    def say(self) -> str:
        """In one form, however it was written: `tbc_p95<=0.075`."""
        return f"{self.figure.say()}{self.sign}{self.limit:g}"


class Judgement(Struct, frozen=True):
    """What became of one SLO in one run."""

    slo: str
    sign: Sign
    limit: float
    """In the unit of the metric."""
    unit: str
    verdict: Verdict
    by: JudgeBy
    estimate: Estimate
    why: str = ""
    """What is missing, or what was close."""


# -- reading


def slos(texts: Sequence[str], where: str = "--slo") -> list[Slo]:
    """Read SLOs; `@FILE` stands for the list in a YAML file. Raises one UsageError that tells all faults."""
    found: list[Slo] = []
    faults: list[WorkloomError] = []
    for text, place in _unfolded(texts, where):
        try:
            found.append(slo(text, place))
        except UsageError as fault:
            faults.append(fault)
    said: dict[tuple[Figure, bool], Slo] = {}
    for one in found:
        other = said.setdefault((one.figure, one.upper), one)
        if other is not one:
            faults.append(UsageError("two limits for one figure", where=where, found=f"{other.text} and {one.text}"))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = "\n".join(f"{number}. {fault}" for number, fault in enumerate(faults, 1))
        raise UsageError(f"{len(faults)} SLOs cannot be read\n{lines}")
    return found


def slo(text: str, where: str = "--slo") -> Slo:
    """Read one SLO. Raises UsageError."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            "an SLO is FIGURE<=LIMIT", where=where, expected="ttft_p95<=0.75s, errors<2%, say", found=text,
            hint="quote it: the shell takes < and > for itself",
        )  # fmt: skip
    about = figure(match["figure"], where)
    if about.about.needs:
        what = f"nothing can be promised of {about.about.short}: it needs {about.about.needs}"
        raise UsageError(what, where=where, found=text)
    sign = _SIGNS[match["sign"]]
    limit = _limit(about, match["number"], match["unit"], text, where)
    better = about.about.better
    if (better == "lower" and sign[0] == ">") or (better == "higher" and sign[0] == "<"):
        other = sign.replace(">", "<") if sign[0] == ">" else sign.replace("<", ">")
        raise UsageError(
            f"{about.about.short} is better when {better}", where=where, expected=f"{about.say()}{other}...", found=text
        )
    return Slo(about, sign, limit, text.strip())


def _limit(about: Figure, number: str, unit: str, text: str, where: str) -> float:
    """The limit in the unit of its metric."""
    kind = about.about.unit
    units = {"s": SECONDS, "share": {"%": 0.01}, "ratio": {"%": 0.01}}.get(kind, {kind: 1.0})
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise UsageError("a limit is a number", where=where, expected="0 or more", found=text)
    if unit and unit.lower() not in units:
        raise UsageError(
            f"{about.about.short} is no figure in {unit}", where=where,
            expected=f"{', '.join(units)} or a plain number (in {kind})", found=text,
        )  # fmt: skip
    if kind == "share" and value * units.get(unit, 1.0) > 1:
        raise UsageError("a share is at most 1", where=where, expected="2% or 0.02, say", found=text)
    return value * units[unit.lower()] if unit else value


def _unfolded(texts: Sequence[str], where: str) -> Iterable[tuple[str, str]]:
    """Every SLO and where it stands."""
    for text in texts:
        if not text.startswith("@"):
            yield text, where
            continue
        import yaml

        path = Path(text[1:])
        try:
            listed = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as fault:
            raise UsageError("the file of SLOs cannot be read", where=str(path), found=fault.strerror) from fault
        except yaml.YAMLError as fault:
            raise UsageError("the file of SLOs is no YAML", where=str(path), found=fault) from fault
        if not isinstance(listed, list) or not listed or not all(isinstance(line, str) for line in listed):
            raise UsageError(
                "a file of SLOs is a list of them", where=str(path), expected="lines like: - ttft_p95<=0.75s"
            )
        for number, line in enumerate(listed, 1):
            yield line, f"{path}, SLO {number}"


# -- judging


def judge(run: Measured, asked: Sequence[Slo], *, by: JudgeBy = "interval", level: float = 0.95) -> list[Judgement]:
    """Every SLO's verdict on a run, in which a failed call has infinite latencies.

    Raises UsageError where an SLO is about calls that the run does not have.
    """
    limits = tuple(call_limits(asked))
    seen = dataclasses.replace(run.as_promised(), given=structs.replace(run.given, limits=limits or run.given.limits))
    found = estimates(seen, [one.figure for one in asked], level=level)
    return [judged(one, value, by=by) for one, value in zip(asked, found, strict=True)]


def judged(one: Slo, found: Estimate, *, by: JudgeBy = "interval") -> Judgement:
    """One SLO's verdict on an estimate."""
    verdict, why = (_by_point if by == "point" else _by_interval)(one, found)
    return Judgement(one.text, one.sign, one.limit, one.figure.about.unit, verdict, by, found, why)


def _by_interval(one: Slo, found: Estimate) -> tuple[Verdict, str]:
    if found.low is None or found.high is None:
        return "not enough data", found.why or "not enough data: no interval"
    kept = {one.kept(found.low), one.kept(found.high)}
    if kept == {True}:
        return "pass", ""
    if kept == {False}:
        return "fail", ""
    return "not enough data", f"the limit lies inside the {found.level:.0%} interval"


def _by_point(one: Slo, found: Estimate) -> tuple[Verdict, str]:
    if found.value is None:
        return "not enough data", found.why
    missing = short_of(one, found)
    if missing:
        return "not enough data", missing
    return ("pass", "") if one.kept(found.value) else ("fail", "")


def short_of(one: Slo, found: Estimate) -> str:
    """What a run lacks before the point of a figure may be judged; empty where it has enough.

    Five values beyond a percentile; for a share under a limit, as many values as make one failure keep it.
    """
    quantile = one.figure.quantile
    if quantile is not None:
        needed = BEYOND / min(quantile, 1 - quantile)
    elif one.figure.about.unit == "share" and one.limit > 0:
        needed = 1 / one.limit
    else:
        needed = 1
    if found.values >= needed - 1e-9:
        return ""
    return f"not enough data: {found.values:,} values where {one.figure.say()} needs {round(needed):,}"


def overall(judgements: Iterable[Judgement]) -> Verdict:
    """fail if one failed, else not enough data if one has not enough, else pass."""
    return together(one.verdict for one in judgements)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The same of verdicts alone. Of none it is a pass: ask only where something was promised."""
    given = set(verdicts)
    return "fail" if "fail" in given else "not enough data" if "not enough data" in given else "pass"


def exit_code(judgements: Iterable[Judgement]) -> int:
    """What a command that judges ends with: see EXIT_CODES."""
    return EXIT_CODES[overall(judgements)]


def call_limits(asked: Iterable[Slo]) -> list[Limit]:
    """What the SLOs ask of every single call, task or session: what goodput counts by. Shares and rates ask nothing."""
    from workloom.metrics.goodput import Limit

    return [
        Limit(
            one.figure.metric,
            one.limit,
            strict=one.sign == "<",
            statistic=one.figure.statistic if one.figure.about.of == "gap" else "",
            of=one.figure.of,
        )
        for one in asked
        if one.upper and one.figure.about.of != "run"
    ]
