"""A sample in numbers: what is printed of it and what a chart draws of it are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray

SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, *(i / 40 for i in range(1, 40)), 0.98, 0.99, 0.995, 0.999, 1.0)
"""The shares at which a distribution is kept."""


class Distribution(Struct, frozen=True):
    """Of `n` values: moments and quantiles (linear between ranks); everything is None without a value.

    `quantiles`: the value at each of SHARES, in the same order: the curve of the distribution.
    """

    n: int = 0
    mean: float | None = None
    sd: float | None = None
    p10: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    quantiles: tuple[float, ...] = ()


def distribution(values: Sequence[float] | array[int] | array[float] | NDArray[np.float64]) -> Distribution:
    """The numbers of a sample."""
    import numpy as np

    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        return Distribution()
    p10, p50, p90, p99 = (float(v) for v in np.quantile(sample, (0.1, 0.5, 0.9, 0.99)))
    return Distribution(
        n=len(sample),
        mean=float(sample.mean()),
        sd=float(sample.std()),
        p10=p10,
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(sample.max()),
        quantiles=tuple(float(v) for v in np.quantile(sample, SHARES)),
    )
