"""Points as command lines of `workloom run`: made, and all of them checked before the first one runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError

from workloom.answers.sweep.points import Point, Setting
from workloom.cli.app import app
from workloom.cli.engine import EngineOptions
from workloom.cli.options import LoadOptions, RunOptions, TraceOptions, make_recipe
from workloom.cli.prepare import Asked, options_of, preset_of, target_of
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions
from workloom.errors import UsageError, WorkloomError, nearest

GROUPS: dict[str, type[Any]] = {
    "running": RunOptions,
    "reading": TraceOptions,
    "load": LoadOptions,
    "engine": EngineOptions,
    "server": ServerOptions,
    "text": TextOptions,
    "watch": WatchOptions,
}
"""The groups of options of `workloom run`, by their names in :class:`Asked`."""
OF_THE_SWEEP = {
    "out": "each point has a directory of its own",
    "json": "it says how tables are printed",
    "seeds": "it is one number for all points",
    "jobs": "it is one number for all points",
    "slo": "the table judges all points alike",
    "slo-judge": "the table judges all points alike",
}
"""Options of `workloom run` that no point sets, and why."""
SHOWN = 12
"""Faults told of one sweep."""


class Checked(NamedTuple):
    """A point whose command line is sound."""

    name: str
    point: Point
    options: tuple[str, ...]
    argv: tuple[str, ...]
    asked: Asked

    @property
    def live(self) -> bool:
        """Whether it is run against a server."""
        return bool(self.asked.server.url)


def words(asked: Asked, without: frozenset[str] = frozenset()) -> list[str]:
    """The options of a point that are not at their defaults, as one would type them."""
    said: list[str] = []
    for group in GROUPS:
        given = getattr(asked, group)
        for each in fields(given):
            option, value = each.name.replace("_", "-"), getattr(given, each.name)
            if value == _default(each) or option in without or option in OF_THE_SWEEP:
                continue
            if isinstance(value, bool):
                said.append(f"--{option}")
            else:
                said += [f"--{option}={word}" for word in (value if isinstance(value, list | tuple) else [value])]
    return said


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


@cache
def _flags() -> dict[str, bool]:
    """Every option of `workloom run`, and whether it is a switch."""
    found = {}
    for argument in app["run"].assemble_argument_collection():
        for name in argument.names:
            if name.startswith("--"):
                found[name.removeprefix("--")] = argument.is_flag()
    return found


@cache
def _places() -> dict[str, tuple[str, str]]:
    """Where :class:`Asked` holds each option: its group and the field there."""
    return {each.name.replace("_", "-"): (group, each.name) for group, kind in GROUPS.items() for each in fields(kind)}


def options_of_point(point: Point) -> tuple[list[str], list[str]]:
    """(what a point adds to the command line, what is wrong with its settings)."""
    faults = [fault for setting in _settings(point) if (fault := _fault(setting))]
    said = [] if faults else [word for setting in _settings(point) for word in _words(setting)]
    return said, faults


def _settings(point: Point) -> list[Setting]:
    """What a point sets, its seed too."""
    return [*point.settings, *([] if point.seed is None else [Setting("seed", (str(point.seed),))])]


def _words(setting: Setting) -> list[str]:
    if _flags()[setting.option]:
        return [f"--{setting.option}"] if setting.values == ("true",) else []
    return [f"--{setting.option}={value}" for value in setting.values]


def _fault(setting: Setting) -> str:
    """What is wrong with a setting; empty for nothing."""
    option, flags = setting.option, _flags()
    if option in OF_THE_SWEEP:
        return f"{option} cannot be varied: {OF_THE_SWEEP[option]}"
    if option not in flags or option not in _places():
        close = nearest(option, sorted(_places()))
        return f"`workloom run` has no option {option}" + (f"; did you mean {close}?" if close else "")
    if flags[option] and setting.values not in ((), ("true",), ("false",)):
        return f"{option} is a switch: true or false, not {' '.join(setting.values)}"
    alone = _alone(setting)
    return alone if isinstance(alone, str) else ""


@cache
def _alone(setting: Setting) -> Any:
    """The group of options that a command line with this setting alone gives; or, as a str, what is wrong with it."""
    group, _ = _places()[setting.option]
    try:
        _, bound, _ = _parser(group).parse_args(_words(setting), exit_on_error=False, print_error=False)
    except CycloptsError as fault:
        return str(fault).strip()
    return bound.arguments.get("options", GROUPS[group]())


@cache
def _parser(group: str) -> App:
    """A command of one group of options: all of `workloom run` would take ten times as long to parse."""

    def keep(*, options: Any) -> Any:
        return options

    kind = GROUPS[group]
    keep.__annotations__, keep.__kwdefaults__ = {"options": kind}, {"options": kind()}
    parser = App()
    parser.default(keep)
    return parser


def _changed(asked: Asked, point: Point) -> Asked:
    """What a point asks for."""
    for setting in _settings(point):
        group, field = _places()[setting.option]
        value = getattr(_alone(setting), field)
        asked = replace(asked, **{group: replace(getattr(asked, group), **{field: value})})
    return asked


def check(points: Sequence[Point], names: Sequence[str], asked: Asked, path: Path) -> list[Checked]:
    """Every point's command line. Raises UsageError that tells all faults of all of them.

    An option that a point sets replaces that of the command. Each setting is parsed once, as `workloom run` would: no
    option's parsing depends on another's, and what options say together is looked at for each point.
    """
    faults: Counter[str] = Counter()
    targets: dict[str, str] = {}
    checked = []
    for point, name in zip(points, names, strict=True):
        said, wrong = options_of_point(point)
        if not wrong:
            own = frozenset(each.option for each in _settings(point))
            argv = ("run", *asked.trace, *words(asked, own), *said, f"--out={path / name}")
            asks = _changed(asked, point)
            checked.append(Checked(name, point, tuple(said), argv, asks))
            wrong = _cannot(asks, targets)
        faults.update(wrong)
    logs = Counter(each.asked.running.event_log for each in checked if each.asked.running.event_log is not None)
    faults.update(f"--event-log {log} is one file for several points" for log, n in logs.items() if n > 1)
    if checked:
        faults.update(_unreadable(checked[0].asked))
    if faults:
        told = [f"{fault} ({n} points)" if n > 1 else fault for fault, n in faults.items()]
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        raise UsageError(
            "the sweep holds points that `workloom run` cannot take",
            found="\n    ".join([*told[:SHOWN], *more]),
            hint="nothing was run; `workloom run --help` lists the options",
        )
    return checked


def _cannot(asked: Asked, targets: dict[str, str]) -> list[str]:
    """What is wrong with options that parse, as far as it shows without making a plan or asking a server.

    `targets`: the faults of targets that were made for earlier points.
    """
    from workloom.execute.goals import goals
    from workloom.plan.load import check as load_faults

    try:
        preset = preset_of(asked.running.scenario)
    except WorkloomError as fault:
        return [_line(fault)]
    target = repr((asked.engine, asked.server, asked.text, asked.watch, asked.running.scenario))
    if target not in targets:
        where = (asked.engine, asked.server, asked.text, asked.watch)
        targets[target] = _fault_of(lambda: target_of(*where, preset))
    faults = [
        _fault_of(lambda: options_of(asked.running, asked.text, preset)),
        targets[target],
        _fault_of(lambda: make_recipe(asked.trace, asked.reading, asked.load, None, preset)),
        _fault_of(lambda: goals(asked.running.until)) if asked.running.until else "",
    ]
    if not faults[2]:
        faults += load_faults(make_recipe(asked.trace, asked.reading, asked.load, None, preset).load)
    return [fault for fault in faults if fault]


def _fault_of(step: Callable[[], object]) -> str:
    """What a step raises; empty for nothing."""
    try:
        step()
    except WorkloomError as fault:
        return _line(fault)
    return ""


def _unreadable(asked: Asked) -> list[str]:
    """Whether the workload is there and is one."""
    from workloom.plan import read

    try:
        if len(asked.trace) != 1 or not Path(asked.trace[0]).is_file() or read(Path(asked.trace[0])) is None:
            asked.reading.open(asked.trace)
    except WorkloomError as fault:
        return [_line(fault)]
    return []


def _line(fault: WorkloomError) -> str:
    said = fault.what if fault.where is None else f"{fault.where}: {fault.what}"
    said += "" if fault.expected is None else f"; expected {fault.expected}"
    said += "" if fault.found is None else f"; found {fault.found}"
    return said if fault.hint is None else f"{said}; {fault.hint}"
