"""The workloads that come with workloom, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from workloom.model.workload.file import load
from workloom.model.workload.spec import Workload

FOLDER = Path(__file__).parents[2] / "data" / "workloads"


@cache
def names() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def builtin(name: str) -> Workload:
    """The workload of a name that `names` lists."""
    return load(FOLDER / f"{name}.yaml")
