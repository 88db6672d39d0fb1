"""From a trace to a workload that sessions like its own can be drawn from.

    facts -> lives of agents -> per role: margins, what hangs together, history, subagents -> Workload

Everything that was tried is kept beside it: every family for every sample, with likelihood, AIC, BIC and KS distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from workloom.errors import WorkloadError
from workloom.model.describe import many
from workloom.model.facts import SessionFacts
from workloom.model.families import Family
from workloom.model.fit.kinds import resumed_from
from workloom.model.fit.lives import Life, lives
from workloom.model.fit.margins import Choosing, Margin, Margins
from workloom.model.fit.role import agent
from workloom.model.fit.scaffolds import scaffolds
from workloom.model.fit.starts import arrivals
from workloom.model.workload.round import significant
from workloom.model.workload.spec import Kind, Workload
from workloom.session import Header

ON_TICK = 0.9
"""The share of waits that are whole seconds, from which the trace's clock is taken to tick once a second."""


class Fitted(Struct, frozen=True):
    """A workload, how every distribution in it was chosen, and a note for each place of the file."""

    workload: Workload
    margins: list[Margin]
    notes: dict[str, str]
    sessions: int
    calls: int


def fit(
    sessions: Iterable[SessionFacts], header: Header, *, name: str, about: str = "", choosing: Choosing = "best"
) -> Fitted:
    """The workload of a trace. Memory: some numbers a call. Raises WorkloadError for a trace without sessions."""
    by_role: dict[str, list[Life]] = {}
    roots: dict[str, int] = {}
    starts: list[float] = []
    users: set[str] = set()
    count = calls = 0
    for facts in sessions:
        found = lives(facts)
        roots[found[0].role] = roots.get(found[0].role, 0) + 1
        for life in found:
            by_role.setdefault(life.role, []).append(life)
        if facts.session.start_s is not None:
            starts.append(facts.session.start_s)
        if facts.session.user is not None:
            users.add(facts.session.user)
        count, calls = count + 1, calls + len(facts.calls)
    if not count:
        raise WorkloadError("the trace holds no session", hint="look at it with `workloom inspect`")
    for role in list(roots):
        _split(role, by_role, roots)
    margins = Margins(choosing)
    order = sorted(by_role, key=lambda role: (-roots.get(role, 0), -len(by_role[role])))
    names: dict[str, str] = {}
    agents = {
        role: agent(role, by_role[role], margins, scaffolds(role, by_role[role], margins, names)) for role in order
    }
    between: Family | None = None
    clock_s: float | None = None
    if header.common_clock and len(starts) > 2:
        between, clock_s = arrivals(np.array(starts), margins)
    workload = Workload(
        name=name,
        about=about,
        source=f"fitted to {many(count, 'session')}, {many(calls, 'call')} ({header.source})",
        block_tokens=header.block_tokens,
        tick_s=_tick_s([step.wait_s for role in order for life in by_role[role] for step in life.steps]),
        sessions=tuple(Kind(role, significant(roots[role] / count)) for role in order if role in roots),
        arrivals=between,
        arrivals_tick_s=clock_s,
        users=len(users) if len(users) > 1 else None,
        agents=agents,
    )
    return Fitted(workload, margins.done, margins.notes, count, calls)


def _tick_s(waits_s: Sequence[float]) -> float | None:
    """The clock that waits were told on: whole seconds, if nearly all are."""
    some = [wait_s for wait_s in waits_s if wait_s > 0]
    whole = sum(wait_s == round(wait_s) for wait_s in some)
    return 1.0 if some and whole >= ON_TICK * len(some) else None


def _split(role: str, by_role: dict[str, list[Life]], roots: dict[str, int]) -> None:
    """Make a role of its own of lives that begin with a large context."""
    every = by_role[role]
    least = resumed_from(every) if roots[role] == len(every) else None
    if least is None:
        return
    name = f"{role}-resumed"
    by_role[role] = [life for life in every if life.first_tokens < least]
    by_role[name] = [life for life in every if life.first_tokens >= least]
    roots[role], roots[name] = len(by_role[role]), len(by_role[name])
