"""A fitted coefficient: its value, how sure it is, and what to use where a run cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from msgspec import Struct

from workloom import seeds
from workloom.answers.calibrate.observed import Floats, Ints

DRAWS = 40
"""Bootstrap draws: enough for a standard error, which is all that is told."""


class Estimate(Struct, frozen=True):
    """`value` in the unit of its field; `error`: one standard error. `points`: windows or stalls it is seen in.

    Not identified: `value` is the prior, and `why` says what contrast was missing and where the prior comes from.
    """

    value: float
    error: float | None
    points: int
    identified: bool
    why: str = ""


def prior(value: float, missing: str, source: str) -> Estimate:
    """What is used where nothing could be seen."""
    return Estimate(value, None, 0, False, f"{missing}; used: {source}")


def bootstrap(fit: Callable[[Ints], Floats], points: int, seed: int, *path: str) -> tuple[Floats, Floats]:
    """A fit of all points, and the standard errors of its coefficients over resampled points.

    `fit` takes the indices of the points to use. Spread is the middle half of the draws over 1.349, so that a draw in
    which a rare contrast is missing altogether does no harm.
    """
    whole = fit(np.arange(points))
    stream = seeds.stream(seed, "calibrate", *path)
    draws = np.array([fit(np.sort(stream.integers(0, points, points))) for _ in range(DRAWS)])
    quarter = np.nanpercentile(draws, (25, 75), axis=0)
    return whole, (quarter[1] - quarter[0]) / 1.349


def least_absolute(features: Floats, target: Floats, weights: Floats | None = None) -> Floats:
    """Coefficients, none below zero, of the smallest weighted sum of absolute residuals (by reweighting squares)."""
    from scipy.optimize import nnls

    weight = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    scale = np.maximum(np.abs(features).max(axis=0), 1e-300)
    scaled = features / scale
    floor = max(float(np.median(np.abs(target))) * 1e-4, 1e-12)
    factor = weight
    found = np.zeros(features.shape[1])
    for _ in range(12):
        root = np.sqrt(factor)[:, None]
        after, _ = nnls(scaled * root, target * root[:, 0])
        if np.allclose(after, found, rtol=1e-3, atol=1e-12):
            break
        found = after
        factor = weight / np.maximum(np.abs(target - scaled @ found), floor)
    return np.asarray(found / scale, dtype=np.float64)


def least_absolute_given(
    features: Floats, target: Floats, held: Mapping[int, float], weights: Floats | None = None
) -> Floats:
    """The same with some coefficients held at what they are said to be; all of them, in the columns' order."""
    known, free = list(held), [at for at in range(features.shape[1]) if at not in held]
    found = np.zeros(features.shape[1])
    found[known] = [held[at] for at in known]
    rest = target - features[:, known] @ found[known]
    if free:
        found[free] = least_absolute(features[:, free], rest, weights)
    return found


Fit = Callable[[Mapping[int, float], Ints], Floats]
"""Coefficients from those points, some of them held."""
WORSE = 1.05
"""So many times the residuals speak against a prior."""


def settle(
    fit: Fit,
    loss: Callable[[Floats], float],
    held: Mapping[int, float],
    fallback: Mapping[int, float],
    points: int,
    seed: int,
    *path: str,
) -> tuple[Floats, Floats, dict[int, float]]:
    """A fit without zeros that nobody saw: coefficients, their errors, and those that are held in the end.

    No coefficient may be below zero, so one that the points say nothing of often ends at zero, with no error at all.
    There its `fallback` is put in its place and the rest is fitted again. If that is hardly worse, it stays: the
    coefficient is not identified. Else zero is what was seen.
    """
    held = dict(held)
    everything = np.arange(points)
    whole = fit(held, everything)
    for at, value in fallback.items():
        if at in held or not value or whole[at] > value * 1e-6:
            continue
        other = fit({**held, at: value}, everything)
        if loss(other) <= WORSE * loss(whole):
            held[at], whole = value, other
    values, errors = bootstrap(lambda chosen: fit(held, chosen), points, seed, *path)
    return values, errors, held
