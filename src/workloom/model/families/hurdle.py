"""What all families share: a share of exact zeros, and a distribution of the rest.

A family writes down its rest only: `rest_logpdf`, `rest_cdf`, `rest_quantile`, `rest_mean` and `fit_rest`. All split
the zeros off in the same way, so their likelihoods can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from workloom.model.families import special

Values = NDArray[np.float64]


class Unfit(ValueError):
    """The family cannot be fitted to the sample; the message is the reason."""


class Hurdle(Struct, frozen=True, kw_only=True, tag_field="family", forbid_unknown_fields=True, omit_defaults=True):
    """`zeros`: the share of values that are exactly 0 (0 <= zeros < 1); the rest has the distribution of the family.

    Values are durations and counts. Most families have no values below 0; those that can say so by `signed`.
    """

    zeros: float = 0.0

    signed: ClassVar[bool] = False
    above_0: ClassVar[tuple[str, ...]] = ()
    """Parameters that must be above 0."""

    def __post_init__(self) -> None:
        faults = list(self.faults())
        if faults:
            raise ValueError(f"{self.name}: {'; '.join(faults)}")

    def faults(self) -> Iterator[str]:
        """What is wrong with the parameters, a sentence each."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, float | int) and not math.isfinite(value):
                yield f"{field} must be a finite number, not {value}"
            elif field in self.above_0 and value <= 0:
                yield f"{field} must be above 0, not {value:g}"
        if not 0 <= self.zeros < 1:
            yield f"zeros must be a share from 0 to below 1, not {self.zeros:g}"

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def parameters(self) -> int:
        """Free parameters, as AIC counts them. `zeros` is left out: it is the same for all families."""
        return len(self.__struct_fields__) - 1

    @classmethod
    def fit(cls, values: ArrayLike) -> Self:
        """Maximum likelihood. Raises Unfit, with the reason, where there is no such fit."""
        rest, zeros = split(values)
        if not len(rest):
            raise Unfit("all values are 0")
        if not cls.signed and rest.min() < 0:
            raise Unfit("there are values below 0")
        with np.errstate(all="ignore"):  # what overflows is refused as a parameter that is not finite
            return cls.fit_rest(rest, zeros)

    def logpdf(self, x: ArrayLike) -> Values:
        """Log density by value; at 0 the log of the share of zeros, which is a mass."""
        at = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            rest = math.log1p(-self.zeros) + self.rest_logpdf(at)
            if not self.signed:
                rest = np.where(at < 0, -np.inf, rest)
            return np.where(at == 0, np.log(self.zeros), rest)

    def cdf(self, x: ArrayLike) -> Values:
        """The share of values up to and with `x`."""
        at = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            rest = self.rest_cdf(at if self.signed else np.maximum(at, 0.0))
            rest = np.where(np.isposinf(at), 1.0, rest)
            return self.zeros * (at >= 0) + (1 - self.zeros) * rest

    def quantile(self, u: ArrayLike) -> Values:
        """The value that a share `u` (0 to 1) of all values does not exceed; nan for what is no share."""
        lower = np.asarray(u, dtype=np.float64)
        return self._quantile(lower, 1 - lower)

    def at_z(self, z: ArrayLike) -> Values:
        """The quantile at standard normal scores: u = Phi(z), exact far into both tails."""
        score = np.asarray(z, dtype=np.float64)
        return self._quantile(special.ndtr(score), special.ndtr(-score))

    def _quantile(self, lower: Values, upper: Values) -> Values:
        """By the shares below and above: 1 - u alone would lose the digits of a far tail."""
        with np.errstate(all="ignore"):
            if not self.zeros:
                return np.where((lower >= 0) & (upper >= 0), self.rest_quantile(lower, upper), np.nan)
            keep = 1 - self.zeros
            negative = keep * self.rest_cdf(np.zeros(1))[0] if self.signed else 0.0
            left, zero = lower < negative, (lower >= negative) & (lower < negative + self.zeros)
            low = np.clip(np.where(left, lower, lower - self.zeros) / keep, 0.0, 1.0)
            high = np.clip(np.where(left, upper - self.zeros, upper) / keep, 0.0, 1.0)
            out = np.where(zero, 0.0, self.rest_quantile(low, high))
            return np.where((lower >= 0) & (upper >= 0), out, np.nan)

    @property
    def overall_mean(self) -> float:
        """The mean of all values, zeros among them. A parameter called `mean` is that of the values that are not 0."""
        return (1 - self.zeros) * self.rest_mean

    # Of the values that are not 0, which a family writes down. Without `signed`, no argument is below 0.

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The fit to the values that are not 0, of which there is at least one."""
        raise NotImplementedError

    def rest_logpdf(self, x: Values) -> Values:
        raise NotImplementedError

    def rest_cdf(self, x: Values) -> Values:
        raise NotImplementedError

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        """By the shares below and above, which sum to 1: the smaller is the exact one."""
        raise NotImplementedError

    @property
    def rest_mean(self) -> float:
        raise NotImplementedError


def split(values: ArrayLike) -> tuple[Values, float]:
    """The values that are not 0, and the share of those that are."""
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not len(sample):
        raise Unfit("there are no values")
    if not np.all(np.isfinite(sample)):
        raise Unfit("there are values that are not finite numbers")
    rest = sample[sample != 0]
    return rest, (len(sample) - len(rest)) / len(sample)


def differing(rest: Values) -> None:
    """Refuse a sample without spread."""
    if rest.min() == rest.max():
        raise Unfit("all values are equal")
