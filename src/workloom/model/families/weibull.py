"""Weibull."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Unfit, Values, differing
from workloom.model.families.special import log_survival

MOST_SHAPE = 1e6


class Weibull(Hurdle, frozen=True, tag="weibull"):
    """Survival exp(-(x / scale)^shape); shape 1 is exponential, less is a heavier tail."""

    scale: float
    shape: float

    above_0: ClassVar[tuple[str, ...]] = ("scale", "shape")

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The shape k solves sum(x^k log x) / sum(x^k) - 1/k = mean(log x); then scale^k = mean(x^k).

        The left side rises with k. Newton's method in log k, held between bounds that close in.
        """
        differing(rest)
        logs = np.log(rest)
        top = float(logs.max())
        y = logs - top  # so that no power overflows
        mean = float(y.mean())
        low, high, shape = 0.0, MOST_SHAPE, float(1.2 / y.std())
        for _ in range(100):
            shape = shape if low < shape < high else (low or 1e-9) ** 0.5 * high**0.5
            powers = np.exp(shape * y)
            tilted = float((powers * y).sum() / powers.sum())
            value = tilted - 1 / shape - mean
            low, high = (low, shape) if value > 0 else (shape, high)
            slope = shape * (float((powers * (y - tilted) ** 2).sum() / powers.sum()) + 1 / shape**2)
            step = value / slope
            shape *= math.exp(-min(max(step, -2.0), 2.0))
            if abs(step) < 1e-12:
                break
        if not shape < 0.99 * MOST_SHAPE:
            raise Unfit("the values differ too little")
        return cls(math.exp(top + math.log(np.exp(shape * y).mean()) / shape), shape, zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        logs = np.log(x / self.scale)
        return math.log(self.shape) - np.log(x) + self.shape * logs - np.exp(self.shape * logs)

    def rest_cdf(self, x: Values) -> Values:
        return -np.expm1(-((x / self.scale) ** self.shape))

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return self.scale * (-log_survival(lower, upper)) ** (1 / self.shape)

    @property
    def rest_mean(self) -> float:
        """scale Gamma(1 + 1/shape), infinite where it is more than a float holds."""
        log = math.log(self.scale) + math.lgamma(1 + 1 / self.shape)
        return math.exp(log) if log < 709 else math.inf
