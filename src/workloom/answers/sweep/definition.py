"""What a sweep is: sweep.json in its directory. The same command goes on with it, another one is refused.

DIR/  sweep.json       what is run: the workload, the options of all points, the points
      points.jsonl     what became of them, a line an attempt
      NAME/            a run directory a point
      logs/NAME.log    what its run said
      aside/NAME-1/    attempts that were killed or failed, and were made again
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.answers.sweep.points import Point, Setting
from workloom.errors import UsageError
from workloom.store.manifest import redact_argv
from workloom.store.run import write_whole

SWEEP, HISTORY, LOGS, ASIDE = "sweep.json", "points.jsonl", "logs", "aside"


class Defined(Struct, frozen=True):
    """A point as it was run: its directory, what it sets and the options of `workloom run` that say so."""

    name: str
    settings: tuple[Setting, ...]
    seed: int | None
    options: tuple[str, ...]
    """Of this point alone, secrets taken out."""


class Definition(Struct, frozen=True):
    """All of a sweep."""

    workload: tuple[str, ...]
    base: tuple[str, ...]
    """Options of every point, secrets taken out."""
    points: tuple[Defined, ...]
    format: int = 1


def public(argv: list[str]) -> tuple[str, ...]:
    """Options without what is secret in them."""
    return tuple(redact_argv(argv))


def shown(point: Point) -> Point:
    """A point without what is secret in it: what names, tables and files say of it."""
    return Point(tuple(Setting(each.option, _public(each)) for each in point.settings), point.seed)


def _public(setting: Setting) -> tuple[str, ...]:
    option = f"--{setting.option}="
    return tuple(word.removeprefix(option) for word in public([option + value for value in setting.values]))


def differences(kept: Definition, asked: Definition) -> list[str]:
    """What a command says otherwise than the sweep that is kept. New points are no difference: they are added."""
    found = []
    if kept.workload != asked.workload:
        found.append(f"workload: {' '.join(kept.workload)} there, {' '.join(asked.workload)} now")
    if kept.base != asked.base:
        found.append(f"options of all points: {_said(kept.base)} there, {_said(asked.base)} now")
    now = {point.name: point for point in asked.points}
    gone = [point.name for point in kept.points if point.name not in now]
    if gone:
        found.append(f"no longer asked for: {_few(gone)}")
    changed = [p.name for p in kept.points if p.name in now and now[p.name].options != p.options]
    if changed:
        found.append(f"set otherwise: {_few(changed)}")
    return found


def _said(options: tuple[str, ...]) -> str:
    return " ".join(options) or "none"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def open_directory(path: Path, asked: Definition) -> None:
    """Begin a sweep there, or go on with it. Raises UsageError when something else lies there."""
    file = path / SWEEP
    if file.is_file():
        faults = differences(read(path), asked)
        if faults:
            raise UsageError(
                "the directory holds another sweep",
                where=str(path),
                found="; ".join(faults),
                hint="choose another directory with -o; points can be added to a sweep, not taken away or changed",
            )
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            "a sweep needs a directory of its own",
            where=str(path),
            expected="a new one, or one that holds this sweep",
            found="a file" if not path.is_dir() else ", ".join(sorted(each.name for each in path.iterdir())[:3]),
            hint="choose another directory with -o",
        )
    path.mkdir(parents=True, exist_ok=True)
    write_whole(file, msgspec.json.format(msgspec.json.encode(asked), indent=1) + b"\n")


def read(path: Path) -> Definition:
    """The sweep in a directory. Raises UsageError."""
    try:
        return msgspec.json.decode((path / SWEEP).read_bytes(), type=Definition)
    except (OSError, msgspec.DecodeError) as fault:
        raise UsageError("there is no sweep here that can be read", where=str(path / SWEEP), found=fault) from fault
