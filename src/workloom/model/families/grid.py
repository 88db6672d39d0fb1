"""A quantile function as a table: the same numbers on every machine.

The last bit of exp, log and their like differs between libraries and processors, and with it everything made of them.
A Grid holds a quantile function at fixed standard normal scores, each entry rounded to 7 significant digits, and goes
straight between them with + - * alone, which IEEE 754 defines to the bit. Two machines get different tables only where
an entry is as near to the middle between two 7-digit numbers as the machines are to each other: for errors of 1e-14
about once in thirty thousand tables.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from workloom.model.families.hurdle import Hurdle
from workloom.model.families.special import ndtri

LAST_Z = 5.0
"""Scores beyond it are taken for it: shares below 2.9e-7 at either end."""
PER_Z = 32
LAST_PLACE = 320
DIGITS = 7


class Grid(Struct, frozen=True):
    """`values` at z = -5, -5 + 1/32, ..., 5, rising. `zeros_below`: below this score every value is 0.

    Between entries the quantile function is taken as straight in z. For a lognormal that is too high by at most
    (sigma / 32)^2 / 8 of the value: 0.02 % for sigma 1.4. Where exact zeros end within a step, the entry before it is
    the smallest of the other values, so the share of zeros is exact.
    """

    values: tuple[float, ...]
    zeros_below: float | None = None

    def at(self, z: float) -> float:
        """The value at a standard normal score."""
        zeros_below = self.zeros_below
        if zeros_below is not None and z < zeros_below:
            return 0.0
        place = (z + LAST_Z) * PER_Z
        values = self.values
        if place <= 0.0:
            return values[0]
        if place >= LAST_PLACE:
            return values[-1]
        index = int(place)
        low = values[index]
        return low + (values[index + 1] - low) * (place - index)


def grid(family: Hurdle) -> Grid:
    """The table of a family; ValueError where a value is more than a float holds."""
    z = np.arange(LAST_PLACE + 1) / PER_Z - LAST_Z
    values = family.at_z(z)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{family.name}: a value at a share of up to 1 - 3e-7 is more than a float holds")
    table = [_rounded(value) for value in values.tolist()]
    if not family.zeros or table[0] < 0:
        return Grid(tuple(table))
    zeros_below = _rounded(float(ndtri(np.array(family.zeros), np.array(1 - family.zeros))))
    place = (zeros_below + LAST_Z) * PER_Z
    if 0 <= place < LAST_PLACE:
        table[int(place)] = _rounded(max(0.0, float(family.quantile(family.zeros))))  # the first value after them
    return Grid(tuple(table), zeros_below)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
