"""Points from a file: a list of option sets, in YAML or one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

from workloom.answers.sweep.points import MOST, Point, Setting
from workloom.errors import UsageError


def listed(path: Path) -> list[Point]:
    """The points of a file. Raises UsageError that names every entry that is none."""
    where = str(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError("the list of points cannot be read", where=where, found=fault) from fault
    entries = _lines(text, where) if path.suffix in (".jsonl", ".ndjson") else _yaml(text, where)
    faults: list[str] = []
    points = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not entry:
            faults.append(f"entry {number}: {_brief(entry)}")
            continue
        settings = []
        for name, value in entry.items():
            words = _words(value)
            if words is None or not isinstance(name, str):
                faults.append(f"entry {number}: {name}: {_brief(value)}")
            else:
                settings.append(Setting(name.removeprefix("--").replace("_", "-"), words))
        points.append(Point(tuple(settings)))
    if faults or not points or len(points) > MOST:
        raise UsageError(
            "the file is no list of points",
            where=where,
            expected=f"1 to {MOST:,} sets of options, like {{concurrency: 4, engine: NAME}}; values are words, "
            "numbers, true, false, null or lists of these",
            found="; ".join(faults) or f"{len(points):,} entries",
        )
    return points


def _words(value: object) -> tuple[str, ...] | None:
    """What an option is given: nothing for null, several words for a list. None: not to be had on a command line."""
    if value is None:
        return ()
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if value in ("", "null", "~"):
        return ()
    if isinstance(value, str | int | float):
        return (str(value),)
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return tuple(word for each in value for word in _words(each) or ())
    return None


def _lines(text: str, where: str) -> list[object]:
    entries: list[object] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError as fault:
                raise UsageError("a line is no JSON", where=f"{where}:{number}", found=fault) from fault
    return entries


def _yaml(text: str, where: str) -> list[object]:
    import yaml

    try:
        entries = yaml.load(text, yaml.BaseLoader)  # words stay what they are: `on` is no true, 1e-3 no 0.001
    except yaml.YAMLError as fault:
        raise UsageError("the list of points is no YAML", where=where, found=fault) from fault
    return entries if isinstance(entries, list) else [entries]


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."
