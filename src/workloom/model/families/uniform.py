"""Uniform between two bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values, differing


class Uniform(Hurdle, frozen=True, tag="uniform"):
    """Every value from `low` to `high` is as likely. Exact zeros are the hurdle's, also where low <= 0 <= high."""

    low: float
    high: float

    signed: ClassVar[bool] = True

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if self.low > self.high:
            yield f"low must not be above high, but {self.low:g} > {self.high:g}"

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The bounds are those of the sample."""
        differing(rest)
        return cls(float(rest.min()), float(rest.max()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        """Infinite at the one value there is where low = high."""
        return np.where((x >= self.low) & (x <= self.high), -np.log(np.float64(self.high - self.low)), -np.inf)

    def rest_cdf(self, x: Values) -> Values:
        if self.low == self.high:
            return np.where(x >= self.low, 1.0, 0.0)
        return np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        width = self.high - self.low
        return np.where(lower <= 0.5, self.low + width * lower, self.high - width * upper)

    @property
    def rest_mean(self) -> float:
        return (self.low + self.high) / 2
