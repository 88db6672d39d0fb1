"""Exponential: the gaps of a Poisson process."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values
from workloom.model.families.special import log_survival


class Exponential(Hurdle, frozen=True, tag="exponential"):
    """Density exp(-x / mean) / mean."""

    mean: float

    above_0: ClassVar[tuple[str, ...]] = ("mean",)

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        return cls(float(rest.mean()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        return -math.log(self.mean) - x / self.mean

    def rest_cdf(self, x: Values) -> Values:
        return -np.expm1(-x / self.mean)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return -self.mean * log_survival(lower, upper)

    @property
    def rest_mean(self) -> float:
        return self.mean
