"""Lognormal: the logarithm is normal."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values, differing
from workloom.model.families.special import ndtr, ndtri


class Lognormal(Hurdle, frozen=True, tag="lognormal"):
    """log(x) is normal with mean log(median) and standard deviation `sigma`."""

    median: float
    sigma: float

    above_0: ClassVar[tuple[str, ...]] = ("median", "sigma")

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """Mean and standard deviation (divided by n) of the logarithms."""
        differing(rest)
        logs = np.log(rest)
        return cls(math.exp(logs.mean()), float(logs.std()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        return log_density(np.log(x), math.log(self.median), self.sigma) - np.log(x)

    def rest_cdf(self, x: Values) -> Values:
        return ndtr((np.log(x) - math.log(self.median)) / self.sigma)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return np.exp(math.log(self.median) + self.sigma * ndtri(lower, upper))

    @property
    def rest_mean(self) -> float:
        return lognormal_mean(self.median, self.sigma)


def log_density(y: Values, mean: float, sd: float) -> Values:
    """Log density of a normal distribution."""
    return -0.5 * ((y - mean) / sd) ** 2 - math.log(sd) - 0.5 * math.log(2 * math.pi)


def lognormal_mean(median: float, sigma: float) -> float:
    """median exp(sigma^2 / 2), infinite where it is more than a float holds."""
    log = math.log(median) + sigma * sigma / 2
    return math.exp(log) if log < 709 else math.inf
