"""How many calls decode at once, by the time that they decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workloom.clock import NS
from workloom.metrics.catalog import Metric, Sample, Totals
from workloom.metrics.frame import Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats

MANY = 10


@dataclass(slots=True)
class Overlap:
    """A call decodes from its first chunk to its last. `level[i]`: how many do from `at_ns[i]` to the next instant."""

    rows: Ints
    """Calls that decode at all."""
    begin_ns: Floats
    end_ns: Floats
    at_ns: Floats
    level: Floats


def overlap(run: Measured) -> Overlap:
    """The decodes of a run, warm-up and drain included."""
    calls = run.calls
    rows = np.flatnonzero(calls.last_ns > calls.first_ns)
    begin, end = calls.first_ns[rows], calls.last_ns[rows]
    at, where = np.unique(np.concatenate([begin, end]), return_inverse=True)
    change = np.repeat([1.0, -1.0], len(rows))
    return Overlap(rows, begin, end, at, np.cumsum(np.bincount(where, weights=change, minlength=len(at))))


def _in_window(run: Measured, height: Callable[[Floats], Floats], weight: Callable[[Floats], Floats]) -> Totals | None:
    """Of each call, over the time that it decodes in the window: the integrals of height(n) and of weight(n), where n
    decode at once."""
    found = overlap(run)
    if not len(found.rows):
        return None
    steps = np.diff(found.at_ns)
    begin = np.clip(found.begin_ns, run.window.start_ns, run.window.end_ns)
    end = np.clip(found.end_ns, run.window.start_ns, run.window.end_ns)
    mine = end > begin
    if run.only is not None:
        mine &= run.only[found.rows]
    begin, end = begin[mine], end[mine]
    level = np.maximum(found.level[:-1], 1.0)  # where nobody decodes nothing is asked

    def integral(of: Callable[[Floats], Floats]) -> Floats:
        area = np.concatenate([[0.0], np.cumsum(of(level) * steps)])
        over: Floats = np.interp(end, found.at_ns, area) - np.interp(begin, found.at_ns, area)
        return over / NS

    return Totals(integral(height), integral(weight), run.calls.instance[found.rows[mine]])


def decode_overlap_ratio(run: Measured) -> Totals | None:
    """How many calls decode at once, averaged over the decode time of all calls (sum over time of n^2 / sum of n): what
    a token of an answer sees on average. Over time in the window, whenever calls were due."""
    return _in_window(run, lambda n: n, np.ones_like)


def decode_overlap_10_share(run: Measured) -> Totals | None:
    """Of the time in the window in which any call decodes, the share in which 10 or more do."""
    return _in_window(run, lambda n: (n >= MANY) / n, lambda n: 1 / n)  # n calls bear an equal part of each instant


def decodes_at_once(run: Measured) -> Sample:
    """Most calls that decode at once while this one does, itself included; its max is the most of the run. Of the calls
    due in the window that have more than one chunk."""
    found = overlap(run)
    due = run.due[found.rows]
    begin = np.searchsorted(found.at_ns, found.begin_ns[due])
    end = np.searchsorted(found.at_ns, found.end_ns[due])
    bounds = np.ravel(np.column_stack([begin, end]))
    most = np.maximum.reduceat(found.level, bounds)[::2] if len(bounds) else np.empty(0)
    return Sample(most, run.calls.instance[found.rows[due]])


METRICS = (
    Metric(
        *("decode_overlap_ratio", "decodes at once", "ratio", "run", "neither", decode_overlap_ratio),
        aliases=("decode_overlap",),
        of_calls=True,
    ),
    Metric(
        *("decode_overlap_10_share", "decode time at 10 or more", "share", "run", "neither", decode_overlap_10_share),
        of_calls=True,
    ),
    Metric("decodes_at_once", "most decodes at once", "count", "call", "neither", decodes_at_once),
)
