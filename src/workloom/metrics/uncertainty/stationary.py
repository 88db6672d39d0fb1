"""Whether a run had settled, and what to cut off its beginning.

The window is cut into slices of time. Every value gets its normal score among all values (van der Waerden), which
heavy tails and failures cannot upset. Of calls, what the length of their fresh prompts explains is taken out: which
calls come when is chance, and hides what the server does. Each slice gets the mean of its own. Three shapes are looked
for in the slices: lower or higher at the very beginning, in the first quarter, and a steady drift. What counts as
chance is how the slices scatter about the shape, more so where neighbours are alike.

    flat               none of them, and a change of 20 % would have been found
    ramp               the beginning differs, and after a cut the rest is flat
    drift              it never settles
    not enough data    none of them, but a change of 20 % might have been missed

A closed loop begins with all sessions at their first turn, an open one with an empty server: both are ramps.
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.metrics.catalog import Sample, find
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured
from workloom.metrics.sessions import concurrency
from workloom.metrics.stats import Floats

SLICES = 32
FEWEST_SESSIONS = 100
FEWEST_VALUES = 10
"""Values a slice, on average."""
IN_FLIGHT = "in_flight"
"""The series of calls in flight, as good as a metric here."""
TO_FIND = 0.2
"""The change that a run is called flat without."""
LATEST_CUT = 0.5
"""Of the window: what settles later never did."""

Verdict = Literal["flat", "ramp", "drift", "not enough data"]


class Stationarity(Struct, frozen=True):
    """What one metric of a run did over the window."""

    metric: str
    verdict: Verdict
    cut_s: float = 0.0
    """Seconds of the window to leave out; 0 unless a ramp."""
    p_value: float | None = None
    """How often a flat run would look like this or worse."""
    change: float | None = None
    """The typical value at the beginning over that at the end, less 1: -0.2 began 20 % lower. By the shape found."""
    detectable: float | None = None
    """The change that would be found in 9 of 10 such runs."""
    values: int = 0
    sessions: int = 0
    why: str = ""

    def window(self, run: Measured) -> Window:
        """The window of the run without what is to be cut."""
        return Window(run.window.start_ns + round(self.cut_s * NS), run.window.end_ns)


class Series(NamedTuple):
    """A metric slice by slice: mean scores, the values behind each, and what a score is worth as a logarithm."""

    scores: Floats
    counts: Floats
    worth: float
    values: int
    sessions: int


class Test(NamedTuple):
    """The shape that stands out most."""

    p_value: float
    change: float
    """In scores, from the beginning to the end of the shape."""
    detectable: float


def stationarity(run: Measured, metric: str = "ttft_s", *, alpha: float = 0.02) -> Stationarity:
    """Look at one metric, or at the calls `in_flight`.

    `alpha` is nominal: at 0.02 flat engine runs were called otherwise in 0 to 5 % of cases (docs/uncertainty.md).
    """
    series = _series(run, metric)
    name = metric if metric == IN_FLIGHT else find(metric).name
    told = Stationarity(name, "not enough data", values=series.values, sessions=series.sessions)
    if series.sessions < FEWEST_SESSIONS or series.values < SLICES * FEWEST_VALUES:
        why = (
            f"not enough data: {series.sessions} sessions and {series.values} values, {FEWEST_SESSIONS} and "
            f"{SLICES * FEWEST_VALUES} needed"
        )
        return _with(told, why=why)
    test = shape(series.scores, series.counts, alpha)
    detectable = float(np.expm1(test.detectable * series.worth))
    change = float(np.expm1(test.change * series.worth))
    told = _with(told, p_value=test.p_value, change=change, detectable=detectable)
    if test.p_value >= alpha:
        if detectable <= TO_FIND:
            return _with(told, verdict="flat")
        return _with(told, why=f"not enough data: a change of less than {detectable:.0%} might have been missed")
    cut = settled(series.scores, series.counts, alpha)
    if cut is None:
        return _with(told, verdict="drift")
    return _with(told, verdict="ramp", cut_s=cut / SLICES * run.window.seconds)


def _with(told: Stationarity, **changes: object) -> Stationarity:
    from msgspec.structs import replace

    return replace(told, **changes)


def shape(scores: Floats, counts: Floats, alpha: float) -> Test:
    """The most likely of the shapes, against slices that only scatter."""
    from scipy.special import stdtr, stdtrit

    n = len(scores)
    found = [_fit(scores, counts, kind) for kind in _shapes(n)]
    best = max(found, key=lambda fit: abs(fit[0] / fit[1]) if fit[1] > 0 else 0.0)
    size, error = best
    freedom = n - 3
    p_value = min(1.0, len(found) * 2 * float(stdtr(freedom, -abs(size) / error))) if error > 0 else 1.0
    needed = float(stdtrit(freedom, 1 - alpha / 2 / len(found)) + stdtrit(freedom, 0.9))
    ramp_error = found[1][1]
    return Test(p_value, -size, needed * ramp_error)


def _shapes(n: int) -> list[Floats]:
    """From 0 at the beginning to 1 at the end: a short start, a ramp over the first quarter, a steady drift."""
    middle = (np.arange(n) + 0.5) / n
    return [np.minimum(middle / 0.08, 1.0), np.minimum(middle / 0.25, 1.0), middle]


def _fit(scores: Floats, counts: Floats, kind: Floats) -> tuple[float, float]:
    """How much of a shape is in the scores, and the standard error of that: least squares with the counts as weights,
    the error widened for neighbours that are alike (an AR(1) of the residuals, its bias of small samples corrected;
    Kendall 1954)."""
    weights = counts / counts.sum()
    centred = kind - weights @ kind
    square = float(weights @ centred**2)
    if not square:
        return 0.0, 0.0
    size = float(weights @ (centred * scores) / square)
    rest = scores - weights @ scores - size * centred
    n = len(scores)
    alike = float((rest[1:] @ rest[:-1]) / (rest @ rest)) if rest @ rest > 0 else 0.0
    alike = min(max((n * alike + 2) / (n - 4), 0.0), 0.9)
    variance = float(weights @ rest**2) / (n - 2) / square
    return size, float(np.sqrt(variance * (1 + alike) / (1 - alike)))


def settled(scores: Floats, counts: Floats, alpha: float) -> int | None:
    """The first slice from which on the rest is flat: at MSER's cut (the one that leaves the mean of the rest surest;
    White 1997) or as soon after as the shapes are gone. None where that is later than half."""
    n = len(scores)
    latest = int(n * LATEST_CUT)
    marginal = [np.var(scores[cut:]) / (n - cut) for cut in range(latest + 1)]
    for cut in range(max(int(np.argmin(marginal)), 1), latest + 1):
        if shape(scores[cut:], counts[cut:], alpha).p_value >= alpha:
            return cut
    return None


def _series(run: Measured, metric: str) -> Series:
    window = run.window
    if metric == IN_FLIGHT:
        level = np.array(concurrency(run.calls, run.sessions, window, SLICES).calls)
        sessions = len(np.unique(run.calls.instance[run.due]))
        scores = np.log(np.maximum(level, 0.5)) if len(level) else np.zeros(SLICES)
        return Series(scores, np.ones(SLICES), 1.0, int(run.due.sum()), sessions)
    edges = np.linspace(window.start_ns, window.end_ns, SLICES + 1).round().astype(np.int64)
    observe = find(metric).observe
    slices = [run.within(Window(a, b)) for a, b in pairwise(edges.tolist())]
    seen = [observe(each) for each in slices]
    pieces = [each for each in seen if isinstance(each, Sample)]
    if len(pieces) < SLICES:
        return Series(np.zeros(SLICES), np.ones(SLICES), 1.0, 0, 0)
    values = np.concatenate([piece.values for piece in pieces])
    weights = np.concatenate([_weights(piece) for piece in pieces])
    session = np.concatenate([piece.session for piece in pieces])
    where = np.repeat(np.arange(SLICES), [len(piece.values) for piece in pieces])
    asked = np.concatenate([_fresh_tokens(each, piece) for each, piece in zip(slices, pieces, strict=True)])
    there = ~np.isnan(values)
    values, weights, session, where, asked = (column[there] for column in (values, weights, session, where, asked))
    counts = np.bincount(where, weights, SLICES)
    if not len(values):
        return Series(np.zeros(SLICES), np.ones(SLICES), 1.0, 0, 0)
    score = _beyond_prompts(_normal_scores(values, weights), asked, weights)
    means = np.bincount(where, weights * score, SLICES) / np.maximum(counts, 1)
    return Series(means, np.maximum(counts, 1e-9), _worth(values, score), int(weights.sum()), len(np.unique(session)))


def _fresh_tokens(run: Measured, sample: Sample) -> Floats:
    """What each call of a slice had to be computed for; nan where values are not of calls, or nobody knows."""
    fresh = run.calls.planned_fresh_tokens[run.due]
    return fresh if len(fresh) == len(sample.values) else np.full(len(sample.values), np.nan)


def _beyond_prompts(scores: Floats, fresh: Floats, weights: Floats) -> Floats:
    """Scores without what the length of fresh prompts explains: least squares on their normal score and its square."""
    if not len(fresh) or np.isnan(fresh).any() or fresh.min() == fresh.max():
        return scores
    x = _normal_scores(fresh, weights)
    columns = np.stack([np.ones(len(x)), x, x**2], axis=1)
    found = np.linalg.lstsq(columns * np.sqrt(weights)[:, None], scores * np.sqrt(weights), rcond=None)[0]
    rest: Floats = scores - columns[:, 1:] @ found[1:]
    return rest


def _weights(sample: Sample) -> Floats:
    return np.ones(len(sample.values)) if sample.weights is None else sample.weights


def _normal_scores(values: Floats, weights: Floats) -> Floats:
    """Where the rank of each value stands in a normal distribution; equal values share one."""
    from scipy.special import ndtri

    _, where = np.unique(values, return_inverse=True)
    held = np.bincount(where, weights)
    middle = (np.cumsum(held) - held / 2) / held.sum()
    scores: Floats = ndtri(middle)[where]
    return scores


def _worth(values: Floats, scores: Floats) -> float:
    """How much larger, as a logarithm, a value is whose score is larger by 1: over the middle half of the values."""
    low, high = np.quantile(values[np.isfinite(values)], [0.25, 0.75]) if np.isfinite(values).any() else (0.0, 0.0)
    if low <= 0 or high <= low:
        return 1.0
    return log(high / low) / (2 * 0.6744897501960817)
