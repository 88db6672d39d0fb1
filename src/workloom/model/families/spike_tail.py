"""A spike and a tail: two lognormals, as waits of agents have (quick tools, and now and then a slow one or a human)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Unfit, Values, differing
from workloom.model.families.lognormal import log_density, lognormal_mean
from workloom.model.families.roots import rising_root
from workloom.model.families.special import ndtr, ndtri

FEWEST = 10
"""Values, for five parameters."""
NARROWEST = 0.02
"""Of the standard deviation of all logarithms: no component is narrower, as a likelihood has no bound where one
closes in on a single value (R. Hathaway, Annals of Statistics 13, 1985). An atom of ties is a spike of this width."""


class SpikeTail(Hurdle, frozen=True, tag="spike-tail"):
    """A share `spike_share` is lognormal with the spike's median and sigma, the others with the tail's.

    A fit calls the component with the smaller median the spike.
    """

    spike_share: float
    spike_median: float
    spike_sigma: float
    tail_median: float
    tail_sigma: float

    above_0: ClassVar[tuple[str, ...]] = ("spike_median", "spike_sigma", "tail_median", "tail_sigma")

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if not 0 <= self.spike_share <= 1:
            yield f"spike_share must be a share from 0 to 1, not {self.spike_share:g}"

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """Expectation-maximisation on the logarithms, from the best of several splits of the sample."""
        differing(rest)
        if len(rest) < FEWEST:
            raise Unfit(f"five parameters need {FEWEST} values, and there are {len(rest)}")
        logs, counts = np.unique(np.log(rest), return_counts=True)
        if logs[-1] - logs[0] < 1e-9:
            raise Unfit("the values differ too little")
        best = _mixture(logs, counts.astype(np.float64))
        if best is None:
            raise Unfit("the values do not fall into a spike and a tail")
        share, spike, tail = best.share, best.first, best.second
        if spike[0] > tail[0]:
            share, spike, tail = 1 - share, tail, spike
        return cls(share, math.exp(spike[0]), spike[1], math.exp(tail[0]), tail[1], zeros=zeros)

    def rest_logpdf(self, x: Values) -> Values:
        return self._log_density(np.log(x)) - np.log(x)

    def _log_density(self, y: Values) -> Values:
        """Of y = log x."""
        spike = np.log(self.spike_share) + log_density(y, math.log(self.spike_median), self.spike_sigma)
        tail = np.log1p(-self.spike_share) + log_density(y, math.log(self.tail_median), self.tail_sigma)
        both: Values = np.logaddexp(spike, tail)
        return both

    def rest_cdf(self, x: Values) -> Values:
        return self._share(np.log(x), np.array(1.0))

    def _share(self, y: Values, sign: Values) -> Values:
        """The share below exp(y) for sign 1, above it for -1, exact in its tail."""
        spike = ndtr(sign * (y - math.log(self.spike_median)) / self.spike_sigma)
        tail = ndtr(sign * (y - math.log(self.tail_median)) / self.tail_sigma)
        return self.spike_share * spike + (1 - self.spike_share) * tail

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        """A root of the distribution function in log x, between the quantiles of spike and tail."""
        z = ndtri(lower, upper)
        spike = math.log(self.spike_median) + self.spike_sigma * z
        tail = math.log(self.tail_median) + self.tail_sigma * z
        if self.spike_share in (0, 1):
            return np.exp(spike if self.spike_share else tail)
        sign = np.where(lower <= 0.5, 1.0, -1.0)
        target = np.where(lower <= 0.5, lower, upper)

        def residual(y: Values) -> tuple[Values, Values]:
            share = self._share(y, sign)
            return sign * np.log(share / target), np.exp(self._log_density(y)) / share

        inside = np.isfinite(z)
        low, high = np.minimum(spike, tail), np.maximum(spike, tail)
        y = rising_root(residual, np.where(inside, low, 0.0), np.where(inside, high, 0.0))
        return np.where(inside, np.exp(y), np.exp(z))

    @property
    def rest_mean(self) -> float:
        spike = lognormal_mean(self.spike_median, self.spike_sigma)
        tail = lognormal_mean(self.tail_median, self.tail_sigma)
        return self.spike_share * spike + (1 - self.spike_share) * tail


class _Mixture(NamedTuple):
    """Two normals: the share of the first, (mean, sd) of each, and the log-likelihood of the step before."""

    share: float
    first: tuple[float, float]
    second: tuple[float, float]
    log_likelihood: float


def _mixture(logs: Values, counts: Values) -> _Mixture | None:
    """The two normals that fit best; `counts` says how often each value is there."""
    n = float(counts.sum())
    center = float((counts * logs).sum() / n)
    floor = NARROWEST * math.sqrt(float((counts * (logs - center) ** 2).sum() / n))
    ranks = np.cumsum(counts) - counts / 2
    inner = np.abs(logs - logs[np.searchsorted(ranks, n / 2)])
    splits = [ranks < share * n for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    splits.append(inner <= np.median(inner))  # one inside the other
    tried = [_climb(logs, counts, split.astype(np.float64), floor, 40) for split in splits]
    found = [(climbed[0].log_likelihood, index) for index, climbed in enumerate(tried) if climbed is not None]
    if not found:
        return None
    best = tried[max(found)[1]]
    assert best is not None
    climbed = _climb(logs, counts, best[1], floor, 4000)
    return climbed[0] if climbed is not None else best[0]


def _climb(logs: Values, counts: Values, first: Values, floor: float, rounds: int) -> tuple[_Mixture, Values] | None:
    """Expectation-maximisation from the chance of each value to be of the first component.

    None where a component comes to hold less than one value: there the likelihood has no bound.
    """
    n = float(counts.sum())
    before = -math.inf
    for _ in range(rounds):
        share = float((counts * first).sum()) / n
        if not 1 <= share * n <= n - 1:
            return None
        one, other = _moments(logs, counts * first, floor), _moments(logs, counts * (1 - first), floor)
        ours = math.log(share) + log_density(logs, *one)
        both = np.logaddexp(ours, math.log1p(-share) + log_density(logs, *other))
        first = np.exp(ours - both)
        log_likelihood = float((counts * both).sum())
        mixture = _Mixture(share, one, other, log_likelihood)
        if log_likelihood - before < 1e-11 * n:
            break
        before = log_likelihood
    return mixture, first


def _moments(logs: Values, weights: Values, floor: float) -> tuple[float, float]:
    """Mean and standard deviation, without products of vectors by BLAS: those of more than 10,000 values it shares out
    to threads, which sum in another order on every machine, and wait for each other where the machine is busy.
    """
    total = float(weights.sum())
    mean = float((weights * logs).sum()) / total
    return mean, max(floor, math.sqrt(float((weights * (logs - mean) ** 2).sum()) / total))
