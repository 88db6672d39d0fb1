"""Numbers rounded to what a reader of the file wants to see, so that the file says exactly what is drawn from."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

DIGITS = 4
S = TypeVar("S", bound=Struct)


def significant(value: float, digits: int = DIGITS) -> float:
    """The value to so many significant digits."""
    return float(f"{value:.{digits}g}")


def rounded(struct: S) -> S:
    """A struct with every float in it rounded."""
    return msgspec.convert(_rounded(msgspec.to_builtins(struct)), type(struct))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
