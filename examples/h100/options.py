"""What the three commands ask for alike, and how they say what went wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from h100.workloads import AS_PUBLISHED, NONE, Quirks
from workloom.engine.profile import Profile, load
from workloom.errors import WorkloomError

QUIRKS = Quirks.__struct_fields__


class Asked(argparse.Namespace):
    engine: str
    out: Path
    seeds: int
    without: list[str]
    rows: Path | None
    rows_rate: float
    step: float
    curve: bool

    @property
    def profile(self) -> Profile:
        return load(self.engine)

    @property
    def quirks(self) -> Quirks:
        if "all" in self.without:
            return NONE
        return Quirks(**{name: name not in self.without for name in QUIRKS})

    @property
    def label(self) -> str:
        """As published, or without what."""
        return "as published" if self.quirks == AS_PUBLISHED else "without " + " and ".join(sorted(self.without))


def parser(what: str, engine: str, folder: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what)
    made.add_argument("--engine", default=engine, help="profile: a name or a .yaml file (default %(default)s)")
    made.add_argument("--out", type=Path, default=Path("runs") / folder, help="folder of tables (default %(default)s)")
    made.add_argument("--seeds", type=_some, default=5, help="runs with arrivals of their own (default %(default)s)")
    return made


def add_quirks(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[*QUIRKS, "all"],
        help="leave out a quirk of the published measurement; may be given again",
    )


def _some(told: str) -> int:
    if not told.isdecimal() or int(told) < 1:
        raise argparse.ArgumentTypeError(f"expected a count of 1 or more, found {told!r}; hint: --seeds 5")
    return int(told)


def told(command: Callable[[], object]) -> int:
    """Run a command; what can go wrong is one line, with a hint where there is one."""
    try:
        command()
    except WorkloomError as error:
        print("error: " + "; ".join(line.strip() for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; hint: --out names a folder that can be written", file=sys.stderr)
        return 2
    return 0
