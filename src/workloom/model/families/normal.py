"""Normal."""

from __future__ import annotations

from typing import ClassVar, Self

from workloom.model.families.hurdle import Hurdle, Values, differing
from workloom.model.families.lognormal import log_density
from workloom.model.families.special import ndtr, ndtri


class Normal(Hurdle, frozen=True, tag="normal"):
    """Normal, not cut at 0: a share Phi(-mean / sd) of its values is negative, and who draws from it sees to that."""

    mean: float
    sd: float

    signed: ClassVar[bool] = True
    above_0: ClassVar[tuple[str, ...]] = ("sd",)

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """Mean and standard deviation (divided by n) of the sample."""
        differing(rest)
        return cls(float(rest.mean()), float(rest.std()), zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        return log_density(x, self.mean, self.sd)

    def rest_cdf(self, x: Values) -> Values:
        return ndtr((x - self.mean) / self.sd)

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        return self.mean + self.sd * ndtri(lower, upper)

    @property
    def rest_mean(self) -> float:
        return self.mean
