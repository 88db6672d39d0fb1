"""Instability: events that bend or break the course of sessions, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from workloom.answers.characterize import Characterization
from workloom.model.instability import Events, Instability
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import NOT_KNOWN, Figures, Row, compare, grouped, tidy
from workloom.report.study.words import Found, each, lead, listed, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

TITLE = "Instability"


class Kind(NamedTuple):
    """A kind of event: what it is called, and the rule it is counted by."""

    name: str
    rule: str


KINDS = {
    "compactions": Kind(
        "compactions",
        "A prompt that is shorter than the one before it and carries a summary, or has at most half of its tokens.",
    ),
    "context_resets": Kind(
        "context resets",
        "A prompt that keeps less than half of the tokens of the one before it, without being that much shorter.",
    ),
    "history_edits": Kind("history edits", "A prompt that keeps half or more of the one before it, but not all."),
    "retries": Kind("retries", "A call that sends a prompt again, after the first attempt had ended."),
    "failures": Kind("failures", "A call that ended in an error."),
    "aborts": Kind("aborts", "A call whose client hung up."),
    "self_corrections_at_most": Kind(
        "self-corrections, at most",
        "A call that brings results of the same one tool as the call before it. That is an upper bound: a trace does "
        "not tell whether the first result was bad.",
    ),
    "human_corrections": Kind("human corrections", "A human message behind an aborted call."),
    "replans_by_user": Kind(
        "replans by the user", "A human message while a subagent runs that no call of its agent had waited for."
    ),
    "replans_by_rewind": Kind(
        "replans by rewind",
        "A prompt that goes back to an earlier context of its agent, or a call that goes on from one whose "
        "continuation had been answered before.",
    ),
    "abandoned_branches": Kind(
        "abandoned branches",
        "A branch that ends in a call nobody waits for or inherits from, while its agent begins other calls later.",
    ),
}
"""By their names in Instability. See :mod:`workloom.model.events` for the rules to the letter."""
BOUND = "self_corrections_at_most"


def section(found: Found) -> Section:
    """How stable sessions are."""
    return Section(
        "instability",
        TITLE,
        lead(answer(found), _bound(found), _unknown(found)),
        (_with_rules(key(found)), *_reasons(found)),
        (*_rates(found), *_recomputed(found)),
    )


def events(told: Instability, field: str) -> Events:
    """The events of one kind."""
    found = getattr(told, field)
    assert isinstance(found, Events)
    return found


def answer(found: Found) -> str:
    """What happens most, and how much prefill is spent twice."""
    if len(found) == 1:
        return lead(_most_of_one(found[0]), _prefill(found))
    return lead(say("Events per 1,000 calls: ", each(found, _most), "."), _prefill(found))


def _ranked(c: Characterization) -> list[tuple[float, str]]:
    rates = [(events(c.instability, field).per_1000_calls or 0.0, field) for field in KINDS if field != BOUND]
    return sorted(((rate, KINDS[field].name) for rate, field in rates if rate), key=lambda pair: -pair[0])


def _most(c: Characterization) -> str:
    ranked = _ranked(c)
    return listed([f"{said(rate)} {name}" for rate, name in ranked[:2]]) or "none of a known kind"


def _most_of_one(c: Characterization) -> str:
    ranked = [f"{said(rate)} {name}" for rate, name in _ranked(c)]
    if not ranked:
        return "No event of a known kind is seen."
    return say("Every 1,000 calls see ", listed(ranked[:4]), ".")


def _prefill(found: Found) -> str:
    share = side(found, recomputed_share, "share")
    if not any(map(recomputed_share, found)):
        return say("None" if share else "", " of the prefill that no cache can save is work done before.")
    if len(found) == 1:
        return say(share, " of the prefill that no cache can save is work done before.")
    return say("Prefill that no cache can save, but is work done before: ", share, ".")


def _bound(found: Found) -> str:
    rate = side(found, lambda c: events(c.instability, BOUND).calls_share, "share")
    return say("Calls that use the same tool once more, an upper bound of self-correction: ", rate, ".")


def _unknown(found: Found) -> str:
    if len(found) > 1:
        missing = any(c.instability.not_known for c in found)
        return "What a trace does not tell is marked as not known, with the reason." if missing else ""
    names = [KINDS[field].name.removesuffix(", at most") for field in found[0].instability.not_known]
    return say("Not known: ", listed(names), ".")


def key(found: Found) -> Table:
    """How often each event is."""

    def row(field: str) -> Row:
        def value(c: Characterization) -> Cell:
            return NOT_KNOWN if field in c.instability.not_known else events(c.instability, field).per_1000_calls

        return Row(KINDS[field].name, value)

    rows = [row(field) for field in KINDS]
    rows.append(Row("prefill that is recomputation, %", _per_cent))
    return compare("Events per 1,000 calls", found, rows)


def _per_cent(c: Characterization) -> Cell:
    share = recomputed_share(c)
    return NOT_KNOWN if share is None else 100 * share


def recomputed_share(c: Characterization) -> float | None:
    """Of the prefill that no cache saves; not known where prompts have no told history."""
    return None if "compactions" in c.instability.not_known else c.instability.recomputed_share


def _with_rules(table: Table) -> Table:
    """The table with the rule of every event behind its numbers."""
    rules = [kind.rule for kind in KINDS.values()]
    rules += ["Tokens recomputed / prompt tokens that an infinite cache does not hold."] * (
        len(table.rows) - len(rules)
    )
    rows = tuple((*row, rule) for row, rule in zip(table.rows, rules, strict=True))
    return Table(table.title, (*table.columns, Column("rule", align="left")), rows, table.note)


def numbers(found: Found) -> tuple[Table, ...]:
    """Events with their costs."""
    columns = [
        *(Column("event", align="left"), Column("count"), Column("per 1,000 calls"), Column("calls", "share")),
        *(Column("sessions"), Column("of all", "share"), Column("tokens recomputed"), Column("p50 of an event")),
        *(Column("tokens lost"), Column("p50 of an event")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for field, kind in KINDS.items():
            e = events(c.instability, field)
            if e.count:
                where = (e.count, e.per_1000_calls, e.calls_share, e.sessions, e.sessions_share)
                costs = (e.tokens_recomputed, e.tokens_recomputed_p50, e.tokens_lost, e.tokens_lost_p50)
                yield (kind.name, *where, *costs)

    note = (
        "Recomputed: prompt tokens that stand where the history had held tokens, or repeat a prompt; they can be added "
        "up over the kinds. Lost: tokens that had been computed and that nothing behind the event uses; they cannot. "
        "Both are what even an infinite cache would not save. Kinds without an event are left out."
    )
    return tidy("Events and their costs", found, columns, rows, note)


def _reasons(found: Found) -> tuple[Table, ...]:
    """Each once, with the traces it holds for."""
    traces: dict[tuple[str, str], list[str]] = {}
    for c in found:
        for field, reason in c.instability.not_known.items():
            traces.setdefault((KINDS[field].name, reason), []).append(c.label)
    if not traces:
        return ()
    columns = (Column("event", align="left"), Column("why it is not known", align="left"))
    if len(found) == 1:
        return (Table("Not known", columns, tuple(traces)),)
    rows = tuple((*why, listed(labels)) for why, labels in traces.items())
    return (Table("Not known", (*columns, Column("in", align="left")), rows),)


def _rates(found: Found) -> Figures:
    def row(field: str) -> Row:
        return Row(KINDS[field].name, lambda c: events(c.instability, field).per_1000_calls)

    return grouped(
        "events",
        "Events per 1,000 calls",
        found,
        Axis("event"),
        Axis("events per 1,000 calls"),
        [row(field) for field in KINDS if field != BOUND],
        question="What breaks the course of a session?",
        note="Kinds that no trace shows are left out, and so is the upper bound of self-correction. The table says "
        "what is 0 and what is not known.",
    )


def _recomputed(found: Found) -> Figures:
    """Of the prefill that no cache saves, what each kind makes."""
    kinds = [field for field in KINDS if any(events(c.instability, field).tokens_recomputed for c in found)]
    shown = [c for c in found if recomputed_share(c)]
    if not kinds or not shown:
        return ()
    names = tuple(c.label for c in shown)

    def share(c: Characterization, field: str) -> float:
        return (events(c.instability, field).tokens_recomputed or 0) / c.instability.computed_tokens

    series = tuple(Series(KINDS[field].name, names, tuple(share(c, field) for c in shown)) for field in kinds)
    y = Axis("share of the prefill that no cache saves", "share")
    note = "Prompt tokens computed once more, of all that an infinite cache of prompts and answers does not hold."
    what = "How much prefill is work done before?"
    wide = len(found) > 2
    return (Figure("recomputed", "Recomputation", "stack", Axis("trace"), y, series, note, what, wide=wide),)
