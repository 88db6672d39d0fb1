"""`workloom sweep`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from msgspec import structs

from workloom.answers.sweep import carry, definition, history
from workloom.answers.sweep.definition import Defined, Definition
from workloom.answers.sweep.listing import listed
from workloom.answers.sweep.points import Point, alike, grid, names, repeated, vary, zipped
from workloom.answers.sweep.results import Question, Results, results
from workloom.answers.sweep.usual import ACROSS, UP, UP_WITHOUT_GPUS, usual
from workloom.cli import sweep_points
from workloom.cli.prepare import Asked, preset_of
from workloom.cli.slo_options import SloOptions
from workloom.cli.sweep_output import page_of, print_csv, print_json, print_table
from workloom.cli.sweep_points import Checked
from workloom.cli.until import NOT_REACHED
from workloom.errors import UsageError, WorkloomError
from workloom.metrics.figure import figure
from workloom.store.run import alone


class PointsFailed(WorkloomError):
    """A sweep of which some points could not be run."""


def sweep(
    out: str,
    varied: list[str],
    side_by_side: bool,
    file: str | None,
    figures: list[str],
    axes: tuple[str | None, str | None],
    gpus: float | None,
    form: tuple[bool, bool],
    slos: SloOptions,
    asked: Asked,
) -> None:
    """Expand, check, run what is not run yet, print, write the page. Raises PointsFailed."""
    question = _question(figures, axes, gpus, slos)
    seeds = 1 if asked.running.seeds is None else asked.running.seeds
    jobs = os.cpu_count() or 1 if asked.running.jobs is None else asked.running.jobs
    if jobs < 1:
        raise UsageError("points are run by processes", where="--jobs", expected="1 or more", found=jobs)
    points = _points(varied, side_by_side, file, seeds, asked)
    path = Path(out)
    public = [definition.shown(point) for point in points]
    checked = sweep_points.check(points, names(public), asked, path)
    _refuse_shared_text(checked)
    if gpus is None and any(each.live for each in checked):
        question = _without_gpus(question)
    base = definition.public(sweep_points.words(asked))
    defined = tuple(
        Defined(each.name, point.settings, point.seed, definition.public(list(each.options)))
        for each, point in zip(checked, public, strict=True)
    )
    whole = Definition(tuple(asked.trace), base, defined)
    definition.open_directory(path, whole)
    with alone(path):
        went_on = _run(path, checked, jobs)
        found = results(path, whole, history.last(path), question)
        page_of(path, found, question)
    _print(found, question, form)
    print(f"sweep kept in {path}; charts and all numbers: {path / 'report.html'}", file=sys.stderr)
    if not went_on:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(carry.INTERRUPTED)
    _conclude(found, path)


def _question(
    figures: list[str], axes: tuple[str | None, str | None], gpus: float | None, slos: SloOptions
) -> Question:
    """What is asked, with the usual figures where nobody says which. Raises UsageError."""
    if gpus is not None and not gpus > 0:
        raise UsageError("a server has GPUs", where="--gpus", expected="a number above 0", found=gpus)
    across, up = axes
    table = [figure(text, "--figure") for text in figures] or [figure(text) for text in usual(UP)]
    x, y = figure(across or ACROSS, "--x"), figure(up or UP, "--y")
    return Question(tuple(dict.fromkeys(table)), x, y, tuple(slos.read()), slos.slo_judge, gpus)


def _without_gpus(question: Question) -> Question:
    """The usual figures of servers of which nobody says how many GPUs they have."""
    print("how many GPUs the servers have is not known, so nothing is told per GPU (--gpus N says it)", file=sys.stderr)
    per_gpu, whole = figure(UP), figure(UP_WITHOUT_GPUS)
    figures = tuple(whole if each == per_gpu else each for each in question.figures)
    return structs.replace(question, figures=figures, y=whole if question.y == per_gpu else question.y)


def _points(varied: list[str], side_by_side: bool, file: str | None, seeds: int, asked: Asked) -> list[Point]:
    if file is not None and (varied or side_by_side):
        raise UsageError("a sweep has one way to say its points", expected="--vary or --list", found="both")
    if file is None and not varied:
        raise UsageError(
            "what is varied is missing",
            where="--vary",
            expected='--vary "concurrency=1,2,4", say, or --list FILE',
            hint="`workloom run --help` lists the options",
        )
    if file is not None:
        points = listed(Path(file))
    else:
        options = [vary(text) for text in varied]
        twice = sorted({each.option for each in options if sum(o.option == each.option for o in options) > 1})
        if twice:
            raise UsageError("an option is varied twice", where="--vary", found=", ".join(twice))
        given = {word.removeprefix("--").partition("=")[0] for word in sweep_points.words(asked)}
        both = [each.option for each in options if each.option in given]
        if both:
            what, hint = "an option is both varied and given", "leave one of them out"
            raise UsageError(what, where="--vary", found=", ".join(both), hint=hint)
        points = zipped(options) if side_by_side else grid(options)
    same = alike(definition.shown(point) for point in points)
    if same:
        raise UsageError("a point is there more than once", found="; ".join(point.say() for point in same[:5]))
    return repeated(points, roots) if (roots := _seeds(points, seeds, asked)) else points


def _seeds(points: list[Point], count: int, asked: Asked) -> list[int]:
    """The seeds of every point, from the root on; none where points or a plan file say it themselves."""
    from workloom.plan import read

    if count < 1:
        raise UsageError("a point is run under at least one seed", where="--seeds", expected="1 or more", found=count)
    own = any(setting.option == "seed" for point in points for setting in point.settings)
    plan = len(asked.trace) == 1 and Path(asked.trace[0]).is_file() and read(Path(asked.trace[0])) is not None
    if own or plan:
        if count > 1:
            found = "points with seeds of their own" if own else "a plan file, which has its seed"
            raise UsageError("seeds are said twice", where="--seeds", found=found)
        return []
    if asked.load.seed == "random":
        raise UsageError(
            "a sweep has a seed that can be said again", where="--seed", expected="a number", found="random"
        )
    preset = preset_of(asked.running.scenario)
    root = preset.seed if preset is not None and asked.load.seed is None else asked.load.root_seed()
    return [root + k for k in range(count)]


def _refuse_shared_text(checked: list[Checked]) -> None:
    """Refuse live points that would be served from what an earlier one left in the server's cache."""
    live = [each.asked for each in checked if each.live and not each.asked.watch.reset_cache]
    if len(live) < 2:
        return
    hint = "leave --salt out (every run then has words of its own), or add --reset-cache"
    if any(asked.text.salt != "random" for asked in live):
        raise UsageError(
            "points would hit what earlier ones left in the server's cache",
            where="--salt",
            expected="random, so that no two runs share text",
            found=next(asked.text.salt for asked in live if asked.text.salt != "random"),
            hint=hint,
        )
    if any(asked.text.text == "recorded" for asked in live):
        what = "warning: --text recorded sends the same text at every point, so later points hit what earlier ones left"
        print(f"{what} (--reset-cache empties the server's cache before each)", file=sys.stderr)


