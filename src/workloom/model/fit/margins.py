"""One distribution for one sample: the family with the best AIC, unless it is plainly not the sample's.

Then it is quantiles. Counts of a few different values are those values with their shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workloom.model.families import SIMPLE, Family, Fixed, Quantiles
from workloom.model.families.choose import Choice, Fit, fits
from workloom.model.workload.round import rounded, significant

CLOSE = 0.03
"""A Kolmogorov-Smirnov distance that no sample is large enough to mind."""
NOT_FAR = 0.08
LIKELY = 0.05
"""The p-value from which a distance, up to NOT_FAR, can be chance."""
EASY, EASY_KS = 0.3, 0.15
"""The same of samples of fewer than FEW, which are far from anything by chance."""
EXACT = 7
"""Digits of a value that is the only one."""
LEAST = 8
"""Samples of fewer are taken as they are."""
MEAN = 0.02
"""A mean may be off by this, or two standard errors if that is more."""
FEW = 50
FEW_NAMES = ("lognormal", "gamma", "weibull", "exponential", "inverse-gaussian", "normal")
"""Tried on samples of fewer than FEW: mixtures and families that end where the sample does fit those by chance."""
MOST_STEPS = 8
STEP = 1e-4
RARE = 5 * STEP
"""Shares are told to four digits."""
NEAR = 0.1
NEAR_SHARE = 0.01
"""Quantiles within 10 % in value, and 1 % in share, of what their neighbours say are left out."""
MOSTLY = 0.9
"""A sample of which so much is whole numbers is taken for counts."""
LARGE = 0.05
"""The share from which one value of a sample of counts is told exactly."""
MANY = 500
TAIL = (0.9, 0.95, 0.99)
TAIL_OFF = 0.1
"""Of samples of MANY, these quantiles may be off by so much, or by what is chance (3 standard errors of a share)."""
Floats = NDArray[np.float64]


Choosing = Literal["best", "parametric", "quantiles"]
"""best: the family that AIC likes best if it is close to the sample, else quantiles; or always one of the two."""


class Margin(Struct, frozen=True):
    """What was fitted to a sample, and all that was tried: `place` is where it stands in the workload."""

    place: str
    n: int
    taken: str
    choice: Choice | None


class Margins:
    """Fits samples and keeps what it tried, by a way of choosing."""

    def __init__(self, choosing: Choosing = "best") -> None:
        self.choosing = choosing
        self.done: list[Margin] = []
        self.notes: dict[str, str] = {}

    def fit(self, place: str, values: Sequence[float] | NDArray[np.float64]) -> Family:
        """The distribution of a sample, rounded as it will be written; 0 for a sample of no values."""
        sample = np.asarray(values, dtype=np.float64)
        if len(sample) == 0:
            return Fixed(0.0)
        if sample.min() == sample.max():
            self.done.append(Margin(place, len(sample), "fixed", None))
            return Fixed(significant(float(sample[0]), EXACT))
        choice = fits(sample, FEW_NAMES if len(sample) < FEW else None)
        best = _best(choice)
        family: Family = best.family
        if self.choosing == "quantiles" or (self.choosing == "best" and not _close(best, sample)):
            family = steps(sample) if _steps(sample) else thinned(quantiles(sample), len(sample))
        elif self.choosing == "best" and _steps(sample):
            family = steps(sample)
        self.done.append(Margin(place, len(sample), family.name, choice))
        self.notes[place] = _note(choice, best, family)
        return rounded(family)


def _close(fit: Fit, sample: Floats) -> bool:
    """Whether a family says what the sample says: all along, and in the mean, which the tail decides."""
    if len(sample) < LEAST or (fit.ks > CLOSE and (fit.ks > NOT_FAR or fit.ks_p < LIKELY) and len(sample) >= FEW):
        return False
    if len(sample) < FEW and (fit.ks_p < EASY or fit.ks > EASY_KS):
        return False
    error = 2 * float(sample.std()) / math.sqrt(len(sample))
    mean = float(sample.mean())
    if abs(fit.family.overall_mean - mean) > max(error, MEAN * abs(mean)):
        return False
    if len(sample) < MANY:
        return True
    at = np.array(TAIL)
    tail = np.quantile(sample, at)
    near = np.abs(fit.family.quantile(at) - tail) <= TAIL_OFF * np.abs(tail)
    chance = np.abs(fit.family.cdf(tail) - at) <= 3 * np.sqrt(at * (1 - at) / len(sample))
    return bool((near | chance).all())


def _best(choice: Choice) -> Fit:
    """The best by AIC; a mixture only where BIC, which asks more of its five parameters, agrees.

    (Of samples of 4,000 from one lognormal, AIC alone takes a mixture in 22 %, BIC in 1 %.)
    """
    simple = [fit for fit in choice.fits if fit.name in SIMPLE or fit.name == choice.best_by_bic]
    return min(simple or choice.fits, key=lambda fit: _aicc(fit, choice.n))


def _aicc(fit: Fit, n: int) -> float:
    """AIC corrected for small samples (Hurvich and Tsai 1989): AIC + 2k(k+1) / (n - k - 1)."""
    left = n - fit.parameters - 1
    return fit.aic + 2 * fit.parameters * (fit.parameters + 1) / left if left > 0 else float("inf")


def _steps(sample: Floats) -> bool:
    """Whether a sample is counts of a few: how many at once, how often."""
    different = len(np.unique(sample))
    return bool((sample == np.round(sample)).all()) and different <= MOST_STEPS and 2 * different <= len(sample)


def steps(sample: Floats) -> Quantiles:
    """A few different values, each with its share; what is rarer than RARE is left out."""
    values, counts = np.unique(sample, return_counts=True)
    often = counts >= RARE * len(sample)
    values, counts = values[often], counts[often]
    ends = [significant(share) for share in np.cumsum(counts / counts.sum()).tolist()]
    points = [(0.0, float(values[0]))]
    for value, end, after in zip(values.tolist(), ends, [*values.tolist()[1:], None], strict=True):
        points.append((1.0 if after is None else end, value))
        if after is not None:
            points.append((significant(end + STEP), after))
    return Quantiles(tuple(points))


def quantiles(sample: Floats) -> Quantiles:
    """The quantiles of a sample; values that many have, as counts of 1, begin and end where they do."""
    plain = Quantiles.fit(untied(sample))
    whole, counts = np.unique(sample[sample != 0], return_counts=True)
    if (sample == np.round(sample)).mean() < MOSTLY:
        return plain
    ends = np.cumsum(counts) / counts.sum()
    large = [i for i in range(len(whole)) if counts[i] / counts.sum() >= LARGE]
    atoms = {(float(ends[j]), float(whole[i]) + (0.5 if j == i else -0.5)) for i in large for j in (i - 1, i) if j >= 0}
    inner = {significant(share): value for share, value in atoms if share < 1}
    points = {share: value for share, value in plain.points if all(abs(share - s) > 1e-4 for s in inner)}
    return Quantiles(_rising({**points, **inner}), plain.interpolation, zeros=plain.zeros)


def _rising(points: Mapping[float, float]) -> tuple[tuple[float, float], ...]:
    """Points by share, none lower than the one before."""
    out: list[tuple[float, float]] = []
    for share in sorted(points):
        out.append((share, max(points[share], out[-1][1] if out else points[share])))
    return tuple(out)


def untied(sample: Floats) -> Floats:
    """A sample of (mostly) whole numbers with equal ones spread around: what is drawn is rounded, and comes back.

    Zeros stay, and so do other numbers.
    """
    rest = sample[sample != 0]
    if not len(rest) or (rest == np.round(rest)).mean() < MOSTLY:
        return sample
    values, counts = np.unique(sample, return_counts=True)
    spread = [
        value - 0.5 + (np.arange(count) + 0.5) / count if value and value == round(value) else np.full(count, value)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    return np.concatenate(spread)


def thinned(quantiles: Quantiles, n: int) -> Quantiles:
    """Without the points that a sample of n cannot tell, and those that lines between the others say nearly as well."""
    points = [p for p in quantiles.points if p[0] in (0.0, 1.0) or min(p[0], 1 - p[0]) * n >= 1]
    kept = list(range(len(points)))
    scale: Callable[[float], float] = math.log if quantiles.interpolation == "log" else float
    while len(kept) > 3:
        losses = [_loss(points[kept[i - 1] : kept[i + 1] + 1], scale) for i in range(1, len(kept) - 1)]
        least = int(np.argmin(losses))
        if losses[least] > 1:
            break
        del kept[least + 1]
    return Quantiles(tuple(points[i] for i in kept), quantiles.interpolation, zeros=quantiles.zeros)


def _loss(points: list[tuple[float, float]], scale: Callable[[float], float]) -> float:
    """How far points are at most from the line between the first and the last: 1 is as far as they may be.

    Lines are straight on a scale: of values or of their logarithms.
    """
    (low_share, low), *between, (high_share, high) = points
    worst, rise, run = 0.0, scale(high) - scale(low), high_share - low_share
    for share, value in between:
        off = scale(low) + (share - low_share) / run * rise - scale(value)
        size = 1.0 if scale is math.log else abs(value) or 1.0
        worst = max(worst, abs(off) / size / NEAR)
        if rise:
            worst = max(worst, abs(low_share + (scale(value) - scale(low)) / rise * run - share) / NEAR_SHARE)
    return worst


def _note(choice: Choice, best: Fit, family: Family) -> str:
    """By AIC the best and the next, as they are; then what is taken, which can be another (see `_best`, `_close`)."""
    first, *others = choice.fits
    said = f"n {choice.n:,}; by AIC {first.name}" + (f", then {others[0].name}" if others else "")
    if family.name == best.name:
        return f"{said}; taken: {family.name}, KS {best.ks:.3f}" if best is not first else f"{said}; KS {best.ks:.3f}"
    return f"{said}; KS {first.ks:.3f}; taken: {family.name}"
