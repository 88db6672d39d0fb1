"""Which calls moved: each call of one run against the very same call of the other.

A call's own ratio says more than a ratio of percentiles: both have the same prompt and the same place in the session.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workloom.answers.compare.pairing import Rows, common
from workloom.answers.compare.sides import APART, Side
from workloom.metrics import calls as per_call
from workloom.metrics.frame import Bools, Calls
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.records import CallRecord
from workloom.store import Run, open_run

LEAST = 10
"""Sessions from which on a median over calls has an interval."""
FIGURES: dict[str, Callable[[Calls], Floats]] = {"ttft": per_call.ttft_s, "e2e": per_call.e2e_s}


class Moved(Struct, frozen=True):
    """Calls of one kind (`of`: all, role=..., model=...), b against a. Ratios are of calls that went well in both."""

    of: str
    figure: str
    calls: int
    sessions: int
    ratio_p50: float
    """Median of the ratio of each call."""
    low: float | None
    high: float | None
    """Its interval, from the spread between sessions; None of too few."""
    slower_share: float
    """Calls that took longer by more than the margin."""
    faster_share: float
    total_s: float
    """Seconds that all of them took longer in b, summed."""


class Mover(Struct, frozen=True):
    """One call that moved far. `session`, `call`: empty where the run has no tables to look them up in."""

    run: int
    instance: int
    ordinal: int
    role: str
    a_s: float
    b_s: float
    session: str = ""
    call: str = ""


class Movers(Struct, frozen=True):
    """`went_wrong`: well in a, failed in b; `went_well`: the other way round."""

    calls: int
    went_wrong: int
    went_well: int
    moved: list[Moved]
    """All calls first, then those of a kind that cost or saved the most seconds."""
    most: list[Mover]
    """The calls whose E2E moved by the most seconds."""


def movers(a: Side, b: Side, *, same: float, level: float, most: int = 10) -> Movers:
    """The calls of two paired sides."""
    rows = [common(x, y) for x, y in zip(a.runs, b.runs, strict=True)]
    parts = list(zip(a.runs, b.runs, rows, strict=True))
    wrong = sum(int(np.count_nonzero(~x.calls.failed[r.a] & y.calls.failed[r.b])) for x, y, r in parts)
    well = sum(int(np.count_nonzero(x.calls.failed[r.a] & ~y.calls.failed[r.b])) for x, y, r in parts)
    found: list[Moved] = []
    for figure, function in FIGURES.items():
        one = np.concatenate([function(x.calls)[r.a] for x, _, r in parts])
        other = np.concatenate([function(y.calls)[r.b] for _, y, r in parts])
        session = np.concatenate([x.calls.instance[r.a] + i * APART for i, (x, _, r) in enumerate(parts)])
        kinds = _kinds(parts)
        there = np.isfinite(one) & np.isfinite(other) & (one > 0) & (other > 0)
        groups = [("all", there), *((of, there & mine) for of, mine in kinds)]
        said = [_moved(of, figure, one[m], other[m], session[m], same, level) for of, m in groups if m.any()]
        found += said[:1] + sorted(said[1:], key=lambda moved: -abs(moved.total_s))
    calls = sum(len(r.a) for r in rows)
    return Movers(calls, wrong, well, found, _most(a, parts, most))


def median_by_sessions(
    values: Floats, session: Floats, level: float = 0.95
) -> tuple[float, float | None, float | None]:
    """The median with an interval that knows that values of one session hang together (Woodruff 1952).

    The share of values below the median has a standard error from the sums of each session; the interval is from the
    quantile so much below one half to that so much above. Of fewer than LEAST sessions it is withheld.
    """
    from scipy import stats

    ordered = np.sort(values)
    median = float(np.median(values))
    sessions, codes = np.unique(session, return_inverse=True)
    n = len(sessions)
    if n < LEAST:
        return median, None, None
    sums = np.bincount(codes, (values <= median) - 0.5, n)
    error = math.sqrt(n / (n - 1) * float(np.sum((sums - sums.mean()) ** 2))) / len(values)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    low, high = np.quantile(ordered, np.clip([0.5 - half, 0.5 + half], 0.0, 1.0))
    return median, float(low), float(high)


Parts = list[tuple[Measured, Measured, Rows]]


def _kinds(parts: Parts) -> Iterator[tuple[str, Bools]]:
    """Each role and each model with the calls that are of it, where there are several."""
    for key in ("role", "model"):
        words = np.concatenate([_words(x, key)[r.a] for x, _, r in parts])
        names = sorted(set(words.tolist()))
        if len(names) > 1:
            yield from ((f"{key}={name}", words == name) for name in names)


def _words(run: Measured, key: str) -> NDArray[np.object_]:
    column = run.role if key == "role" else run.model
    words: NDArray[np.object_] = np.array(column.words, dtype=object)[column.codes]
    return words


def _moved(of: str, figure: str, one: Floats, other: Floats, session: Floats, same: float, level: float) -> Moved:
    ratio = other / one
    median, low, high = median_by_sessions(np.log(ratio), session, level)
    return Moved(
        of,
        figure,
        len(one),
        len(np.unique(session)),
        math.exp(median),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
        float(np.mean(ratio > 1 + same)),
        float(np.mean(ratio < 1 / (1 + same))),
        float(np.sum(other - one)),
    )


def _most(a: Side, parts: Parts, most: int) -> list[Mover]:
    found: list[Mover] = []
    for i, (x, y, rows) in enumerate(parts):
        one, other = per_call.e2e_s(x.calls)[rows.a], per_call.e2e_s(y.calls)[rows.b]
        with np.errstate(invalid="ignore"):
            far = np.nan_to_num(np.abs(other - one), nan=-1.0, posinf=-1.0)
        role = x.role
        for at in np.argsort(-far, kind="stable")[:most].tolist():
            if far[at] > 0:
                row = rows.a[at]
                where = int(x.calls.instance[row]), int(x.calls.ordinal[row])
                found.append(Mover(i, *where, role.words[role.codes[row]], float(one[at]), float(other[at])))
    found.sort(key=lambda mover: (-abs(mover.b_s - mover.a_s), mover.run, mover.instance, mover.ordinal))
    return _with_names(a, found[:most])


def _with_names(side: Side, found: list[Mover]) -> list[Mover]:
    """The movers with the ids of their session and call."""
    names: dict[tuple[int, int, int], tuple[str, str]] = {}
    for i in sorted({mover.run for mover in found}):
        path = side.path(i)
        if path is not None:
            wanted = {(mover.instance, mover.ordinal) for mover in found if mover.run == i}
            names |= {(i, *key): said for key, said in _ids(open_run(path), wanted)}
    return [
        Mover(m.run, m.instance, m.ordinal, m.role, m.a_s, m.b_s, *names.get((m.run, m.instance, m.ordinal), ("", "")))
        for m in found
    ]


def _ids(run: Run, wanted: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], tuple[str, str]]]:
    instances = np.array(sorted({instance for instance, _ in wanted}))
    for batch in run.batches(CallRecord, ["instance", "ordinal", "session", "call", "phase"]):
        rows = np.flatnonzero(np.isin(batch.column("instance").to_numpy(), instances))
        for row in batch.take(rows).to_pylist():
            key = (row["instance"], row["ordinal"])
            if key in wanted and row.get("phase", "run") == "run":
                yield key, (row["session"], row["call"])
