"""PROVISIONAL until metrics/uncertainty is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from workloom import seeds
from workloom.metrics.catalog import Totals
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import Figure


class Difference(Struct, frozen=True):
    figure: str
    a: float | None
    b: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    level: float
    pairs: int
    why: str = ""


def between(estimates: Sequence[Estimate], *, level: float = 0.95) -> Estimate:
    return replace(estimates[0], value=float(np.mean([e.value for e in estimates])))


def differences(a, b, figure: Figure, *, paired: bool, level: float = 0.95, seed: int = 0) -> Difference:  # type: ignore
    name = figure.say()
    if a is None or b is None:
        return Difference(name, None, None, None, None, None, None, None, None, None, level, 0, "not enough data")
    rng = seeds.stream(seed, "difference", name)
    ia, ib = np.unique(a.session), np.unique(b.session)
    union = np.union1d(ia, ib) if paired else None
    out = []
    R = 400

    def prep(x, ids):
        codes = np.searchsorted(ids, x.session)
        if isinstance(x, Totals):
            w = x.whole
            part = np.bincount(codes, x.part, len(ids))
            if isinstance(w, np.ndarray):
                whole = np.bincount(codes, w, len(ids))
                return lambda d: (d @ part) / (d @ whole) if d @ whole else np.nan
            return lambda d: (d @ part) / w
        ok = ~np.isnan(x.values)
        v, c = x.values[ok], codes[ok]
        wt = np.ones(len(v)) if x.weights is None else x.weights[ok]
        o = np.argsort(v, kind="stable")
        v, c, wt = v[o], c[o], wt[o]

        def f(d):
            w = wt * d[c]
            if figure.statistic == "mean":
                return float(np.average(v, weights=w))
            if figure.statistic == "max":
                return float(v[-1])
            u = np.cumsum(w)
            return float(v[min(np.searchsorted(u, figure.quantile * u[-1]), len(v) - 1)])

        return f

    if paired:
        fa, fb = prep(a, union), prep(b, union)
        na = nb = len(union)
    else:
        fa, fb = prep(a, ia), prep(b, ib)
        na, nb = len(ia), len(ib)
    one = fa(np.ones(na)), fb(np.ones(nb))
    for _ in range(R):
        da = np.bincount(rng.integers(na, size=na), minlength=na).astype(float)
        db = da if paired else np.bincount(rng.integers(nb, size=nb), minlength=nb).astype(float)
        out.append((fa(da), fb(db)))
    A, B = np.array(out).T
    with np.errstate(all="ignore"):
        r = B / A
    q = [(1 - level) / 2, (1 + level) / 2]
    dl, dh = np.nanquantile(B - A, q)
    p = min(1.0, 2 * min((np.sum(B - A <= 0) + 1) / (R + 1), (np.sum(B - A >= 0) + 1) / (R + 1)))
    if one[0] > 0 and np.isfinite(r).all():
        rl, rh = np.quantile(r, q)
        return Difference(
            name,
            *one,
            one[1] / one[0],
            float(rl),
            float(rh),
            one[1] - one[0],
            float(dl),
            float(dh),
            float(p),
            level,
            na,
        )
    return Difference(name, *one, None, None, None, one[1] - one[0], float(dl), float(dh), float(p), level, na)
