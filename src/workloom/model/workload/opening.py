"""Sessions from wherever they are: traces, or a workload, by its name or its file, that they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from workloom.errors import TraceError, UsageError, nearest
from workloom.model.workload import builtin
from workloom.model.workload.file import load
from workloom.model.workload.generate import generate, header
from workloom.model.workload.spec import Workload
from workloom.traces import Reading, open_trace
from workloom.traces.reading import made

SESSIONS = 200
"""Made of a workload where nobody says how many."""


def named(path: str | PathLike[str]) -> Workload | None:
    """The workload that is called so, or that lies in a YAML file; None for anything else. Files come before names."""
    place = Path(path)
    if place.suffix in (".yaml", ".yml"):
        return load(place)
    if not place.exists() and str(path) in builtin.names():
        return builtin.builtin(str(path))
    return None


def open_sessions(
    paths: Sequence[str | PathLike[str]],
    *,
    format: str | None = None,
    skip_bad: bool = False,
    text: bool = False,
    seed: int = 0,
    sessions: int | None = None,
) -> Reading:
    """Open traces (see :func:`workloom.traces.open_trace`) or a workload: then so many sessions by that seed."""
    found = [workload for path in paths if (workload := named(path)) is not None]
    if not found:
        try:
            return open_trace(paths, format=format, skip_bad=skip_bad, text=text)
        except TraceError as error:
            raise _perhaps_a_name(error, paths) from None
    if len(paths) > 1:
        what, expected = "a workload stands by itself", "one workload, or traces"
        raise UsageError(what, expected=expected, found=", ".join(map(str, paths)))
    return drawn(found[0], seed, SESSIONS if sessions is None else sessions)


def drawn(workload: Workload, seed: int, sessions: int) -> Reading:
    """The first sessions of a workload, as a trace that was opened."""

    return made(f"workload {workload.name}", header(workload), lambda: generate(workload, seed, sessions))


def _perhaps_a_name(error: TraceError, paths: Sequence[str | PathLike[str]]) -> TraceError:
    """The error, with a hint where a name was meant that is spelled a little differently."""
    for path in paths:
        if not Path(path).exists() and "/" not in str(path):
            close = nearest(str(path), list(builtin.names()))
            if close is not None:
                hint = f"did you mean the workload {close}? (`workloom workloads` lists them)"
                return TraceError(error.what, where=error.where, expected=error.expected, found=error.found, hint=hint)
    return error
