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
    sessions: int
    pieces: tuple[Floats, Floats] | None = None
    """Part and whole by stretch of time, where it is known when values came; else sessions stand for time."""
    timed: bool = False
    """Places are stretches of time themselves: what came in each, over how long it is."""

    @property
    def value(self) -> float:
        return float(self.part.sum() / self.whole.sum())

    @property
    def apart(self) -> Floats:
        """What each session adds to the error of the ratio; the sum is 0."""
        apart: Floats = (self.part - self.value * self.whole) / self.whole.sum()
        return apart

    @property
    def in_time(self) -> tuple[Floats, Floats]:
        """Part and whole in the order of time."""
        return (self.part, self.whole) if self.pieces is None else self.pieces

    @property
    def apart_in_time(self) -> Floats:
        """What each stretch of time adds to the error of the ratio, or each session."""
        part, whole = self.in_time
        apart: Floats = (part - self.value * whole) / self.whole.sum()
        return apart


@dataclass(slots=True)
class Begun:
    """When the sessions of a run were due, for figures whose whole is a stretch of time; and how long they live."""

    session: Floats
    due_ns: Floats
    window: Window
    lives: float | None = None
    """How many times as long as a session lives, on average, the window is; None: not known."""


def begun(run: Measured) -> Begun:
    """Of every session the instant that its first call was due."""
    calls = run.calls
    rows = ~calls.warmup
    session, where = _sessions(calls.instance[rows])
    due_ns = np.full(len(session), np.inf)
    np.minimum.at(due_ns, where, calls.due_ns[rows])
    end_ns = np.full(len(session), -np.inf)
    np.fmax.at(end_ns, where, np.fmax(calls.done_ns, np.fmax(calls.sent_ns, calls.due_ns))[rows])
    lived = (end_ns - due_ns)[(due_ns < run.window.end_ns) & (end_ns > run.window.start_ns)]
    life = float(lived.mean()) if len(lived) else 0.0
    lives = (run.window.end_ns - run.window.start_ns) / life if life > 0 else None
    return Begun(session, due_ns, run.window, lives)


PIECES = 400
"""Stretches of time that a run is cut into, of which blocks are made."""


def piece_of(at_ns: Floats) -> Ints:
    """The stretch of time that each instant belongs to, of as many equal ones between the first and the last."""
    known = at_ns[np.isfinite(at_ns)]
    if not len(known):
        return np.zeros(len(at_ns), dtype=np.int64)
    first, last = float(known.min()), float(known.max())
    return _pieces((at_ns - first) / max(last - first, 1.0))


def _pieces(share: Floats) -> Ints:
    """Of a stretch of time from 0 to 1. What has no instant is put at the beginning."""
    return np.clip(np.nan_to_num(share, nan=0.0) * PIECES, 0, PIECES - 1).astype(np.int64)


def of_values(values: Floats, session: Floats, weights: Floats | None, piece: Ints | None = None) -> Ratio:
    """The mean of finite values. `piece`: the stretch of time of each (`piece_of`)."""
    sessions, where = _sessions(session)
    n = len(sessions)
    weighted = values if weights is None else values * weights
    part, whole = sums(where, weighted, n), sums(where, weights, n)
    total = whole.sum()
    mean = part.sum() / total
    square = np.square(values - mean) if weights is None else np.square(values - mean) * weights
    pieces = None if piece is None else (sums(piece, weighted, PIECES), sums(piece, weights, PIECES))
    return Ratio(part, whole, sessions, float(square.sum() / total), n, pieces)


def below(
    values: Floats,
    session: Floats,
    weights: Floats | None,
    quantile: float,
    level: float,
    piece: Ints | None = None,
) -> Ratio:
    """How much of each session lies below the quantile at `level`. Of the values that are equal to the quantile such a
    share counts that the ratio is `level`."""
    sessions, where = _sessions(session)
    n = len(sessions)
    each = np.ones(len(values)) if weights is None else weights
    whole = sums(where, each, n)
    less, equal = each * (values < quantile), each * (values == quantile)
    share = (level * whole.sum() - less.sum()) / equal.sum() if equal.any() else 0.0
    less += min(max(share, 0.0), 1.0) * equal
    pieces = None if piece is None else (sums(piece, less, PIECES), sums(piece, each, PIECES))
    return Ratio(sums(where, less, n), whole, sessions, level * (1 - level), n, pieces)


def of_totals(totals: Totals, begun: Begun | None, timed: bool = False) -> Ratio | None:
    """Parts and wholes by session; None where there is nothing.

    Where the whole is a stretch of time (seconds of the window, GPU-seconds), each session is given its share of it:
    the time until the next one was due. Without `begun` the gaps are unknown, and each session gets the same. `timed`:
    where it is known when parts came, the window is cut into equal pieces instead, each with what came in it.
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
        piece = None if totals.at_ns is None else piece_of(totals.at_ns)
        pieces = None if piece is None else (sums(piece, totals.part, PIECES), sums(piece, totals.whole, PIECES))
        return Ratio(part, whole, sessions, float(square), n, pieces)
    if not totals.whole:
        return None
    if timed and totals.at_ns is not None and begun is not None:
        return _by_time(totals, totals.whole, begun.window, n)
    shares = np.full(n, 1.0 / n) if begun is None else _gaps(sessions, begun)
    made = Ratio(part, totals.whole * shares, sessions, 0.0, n)
    made.spread = float(np.square(made.apart).sum() * n)
    return made


def _by_time(totals: Totals, whole: float, window: Window, sessions: int) -> Ratio:
    assert totals.at_ns is not None
    at = (totals.at_ns - window.start_ns) / max(window.end_ns - window.start_ns, 1)
    part = sums(_pieces(at), totals.part, PIECES)
    made = Ratio(part, np.full(PIECES, whole / PIECES), np.arange(float(PIECES)), 0.0, sessions, timed=True)
    made.spread = float(np.square(made.apart).sum() * sessions)
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
