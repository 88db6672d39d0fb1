"""Gamma."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Unfit, Values, differing
from workloom.model.families.special import digamma, gammainc, gammaincinv, gammaln

MOST_SHAPE = 1e6
"""A spread of a thousandth of the mean: beyond it the digits of a likelihood are lost."""


class Gamma(Hurdle, frozen=True, tag="gamma"):
    """Density proportional to x^(shape - 1) exp(-shape x / mean); shape 1 is exponential, less is burstier."""

    mean: float
    shape: float

    above_0: ClassVar[tuple[str, ...]] = ("mean", "shape")

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The mean is the sample's; the shape solves log(shape) - digamma(shape) = log(mean(x)) - mean(log(x)).

        Steps of Newton's method in 1 / shape: T. Minka, Estimating a Gamma distribution (2002).
        """
        differing(rest)
        mean = float(rest.mean())
        target = -float(np.log(rest / mean).mean())
        if not 1 / (2 * MOST_SHAPE) < target < math.inf:
            raise Unfit("the values differ too little" if target < 1 else "the values span too much")
        shape = (3 - target + math.sqrt((target - 3) ** 2 + 24 * target)) / (12 * target)
        for _ in range(20):
            value, slope = digamma(shape)
            step = (math.log(shape) - value - target) / (1 - shape * slope)
            shape /= 1 + step
            if abs(step) < 1e-13:
                break
        return cls(mean, shape, zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        k, relative = self.shape, x / self.mean
        constant = k * math.log(k) - k - gammaln(k)
        return constant - k * (relative - 1 - np.log(relative)) - np.log(x)

    def rest_cdf(self, x: Values) -> Values:
        return gammainc(self.shape, self.shape * x / self.mean)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return self.mean / self.shape * gammaincinv(self.shape, lower, upper)

    @property
    def rest_mean(self) -> float:
        return self.mean
