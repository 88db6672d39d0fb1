"""Empirical: a short list of quantiles, and a line between each two."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal, Self

import numpy as np

from workloom.model.families.hurdle import Hurdle, Values

_LOWER = (0.0, 0.002, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.86)
_UPPER = (0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
SHARES = _LOWER + _UPPER
"""Where a fit takes them: 25, most in the upper tail, where a few values hold much of the mean."""


class Quantiles(Hurdle, frozen=True, tag="quantiles"):
    """`points`: pairs of a share and the value it does not exceed, from share 0 to share 1.

    Shares rise; values do not fall, and equal ones in a row are an atom. From point to point the value goes straight
    up with the share, or its logarithm does (`interpolation: log`): then a wide gap in a tail has a mean that a
    straight line would put too high.
    """

    points: tuple[tuple[float, float], ...]
    interpolation: Literal["linear", "log"] = "linear"

    signed: ClassVar[bool] = True

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if len(self.points) < 2 or self.points[0][0] != 0 or self.points[-1][0] != 1:
            yield "points must go from share 0 to share 1"
        for (share, value), (next_share, next_value) in pairwise(self.points):
            if not share < next_share:
                yield f"shares must rise, but {next_share:g} follows {share:g}"
            if not value <= next_value:
                yield f"values must not fall, but {next_value:g} follows {value:g} at share {next_share:g}"
        if not np.all(np.isfinite(self._values)):
            yield "values must be finite numbers"
        if self.interpolation == "log" and self.points and self.points[0][1] <= 0:
            yield f"interpolation by logarithm needs values above 0, not {self.points[0][1]:g}"

    @property
    def parameters(self) -> int:
        """The values; the shares are chosen beforehand."""
        return len(self.points)

    @property
    def _shares(self) -> Values:
        return np.array([share for share, _ in self.points], dtype=np.float64)

    @property
    def _values(self) -> Values:
        return np.array([value for _, value in self.points], dtype=np.float64)

    @classmethod
    def fit_rest(cls, rest: Values, zeros: float) -> Self:
        """The sample's quantiles, and the interpolation whose mean is nearer the sample's.

        Value i of n (from 1) stands at share (i - 1/2) / n (Hazen), which gives the outermost their full weight in the
        mean; places (i - 1) / (n - 1), usual for a median, would give them half.
        """
        points = tuple(zip(SHARES, np.quantile(rest, SHARES, method="hazen").tolist(), strict=True))
        linear = cls(points, zeros=zeros)
        if points[0][1] <= 0:
            return linear
        log = cls(points, "log", zeros=zeros)
        mean = float(rest.mean())
        return log if abs(log.rest_mean - mean) < abs(linear.rest_mean - mean) else linear

    def _scale(self, values: Values) -> Values:
        """What goes straight from point to point."""
        return np.log(values) if self.interpolation == "log" else values

    def rest_logpdf(self, x: Values) -> Values:
        """Infinite at an atom."""
        values = self._values
        place = np.clip(np.searchsorted(values, x, side="right") - 1, 0, len(values) - 2)
        ends = self._scale(values)
        slope = (np.diff(self._shares) / np.diff(ends))[place] / (x if self.interpolation == "log" else 1.0)
        atom = np.isin(x, values[:-1][np.diff(values) == 0])
        inside = np.where(atom, np.inf, np.log(slope))
        return np.where((x >= values[0]) & (x <= values[-1]), inside, -np.inf)

    def rest_cdf(self, x: Values) -> Values:
        shares, values = self._shares, self._values
        place = np.clip(np.searchsorted(values, x, side="right") - 1, 0, len(values) - 2)
        ends = self._scale(values)
        part = (self._scale(np.maximum(x, values[0])) - ends[place]) / (ends[place + 1] - ends[place])
        inside = shares[place] + np.clip(part, 0.0, 1.0) * (shares[place + 1] - shares[place])
        return np.where(x < values[0], 0.0, np.where(x >= values[-1], 1.0, inside))

    def rest_quantile(self, lower: Values, upper: Values) -> Values:
        out = np.interp(lower, self._shares, self._scale(self._values))
        return np.asarray(np.exp(out) if self.interpolation == "log" else out)

    @property
    def rest_mean(self) -> float:
        """Of each piece the middle, or with logarithms (b - a) / log(b / a)."""
        values = self._values
        low, high = values[:-1], values[1:]
        middles = (low + high) / 2
        if self.interpolation == "log":
            logs = np.log(high / low)
            wide = logs > 1e-6  # below it the two means agree to 13 digits
            middles = np.where(wide, (high - low) / np.where(wide, logs, 1.0), middles)
        return float(np.diff(self._shares) @ middles)
