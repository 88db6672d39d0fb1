"""One value."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from workloom.model.families.hurdle import Hurdle, Unfit, Values, split


class Fixed(Hurdle, frozen=True, tag="fixed"):
    """Every value is `value`, which may be 0. `logpdf` is the log of a mass."""

    value: float

    signed: ClassVar[bool] = True

    @classmethod
    def fit(cls, values: ArrayLike) -> Self:
        rest, zeros = split(values)
        return cls.fit_rest(rest, zeros) if len(rest) else cls(0.0)

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        if rest.min() != rest.max():
            raise Unfit("the values differ")
        return cls(float(rest[0]), zeros=zeros)

    def logpdf(self, x: ArrayLike) -> Values:
        at = np.asarray(x, dtype=np.float64)
        with np.errstate(divide="ignore"):
            mass: Values = np.log(self.zeros * (at == 0) + (1 - self.zeros) * (at == self.value))
        return mass

    def rest_logpdf(self, x: Values) -> Values:
        return np.where(x == self.value, 0.0, -np.inf)

    def rest_cdf(self, x: Values) -> Values:
        return np.where(x >= self.value, 1.0, 0.0)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return np.full(lower.shape, float(self.value))

    @property
    def rest_mean(self) -> float:
        return self.value
