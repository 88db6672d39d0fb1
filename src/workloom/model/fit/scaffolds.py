"""Which texts contexts begin with, and who shares them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from workloom.model.fit.lives import Life
from workloom.model.fit.margins import Margins
from workloom.model.workload.round import significant
from workloom.model.workload.spec import Scaffold

COMMON = 0.2
"""A text with a name that at least this share of a role's lives begin with is told by itself."""


def scaffolds(role: str, lives: Sequence[Life], margins: Margins, names: dict[str, str]) -> tuple[Scaffold, ...]:
    """What a role's lives begin with: texts of the trace, of the session, of the role, their own.

    `names`: what texts of the trace are called in the workload; new ones are added.
    """
    place = f"agents.{role}.scaffold"
    uses = Counter(name for life in lives for name in {n for n, _, scope in life.scaffold if scope == "trace"})
    common = [name for name, count in uses.most_common() if count / len(lives) >= COMMON and count > 1]
    out: list[Scaffold] = []
    for name in common:
        sizes = [tokens for life in lives for n, tokens, scope in life.scaffold if (n, scope) == (name, "trace")]
        out.append(
            Scaffold(
                name=names.setdefault(name, f"shared {len(names)}"),
                tokens=margins.fit(f"{place}[{len(out)}].tokens", sizes),
                shared="trace",
                share=significant(uses[name] / len(lives)),
            )
        )
    rest = [_sum(life, "trace", common) for life in lives]
    if any(rest):
        rare = [name for name in uses.elements() if name not in common]
        out.append(
            Scaffold(
                name=f"documents of {role}",
                tokens=margins.fit(f"{place}[{len(out)}].tokens", [tokens for tokens in rest if tokens]),
                shared="trace",
                share=significant(sum(tokens > 0 for tokens in rest) / len(lives)),
                pool=pool(len(rare), len(set(rare))),
            )
        )
    out += _of_sessions(role, lives, margins, len(out))
    return tuple(out)


def _of_sessions(role: str, lives: Sequence[Life], margins: Margins, number: int) -> list[Scaffold]:
    """Texts that no two sessions share.

    Who was alone in a session is asked only where all were; what a single one of its role does not share is the role's
    if others of the role do share, else its own.
    """
    out: list[Scaffold] = []
    found = {scope for life in lives for _, _, scope in life.scaffold}
    asked = [life for life in lives if all(scope != "alone" for _, _, scope in life.scaffold)] or list(lives)
    single = "role" if "role" in found else "own"
    whose: tuple[tuple[str, str, Literal["session", "agent"]], ...] = (
        ("session", "session scaffold", "session"),
        ("role", f"scaffold of {role}", "session"),
        ("own", f"own scaffold of {role}", "agent"),
    )
    for scope, name, shared in whose:
        scopes = {scope, *(("single",) if scope == single else ()), *(("alone",) if scope == "own" else ())}
        sizes = [sum(_sum(life, each, ()) for each in scopes) for life in asked]
        having = [tokens for tokens in sizes if tokens]
        if having:
            place = f"agents.{role}.scaffold[{number + len(out)}].tokens"
            share = significant(len(having) / len(asked))
            out.append(Scaffold(name, margins.fit(place, having), shared, share))
    return out


def _sum(life: Life, scope: str, without: Sequence[str]) -> int:
    return sum(tokens for name, tokens, s in life.scaffold if s == scope and name not in without)


def pool(uses: int, different: int) -> int:
    """How many texts there are if so many even draws came upon so many different ones: m (1 - exp(-u/m)) = d."""
    if different >= uses:
        return max(1, min(1_000_000, uses * 50))
    low, high = float(different), 1e6
    for _ in range(60):
        middle = (low + high) / 2
        if middle * -math.expm1(-uses / middle) < different:
            low = middle
        else:
            high = middle
    return max(1, round(low))
