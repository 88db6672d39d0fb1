"""The comparison: every figure of two sides with its difference, its interval and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from workloom.answers.compare.figures import headline
from workloom.answers.compare.gate import Gate, Held, held
from workloom.answers.compare.judge import SAME, Verdict, by_test, holm, judge
from workloom.answers.compare.manifests import Change, changes, unfair
from workloom.answers.compare.movers import Movers, movers
from workloom.answers.compare.pairing import Asked, Pairing, common, pair
from workloom.answers.compare.several import LEAST, over_runs
from workloom.answers.compare.sides import Side, began, equal, pooled
from workloom.errors import StoreError, UsageError
from workloom.metrics.catalog import Better, Sample, Totals, Unit
from workloom.metrics.estimate import Estimate, of_observed
from workloom.metrics.figure import Figure
from workloom.metrics.frame import CENSORED, OK, Window
from workloom.metrics.tool import Tool
from workloom.metrics.uncertainty.between import between
from workloom.metrics.uncertainty.contrast import Contrast
from workloom.metrics.uncertainty.difference import Difference, contrasted
from workloom.metrics.uncertainty.ratio import Begun, begun
from workloom.store import open_run

ONLY_IN_ONE = 0.05
"""Share of calls in one run only from which on it is said."""
LENGTHS = 0.02
"""By how much the output tokens of paired calls may differ in all before it is said."""
CUT_OFF = 0.2
"""Share of censored calls from which on it is said."""
OFTEN = 0.05
"""Level at which a figure differs: one in twenty does by chance."""


class Row(Struct, frozen=True):
    """One figure, b against a. `p_adjusted`: Holm's, among all figures of this comparison."""

    figure: str
    title: str
    unit: Unit
    better: Better
    a: Estimate
    b: Estimate
    difference: Difference
    p_adjusted: float | None
    verdict: Verdict
    why: str

    @property
    def holds(self) -> bool:
        """Whether it still differs when it is told that so many figures were looked at."""
        return self.p_adjusted is not None and self.p_adjusted <= OFTEN

    @property
    def by_test(self) -> bool:
        """Whether the verdict rests on a test alone, without an interval."""
        return by_test(self.difference)


class Comparison(Struct, frozen=True):
    """`warnings`: what makes it unfair. `looked_at`: figures with a p value: one in twenty differs by chance."""

    a: str
    b: str
    runs_a: int
    runs_b: int
    pairing: Pairing
    unit: str
    """What is drawn anew: sessions, or whole runs where there are enough."""
    same: float
    level: float
    looked_at: int
    warnings: list[str]
    changes: list[Change]
    rows: list[Row]
    calls: Movers | None
    """Of paired sides: which calls moved."""
    gates: list[Held]


