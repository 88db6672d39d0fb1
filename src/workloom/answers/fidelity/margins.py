"""Margins, arrivals and rank correlations of two samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workloom import seeds
from workloom.answers.fidelity.distance import compare, halvings
from workloom.answers.fidelity.line import Line, Verdict, judge, worse
from workloom.model.arrivals import process
from workloom.model.fit.memory import spearman
from workloom.model.measures import MEASURES, PAIRS, Measure, Sample
from workloom.session import Session

Floats = NDArray[np.float64]
LEVEL = 0.9
"""Of the distances of random halves of the real sessions, the share within a band."""
KS = 0.1
MOVED = 0.25
"""Tolerances of margins: the distribution functions' difference, and Wasserstein's distance over the real mean."""
RANKS = 0.1
"""Rank correlations may differ by so much."""
LEAST_ARRIVALS = 100
BURSTINESS = 0.1
DISPERSION = 0.25
"""How far the burstiness of arrivals, and the index of dispersion of their counts (over the real one), may be."""


def margins(real: Sample, other: Sample, halved: Sample, seed: int, rounds: int) -> list[Line]:
    """A line for every measure that one of the two has."""
    return [
        _margin(measure, real, other, halved, seed, rounds)
        for measure in MEASURES
        if any(len(v) for side in (real, other) for v in side.values[measure.name])
    ]


def _margin(measure: Measure, real: Sample, other: Sample, halved: Sample, seed: int, rounds: int) -> Line:
    ours, theirs = real.values[measure.name], other.values[measure.name]
    having = min(sum(len(v) > 0 for v in side) for side in (ours, theirs))
    stream = seeds.stream(seed, "fidelity", measure.name)
    band = halved.values[measure.name]
    found = compare(ours, theirs, stream, band=band, rounds=rounds, level=LEVEL) if having else None
    if found is None:
        return Line("margin", measure.name, measure.unit)
    mean = abs(float(np.concatenate(ours).mean())) or 1.0
    moved = found.distance.wasserstein / mean
    band_ks, moved_band = (found.band.ks, found.band.wasserstein / mean) if np.isfinite(found.band.ks) else (None, None)
    return Line(
        group="margin",
        name=measure.name,
        unit=measure.unit,
        real=float(np.median(np.concatenate(ours))),
        other=float(np.median(np.concatenate(theirs))),
        distance=found.distance.ks,
        tolerance=KS,
        band=band_ks,
        p=found.p,
        moved=moved,
        moved_band=moved_band,
        verdict=worse(judge(found.distance.ks, KS, band_ks, having, found.p), judge(moved, MOVED, moved_band, having)),
    )


def arrivals(ours: Sequence[Session], theirs: Sequence[Session]) -> list[Line]:
    """How bursty sessions arrive; no band is known of them, since there is one series of arrivals a side."""
    mine, its = (process([s.start_s for s in side if s.start_s is not None]) for side in (ours, theirs))
    pairs = [("burstiness of arrivals", "B", mine.burstiness, its.burstiness)]
    counted = {count.window_s: count.idc for count in its.counts}
    pairs += [
        (f"dispersion of arrivals in {count.window_s:g} s", "IDC", count.idc, counted[count.window_s])
        for count in mine.counts
        if count.window_s in counted
    ]
    lines = []
    for name, unit, a, b in pairs:
        if a is None or b is None or (unit == "IDC" and a == 0):
            lines.append(Line("arrivals", name, unit, a, b))
            continue
        apart = abs(a - b) if unit == "B" else abs(a - b) / a
        limit = BURSTINESS if unit == "B" else DISPERSION
        enough = min(mine.arrivals, its.arrivals) >= LEAST_ARRIVALS
        verdict: Verdict = "not enough data" if not enough else "alike" if apart <= limit else "differs"
        lines.append(Line("arrivals", name, unit, a, b, apart, limit, verdict=verdict))
    return lines


def correlations(real: Sample, other: Sample, halved: Sample, seed: int) -> list[Line]:
    """What goes together in calls behind tools."""
    having = min(sum(len(rows) > 0 for rows in side.calls) for side in (real, other))
    names = [f"{a} and {b}" for a, b in PAIRS]
    if not having:
        return [Line("together", name, "rank r") for name in names]
    ours, theirs = _ranks(real.calls), _ranks(other.calls)
    stream = seeds.stream(seed, "fidelity", "ranks")
    apart = [
        [abs(a - b) for a, b in zip(*(_ranks([halved.calls[i] for i in half]) for half in halves), strict=True)]
        for halves in halvings(halved.sessions, 50, stream)
    ]
    bands: list[float | None] = np.quantile(apart, LEVEL, axis=0).tolist() if apart else [None] * len(PAIRS)
    return [
        Line(
            *("together", name, "rank r", mine, its, abs(mine - its), RANKS, band),
            verdict=judge(abs(mine - its), RANKS, band, having),
        )
        for name, mine, its, band in zip(names, ours, theirs, bands, strict=True)
    ]


def _ranks(calls: Sequence[Floats]) -> list[float]:
    """Rank correlations of PAIRS over the calls behind tools."""
    rows = np.concatenate(calls)
    columns = {"fresh": rows[:, 0], "output": rows[:, 1], "wait": rows[:, 2]}
    return [spearman(columns[one], columns[two]) for one, two in PAIRS]
