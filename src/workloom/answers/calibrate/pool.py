"""Whether several runs are of one server: what one and the same step takes must not depend on the run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.answers.calibrate.observed import Floats
from workloom.answers.calibrate.windows import Windows
from workloom.errors import UsageError

SIGMAS = 4.0
APART = 0.5
"""Slopes over context are apart when they differ by so many standard errors, and by that share of the larger."""
LEVEL = 0.08
"""Steps of equally many calls with equal contexts are apart when they differ by that share."""
FEWEST = 6


class Slope(NamedTuple):
    """Of decode steps over the contexts they read, seconds a token, within equal batches."""

    per_token_s: float
    error_s: float
    windows: int


def context_slope(windows: Windows) -> Slope | None:
    """None where a run has too few windows or too little range of contexts."""
    rise, read = [], []
    for batch in np.unique(windows.batch):
        mine = windows.batch == batch
        gap, context = windows.gap_s[mine], windows.context_tokens[mine]
        off = np.abs(gap - np.median(gap))
        plain = off <= 5 * np.median(off) + 1e-5 if np.ptp(context) < 5000 else np.ones(len(gap), dtype=bool)
        if plain.sum() < FEWEST:
            continue
        rise.append(gap[plain] - gap[plain].mean())
        read.append(context[plain] - context[plain].mean())
    if not rise:
        return None
    y, x = np.concatenate(rise), np.concatenate(read)
    spread = float((x * x).sum())
    if not spread:
        return None
    slope = float((x * y).sum()) / spread
    rest = y - slope * x
    return Slope(slope, float(np.sqrt((rest * rest).sum() / max(1, len(y) - len(rise) - 1) / spread)), len(y))


def check_pool(names: list[str], windows: list[Windows]) -> None:
    """Raise UsageError with the evidence when two runs cannot be of one server."""
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            evidence = _apart(names[first], windows[first], names[second], windows[second])
            if evidence:
                raise UsageError(
                    "these runs are not of one server, or not of one configuration of it",
                    where=f"{names[first]} and {names[second]}",
                    expected="steps that take the same time in both",
                    found="; ".join(evidence),
                    hint="calibrate each by itself; runs of one server differ in load only",
                )


def _apart(one: str, a: Windows, other: str, b: Windows) -> list[str]:
    out = []
    slopes = context_slope(a), context_slope(b)
    if slopes[0] is not None and slopes[1] is not None:
        difference = abs(slopes[0].per_token_s - slopes[1].per_token_s)
        larger = max(abs(slopes[0].per_token_s), abs(slopes[1].per_token_s))
        if difference > SIGMAS * float(np.hypot(slopes[0].error_s, slopes[1].error_s)) and difference > APART * larger:
            out.append(f"decode steps grow by {_said(slopes[0])} ({one}) and {_said(slopes[1])} ({other})")
    for batch in np.intersect1d(a.batch, b.batch).tolist():
        pair = _level(a, b, batch)
        if pair is not None and abs(pair[0] - pair[1]) > LEVEL * min(pair):
            took = f"{pair[0] * 1e3:.2f} ms ({one}) and {pair[1] * 1e3:.2f} ms ({other})"
            out.append(f"steps of {batch} decoding calls with alike contexts take {took}")
            break
    return out


def _said(slope: Slope) -> str:
    return f"{slope.per_token_s * 1e8:.2f} ± {slope.error_s * 1e8:.2f} ms per 100,000 tokens of context"


def _level(a: Windows, b: Windows, batch: int) -> tuple[float, float] | None:
    """Median steps of equally many calls, over the contexts both runs have."""
    mine, theirs = a.batch == batch, b.batch == batch
    if mine.sum() < FEWEST or theirs.sum() < FEWEST:
        return None
    low = max(np.percentile(a.context_tokens[mine], 2), np.percentile(b.context_tokens[theirs], 2))
    high = min(np.percentile(a.context_tokens[mine], 98), np.percentile(b.context_tokens[theirs], 98))
    both: list[Floats] = [
        w.gap_s[m & (w.context_tokens >= low) & (w.context_tokens <= high)] for w, m in ((a, mine), (b, theirs))
    ]
    if min(len(each) for each in both) < FEWEST:
        return None
    return float(np.median(both[0])), float(np.median(both[1]))


def joined(windows: list[Windows]) -> Windows:
    """The windows of several runs."""
    return Windows(*(np.concatenate(columns) for columns in zip(*windows, strict=True)))
