"""Published figures, as a study's published.json holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


class Frontiers(Struct, frozen=True):
    """Of study 3. `rho`: requests/s by shape. `at`: by shape, figures beside the `rate` at which they were measured."""

    rho: dict[str, float]
    at: dict[str, list[dict[str, float]]]
    fleet: dict[str, float]


def read(folder: Path, kind: type[T]) -> T:
    """What the study in a folder was published with."""
    return msgspec.json.decode((folder / "published.json").read_bytes(), type=kind)
