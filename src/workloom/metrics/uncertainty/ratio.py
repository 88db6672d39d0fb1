"""Every figure as a ratio of two sums over sessions, in the order the sessions were due.

    a mean             sum of the values / how many there are
    a quantile         values below it / how many there are, which is p at the quantile itself
    a share, a rate    part / whole

So one kind of standard error serves all: of the contributions part - ratio x whole of each session (linearisation;
Cochran, Sampling Techniques, 3rd ed., section 6.4), which sum to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloom.metrics.catalog import Totals
from workloom.metrics.stats import Floats

if TYPE_CHECKING:
    from workloom.metrics.frame import Ints, Window
    from workloom.metrics.measured import Measured


@dataclass(slots=True)
class Ratio:
    """sum(part) / sum(whole); place i is session `session[i]`, and sessions are in the order they were due."""

    part: Floats
    whole: Floats
    session: Floats
    spread: float
    """Variance of one value (row) about the ratio, in units of the ratio: what independent values would have."""

    @property
    def value(self) -> float:
        return float(self.part.sum() / self.whole.sum())

    @property
    def apart(self) -> Floats:
        """What each session adds to the error of the ratio; the sum is 0."""
        apart: Floats = (self.part - self.value * self.whole) / self.whole.sum()
        return apart


@dataclass(slots=True)
class Begun:
    """When the sessions of a run were due, for figures whose whole is a stretch of time."""

    session: Floats
    due_ns: Floats
    window: Window


def begun(run: Measured) -> Begun:
    """Of every session the instant that its first call was due."""
    calls = run.calls
    rows = ~calls.warmup
    session, where = _sessions(calls.instance[rows])
    due_ns = np.full(len(session), np.inf)
    np.minimum.at(due_ns, where, calls.due_ns[rows])
    return Begun(session, due_ns, run.window)


def of_values(values: Floats, session: Floats, weights: Floats | None) -> Ratio:
    """The mean of finite values."""
    sessions, where = _sessions(session)
    n = len(sessions)
    weighted = values if weights is None else values * weights
    part, whole = sums(where, weighted, n), sums(where, weights, n)
    total = whole.sum()
    mean = part.sum() / total
    square = np.square(values - mean) if weights is None else np.square(values - mean) * weights
    return Ratio(part, whole, sessions, float(square.sum() / total))


def below(values: Floats, session: Floats, weights: Floats | None, quantile: float, level: float) -> tuple[Ratio, Ints]:
    """How much of each session lies below the quantile at `level`, and the place of each value's session. Of the values
    that are equal to the quantile such a share counts that the ratio is `level`."""
    sessions, where = _sessions(session)
    n = len(sessions)
    each = np.ones(len(values)) if weights is None else weights
    whole = sums(where, each, n)
    less, equal = each * (values < quantile), each * (values == quantile)
    share = (level * whole.sum() - less.sum()) / equal.sum() if equal.any() else 0.0
    part = sums(where, less + min(max(share, 0.0), 1.0) * equal, n)
    return Ratio(part, whole, sessions, level * (1 - level)), where


def of_totals(totals: Totals, begun: Begun | None) -> Ratio | None:
    """Parts and wholes by session; None where there is nothing.

    Where the whole is a stretch of time (seconds of the window, GPU-seconds), each session is given its share of it:
    the time until the next one was due. Then drawing sessions anew draws the gaps between them too. Without `begun`
    the gaps are unknown, and each session gets the same.
    """
    sessions, where = _sessions(totals.session)
    n = len(sessions)
    if not n:
        return None
    part = sums(where, totals.part, n)
    if isinstance(totals.whole, np.ndarray):
        whole = sums(where, totals.whole, n)
        if not whole.sum():
            return None
        ratio = part.sum() / whole.sum()
        square = np.square(totals.part - ratio * totals.whole).sum() * len(totals.part) / whole.sum() ** 2
        return Ratio(part, whole, sessions, float(square))
    if not totals.whole:
        return None
    shares = np.full(n, 1.0 / n) if begun is None else _gaps(sessions, begun)
    made = Ratio(part, totals.whole * shares, sessions, 0.0)
    made.spread = float(np.square(made.apart).sum() * n)
    return made


def _gaps(sessions: Floats, begun: Begun) -> Floats:
    """The share of the window from when each session was due to when the next one was; what was before the first
    is the first one's."""
    at = np.minimum(np.searchsorted(begun.session, sessions), len(begun.session) - 1)
    window = begun.window
    due = np.clip(begun.due_ns[at], window.start_ns, window.end_ns)
    edges = np.concatenate([[window.start_ns], np.maximum.accumulate(due)[1:], [window.end_ns]])
    gaps: Floats = np.diff(edges) / max(window.end_ns - window.start_ns, 1)
    return gaps


def sums(where: Ints, values: Floats | None, places: int) -> Floats:
    """The sum of the values at each place; without values how many there are."""
    return np.bincount(where, values, places).astype(np.float64)


def _sessions(session: Floats) -> tuple[Floats, Ints]:
    """The sessions in order, and which of them each row belongs to: instances are numbered as they are due."""
    if len(session) and np.all(session[1:] >= session[:-1]):  # rows in the order of the plan: no need to sort
        first = np.concatenate([[True], session[1:] > session[:-1]])
        return session[first], np.cumsum(first) - 1
    found, where = np.unique(session, return_inverse=True)
    return found, where
