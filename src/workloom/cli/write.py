"""Files and directories that commands write: new ones only, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from workloom.errors import UsageError, WorkloomError


def new_file(out: str, what: str) -> Path:
    """The path of a file to be written. Raises UsageError if it is there already."""
    goal = Path(out)
    if goal.is_dir():
        raise UsageError(f"{what} is a file, not a folder", where=out or "-o", hint="name a file with -o")
    if goal.exists():
        raise UsageError(f"{what} is there already", where=out, hint="choose another name with -o")
    return goal


def plain_name(trace: list[str], otherwise: str) -> str:
    """A name for a directory, after a workload's first file."""
    name = Path(trace[0]).name.split(".")[0] or otherwise
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def next_free(name: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that is not there."""
    number = 1
    while (path := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return path


def write_new(goal: Path, text: str) -> None:
    """Write a new file. Raises WorkloomError, and leaves nothing behind, if that fails."""
    scratch = goal.with_name(f".{goal.name}.part")
    try:
        scratch.write_text(text, "utf-8")
        scratch.replace(goal)
    except OSError as fault:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        full = fault.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        hint = "make room there" if full else "name a folder that is there, and that one can write to"
        raise WorkloomError("a file cannot be written", where=str(goal), found=fault.strerror, hint=hint) from fault
