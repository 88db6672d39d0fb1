"""The charts of reuse: hit rates against capacity and time, prefix overlap, KV pressure."""

from __future__ import annotations

from workloom.answers.characterize import Characterization
from workloom.answers.reuse import ReuseCurves
from workloom.model.distribution import SHARES, Distribution
from workloom.report.figure import Axis, Figure, Series
from workloom.report.study.parts import Figures, Row, cdf, few, grouped, worth
from workloom.report.study.words import Found, listed, said, side

HIT_RATE = Axis("hit rate, of all prompt tokens", "share")
CAPACITY = Axis("KV capacity", "tokens", log=True)
KEPT = Axis("KV is kept for", "s", log=True)
MODELS = 8
"""Roles and models that a chart of KV pressure shows."""
UNNAMED = "(not named)"


def figures(found: Found) -> Figures:
    """All of them, in the order of the section."""
    return (
        *_ideals(found),
        *_overlap(found),
        *(_capacity_of_one(found[0]) if len(found) == 1 else _capacity_of_several(found)),
        *_retention(found),
        *_idle(found),
        *(figure for place, c in enumerate(found) for figure in _pressure(c, place, len(found) > 1)),
    )


def waits(told: ReuseCurves) -> str:
    """How the waits of a plan were taken."""
    return "waits as recorded" if told.wait_cap_s is None else f"waits of at most {told.wait_cap_s:g} s"


def conditions(every: list[ReuseCurves]) -> str:
    """The plans that curves are about, in words: each once."""
    return "; ".join(dict.fromkeys(f"{told.load}, {waits(told)}" for told in every))


def _ideals(found: Found) -> Figures:
    rows = [
        Row("within the session", lambda c: c.reuse.ideal.within_session),
        Row("and the user's others", lambda c: c.reuse.ideal.across_sessions),
        Row("and everybody's", lambda c: c.reuse.ideal.across_users),
        Row("prompts only, everybody's", lambda c: c.reuse.ideal.prompts_only),
    ]
    rate = side(found, lambda c: c.reuse.ideal.prompts_only, "share")
    return grouped(
        "ideal",
        "Ideal hit rate",
        found,
        Axis("what the cache knows"),
        HIT_RATE,
        rows,
        question="Where does reuse come from?",
        note=f"Caches that keep prompts and answers for ever. Without answers: {rate}.",
    )


def _overlap(found: Found) -> Figures:
    """Overlaps lie close to 1, so the chart shows what is left of 1. (SHARES are the same from both ends.)"""

    def rest(c: Characterization) -> Distribution:
        return c.context.overlap.inherited

    if not any(worth(rest(c)) for c in found):
        return ()
    series = tuple(
        Series(c.label, tuple(1 - share for share in reversed(d.quantiles)), SHARES)
        if (d := rest(c)).n and not few(d)
        else Series(c.label)
        for c in found
    )
    median = side(found, lambda c: None if (p50 := rest(c).p50) is None else 1 - p50, "share")
    note = f"Not inherited of the median prompt: {median}. Prompts that are all inherited count at the left edge."
    x, y = (
        Axis("1 - prefix overlap: what of a prompt is not inherited", "share", log=True),
        Axis("share of calls", "share"),
    )
    what = "How much of the next prompt is new?"
    return (Figure("overlap", "Prefix overlap of consecutive calls", "cdf", x, y, series, note, what),)


def _capacity_of_one(c: Characterization) -> Figures:
    told = c.reuse.capacity
    if not told.curve.capacity_tokens:
        return ()
    best = Series("best possible", _floats(told.curve.capacity_tokens), told.curve.optimal_hit_rate)
    marks = listed([f"{said(knee.capacity_tokens, 'tokens')} ({knee.share:.0%})" for knee in told.curve.knees])
    note = (
        f"An infinite cache hits {said(told.curve.reachable_hit_rate, 'share')}. Tokens with which LRU has so much of "
        f"that: {marks}. Best possible: a policy that knows the future. {conditions([told])}; blocks of "
        f"{told.block_tokens} tokens."
    )
    return _capacity(
        "capacity", "Hit rate against KV capacity", (_line(c, told.curve.lru_hit_rate, "LRU"), best, _knees(told)), note
    )


