"""`workloom plan-size`: what a run will take, said before it is made."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from rich.table import Table
from rich.text import Text

from workloom.answers.plan_size import (
    PILOT_SESSIONS,
    UNTIL_TAKES,
    WIDTHS,
    Looked,
    PlanSize,
    Size,
    plan_size,
    relative,
    simulated_pilot,
)
from workloom.answers.repeats import figures_of
from workloom.cli.engine import EngineOptions
from workloom.cli.options import LoadOptions, TraceOptions
from workloom.cli.prepare import Asked, prepare
from workloom.cli.run import announce
from workloom.cli.show import console
from workloom.errors import UsageError
from workloom.execute import Simulated
from workloom.execute.goals import Goal, goals
from workloom.metrics.estimate import estimate
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured, measured
from workloom.plan import Limits
from workloom.report.units import digits, text
from workloom.store import open_run

ENGINE = "llama-3.1-70b-h200x4"
"""The pilot's, where nobody says: what `fidelity` takes too."""
LIMITS = ("--duration", "--sessions", "--calls")


def size(
    trace: Sequence[str],
    until: Sequence[str],
    run: str | None,
    json: bool,
    reading: TraceOptions,
    load: LoadOptions,
    engine: EngineOptions,
) -> None:
    """Make or open the pilot, ask it, print."""
    asked = goals(until)
    if (run is None) == (not trace):
        raise UsageError(
            "a pilot is one thing", expected="a workload, or --from RUN", found="both" if run else "neither"
        )
    pilot, what = _recorded(run, load, engine) if run is not None else _simulated(list(trace), reading, load, engine)
    limits = Limits(load.duration, load.sessions, load.calls)
    found = plan_size(pilot, what, _wanted(pilot, asked), limits)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        _print(found, narrow=bool(asked))


def _recorded(path: str, load: LoadOptions, engine: EngineOptions) -> tuple[Measured, str]:
    stray = [name for name in load.given() if name not in LIMITS] + engine.given()
    if stray:
        raise UsageError("the run says what its load was", where="--from", found=", ".join(stray), hint="leave it out")
    run = open_run(path)
    return measured(run), f"{path}: {run.manifest.workload}, {run.manifest.load}"


def _simulated(
    trace: list[str], reading: TraceOptions, load: LoadOptions, engine: EngineOptions
) -> tuple[Measured, str]:
    from dataclasses import replace

    if engine.engine is None and engine.fleet is None:
        engine = replace(engine, engine=ENGINE)
    endless = replace(load, duration=None, sessions=None, calls=None)
    if reading.generate is None:
        reading = replace(reading, generate=PILOT_SESSIONS)  # of a named workload: none comes twice
    prepared = prepare(Asked(trace, reading=reading, load=endless, engine=engine), announce=announce)
    assert isinstance(prepared.target, Simulated)
    plan, fleet = prepared.plan, prepared.target.whole
    print("making a pilot in virtual time", file=sys.stderr)
    names = " + ".join(pool.profile.name for pool in fleet.pools)
    return simulated_pilot(plan, fleet), f"simulated on {names}: {plan.recipe.load.say()}, seed {plan.recipe.seed}"


def _wanted(pilot: Measured, asked: Sequence[Goal]) -> list[tuple[Figure, tuple[float, ...]]]:
    """Figures and half widths: of the goals, or the usual ones. An absolute goal becomes a share by the pilot."""
    if not asked:
        return [(about, WIDTHS) for about in figures_of()]
    wanted: list[tuple[Figure, tuple[float, ...]]] = []
    for goal in asked:
        share = goal.half_width
        if not goal.relative:
            value = estimate(pilot, goal.figure).value
            share = goal.half_width / abs(value) if value else float("inf")
        wanted.append((goal.figure, (share,)))
    return wanted


