"""`workloom run` and `workloom plan`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from workloom.cli.engine import EngineOptions, tell_strangers
from workloom.cli.options import LoadOptions, RunOptions, TraceOptions, make_plan
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions, ask, check_models, target, tell_texts
from workloom.cli.show import print_run
from workloom.cli.watch import Watch
from workloom.drive.driver import Options, Progress
from workloom.errors import Hopeless, UsageError, WorkloomError, nearest
from workloom.execute import Live, Scenario, Simulated, execute
from workloom.plan import Plan, write
from workloom.store import Run, open_run, refuse_used

if TYPE_CHECKING:
    from workloom.metrics.summary import Summary
    from workloom.plan.scenarios import Preset


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
) -> None:
    """Plan, run, print. Raises NothingWorked when no call succeeded, Hopeless when the run was ended early."""
    preset = _preset(running.scenario)
    options = _options(running, text, preset)
    path = Path(out) if out is not None else _next_free(trace)
    refuse_used(path)
    where = _target(engine, server, text, watch, preset)
    if running.event_log is not None:
        where = _logged(where, Path(running.event_log))
    limit = where.longest_call if isinstance(where, Simulated) else None
    if isinstance(where, Live):
        where = ask(where)
        limit = where.max_model_len
    if preset is not None and preset.start is not None and (load.rate is not None or load.replay):
        raise UsageError(
            "the scenario is a closed loop", where="--scenario", found="--rate or --replay", hint="use --concurrency N"
        )
    plan = make_plan(trace, reading, load, limit, preset)
    scenario = None
    if preset is not None and running.scenario is not None:
        scenario = _scenario(running, preset, plan, load, server, text)
    if isinstance(where, Live):
        check_models(where.http.models, plan)
        tell_texts(where.text, options.history, plan)
        salt = text.text_salt(plan)
        where = replace(where, salt=salt, http=replace(where.http, salt=salt))
    else:
        tell_strangers(where.whole, plan)
    _announce(plan)
    progress = Progress()
    from workloom.metrics.summary import summary_json

    try:
        with Watch(progress, plan):
            done = execute(
                plan,
                where,
                path,
                options=options,
                progress=progress,
                argv=sys.argv,
                summarize=summary_json,
                scenario=scenario,
            )
    except KeyboardInterrupt:
        print_run(open_run(path), json=json)
        _end(None, path)
    except WorkloomError:
        if (path / "manifest.json").exists():
            print(f"the run ended early; what was recorded is kept: workloom show {path}", file=sys.stderr)
        raise
    _tell_skipped(progress)
    _end(done, path, print_run(done, json=json))


def _tell_skipped(progress: Progress) -> None:
    from workloom.metrics.show import duration

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


def _preset(name: str | None) -> Preset | None:
    if name is None:
        return None
    from workloom.plan.scenarios import SCENARIOS

    if name not in SCENARIOS:
        close = nearest(name, list(SCENARIOS))
        raise UsageError(
            "there is no such scenario",
            where="--scenario",
            expected=", ".join(SCENARIOS),
            found=name,
            hint=f"did you mean {close}?" if close else None,
        )
    return SCENARIOS[name]


def _scenario(
    running: RunOptions, preset: Preset, plan: Plan, load: LoadOptions, server: ServerOptions, text: TextOptions
) -> Scenario:
    """What the run may call itself: with the options that differ from the scenario's own."""
    assert running.scenario is not None
    free = {"--concurrency", "--max-context", "--context-policy"}
    given = [name for name in load.given() if name not in free]
    if "--duration" in given and (plan.recipe.limits.duration_s or 0) >= preset.least_duration_s:
        given.remove("--duration")
    given += [name for name in running.given() if name not in ("--scenario", "--event-log")]
    locked = ("--output", "--endpoint", "--model-for", "--body", "--retries")
    given += [name for name in server.given() if name in locked]
    given += [name for name in text.given() if name in ("--history", "--tools", "--text", "--reasoning", "--correct")]
    if server.workers > 1 and (preset.waits.system_idle_s is not None or preset.warmup.calls_per_slot):
        given.append("--workers")  # idle caps of the system and the rule of the warm-up act in each by itself
    own = _own_options(running, preset, plan, load, server, text)
    return Scenario(running.scenario, tuple(name for name in dict.fromkeys(given) if name not in own))


