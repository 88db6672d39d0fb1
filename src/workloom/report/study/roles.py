"""Roles and models: who does the work, who is waited for, who costs, and how steady that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from workloom.answers.characterize import Characterization
from workloom.model.roles import MEASURES, Amount, Leader, Leaders, Role
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.curves import UNNAMED
from workloom.report.study.parts import Figures, Row, compare, tidy
from workloom.report.study.words import Found, each, lead, listed, said, say
from workloom.report.table import Column, Table
from workloom.report.units import Cell

TITLE = "Roles and models"

MEASURE_NAMES = {
    "calls": "calls",
    "prompt_tokens": "prompt tokens",
    "computed_tokens": "computed tokens",
    "output_tokens": "output tokens",
    "inference_s": "inference time",
    "critical_s": "critical path",
    "kv_token_s": "KV",
    "cost": "cost",
}
"""By their names in :data:`workloom.model.roles.MEASURES`."""
SHOWN = 7
"""Roles or models in a chart; the others are one."""
LISTED = 12
"""Roles or models of a trace in a table."""
Members = Callable[[Characterization], Sequence[Role]]


def section(found: Found) -> Section:
    """Who does the work."""
    return Section(
        "roles",
        TITLE,
        lead(answer(found), *((_models_told(found), _steady(found)) if len(found) == 1 else ()), _prices(found)),
        (key(found), *_shares_told(found, "role", roles), *_shares_told(found, "model", models)),
        (*_figures(found, "role", roles), *_figures(found, "model", models)),
    )


def roles(c: Characterization) -> Sequence[Role]:
    """Its roles, those with most calls first."""
    return c.roles.roles


def models(c: Characterization) -> Sequence[Role]:
    """Its models, those with most calls first."""
    return c.roles.models


def amount(role: Role, measure: str) -> Amount:
    """What a role has of one of MEASURES."""
    found = getattr(role, measure)
    assert isinstance(found, Amount)
    return found


def answer(found: Found) -> str:
    """Who leads latency, cost and KV, by role."""

    def told(c: Characterization) -> str:
        if len(c.roles.roles) == 1:
            only = c.roles.roles[0].name
            return f"one role, {only}"
        return leading(c.roles.leading_roles)

    return say("By role: ", each(found, told), ".")


def leading(leaders: Leaders) -> str:
    """Who leads in what; one who leads everything is named once."""
    told = [("latency", leaders.latency), ("cost", leaders.cost), ("KV", leaders.kv)]
    known = [(what, leader) for what, leader in told if leader is not None]
    names = list(dict.fromkeys(leader.name for _, leader in known))

    def mine(name: str) -> str:
        parts = [f"{what} ({said(leader.share, 'share')})" for what, leader in known if leader.name == name]
        return f"{name or UNNAMED} leads {listed(parts)}"

    return listed([mine(name) for name in names])


def _models_told(found: Found) -> str:
    def told(c: Characterization) -> str:
        if len(c.roles.models) > 1:
            return leading(c.roles.leading_models)
        only = c.roles.models[0].name
        return f"one model, {only}" if only else "no model is named"

    return say("By model: ", each(found, told), ".")


def _steady(found: Found) -> str:
    """How much the share of the role with most calls differs from session to session."""

    def told(c: Characterization) -> str:
        first = c.roles.roles[0]
        if len(c.roles.roles) < 2 or first.calls.share_cv is None or first.calls.share_mean is None:
            return ""
        mean, cv = said(first.calls.share_mean, "share"), said(first.calls.share_cv)
        return f"{first.name} makes {mean} of a session's calls on average (cv {cv})"

    return say("Over sessions: ", each(found, told), ".")


def _prices(found: Found) -> str:
    prices = found[0].roles.prices
    computed, cached, output = said(prices.computed), said(prices.cached), said(prices.output)
    return (
        f"Cost is an assumption: {computed} for a computed prompt token, {cached} for a cached one, {output} for a "
        "token of output."
    )


def key(found: Found) -> Table:
    """Who leads in what."""

    def leader(pick: Callable[[Characterization], Leader | None]) -> Callable[[Characterization], Cell]:
        def value(c: Characterization) -> Cell:
            told = pick(c)
            return None if told is None else f"{told.name or UNNAMED} {said(told.share, 'share')}"

        return value

    rows = [
        Row("roles", lambda c: len(c.roles.roles)),
        Row("leads latency", leader(lambda c: c.roles.leading_roles.latency)),
        Row("leads cost", leader(lambda c: c.roles.leading_roles.cost)),
        Row("leads KV", leader(lambda c: c.roles.leading_roles.kv)),
        Row("models", lambda c: len(c.roles.models)),
        Row("model that leads latency", leader(lambda c: c.roles.leading_models.latency)),
        Row("model that leads cost", leader(lambda c: c.roles.leading_models.cost)),
        Row("model that leads KV", leader(lambda c: c.roles.leading_models.kv)),
    ]
    return compare("Who leads", found, rows)


def numbers(found: Found) -> tuple[Table, ...]:
    """Totals."""
    return (*_totals(found, "role", roles), *_totals(found, "model", models))


def _shares_told(found: Found, what: str, members: Members) -> tuple[Table, ...]:
    """Shares and how steady they are, of traces with several roles (or models)."""
    cut = f" At most {LISTED} of a trace." if any(len(members(c)) > LISTED for c in found) else ""
    note = f"Of the whole trace. Critical path: inference seconds on it. KV: tokens times seconds of the calls.{cut}"
    cv_note = (
        "Standard deviation / mean of the share over all sessions; a session without it counts with share 0. Small: "
        "the share is the same everywhere."
    )
    title = f"{what.capitalize()}s: variation of the share over sessions (cv)"
    shares = [Column(told, "share") for told in MEASURE_NAMES.values()]
    plain = [Column(told) for told in MEASURE_NAMES.values()]

    def several(c: Characterization) -> Sequence[Role]:
        return members(c) if len(members(c)) > 1 else ()

    def varied(c: Characterization) -> Sequence[Role]:
        return [role for role in several(c) if role.calls.share_cv is not None]

    return (
        *_table(f"{what.capitalize()}s: shares", found, what, several, shares, lambda a: a.share, note),
        *_table(title, found, what, varied, plain, lambda a: a.share_cv, cv_note),
    )


def _totals(found: Found, what: str, members: Members) -> tuple[Table, ...]:
    seconds = ("inference_s", "critical_s")
    columns = [Column(told, "s" if measure in seconds else "") for measure, told in MEASURE_NAMES.items()]
    return _table(f"{what}s: totals", found, what, members, columns, lambda a: a.total, "KV in token-seconds.")


def _table(
    title: str,
    found: Found,
    what: str,
    members: Members,
    columns: Sequence[Column],
    value: Callable[[Amount], float | None],
    note: str,
) -> tuple[Table, ...]:
    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for role in members(c)[:LISTED]:
            yield (role.name or UNNAMED, role.sessions, *(value(amount(role, measure)) for measure in MEASURES))

    return tidy(title, found, [Column(what, align="left"), Column("sessions"), *columns], rows, note)


def _figures(found: Found, what: str, members: Members) -> Figures:
    """A chart per trace with several roles (or models), those of several traces in one order."""
    order = list(dict.fromkeys(role.name for c in found for role in members(c)))
    return tuple(
        _shares(
            sorted(members(c)[:SHOWN], key=lambda role: order.index(role.name)),
            members(c)[SHOWN:],
            f"{what}s-{place}",
            f"Shares of the {what}s{f': {c.label}' if len(found) > 1 else ''}",
            f"Which {what}s does the work lie with?",
        )
        for place, c in enumerate(found)
        if len(members(c)) > 1
    )


def _shares(shown: Sequence[Role], rest: Sequence[Role], key: str, title: str, question: str) -> Figure:
    """A bar per measure, in parts by role."""
    names = tuple(MEASURE_NAMES.values())

    def shares(some: Sequence[Role]) -> tuple[float, ...]:
        return tuple(sum(amount(role, measure).share or 0.0 for role in some) for measure in MEASURES)

    series = [Series(role.name or UNNAMED, names, shares([role])) for role in shown]
    if rest:
        series.append(Series(f"{len(rest)} others", names, shares(rest)))
    y = Axis("share of the trace", "share")
    note = "Where a part is wider on the critical path, in KV or in cost than in calls, it weighs more than it seems."
    return Figure(key, title, "stack", Axis("measure"), y, tuple(series), note, question)
