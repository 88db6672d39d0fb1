"""The marginal distributions of a workload: one file a family, all with the same few verbs.

    family.fit(values)                             maximum likelihood
    family.logpdf(x), .cdf(x), .quantile(u)        arrays in, arrays out
    family.zeros                                   the share of exact zeros

A YAML mapping such as ``{family: lognormal, median: 705, sigma: 1.4}`` is read into `Family`. A new family is one new
file and one entry here.
"""

from __future__ import annotations

from typing import TypeAlias

from workloom.model.families.exponential import Exponential
from workloom.model.families.fixed import Fixed
from workloom.model.families.gamma import Gamma
from workloom.model.families.hurdle import Hurdle, Unfit, Values
from workloom.model.families.inverse_gaussian import InverseGaussian
from workloom.model.families.lognormal import Lognormal
from workloom.model.families.normal import Normal
from workloom.model.families.pareto import Pareto
from workloom.model.families.quantiles import Quantiles
from workloom.model.families.spike_tail import SpikeTail
from workloom.model.families.uniform import Uniform
from workloom.model.families.weibull import Weibull

Family: TypeAlias = (
    Fixed
    | Uniform
    | Exponential
    | Lognormal
    | Gamma
    | Weibull
    | Pareto
    | InverseGaussian
    | Normal
    | SpikeTail
    | Quantiles
)

SIMPLE: dict[str, type[Family]] = {
    "uniform": Uniform,
    "exponential": Exponential,
    "lognormal": Lognormal,
    "gamma": Gamma,
    "weibull": Weibull,
    "pareto": Pareto,
    "inverse-gaussian": InverseGaussian,
    "normal": Normal,
}
"""Families of one component: one or two parameters."""
PARAMETRIC: dict[str, type[Family]] = {**SIMPLE, "spike-tail": SpikeTail}
"""Those that can be compared by likelihood."""
FAMILIES: dict[str, type[Family]] = {"fixed": Fixed, **PARAMETRIC, "quantiles": Quantiles}

__all__ = [
    "FAMILIES",
    "PARAMETRIC",
    "SIMPLE",
    "Exponential",
    "Family",
    "Fixed",
    "Gamma",
    "Hurdle",
    "InverseGaussian",
    "Lognormal",
    "Normal",
    "Pareto",
    "Quantiles",
    "SpikeTail",
    "Unfit",
    "Uniform",
    "Values",
    "Weibull",
]
