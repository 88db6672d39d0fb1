"""`workloom characterize`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from workloom.answers.characterize import Characterization
from workloom.answers.characterize import characterize as study
from workloom.cli.options import LoadOptions, TraceOptions, make_recipe, planned
from workloom.cli.write import new_file, write_new
from workloom.errors import UsageError
from workloom.model.describe import many
from workloom.report.study import brief, report
from workloom.report.terminal import print_tables


def characterize(
    traces: list[str], out: str | None, json: bool, block_tokens: int | None, reading: TraceOptions, load: LoadOptions
) -> None:
    """Study every trace, print, write the page."""
    goal = None if out is None else _goal(out)
    if block_tokens is not None and block_tokens < 1:
        what, where = "a block holds tokens", "--block-tokens"
        raise UsageError(what, where=where, expected="1 or more", found=block_tokens)
    load = replace(load, seed=str(load.root_seed()))  # one for all, also where it is random
    found = [
        _studied(label, trace, block_tokens, reading, load) for label, trace in zip(labels(traces), traces, strict=True)
    ]
    if goal is not None:
        write_new(goal, report(found))
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        print_tables(_console(len(found)), brief(found))
    sys.stdout.flush()
    if goal is not None:
        print(f"report written to {out}", file=sys.stderr)
    elif not json:
        print("charts and all numbers: add -o report.html", file=sys.stderr)


def _console(traces: int) -> Console:
    """Stdout; where nobody says how wide it is, wide enough for a column per trace."""
    wide = max(100, 40 + 20 * traces)
    return Console(width=None if sys.stdout.isatty() else wide, highlight=False, markup=False)


def _studied(
    label: str, trace: str, block_tokens: int | None, reading: TraceOptions, load: LoadOptions
) -> Characterization:
    generate = reading.generate if reading.generate is not None else load.sessions
    opened = replace(reading, generate=generate).open([trace], load.root_seed())
    recipe = make_recipe([trace], reading, load, None)
    if load.per == "request":
        recipe = planned(recipe, load, opened).recipe
    found = study(label, opened, recipe, block_tokens=block_tokens)
    for skipped in found.report.skipped:
        print(f"skipped: {skipped.where}: {skipped.why}", file=sys.stderr)
    print(f"{label}: {many(found.report.sessions, 'session')}, {many(found.report.calls, 'call')}", file=sys.stderr)
    return found


def labels(traces: Sequence[str]) -> list[str]:
    """A short name for each: that of the file or folder, with the folder above it where two are alike."""
    paths = [Path(trace) if Path(trace).name not in ("", "..") else Path(trace).resolve() for trace in traces]
    names = [_name(path) for path in paths]
    counts = Counter(names)
    names = [
        f"{path.resolve().parent.name}/{name}" if counts[name] > 1 else name
        for path, name in zip(paths, names, strict=True)
    ]
    met: Counter[str] = Counter()
    for place, name in enumerate(names):
        met[name] += 1
        names[place] = f"{name} ({met[name]})" if met[name] > 1 else name
    return names


def _name(path: Path) -> str:
    """A file's name up to its first dot; a folder's whole."""
    return path.name if path.is_dir() else path.name.split(".")[0] or path.name


def _goal(out: str) -> Path:
    """Where the page goes. What speaks against it is said before the work is done."""
    goal = new_file(out, "the report")
    if not goal.parent.is_dir() or not os.access(goal.parent, os.W_OK):
        found = "no such folder" if not goal.parent.exists() else "no folder that one can write to"
        what, hint = "the report cannot be written", "name a folder that is there, and that one can write to"
        raise UsageError(what, where=out, found=found, hint=hint)
    return goal