def compare(
    a: Side,
    b: Side,
    figures: Sequence[Figure] | None = None,
    *,
    gates: Sequence[Gate] = (),
    pairing: Asked = "auto",
    same: float = SAME,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare b with a: `figures` (default: the headline) and those of the gates.

    `same`: margin within which a figure counts as the same, a share of a's. Raises UsageError for pairs that are asked
    for and are not there, and for calls of a kind that a run has none of.
    """
    if not 0 <= same < 1:
        raise UsageError("a margin is a share", where="--same", expected="0 up to, and without, 1", found=same)
    how, b = pair(a, b, pairing)
    wanted = list(dict.fromkeys([*(headline() if figures is None else figures), *(gate.figure for gate in gates)]))
    each_began = [begun(run) for run in a.runs], [begun(run) for run in b.runs]
    asked = _Asked(how, same, level, seed, _by_run(a, b), (began(a), began(b)), each_began)
    each = list(_rows(a, b, wanted, asked))
    found = [row for row, _ in each]
    adjusted = holm([row.difference.p_value for row in found])
    rows = [msgspec.structs.replace(row, p_adjusted=p) for row, p in zip(found, adjusted, strict=True)]
    by_name = {row.figure: (row.difference, made) for row, made in each}
    judged = [held(gate, *by_name[gate.figure.say()]) for gate in gates]
    return Comparison(
        a=a.name,
        b=b.name,
        runs_a=len(a.runs),
        runs_b=len(b.runs),
        pairing=how,
        unit="runs" if _by_run(a, b) else "sessions",
        same=same,
        level=level,
        looked_at=sum(p is not None for p in adjusted),
        warnings=list(dict.fromkeys(_warnings(a, b, how))),
        changes=changes(a.manifests[0], b.manifests[0]) if a.manifests and b.manifests else [],
        rows=rows,
        calls=movers(a, b, same=same, level=level) if how.paired else None,
        gates=judged,
    )


class _Asked(NamedTuple):
    """What all rows of a comparison share."""

    how: Pairing
    same: float
    level: float
    seed: int
    by_run: bool
    began: tuple[Begun, Begun]
    each_began: tuple[list[Begun], list[Begun]]

    @property
    def windows(self) -> tuple[list[Window], list[Window]]:
        """Of each run."""
        one, other = ([begun.window for begun in side] for side in self.each_began)
        return one, other


def _by_run(a: Side, b: Side) -> bool:
    return min(len(a.runs), len(b.runs)) >= LEAST


Observed = list[Sample | Totals | None]
"""A metric of each run of a side."""


def _rows(a: Side, b: Side, figures: Sequence[Figure], asked: _Asked) -> Iterator[tuple[Row, Contrast | None]]:
    seen: dict[tuple[str, object], tuple[Observed, Observed]] = {}
    for figure in figures:
        key = (figure.metric, figure.of)
        if key not in seen:
            seen[key] = (a.observe(figure), b.observe(figure))
        yield _row(figure, *seen[key], asked)


def _row(figure: Figure, one: Observed, other: Observed, asked: _Asked) -> tuple[Row, Contrast | None]:
    """The row of a figure, and what other nulls can be asked of."""
    metric, level, seed = figure.about, asked.level, asked.seed
    if equal(one, other):
        both = of_observed(figure, pooled(one, asked.windows[0]), level=level, seed=seed, begun=asked.began[0])
        return _unmoved(figure, both), None
    made = None
    if asked.by_run:
        left, right, found = _over_runs(figure, one, other, asked)
    else:
        all_a, all_b = (pooled(seen, where) for seen, where in zip((one, other), asked.windows, strict=True))
        left, right = (
            of_observed(figure, part, level=level, seed=seed, begun=when)
            for part, when in zip((all_a, all_b), asked.began, strict=True)
        )
        paired = asked.how.paired
        found, made = contrasted(all_a, all_b, figure, paired=paired, level=level, seed=seed, begun=asked.began)
    verdict, why = judge(found, metric.better, asked.same)
    return Row(figure.say(), metric.title, metric.unit, metric.better, left, right, found, None, verdict, why), made


def _over_runs(figure: Figure, one: Observed, other: Observed, asked: _Asked) -> tuple[Estimate, Estimate, Difference]:
    """Of enough runs a side: each run is one value."""
    level, seed = asked.level, asked.seed
    each = [
        [of_observed(figure, part, level=level, seed=seed, begun=at) for part, at in zip(side, when, strict=True)]
        for side, when in zip((one, other), asked.each_began, strict=True)
    ]
    values = [[estimate.value for estimate in side] for side in each]
    found = over_runs(figure.say(), values[0], values[1], paired=asked.how.paired, level=level)
    return between(each[0], level=level), between(each[1], level=level), found


def _unmoved(figure: Figure, both: Estimate) -> Row:
    """The row of a figure that is made of the same values on both sides."""
    metric, value, level = figure.about, both.value, both.level
    seen = value is not None or both.values > 0  # a quantile of few values is withheld, but it is the same one
    ratio, nothing = (1.0, 0.0) if seen else (None, None)
    found = Difference(
        figure.say(), value, value, ratio, ratio, ratio, nothing, nothing, nothing, None, level, both.sessions, both.why
    )
    verdict: Verdict = "identical" if seen else "cannot tell"
    why = "" if seen else both.why
    return Row(figure.say(), metric.title, metric.unit, metric.better, both, both, found, None, verdict, why)


def _warnings(a: Side, b: Side, how: Pairing) -> Iterator[str]:
    """What makes a comparison unfair: by the manifests, by the records."""
    for one in a.manifests[:1]:
        for other in b.manifests[:1]:
            yield from unfair(one, other)
    for letter, side in (("A", a), ("B", b)):
        yield from _of_tool(letter, side)
        cut = sum(int(np.count_nonzero(run.due & (run.calls.status == CENSORED))) for run in side.runs)
        due = sum(int(run.due.sum()) for run in side.runs)
        if not due:
            yield f"{letter} has no call due in its window"
        elif cut > CUT_OFF * due:
            yield f"{letter} was cut off: {cut:,} of {due:,} calls due in its window were still going"
    if how.paired:
        only = how.calls_only_a + how.calls_only_b
        if only > ONLY_IN_ONE * (how.calls_both + only):
            lonely = f"{how.calls_only_a:,} calls are in A only and {how.calls_only_b:,} in B only"
            yield f"{lonely}, {how.calls_both:,} in both"
        yield from _of_lengths(a, b)


def _of_tool(letter: str, side: Side) -> Iterator[str]:
    """Verdicts on the tool itself that are not `valid`."""
    for i in range(len(side.runs)):
        path = side.path(i)
        told = open_run(path).summary_json if path is not None else None
        if told is None:
            continue
        try:
            tool = msgspec.json.decode(told, type=_Told).tool
        except msgspec.MsgspecError as fault:
            raise StoreError(f"the summary of the run is damaged: {fault}", where=str(path)) from fault
        if tool.verdict not in (None, "valid"):
            yield f"{letter} ({path}) is {tool.verdict}: {'; '.join(tool.reasons)}"


class _Told(Struct):
    """What a summary says of the tool."""

    tool: Tool


def _of_lengths(a: Side, b: Side) -> Iterator[str]:
    """Answers of other lengths: then E2E and tokens/s compare the answers as much as the servers."""
    totals = np.zeros(2)
    for one, other in zip(a.runs, b.runs, strict=True):
        rows = common(one, other)
        well = (one.calls.status[rows.a] == OK) & (other.calls.status[rows.b] == OK)
        totals += float(one.output_tokens[rows.a][well].sum()), float(other.output_tokens[rows.b][well].sum())
    if totals.min() > 0 and abs(totals[1] / totals[0] - 1) > LENGTHS:
        yield f"the answers are not equally long: B's hold {totals[1] / totals[0]:.1%} of A's tokens in the same calls"
