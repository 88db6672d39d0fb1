"""The roots of many rising functions at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

ROUNDS = 200
"""More than bisection needs to close any bracket."""
SMALL = 1e-8
"""Newton's method doubles the digits: after a step this small the next would be lost in rounding."""
CLOSED = 4e-16
"""Of 1 + |y|: a bracket of neighbouring floats."""


def rising_root(function: Callable[[Values], tuple[Values, Values]], low: Values, high: Values) -> Values:
    """For each element the y in [low, high] where the rising `function` is 0; it returns its values and its slopes.

    Newton's steps while they stay inside and at least halve the residual, else bisection.
    """
    y = (low + high) / 2
    done = np.zeros(np.shape(y), dtype=np.bool_)
    before = np.full(np.shape(y), np.inf)
    for _ in range(ROUNDS):
        value, slope = function(y)
        size = np.abs(value)
        low, high = np.where(value <= 0, y, low), np.where(value >= 0, y, high)
        following = y - value / slope
        tame = (following >= low) & (following <= high) & (size <= before / 2)
        following = np.where(tame, following, (low + high) / 2)
        scale = 1 + np.abs(y)
        ends = (tame & (np.abs(following - y) < SMALL * scale)) | ~(high - low > CLOSED * scale)
        y = np.where(done, y, following)
        done |= ends
        if done.all():
            break
        before = size
    return y