def _own_options(
    running: RunOptions, preset: Preset, plan: Plan, load: LoadOptions, server: ServerOptions, text: TextOptions
) -> set[str]:
    """Options that say what the scenario says anyway."""
    waits, warmup = preset.waits, preset.warmup
    pairs = {
        "--timeout": (running.timeout, preset.timeout_s),
        "--drain": (running.drain, preset.drain_s),
        "--max-failed": (running.max_failed, preset.max_failed),
        "--after-error": (running.after_error, preset.after_error),
        "--max-wait": (load.max_wait, math.inf if waits.max_s is None else waits.max_s),
        "--max-tree-idle": (load.max_tree_idle, waits.tree_idle_s),
        "--max-idle": (load.max_idle, waits.system_idle_s),
        "--start": (plan.recipe.start, preset.start),
        "--warmup-calls": (load.warmup_calls, warmup.calls_per_slot),
        "--warmup-pause": (load.warmup_pause, warmup.pause_s),
        "--warmup-limit": (load.warmup_limit, warmup.max_s),
        "--warmup-max-failed": (load.warmup_max_failed, warmup.max_failed),
        "--settle": (load.settle, warmup.settle_s),
        "--isolation": (load.isolation, preset.isolation),
        "--seed": (plan.recipe.seed, preset.seed),
        "--endpoint": (server.endpoint, preset.endpoint),
        "--output": (server.output, preset.output),
        "--retries": (server.retries, preset.retries),
        "--history": (text.history, preset.history),
    }
    return {name for name, (given, own) in pairs.items() if given == own}


def _options(running: RunOptions, text: TextOptions, preset: Preset | None) -> Options:
    usual = preset or Options()
    timeout_s = running.timeout if running.timeout is not None else usual.timeout_s or math.inf
    drain_s = running.drain if running.drain is not None else usual.drain_s
    max_failed = running.max_failed if running.max_failed is not None else usual.max_failed
    if not timeout_s > 0:
        raise UsageError("a time-out is above 0", where="--timeout", expected="seconds, or inf", found=timeout_s)
    if not 0 <= drain_s < math.inf:
        raise UsageError("a drain has an end", where="--drain", expected="seconds, 0 or more", found=drain_s)
    if not 0 < max_failed <= 1:
        raise UsageError("a share of failures", where="--max-failed", expected="above 0, up to 1", found=max_failed)
    return Options(
        timeout_s=None if math.isinf(timeout_s) else timeout_s,
        drain_s=drain_s,
        history=text.history or usual.history,
        max_failed=max_failed,
        after_error=running.after_error or usual.after_error,
    )


def write_plan(trace: list[str], out: str, reading: TraceOptions, load: LoadOptions) -> None:
    """Make a plan and write it."""
    path = Path(out)
    if path.exists():
        raise UsageError("the plan file is there already", where=out, hint="choose another name with -o")
    plan = make_plan(trace, reading, load, None)
    write(plan, path)
    _announce(plan)
    print(f"plan {plan.hash} written to {path}", file=sys.stderr)


def _target(
    engine: EngineOptions, server: ServerOptions, text: TextOptions, watch: WatchOptions, preset: Preset | None
) -> Simulated | Live:
    if not server.url and engine.engine is None and engine.fleet is None:
        raise UsageError(
            "where to run is missing",
            expected="--engine NAME for a simulated engine or --url URL for a server",
            hint="`workloom profiles` lists the engines",
        )
    if server.url and engine.given():
        raise UsageError(
            "a run has one target", expected="--engine or --url", found=", ".join(["--url", *engine.given()])
        )
    if not server.url:
        stray = [*server.given(), *(name for name in text.given() if name != "--history"), *watch.given()]
        if stray:
            raise UsageError("these options belong to a live server", found=", ".join(stray), hint="add --url URL")
        return Simulated.of(engine.target(), engine.prefix_cache == "on")
    return target(server, text, watch, preset)


def _logged(where: Simulated | Live, path: Path) -> Simulated:
    """The target with an event log."""
    from workloom.execute.event_log import refuse_used as refuse_used_log

    if isinstance(where, Live):
        raise UsageError("a live server tells no events", where="--event-log", found="--url", hint="use --engine")
    refuse_used_log(path)
    return replace(where, event_log=path)


def _announce(plan: Plan) -> None:
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


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _next_free(trace: list[str]) -> Path:
    name = Path(trace[0]).name.split(".")[0] or "run"
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    runs = Path("runs")
    number = 1
    while (runs / f"{name}-{number}").exists():
        number += 1
    return runs / f"{name}-{number}"
