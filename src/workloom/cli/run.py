"""`workloom run` and `workloom plan`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from msgspec.structs import replace

from workloom.cli.options import EngineOptions, LoadOptions, ServerOptions, TraceOptions, make_plan
from workloom.cli.show import print_run
from workloom.cli.watch import Watch
from workloom.drive.driver import Options, Progress
from workloom.engine.profile import Profile
from workloom.errors import UsageError, WorkloomError
from workloom.execute import Live, Simulated, execute, preflight
from workloom.plan import Plan, write
from workloom.store import open_run, refuse_used


def run(
    trace: list[str],
    out: str | None,
    timeout_s: float,
    drain_s: float,
    json: bool,
    reading: TraceOptions,
    load: LoadOptions,
    engine: EngineOptions,
    server: ServerOptions,
) -> None:
    """Plan, run, print. Raises NothingWorked when no call succeeded."""
    options = _options(timeout_s, drain_s)
    path = Path(out) if out is not None else _next_free(trace)
    refuse_used(path)
    profile, live = _target(engine, server)
    limit: int | None = None
    if profile is not None:
        limit = profile.longest_call
    elif live is not None:
        live, limit = _ask(live, server)
    plan = make_plan(trace, reading, load, limit)
    target: Simulated | Live
    if profile is not None:
        target = Simulated(profile, engine.prefix_cache == "on")
    else:
        assert live is not None
        target = replace(live, salt=server.text_salt(plan))
    _announce(plan)
    progress = Progress()
    from workloom.metrics.show import duration
    from workloom.metrics.summary import summary_json

    try:
        with Watch(progress, plan):
            done = execute(
                plan, target, path, options=options, progress=progress, argv=sys.argv, summarize=summary_json
            )
    except KeyboardInterrupt:
        print_run(open_run(path), json=json)
        print(f"interrupted; what was recorded is kept in {path}", file=sys.stderr)
        sys.exit(130)
    except WorkloomError:
        if (path / "manifest.json").exists():
            print(f"the run ended early; what was recorded is kept: workloom show {path}", file=sys.stderr)
        raise
    summary = print_run(done, json=json)
    if progress.skipped_wait_ns:
        skipped = duration(progress.skipped_wait_ns / 1e9)
        print(f"waits beyond --max-wait were cut: {skipped} of recorded waiting in all", file=sys.stderr)
    print(f"run kept in {path}", file=sys.stderr)
    if summary.calls.recorded and not summary.calls.ok:
        raise NothingWorked(
            "no call succeeded", where=str(path), hint="the messages above, and the column `error` of calls.parquet"
        )


class NothingWorked(WorkloomError):
    """A run that came to its end without one answer."""


def _options(timeout_s: float, drain_s: float) -> Options:
    if not timeout_s > 0:
        raise UsageError("a time-out is above 0", where="--timeout", expected="seconds, or inf", found=timeout_s)
    if not 0 <= drain_s < math.inf:
        raise UsageError("a drain has an end", where="--drain", expected="seconds, 0 or more", found=drain_s)
    return Options(None if math.isinf(timeout_s) else timeout_s, drain_s)


def write_plan(trace: list[str], out: str, reading: TraceOptions, load: LoadOptions) -> None:
    """Make a plan and write it."""
    path = Path(out)
    if path.exists():
        raise UsageError("the plan file is there already", where=out, hint="choose another name with -o")
    plan = make_plan(trace, reading, load, None)
    write(plan, path)
    _announce(plan)
    print(f"plan {plan.hash} written to {path}", file=sys.stderr)


def _target(engine: EngineOptions, server: ServerOptions) -> tuple[Profile | None, Live | None]:
    if server.url is None and engine.engine is None:
        raise UsageError(
            "where to run is missing",
            expected="--engine NAME for a simulated engine or --url URL for a server",
            hint="`workloom profiles` lists the engines",
        )
    if server.url is not None and engine.given():
        raise UsageError(
            "a run has one target", expected="--engine or --url", found=", ".join(["--url", *engine.given()])
        )
    if server.url is None:
        stray = [name for name in server.given() if name != "--url"]
        if stray:
            raise UsageError("these options belong to a live server", found=", ".join(stray), hint="add --url URL")
        return engine.profile(), None
    live = Live(
        url=server.url,
        model=server.model or "",
        salt=0,
        endpoint=server.endpoint,
        api_key=server.api_key,
        headers=server.headers(),
        body=server.fields(),
        exact=server.output == "exact",
        verify=not server.insecure,
    )
    return None, live


def _ask(live: Live, server: ServerOptions) -> tuple[Live, int | None]:
    """What the server says before anything is written: its model, if none was named, and its longest context."""
    said = preflight(live)
    models = said.models or []
    if not live.model:
        if len(models) != 1:
            raise UsageError(
                "which model to ask for is missing",
                where="--model",
                expected="one of: " + ", ".join(models) if models else "a model name",
                hint=said.warning if not models else None,
            )
        live = replace(live, model=models[0])
    elif said.warning:
        print(f"warning: {said.warning}", file=sys.stderr)
    return live, said.max_model_len


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
        f"plan {plan.hash}: {len(source)} sessions, {source.calls} calls; {plan.recipe.load.say()}; "
        f"seed {plan.recipe.seed}",
        file=sys.stderr,
    )


def _next_free(trace: list[str]) -> Path:
    name = Path(trace[0]).name.split(".")[0] or "run"
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    runs = Path("runs")
    number = 1
    while (runs / f"{name}-{number}").exists():
        number += 1
    return runs / f"{name}-{number}"
