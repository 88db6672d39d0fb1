"""Inverse Gaussian (Wald): how long a drifting random walk takes to reach a level."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values, differing
from workloom.model.families.roots import rising_root
from workloom.model.families.special import erfcx, ndtri


class InverseGaussian(Hurdle, frozen=True, tag="inverse-gaussian"):
    """Variance mean^3 / shape. With a(x) = sqrt(shape / x) (x / mean - 1) and b(x) = sqrt(shape / x) (x / mean + 1)
    its distribution function is Phi(a) + exp(2 shape / mean) Phi(-b).
    """

    mean: float
    shape: float

    above_0: ClassVar[tuple[str, ...]] = ("mean", "shape")

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """1 / shape = mean(1 / x) - 1 / mean(x), written as a sum of squares, which loses no digits."""
        differing(rest)
        mean = float(rest.mean())
        return cls(mean, float(1 / ((rest / mean - 1) ** 2 / rest).mean()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        logs = 0.5 * (math.log(self.shape / (2 * math.pi)) - 3 * np.log(x))
        return logs - 0.5 * self.shape * (x / self.mean - 1) ** 2 / x

    def rest_cdf(self, x: Values) -> Values:
        lower, upper = self._tails(x)
        return np.where(lower <= upper, lower, 1 - upper)

    def _tails(self, x: Values) -> tuple[Values, Values]:
        """The shares below and above, the smaller of them exact: exp(2 shape / mean) phi(b) = phi(a)."""
        scaled = np.sqrt(self.shape / x / 2)
        a, b = scaled * (x / self.mean - 1), scaled * (x / self.mean + 1)
        level = 0.5 * np.exp(-a * a)
        lower = level * (erfcx(np.maximum(-a, 0.0)) + erfcx(b))
        upper = level * (erfcx(np.maximum(a, 0.0)) - erfcx(b))
        return np.where(a <= 0, lower, 1 - upper), np.where(a <= 0, 1 - lower, upper)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        """A root of the distribution function in log x.

        Phi(a) <= cdf <= 2 Phi(a) below the mean, so it lies between where a is z(u / 2) and where a is z(u).
        """
        floor = np.log(self._where_a_is(ndtri(lower / 2, 1 - lower / 2)))
        roof = np.log(self._where_a_is(ndtri(lower, upper)))
        left = lower <= 0.5

        def residual(y: Values) -> tuple[Values, Values]:
            x = np.exp(y)
            below, above = self._tails(x)
            density = np.exp(self.rest_logpdf(x)) * x
            value = np.where(left, np.log(below / lower), np.log(upper / above))
            return value, density / np.where(left, below, above)

        inside = (lower > 0) & (upper > 0)
        y = rising_root(residual, np.where(inside, floor, 0.0), np.where(inside, roof, 0.0))
        return np.where(inside, np.exp(y), np.where(lower > 0, np.inf, 0.0))

    def _where_a_is(self, z: Values) -> Values:
        """The x with a(x) = z: a quadratic in sqrt(x)."""
        half = 0.5 * z / math.sqrt(self.shape)
        root = np.sqrt(half * half + 1 / self.mean)
        return (np.where(z > 0, self.mean * (half + root), 1 / (root - half))) ** 2

    @property
    def rest_mean(self) -> float:
        return self.mean
