"""Special functions, typed; scipy is imported at the first use, as it takes longer than the rest of a command."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def ndtr(z: Values) -> Values:
    """The standard normal distribution function."""
    from scipy import special

    return np.asarray(special.ndtr(z))


def ndtri(lower: Values, upper: Values) -> Values:
    """Its inverse, from the shares below and above: exact in both tails."""
    from scipy import special

    return np.asarray(np.where(lower <= 0.5, special.ndtri(lower), -special.ndtri(upper)))


def erfcx(x: Values) -> Values:
    """exp(x^2) erfc(x), which keeps its digits where erfc has none."""
    from scipy import special

    return np.asarray(special.erfcx(x))


def gammainc(shape: float, x: Values) -> Values:
    """The regularised lower incomplete gamma function."""
    from scipy import special

    return np.asarray(special.gammainc(shape, x))


def gammaincinv(shape: float, lower: Values, upper: Values) -> Values:
    """Its inverse, from the shares below and above."""
    from scipy import special

    return np.asarray(np.where(lower <= 0.5, special.gammaincinv(shape, lower), special.gammainccinv(shape, upper)))


def gammaln(x: float) -> float:
    from scipy import special

    return float(special.gammaln(x))


def digamma(x: float) -> tuple[float, float]:
    """The derivative of gammaln, and its own."""
    from scipy import special

    return float(special.digamma(x)), float(special.polygamma(1, x))


def kolmogorov(x: float) -> float:
    """The chance that the limit of sqrt(n) times the Kolmogorov-Smirnov distance is larger."""
    from scipy import special

    return float(special.kolmogorov(x))


def log_survival(lower: Values, upper: Values) -> Values:
    """log(upper), from the shares below and above: exact in both tails."""
    return np.where(lower <= 0.5, np.log1p(-lower), np.log(upper))
