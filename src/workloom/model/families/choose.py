"""Which family a sample is best described by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike

from workloom.errors import UsageError, nearest
from workloom.model.families import FAMILIES, PARAMETRIC, Family
from workloom.model.families.fixed import Fixed
from workloom.model.families.hurdle import Unfit, Values, split
from workloom.model.families.special import kolmogorov


class Fit(Struct, frozen=True):
    """One family fitted to a sample by maximum likelihood.

    log_likelihood   of the whole sample, zeros included (the same term for every family)
    aic              2 parameters - 2 log_likelihood; the less the better
    bic              log(n) parameters - 2 log_likelihood, with n the values that are not 0
    ks               the largest distance between the distribution functions of fit and sample, zeros left out
    ks_p             the chance of at least that distance if the fit were true. It is optimistic: the parameters come
                     from the same sample, so a family to be rejected at 5 % can have far more than 0.05.
    """

    name: str
    family: Family
    log_likelihood: float
    parameters: int
    aic: float
    bic: float
    ks: float
    ks_p: float


class Choice(Struct, frozen=True):
    """What was fitted to a sample of `n` values, the share `zeros` of them exactly 0; `fits` by AIC, best first.

    `best` and `runner_up` go by AIC, `best_by_bic` by BIC, which asks more of families with many parameters. Between
    one component and two AIC asks too little, as one is a corner of two and not among its inner points: of samples of
    1,000 from a lognormal it gives about one in four to spike-tail, BIC one in two hundred.
    `unfit`: why a family could not be fitted.
    """

    n: int
    zeros: float
    best: str
    runner_up: str | None
    best_by_bic: str
    fits: tuple[Fit, ...]
    unfit: dict[str, str]

    @property
    def family(self) -> Family:
        """The best by AIC, with its parameters."""
        return self.fits[0].family

    def named(self, name: str) -> Fit | None:
        """The fit of a family; None where there is none."""
        return next((fit for fit in self.fits if fit.name == name), None)


def fits(values: ArrayLike, names: Sequence[str] | None = None) -> Choice:
    """Fit families to a sample and compare them: all parametric ones, or those named.

    Counts of tokens are taken as continuous: a density is put where a mass is, which is near enough for values of
    tens and more, and flatters families that can be narrow (spike-tail) where many values are equal. A sample without
    spread, zeros left out, is `fixed`, whatever was named. Raises Unfit where nothing can be fitted.
    """
    wanted = list(names or PARAMETRIC)
    for name in wanted:
        if name not in FAMILIES:
            near = nearest(name, list(FAMILIES))
            hint = f"did you mean {near}?" if near else None
            raise UsageError("no family has that name", expected=", ".join(FAMILIES), found=name, hint=hint)
    sample = np.asarray(values, dtype=np.float64).ravel()
    rest, zeros = split(sample)
    if not len(rest) or rest.min() == rest.max():
        reason = "all values are equal" if len(rest) else "all values are 0"
        fit = _fit("fixed", Fixed.fit(sample), sample, rest)
        unfit = {name: reason for name in wanted if name != "fixed"}
        return Choice(len(sample), zeros, "fixed", None, "fixed", (fit,), unfit)
    found: list[Fit] = []
    unfit = {}
    for name in wanted:
        try:
            found.append(_fit(name, FAMILIES[name].fit(sample), sample, rest))
        except ValueError as error:
            unfit[name] = str(error)
    if not found:
        raise Unfit("; ".join(f"{name}: {reason}" for name, reason in unfit.items()))
    found.sort(key=lambda fit: (fit.aic, fit.parameters, fit.name))
    by_bic = min(found, key=lambda fit: (fit.bic, fit.parameters, fit.name))
    runner_up = found[1].name if len(found) > 1 else None
    return Choice(len(sample), zeros, found[0].name, runner_up, by_bic.name, tuple(found), unfit)


def _fit(name: str, family: Family, sample: Values, rest: Values) -> Fit:
    log_likelihood = float(family.logpdf(sample).sum())
    if not math.isfinite(log_likelihood):
        raise Unfit("its likelihood is not finite")
    free = family.parameters
    distance = ks_distance(family, rest)
    return Fit(
        name=name,
        family=family,
        log_likelihood=log_likelihood,
        parameters=free,
        aic=2 * free - 2 * log_likelihood,
        bic=math.log(max(1, len(rest))) * free - 2 * log_likelihood,
        ks=distance,
        ks_p=ks_p(distance, len(rest)),
    )


def ks_distance(family: Family, rest: Values) -> float:
    """The largest distance between the distribution functions of the family and of the values that are not 0."""
    if not len(rest):
        return 0.0
    ordered = np.sort(rest)
    n = len(ordered)
    with np.errstate(all="ignore"):
        at = family.rest_cdf(ordered)
        before = family.rest_cdf(np.nextafter(ordered, -np.inf))  # differs where the family has an atom
    above = np.searchsorted(ordered, ordered, side="right") / n - at
    below = before - np.searchsorted(ordered, ordered, side="left") / n
    return max(0.0, float(above.max()), float(below.max()))


def ks_p(distance: float, n: int) -> float:
    """The chance of at least that distance for a sample of the distribution itself.

    The limit law with the correction for small n of M. Stephens, J. Royal Statistical Society B 32 (1970).
    """
    root = math.sqrt(n)
    return kolmogorov((root + 0.12 + 0.11 / root) * distance) if n else 1.0
