"""What a sweep came to: a row a point, each figure with its interval, and with several seeds their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

from msgspec import Struct, structs

from workloom.answers.slo import JudgeBy, Judgement, Slo, Verdict, judged, overall
from workloom.answers.sweep import pareto
from workloom.answers.sweep.definition import Defined, Definition
from workloom.answers.sweep.history import Attempt, finished
from workloom.answers.sweep.points import Setting
from workloom.answers.trial import again
from workloom.errors import WorkloomError
from workloom.metrics.estimate import Estimate, estimate, estimates
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured


class Question(Struct, frozen=True):
    """What is asked of every point."""

    figures: tuple[Figure, ...]
    """Of the table."""
    x: Figure
    y: Figure
    slos: tuple[Slo, ...] = ()
    judge_by: JudgeBy = "interval"
    gpus: float | None = None
    """GPUs that served it, where the runs do not say."""

    @property
    def all(self) -> list[Figure]:
        """Everything that must be estimated, each figure once."""
        return list(dict.fromkeys([*self.figures, self.x, self.y, *(slo.figure for slo in self.slos)]))

    @property
    def higher(self) -> tuple[bool, bool]:
        """Of x and y, whether more is better."""
        return self.x.about.better != "lower", self.y.about.better != "lower"


class Told(Struct, frozen=True):
    """One figure of a point. `least`, `most`: of its runs under several seeds."""

    estimate: Estimate
    least: float | None = None
    most: float | None = None


class Row(Struct, frozen=True):
    """A point. `runs` of the `asked` ones came to their end; `error` says what became of the others."""

    settings: tuple[Setting, ...]
    label: str
    directories: tuple[str, ...]
    asked: int
    runs: int
    figures: dict[str, Told]
    judgements: tuple[Judgement, ...] = ()
    verdict: Verdict | None = None
    """None: nothing was promised, or nothing ran."""
    error: str = ""

    def value(self, figure: Figure) -> float | None:
        """A figure as far as there is one."""
        told = self.figures.get(figure.say())
        return None if told is None else told.estimate.value

    def at(self, question: Question) -> tuple[float, float] | None:
        """Where it stands in x and y, if both are known and finite."""
        x, y = self.value(question.x), self.value(question.y)
        return None if x is None or y is None or not (isfinite(x) and isfinite(y)) else (x, y)


class Results(Struct, frozen=True):
    """All rows, in the order of the definition. `front`: of each row whether no other beats it in x and y."""

    workload: tuple[str, ...]
    options: tuple[str, ...]
    """Of every point, secrets taken out."""
    x: str
    y: str
    rows: tuple[Row, ...]
    front: tuple[bool, ...]


def results(path: Path, definition: Definition, latest: dict[str, Attempt], question: Question) -> Results:
    """Read all runs of a sweep and answer."""
    grouped: dict[tuple[Setting, ...], list[Defined]] = {}
    for point in definition.points:
        grouped.setdefault(point.settings, []).append(point)
    rows = tuple(_row(path, settings, group, latest, question) for settings, group in grouped.items())
    front = tuple(on_front(rows, question))
    return Results(definition.workload, definition.base, question.x.say(), question.y.say(), rows, front)


def on_front(rows: Sequence[Row], question: Question) -> list[bool]:
    """Of each row whether it is on the front; one without both figures, or with an infinite one, is not."""
    there = {i: pair for i, row in enumerate(rows) if (pair := row.at(question)) is not None}
    on = pareto.front(list(there.values()), question.higher)
    best = {i for i, keep in zip(there, on, strict=True) if keep}
    return [i in best for i in range(len(rows))]


def _row(
    path: Path, settings: tuple[Setting, ...], group: list[Defined], latest: dict[str, Attempt], question: Question
) -> Row:
    found: list[list[Estimate]] = []
    faults: list[str] = []
    for point in group:
        attempt = latest.get(point.name)
        try:
            if finished(path, point.name, attempt):
                found.append(_asked(again(path / point.name), question))
                continue
            fault = "not run yet" if attempt is None else attempt.error or attempt.became
        except WorkloomError as error:
            fault = str(error)
        faults.append(fault if len(group) == 1 or point.seed is None else f"seed {point.seed}: {fault}")
    told = {figure.say(): _together([run[i] for run in found]) for i, figure in enumerate(question.all) if found}
    judgements = tuple(
        judged(slo, told[slo.figure.say()].estimate, by=question.judge_by) for slo in question.slos if found
    )
    return Row(
        settings,
        ", ".join(each.say() for each in settings) or "as given",
        tuple(point.name for point in group),
        len(group),
        len(found),
        told,
        judgements,
        overall(judgements) if judgements else None,
        "; ".join(dict.fromkeys(faults)),
    )


def _asked(run: Measured, question: Question) -> list[Estimate]:
    if question.gpus is not None:
        run = replace(run, given=structs.replace(run.given, gpus=question.gpus))
    judged_by, promised = {slo.figure for slo in question.slos}, run.as_promised()
    views = [promised if figure in judged_by else run for figure in question.all]
    try:
        return [found for figure, view in zip(question.all, views, strict=True) for found in estimates(view, [figure])]
    except WorkloomError:  # a figure of calls that this run has none of: the others still count
        return [_one(view, figure) for figure, view in zip(question.all, views, strict=True)]


def _one(run: Measured, figure: Figure) -> Estimate:
    try:
        return estimate(run, figure)
    except WorkloomError as fault:
        return Estimate(figure.say(), None, why=f"not enough data: {fault.what}")


def _together(runs: Sequence[Estimate]) -> Told:
    """One figure of runs under different seeds: their mean, with the interval that their spread tells."""
    if len(runs) == 1:
        return Told(runs[0])
    from workloom.metrics.uncertainty.between import between

    values = [run.value for run in runs if run.value is not None]
    return Told(between(runs), min(values, default=None), max(values, default=None))
