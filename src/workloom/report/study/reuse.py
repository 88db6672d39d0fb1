"""Reuse: what caches without limits would hit, and how large and how patient a real one has to be."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.answers.reuse import ReuseCurves
from workloom.model.curves import KNEES
from workloom.report.page import Section
from workloom.report.study import curves
from workloom.report.study.parts import NOT_KNOWN, Measure, Row, compare, spread, tidy
from workloom.report.study.words import Found, lead, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

TITLE = "Reuse"

GAIN = 0.0005
"""Of all prompt tokens: less than that is nothing to speak of."""
UNITS = ("", ", tokens")
MOST_ROLES = 12
"""Roles and models that the table of KV pressure lists of each trace."""


def section(found: Found) -> Section:
    """How much is reused, and what that takes."""
    return Section(
        "reuse",
        TITLE,
        lead(answer(found), _origin(found), _overlap(found), _patience(found), _tools_told(found)),
        (key(found), *_capacities(found), *_tools(found)),
        curves.figures(found),
    )


def answer(found: Found) -> str:
    """The ideal hit rate, and the capacity that comes close to it."""
    rate = side(found, lambda c: c.reuse.ideal.across_users, "share")
    most = side(found, lambda c: knee(c.reuse.capacity, 0.9), "tokens", "token")
    plan = curves.conditions([c.reuse.capacity for c in found])
    return lead(
        say("Of all prompt tokens, a cache that never forgets would hold ", rate, "."),
        say(f"With {plan}, LRU has 90% of these hits with room for ", most, "."),
    )


def knee(reuse: ReuseCurves, share: float) -> int | None:
    """The least capacity, in tokens, at which LRU has that share of the hits of an infinite cache."""
    return next((knee.capacity_tokens for knee in reuse.curve.knees if knee.share == share), None)


def shortest_s(reuse: ReuseCurves, share: float) -> float | None:
    """The shortest time to live that was tried with that share of the hits of an infinite cache."""
    kept, goal = reuse.retention, share * reuse.curve.reachable_hit_rate
    if goal <= 0:
        return None
    return next((s for s, rate in zip(kept.keep_s, kept.hit_rate, strict=True) if s is not None and rate >= goal), None)


def _origin(found: Found) -> str:
    """What comes from beyond the session."""

    def beyond(c: Characterization) -> float | None:
        ideal = c.reuse.ideal
        return None if ideal.across_users is None else ideal.across_users - (ideal.within_session or 0.0)

    if not any(c.reuse.ideal.across_users for c in found):
        return ""
    gains = [gain for c in found if (gain := beyond(c)) is not None]
    if gains and max(gains) < GAIN:
        return "Nothing of that comes from beyond the session itself."
    return say("Of all prompt tokens, other sessions contribute ", side(found, beyond, "share"), ".")


def _overlap(found: Found) -> str:
    median = side(found, lambda c: c.context.overlap.inherited.p50, "share")
    return say("Of their prompts, half of the calls that go on from another inherit at least ", median, ".")


def _patience(found: Found) -> str:
    half = side(found, lambda c: c.reuse.patience.idle_s.p50, "s")
    keep = side(found, lambda c: shortest_s(c.reuse.patience, 0.9), "s")
    return say(
        *("With waits as recorded, half of the reused tokens are used again within ", half),
        *("; to keep KV after its last use for ", keep, " is enough for 90% of the hits."),
    )


def _tools_told(found: Found) -> str:
    if all(c.reuse.tool_results is None for c in found):
        what = "Whether tools give the same results again is not known: no texts were kept"
        return f"{what} (`workloom import --keep-text` keeps them)."
    share = side(found, repeated, "share")
    return say("Of the tokens of tool results, those that repeat an earlier result to the letter are ", share, ".")


def repeated(c: Characterization) -> float | None:
    """Tokens of results that were told before / tokens of all results."""
    tools = c.reuse.tool_results
    return tools.repeated_tokens / tools.result_tokens if tools is not None and tools.result_tokens else None


def key(found: Found) -> Table:
    """Reuse in short."""
    rows = [
        Row("ideal hit rate, within the session", lambda c: c.reuse.ideal.within_session, "share"),
        Row("... and the user's other sessions", lambda c: c.reuse.ideal.across_sessions, "share"),
        Row("... and everybody's", lambda c: c.reuse.ideal.across_users, "share"),
        Row("... of prompts alone, without answers", lambda c: c.reuse.ideal.prompts_only, "share"),
        Row("LRU tokens for 50% of the hits", lambda c: knee(c.reuse.capacity, 0.5), "tokens"),
        Row("LRU tokens for 90%", lambda c: knee(c.reuse.capacity, 0.9), "tokens"),
        Row("LRU tokens for 99%", lambda c: knee(c.reuse.capacity, 0.99), "tokens"),
        Row("idle time of reused tokens, p50", lambda c: c.reuse.patience.idle_s.p50, "s"),
        Row("KV kept for, for 90% of the hits", lambda c: shortest_s(c.reuse.patience, 0.9), "s"),
        Row("tokens of a block", lambda c: c.block_tokens, "tokens"),
    ]
    return compare("Ideal hit rates, and what it takes to have them", found, rows)


def _capacities(found: Found) -> tuple[Table, ...]:
    columns = [
        *(Column("block"), Column("reachable", "share"), Column("distinct tokens")),
        *(Column(f"LRU, {share:.0%} of it") for share in KNEES),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        told = c.reuse.capacity
        knees = (knee(told, share) for share in KNEES)
        yield (told.block_tokens, told.curve.reachable_hit_rate, told.curve.distinct_tokens, *knees)

    note = (
        "Tokens of KV. Reachable: the hit rate of an infinite cache, in full blocks, in the call order of the plan; "
        "one cache serves all models. Distinct: all that it would hold in the end. LRU: the least capacity with that "
        "share of the reachable hits. A capacity is what lasts from one call to the next: what calls under way need "
        f"besides is not counted. The plan: {curves.conditions([c.reuse.capacity for c in found])}."
    )
    return tidy("Capacity", found, columns, rows, note)


def numbers(found: Found) -> tuple[Table, ...]:
    """Distributions, and who presses on the cache."""
    return (*_overlaps(found), *_pressure(found))


def _overlaps(found: Found) -> tuple[Table, ...]:
    overlaps = [
        Measure("inherited / prompt", lambda c: c.context.overlap.inherited),
        Measure("kept of the prompt before", lambda c: c.context.overlap.kept),
    ]
    idle = [Measure("idle time of reused tokens", lambda c: c.reuse.patience.idle_s)]
    about = "Of calls that go on from another: the one they inherit from, else the agent's call before."
    plan = curves.conditions([c.reuse.patience for c in found])
    return (
        *spread("Prefix overlap of consecutive calls", found, overlaps, "share", note=about),
        *spread("Idle times", found, idle, "s", note=f"From the end of a token's use to its next use; {plan}."),
    )


def _pressure(found: Found) -> tuple[Table, ...]:
    columns = [
        *(Column("role", align="left"), Column("model", align="left"), Column("calls")),
        *(Column("share of KV", "share"), Column("busy, token-seconds"), Column("idle, token-seconds")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        every = c.reuse.patience.pressure
        whole = sum(p.busy_token_s + p.idle_token_s for p in every) or 1.0
        for p in every[:MOST_ROLES]:
            share = (p.busy_token_s + p.idle_token_s) / whole
            yield p.role, p.model or curves.UNNAMED, p.calls, share, round(p.busy_token_s), round(p.idle_token_s)

    plan = curves.conditions([c.reuse.patience for c in found])
    note = (
        "Busy: prompt and answer tokens times the seconds of the call, shared or not. Idle: tokens that are used "
        f"again, times the seconds until then. {plan}. At most {MOST_ROLES} a trace."
    )
    return tidy("Who presses on the KV cache", found, columns, rows, note)


def _tools(found: Found) -> tuple[Table, ...]:
    names = [f"{what}{unit}" for what in ("results", "repeated", "repeated in the session", "resent") for unit in UNITS]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        t = c.reuse.tool_results
        if t is None:
            yield (NOT_KNOWN,) * len(names)
            return
        yield (
            *(t.results, t.result_tokens, t.repeated, t.repeated_tokens),
            *(t.repeated_in_session, t.repeated_in_session_tokens, t.resent, t.resent_tokens),
        )

    if all(c.reuse.tool_results is None for c in found):
        return ()
    note = (
        "Repeated: says what an earlier result of the same tool said, to the letter. Resent: history told again behind "
        "a compaction or an edit, in none of the other counts. Known only where texts were kept."
    )
    return tidy("Results of tools", found, [Column(name) for name in names], rows, note)