def _run(path: Path, checked: list[Checked], jobs: int) -> bool:
    """Run what is not finished. False: it was interrupted."""
    latest = history.last(path)
    todo = [each for each in checked if not history.finished(path, each.name, latest.get(each.name))]
    if len(todo) < len(checked):
        print(f"{len(checked) - len(todo)} of {len(checked)} runs are there already", file=sys.stderr)
    for each in todo:
        history.put_aside(path, each.name)
    done = 0

    def ended(job: carry.Job, end: carry.Ended) -> None:
        nonlocal done
        done += 1
        became: history.Became = "finished" if end.code in (0, NOT_REACHED) else "failed"
        if end.code == carry.INTERRUPTED:
            became = "interrupted"
        attempt = history.Attempt(job.name, became, end.began, end.wall_s, end.code, end.error, end.peak_bytes)
        history.append(path, attempt)
        said = f"{end.wall_s:.1f} s" if became == "finished" else f"{became}: {end.error.splitlines()[0]}"
        print(f"[{done}/{len(todo)}] {job.name}: {said}", file=sys.stderr)

    processes = carry.Processes()
    work = [
        carry.Job(each.name, path / each.name, each.argv, path / definition.LOGS / f"{each.name}.log", each.live)
        for each in todo
    ]
    return carry.carry(work, jobs, processes.run, ended, processes.interrupt)


def _print(found: Results, question: Question, form: tuple[bool, bool]) -> None:
    as_json, as_csv = form
    if as_json:
        print_json(found)
    elif as_csv:
        print_csv(found, question)
    else:
        print_table(found, question)
    sys.stdout.flush()


def _conclude(found: Results, path: Path) -> None:
    """Raise PointsFailed when not every run came to its end."""
    failed = [row for row in found.rows if row.runs < row.asked]
    if failed:
        missing = sum(row.asked - row.runs for row in failed)
        raise PointsFailed(
            f"{missing} of {sum(row.asked for row in found.rows)} runs failed",
            where=str(path),
            found="; ".join(f"{row.label}: {row.error.splitlines()[0]}" for row in failed[:5]),
            hint=f"what they said is in {path / definition.LOGS}; the same command tries them again",
        )