def _print(found: PlanSize, narrow: bool) -> None:
    out, pilot = console(), found.pilot
    out.print(
        f"pilot: {pilot.what}; {pilot.sessions:,} sessions, {pilot.calls:,} calls in {text(pilot.seconds, 's')}",
        soft_wrap=True,
    )
    if found.after:
        out.print(_reaches(found))
    elif narrow:
        out.print(_goals(found))
        low, high = UNTIL_TAKES
        out.print(
            f"of a run that long; one with --until takes {low:g} to {high:g} times as many sessions at the median, "
            "since it looks at steps and what is reached must be reached twice",
            soft_wrap=True,
        )
    else:
        out.print(_sizes(found))
        out.print(
            f"sessions / window. A call: {digits(pilot.prompt_tokens_per_call)} prompt and "
            f"{digits(pilot.output_tokens_per_call)} output tokens; a session: {pilot.calls / pilot.sessions:.3g} "
            f"calls, one ends every {text(pilot.seconds / pilot.sessions, 's')}",
            soft_wrap=True,
        )
    for one in found.figures:
        if one.half_width is None:
            out.print(f"{one.figure}: {one.estimate.why or 'its interval is nil or has no end'}", soft_wrap=True)
    unsteady = [f"{one.figure} ({one.halving:.1f})" for one in found.figures if one.steady is False]
    if unsteady:
        out.print(
            f"from half to all of the pilot the variance should halve, and did not for {', '.join(unsteady)}: there "
            "the run drifts, or the pilot is too short to tell; take their numbers for a guess",
            soft_wrap=True,
        )


def _table(*columns: tuple[str, bool]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name, words in columns:
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    return table


def _pilot(one: Looked) -> tuple[str, str]:
    wide = relative(one.estimate)
    return text(one.estimate.value, one.unit), "–" if wide is None else f"±{text(wide, 'share')}"


def _sizes(found: PlanSize) -> Table:
    """A row a figure, a column a half width: sessions, and the window that they take."""
    shares = sorted({size.half_width for size in found.sizes}, reverse=True)
    table = _table(("figure", True), ("pilot", False), ("", False), *((f"±{text(s, 'share')}", False) for s in shares))
    by = {(size.figure, size.half_width): size for size in found.sizes}
    for one in found.figures:
        cells = [_size(by[one.figure, share]) for share in shares]
        table.add_row(*(Text(cell) for cell in (one.figure, *_pilot(one), *cells)))
    return table


def _size(size: Size) -> str:
    if size.sessions is None or size.seconds is None:
        return "–"
    return f"{_short(size.sessions)} / {_time(size.seconds)}"


def _short(number: float) -> str:
    """A count in two or three digits: 24k."""
    for one, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= one:
            return f"{number / one:.{0 if number >= 10 * one else 1}f}{name}"
    return f"{number:.0f}"


def _time(seconds: float) -> str:
    """A duration in two digits: 13h."""
    for one, name in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * one:
            return f"{seconds / one:.{0 if seconds >= 10 * one else 1}f}{name}"
    return f"{seconds:.0f}s"


def _goals(found: PlanSize) -> Table:
    """A row a goal, with all that it takes."""
    names = ("pilot", "", "asked", "sessions", "(looks say)", "calls", "time", "prompt tokens", "output")
    table = _table(("figure", True), *((name, False) for name in names))
    for one, size in zip(found.figures, found.sizes, strict=True):
        cells = (one.figure, *_pilot(one), f"±{text(size.half_width, 'share')}")
        if size.sessions is None:
            table.add_row(*(Text(cell) for cell in (*cells, "–")))
            continue
        told = (size.calls or 0, size.prompt_tokens or 0, size.output_tokens or 0)
        calls, prompt, output = (_short(number) for number in told)
        span = f"{_short(size.sessions_low or 0)}–{_short(size.sessions_high or 0)}"
        more = (_short(size.sessions), span, calls, _time(size.seconds or 0.0), prompt, output)
        table.add_row(*(Text(cell) for cell in (*cells, *more)))
    return table


def _reaches(found: PlanSize) -> Table:
    table = _table(
        ("figure", True), ("pilot", False), ("", False), (f"after {found.after}", False), ("looks say", False)
    )
    for one, reach in zip(found.figures, found.reaches, strict=True):
        share = [text(value, "share") for value in (reach.half_width, reach.low, reach.high)]
        cells = ("–", "–") if reach.half_width is None else (f"±{share[0]}", f"±{share[1]} to {share[2]}")
        table.add_row(*(Text(cell) for cell in (one.figure, *_pilot(one), *cells)))
    return table