def _capacity_of_several(found: Found) -> Figures:
    if not any(c.reuse.capacity.curve.capacity_tokens for c in found):
        return ()
    plan = conditions([c.reuse.capacity for c in found])
    lru = tuple(_line(c, c.reuse.capacity.curve.lru_hit_rate) for c in found)
    best = tuple(_line(c, c.reuse.capacity.curve.optimal_hit_rate) for c in found)
    note = f"Capacities for 50 to 99% of the hits are in the table. {plan}."
    most = f"A policy that knows the future: no cache of that size hits more. {plan}."
    return (
        *_capacity("capacity", "Hit rate against KV capacity, LRU", lru, note),
        *_capacity("optimum", "Hit rate against KV capacity, best possible", best, most),
    )


def _capacity(key: str, title: str, series: tuple[Series, ...], note: str) -> Figures:
    what = "How large must the cache be?"
    return (Figure(key, title, "line", CAPACITY, HIT_RATE, series, note, what),)


def _line(c: Characterization, rates: tuple[float, ...], name: str = "") -> Series:
    return Series(name or c.label, _floats(c.reuse.capacity.curve.capacity_tokens), rates)


def _floats(values: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _knees(told: ReuseCurves) -> Series:
    """The knees of the LRU line, each by itself: a gap stands between two."""
    at = [float(knee.capacity_tokens) for knee in told.curve.knees for _ in range(2)][:-1]
    rates = [rate for knee in told.curve.knees for rate in (knee.share * told.curve.reachable_hit_rate, None)][:-1]
    names = ", ".join(f"{100 * knee.share:.0f}" for knee in told.curve.knees)
    return Series(f"{names}% of all hits", tuple(at), tuple(rates))


def _retention(found: Found) -> Figures:
    some = [c for c in found if c.reuse.patience.curve.reachable_hit_rate]
    if not some:
        return ()

    def line(c: Characterization, values: tuple[float, ...]) -> Series:
        kept = [(s, value) for s, value in zip(c.reuse.patience.retention.keep_s, values, strict=True) if s is not None]
        return Series(c.label, tuple(float(s) for s, _ in kept), tuple(value for _, value in kept))

    plan = conditions([c.reuse.patience for c in found])
    ever = side(found, lambda c: c.reuse.patience.retention.hit_rate[-1], "share")
    held = side(found, lambda c: c.reuse.patience.retention.mean_idle_tokens[-1], "tokens", "token")
    rates = tuple(line(c, c.reuse.patience.retention.hit_rate) for c in found)
    tokens = tuple(line(c, c.reuse.patience.retention.mean_idle_tokens) for c in found)
    resident = Axis("idle tokens held, mean over the plan", "tokens", log=True)
    return (
        Figure(
            "retention",
            "Hit rate against how long KV is kept",
            "line",
            KEPT,
            HIT_RATE,
            rates,
            f"KV is dropped so long after the last call that used it. Kept for ever: {ever}. {plan}.",
            "How patient must the cache be?",
        ),
        Figure(
            "resident",
            "What it costs to keep KV so long",
            "line",
            KEPT,
            resident,
            tokens,
            f"Tokens that are kept while no call uses them. Kept for ever: {held}. {plan}.",
            "How much memory does patience take?",
        ),
    )


def _idle(found: Found) -> Figures:
    def idle_s(c: Characterization) -> Distribution:
        return c.reuse.patience.idle_s

    plan = conditions([c.reuse.patience for c in found])
    return cdf(
        "idle",
        "Idle time of reused tokens",
        Axis("from the end of a use to the next", "s", log=True),
        found,
        idle_s,
        share="reused tokens",
        question="When is KV used again?",
        note=f"{plan}.",
    )


def _pressure(c: Characterization, place: int, several: bool) -> Figures:
    """Who presses on the cache, where it is more than one."""
    every = c.reuse.patience.pressure
    whole = sum(p.busy_token_s + p.idle_token_s for p in every)
    if len(every) < 2 or whole <= 0:
        return ()
    shown = every[:MODELS]
    models = {p.model for p in every}
    names = tuple(f"{p.role}, {p.model or UNNAMED}" if len(models) > 1 else p.role for p in shown)
    series = (
        Series("in use", names, tuple(p.busy_token_s / whole for p in shown)),
        Series("idle until its next use", names, tuple(p.idle_token_s / whole for p in shown)),
    )
    title = f"KV pressure by role and model{f': {c.label}' if several else ''}"
    rest = f" The first {MODELS} of {len(every)}." if len(every) > MODELS else ""
    note = f"Tokens times seconds, as shares of all. {conditions([c.reuse.patience])}.{rest}"
    x, y = Axis("role and model" if len(models) > 1 else "role"), Axis("share of token-seconds", "share")
    what = "Whose KV fills the cache?"
    return (Figure(f"pressure-{place}", title, "bar", x, y, series, note, what, wide=len(shown) > 4),)
