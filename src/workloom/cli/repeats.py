"""`workloom run --seeds K`: the same run several times, and what its figures are over all of them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.table import Table
from rich.text import Text

from workloom.answers import repeats as answers
from workloom.answers.repeats import Repeats, define, figures_of, folder, is_repeats
from workloom.answers.slo import Judgement, Slo, exit_code, judged
from workloom.answers.until import read_verdict
from workloom.cli.prepare import Asked, Prepared, prepare, preset_of
from workloom.cli.show import console
from workloom.cli.slo_options import SloOptions
from workloom.cli.until import NOT_REACHED
from workloom.cli.watch import Watch
from workloom.drive.driver import Progress
from workloom.errors import UsageError, WorkloomError
from workloom.execute import Live, execute
from workloom.execute.goals import goals
from workloom.execute.until import Verdict
from workloom.metrics.estimate import Estimate
from workloom.report.units import span, text

MOST = 1000

__all__ = ["is_repeats", "repeat", "show_repeats"]


def repeat(asked: Asked, path: Path, json: bool, slos: SloOptions) -> None:
    """Make the runs and print their figures. Every run that ended is kept, whatever becomes of the others."""
    from workloom.cli.run import announce

    promised = slos.read()
    many, jobs = asked.running.seeds or 0, asked.running.jobs
    if not 1 <= many <= MOST:
        raise UsageError("a run is made so many times", where="--seeds", expected=f"1 to {MOST}", found=many)
    if jobs is not None and jobs < 1:
        raise UsageError("so many processes at once", where="--jobs", expected="1 or more", found=jobs)
    if asked.running.event_log is not None:
        raise UsageError("an event log is of one run", where="--event-log", found="--seeds", hint="leave one out")
    runs = list(_each(asked, many))
    first = prepare(runs[0][1], announce=announce)
    if jobs is not None and isinstance(first.target, Live):
        raise UsageError("runs against one server are made one after the other", where="--jobs", found="--url")
    if isinstance(first.target, Live) and asked.text.text == "recorded" and not asked.watch.reset_cache and many > 1:
        what = "warning: --text recorded sends the same text in every run, so later runs hit what earlier ones left"
        print(f"{what} (--reset-cache empties the server's cache before each)", file=sys.stderr)
    define(path, [seed for seed, _ in runs], sys.argv)
    try:
        if isinstance(first.target, Live):
            faults = _one_by_one(runs, first, path)
        else:
            faults = _at_once(runs, path, min(jobs or os.cpu_count() or 1, many))
    except KeyboardInterrupt:
        print(f"interrupted; what was recorded is kept in {path}", file=sys.stderr)
        sys.exit(130)
    code = _conclude(path, json, promised, slos, asked.running.until)
    print(f"runs kept in {path}", file=sys.stderr)
    if faults:
        seed, fault = faults[0]
        raise WorkloomError(
            f"{len(faults)} of {many} runs ended with an error", where=str(folder(path, seed)), found=fault
        )
    if code:
        sys.stdout.flush()
        sys.exit(code)


def _each(asked: Asked, many: int) -> Iterator[tuple[int, Asked]]:
    """(seed, options) of every run. A salt that is given moves with the seed: no run meets the texts of another."""
    preset = preset_of(asked.running.scenario)
    root = asked.load.root_seed() if preset is None or asked.load.seed is not None else preset.seed
    running = replace(asked.running, seeds=None, jobs=None)
    for i in range(many):
        salt = asked.text.salt
        if salt.lstrip("-").isdigit():
            salt = str(int(salt) + i)
        load, words = replace(asked.load, seed=str(root + i)), replace(asked.text, salt=salt)
        yield root + i, replace(asked, running=running, load=load, text=words)


def _make(prepared: Prepared, path: Path, progress: Progress) -> str | None:
    """One run; what ended it early, if something did."""
    from workloom.metrics.summary import summary_json

    done = execute(
        prepared.plan,
        prepared.target,
        path,
        options=prepared.options,
        progress=progress,
        argv=sys.argv,
        summarize=summary_json,
        scenario=prepared.scenario,
    )
    if done.manifest.status == "interrupted":
        raise KeyboardInterrupt
    return done.manifest.error if done.manifest.status == "failed" else None


def _one_by_one(runs: Sequence[tuple[int, Asked]], first: Prepared, path: Path) -> list[tuple[int, str]]:
    faults = []
    assert isinstance(first.target, Live)
    for number, (seed, asked) in enumerate(runs):
        prepared = first if number == 0 else prepare(asked, first.target)
        progress = Progress()
        with Watch(progress, prepared.plan):
            fault = _make(prepared, folder(path, seed), progress)
        _tell(number + 1, len(runs), seed, fault)
        if fault is not None:
            faults.append((seed, fault))
    return faults


def _at_once(runs: Sequence[tuple[int, Asked]], path: Path, jobs: int) -> list[tuple[int, str]]:
    faults: list[tuple[int, str]] = []
    argv = sys.argv
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_simulated, asked, folder(path, seed), argv): seed for seed, asked in runs}
        try:
            for number, done in enumerate(as_completed(waiting), 1):
                fault = done.result()
                _tell(number, len(runs), waiting[done], fault)
                if fault is not None:
                    faults.append((waiting[done], fault))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(faults)


def _simulated(asked: Asked, path: Path, argv: list[str]) -> str | None:
    """One simulated run, in a process of its own."""
    sys.argv = argv
    try:
        return _make(prepare(asked), path, Progress())
    except WorkloomError as fault:
        return str(fault)


def _tell(number: int, of: int, seed: int, fault: str | None) -> None:
    print(f"run {number} of {of}, seed {seed}: {fault or 'done'}", file=sys.stderr)


# -- what they say


class Told(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    repeats: Repeats
    slos: list[Judgement]
    until: dict[str, Verdict]
    """Of each run that had goals: whether they were reached."""


def show_repeats(directory: str, json: bool) -> None:
    """The figures of a folder of repeated runs again."""
    _conclude(Path(directory), json, [], SloOptions(), ())


def _conclude(path: Path, json: bool, promised: Sequence[Slo], slos: SloOptions, until: Sequence[str]) -> int:
    """Print all of it; the exit code it makes."""
    more = [goal.figure for goal in goals(until)] + [slo.figure for slo in promised]
    found = answers.repeats(path, figures_of(more), {slo.figure for slo in promised})
    by_name = {row.figure: row.between for row in found.rows}
    judgements = [judged(slo, by_name.get(slo.figure.say()) or _nothing(slo), by=slos.slo_judge) for slo in promised]
    verdicts = {name: verdict for name in found.runs if (verdict := read_verdict(path / name)) is not None}
    if json:
        document = Told(found, judgements, verdicts)
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        _print(found, verdicts)
        if judgements:
            from workloom.cli.slo import print_judgements

            print()
            print_judgements(judgements)
    code = exit_code(judgements) if judgements else 0
    short = any(verdict != "reached" for verdict in verdicts.values())
    return code or (NOT_REACHED if short else 0)


def _nothing(slo: Slo) -> Estimate:
    """What is known of a figure when no run holds a call."""
    return Estimate(slo.figure.say(), None, why="not enough data: no run holds a call")


def _print(found: Repeats, verdicts: dict[str, Verdict]) -> None:
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("figure", f"mean of {len(found.runs)} runs", "95 % interval", "one run's", "spread", "values by seed")
    for name in columns:
        words = name in ("figure", "values by seed")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "values by seed")
    for row in found.rows:
        values = ", ".join(text(e.value, row.unit) for e in row.within)
        table.add_row(
            row.figure,
            Text(text(row.between.value, row.unit)),
            Text(_interval(row.between, row.unit)),
            Text(_typical(row.within)),
            Text("–" if row.spread is None else f"{row.spread:.2f}"),
            Text(values),
        )
    out.print(table)
    out.print(
        "interval: from the runs' values alone. one run's: half width of a run's own interval, of its value. "
        "spread: of the runs' values, over what their own intervals promise; about 1 if these are honest",
        soft_wrap=True,
    )
    for seed in found.missing:
        out.print(f"no calls of seed {seed}")
    for name, verdict in verdicts.items():
        if verdict != "reached":
            out.print(f"{name}: --until {verdict}")


def _interval(estimate: Estimate, unit: str) -> str:
    return span(estimate.low, estimate.high, unit) or "–"


def _typical(within: Sequence[Estimate]) -> str:
    """The median half width of the runs' own intervals, as a share of their values."""
    shares = sorted(
        (e.high - e.low) / 2 / abs(e.value) for e in within if e.value and e.low is not None and e.high is not None
    )
    return f"±{text(shares[len(shares) // 2], 'share')}" if shares else "–"
