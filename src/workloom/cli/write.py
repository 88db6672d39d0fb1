"""Files that commands write: new ones only, whole or not at all."""

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
