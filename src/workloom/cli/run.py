"""`workloom run` and `workloom plan`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workloom.cli.engine import EngineOptions
from workloom.cli.options import LoadOptions, RunOptions, TraceOptions, make_plan
from workloom.cli.prepare import Asked, prepare
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions
from workloom.cli.show import print_run
from workloom.cli.slo_options import SloOptions
from workloom.cli.until import announce as announce_until
from workloom.cli.watch import Watch
from workloom.cli.write import next_free, plain_name
from workloom.drive.driver import Progress
from workloom.errors import Hopeless, UsageError, WorkloomError
from workloom.execute import execute
from workloom.plan import Plan, write
from workloom.store import Run, open_run, refuse_used

if TYPE_CHECKING:
    from workloom.metrics.summary import Summary


def run(
    trace: list[str],
    out: str | None,
    json: bool,
    running: RunOptions,
    reading: TraceOptions,
    load: LoadOptions,
    engine: EngineOptions,
    server: ServerOptions,
    text: TextOptions,
    watch: WatchOptions,
    slos: SloOptions,
) -> None:
    """Plan, run, print. Raises NothingWorked when no call succeeded, Hopeless when the run was ended early."""
    promised = slos.read()
    path = Path(out) if out is not None else next_free(plain_name(trace, "run"))
    refuse_used(path)
    asked = Asked(trace, running, reading, load, engine, server, text, watch)
    if running.seeds is not None:
        from workloom.cli.repeats import repeat

        repeat(asked, path, json, slos)
        return
    if running.jobs is not None:
        raise UsageError("one run is one process", where="--jobs", hint="add --seeds K, or --workers of a live run")
    prepared = prepare(asked, announce=announce)
    plan = prepared.plan
    progress = Progress()
    from workloom.metrics.summary import summary_json

    try:
        with Watch(progress, plan):
            done = execute(
                plan,
                prepared.target,
                path,
                options=prepared.options,
                progress=progress,
                argv=sys.argv,
                summarize=summary_json,
                scenario=prepared.scenario,
            )
    except KeyboardInterrupt:
        print_run(open_run(path), json=json)
        _end(None, path)
    except WorkloomError:
        if (path / "manifest.json").exists():
            print(f"the run ended early; what was recorded is kept: workloom show {path}", file=sys.stderr)
        raise
    _tell_skipped(progress)
    from workloom.cli.verdicts import print_judged

    summary, code = print_judged(done, plan, promised, slos.slo_judge, json=json)
    _end(done, path, summary)
    if code:
        sys.stdout.flush()
        sys.exit(code)


def _tell_skipped(progress: Progress) -> None:
    from workloom.metrics.text import duration

    for ns, what in (
        (progress.skipped_wait_ns, "waits beyond --max-wait were cut: {} of recorded waiting in all"),
        (progress.skipped_tree_ns, "sessions idle beyond --max-tree-idle moved up: by {} in all"),
        (progress.skipped_system_ns, "a system idle beyond --max-idle moved up: by {} in all"),
    ):
        if ns:
            print(what.format(duration(ns / 1e9)), file=sys.stderr)


def _end(done: Run | None, path: Path, summary: Summary | None = None) -> None:
    """What became of the run, as its last words and its exit code."""
    if done is None or done.manifest.status == "interrupted":
        print(f"interrupted; what was recorded is kept in {path}", file=sys.stderr)
        sys.exit(130)
    if done.manifest.status == "failed":
        print(f"the run ended early; what was recorded is kept: workloom show {path}", file=sys.stderr)
        raise Hopeless(
            "the run was ended early",
            where=str(path),
            found=done.manifest.error,
            hint="is the server well, and do the calls fit into its context? `workloom check URL` finds out",
        )
    print(f"run kept in {path}", file=sys.stderr)
    if summary is None or not summary.calls.recorded:
        return
    if not summary.calls.due:
        raise NothingWorked(
            "no call was due in the measured window",
            where=str(path),
            found=f"{_many(summary.calls.recorded, 'call')} in all",
            hint="the load ended before the window opened: less --settle, or --duration, more --sessions",
        )
    if not summary.calls.ok:
        calls = summary.calls
        if calls.censored and not calls.failed:
            raise NothingWorked(
                "no call had ended when the run did",
                where=str(path),
                found=f"{calls.censored:,} of {calls.due:,} due were still going",
                hint="raise --duration or --drain",
            )
        raise NothingWorked(
            "no call succeeded", where=str(path), hint="the messages above, and the column `error` of calls.parquet"
        )


class NothingWorked(WorkloomError):
    """A run that came to its end without one answer."""


def write_plan(trace: list[str], out: str, reading: TraceOptions, load: LoadOptions) -> None:
    """Make a plan and write it."""
    path = Path(out)
    if path.exists():
        raise UsageError("the plan file is there already", where=out, hint="choose another name with -o")
    plan = make_plan(trace, reading, load, None)
    write(plan, path)
    announce(plan)
    print(f"plan {plan.hash} written to {path}", file=sys.stderr)


def announce(plan: Plan) -> None:
    """What will run, and first of all what will not."""
    source, report = plan.source, plan.source.report
    if report.files and report.format != "native":
        guesses = len(report.assumptions) + len(report.inferred) + len(report.dropped)
        more = f"; what was assumed, inferred or dropped ({guesses}): workloom inspect" if guesses else ""
        print(f"trace read as {report.format}{more}", file=sys.stderr)
    for what, count in plan.left_out().items():
        print(f"{what}: {count}", file=sys.stderr)
    duplicates = report.duplicates
    for duplicate in duplicates[:3]:
        print(f"note: session {duplicate.session} is equal to {duplicate.same_as} but for its id", file=sys.stderr)
    if len(duplicates) > 3:
        print(f"note: and {len(duplicates) - 3} more are equal to earlier ones", file=sys.stderr)
    if report.skipped:
        print(f"skipped as malformed: {len(report.skipped)}", file=sys.stderr)
    print(
        f"plan {plan.hash}: {_many(len(source), 'session')}, {_many(source.calls, 'call')}; {plan.recipe.load.say()}; "
        f"seed {plan.recipe.seed}",
        file=sys.stderr,
    )
    announce_until(plan)


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
