"""Pareto: a power law from a smallest value on."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values, differing
from workloom.model.families.special import log_survival


class Pareto(Hurdle, frozen=True, tag="pareto"):
    """Survival (minimum / x)^alpha from `minimum` on. Its mean is infinite for alpha <= 1."""

    minimum: float
    alpha: float

    above_0: ClassVar[tuple[str, ...]] = ("minimum", "alpha")

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The minimum is the sample's; alpha = 1 / mean(log(x / minimum))."""
        differing(rest)
        minimum = float(rest.min())
        return cls(minimum, float(1 / np.log(rest / minimum).mean()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        inside = math.log(self.alpha) - self.alpha * np.log(x / self.minimum) - np.log(x)
        return np.where(x >= self.minimum, inside, -np.inf)

    def rest_cdf(self, x: Values) -> Values:
        return -np.expm1(-self.alpha * np.log(np.maximum(x / self.minimum, 1.0)))

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return self.minimum * np.exp(-log_survival(lower, upper) / self.alpha)

    @property
    def rest_mean(self) -> float:
        return self.minimum * self.alpha / (self.alpha - 1) if self.alpha > 1 else math.inf
