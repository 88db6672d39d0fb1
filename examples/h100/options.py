"""What the three commands ask for alike."""

from __future__ import annotations

import argparse
from pathlib import Path

from h100.workloads import AS_PUBLISHED, NONE, Quirks
from workloom.engine.profile import Profile, load

QUIRKS = Quirks.__struct_fields__


class Asked(argparse.Namespace):
    engine: str
    out: Path
    seeds: int
    without: list[str]
    rows: Path | None
    rows_rate: float
    step: float

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
    made.add_argument("--seeds", type=int, default=5, help="runs with arrivals of their own (default %(default)s)")
    made.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[*QUIRKS, "all"],
        help="leave out a quirk of the published measurement; may be given again",
    )
    return made
