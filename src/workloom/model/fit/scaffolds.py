"""Which texts contexts begin with, and who shares them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from workloom.model.fit.lives import Life
from workloom.model.fit.margins import Margins
from workloom.model.workload.round import significant
from workloom.model.workload.spec import Scaffold

COMMON = 0.2
"""A text with a name that at least this share of a role's lives begin with is told by itself."""


def scaffolds(role: str, lives: Sequence[Life], margins: Margins) -> tuple[Scaffold, ...]:
    """What a role's lives begin with: texts of the whole trace, then of the session, then the role's own."""
    place = f"agents.{role}.scaffold"
    uses = Counter(name for life in lives for name in {n for n, _, scope in life.scaffold if scope == "trace"})
    common = [name for name, count in uses.most_common() if count / len(lives) >= COMMON and count > 1]
    out: list[Scaffold] = []
    for name in common:
        sizes = [tokens for life in lives for n, tokens, scope in life.scaffold if (n, scope) == (name, "trace")]
        out.append(
            Scaffold(
                name=f"shared {len(out)}",
                tokens=margins.fit(f"{place}[{len(out)}].tokens", sizes),
                shared="trace",
                share=significant(uses[name] / len(lives)),
            )
        )
    rest = [_sum(life, "trace", common) for life in lives]
    if any(rest):
        names = [name for name in uses.elements() if name not in common]
        out.append(
            Scaffold(
                name="documents",
                tokens=margins.fit(f"{place}[{len(out)}].tokens", [tokens for tokens in rest if tokens]),
                shared="trace",
                share=significant(sum(tokens > 0 for tokens in rest) / len(lives)),
                pool=pool(len(names), len(set(names))),
            )
        )
    for name, scope in (("session scaffold", "session"), (f"{role} scaffold", "own")):
        sizes = [_sum(life, scope, ()) for life in lives]
        having = [tokens for tokens in sizes if tokens]
        if having:
            out.append(
                Scaffold(
                    name=name,
                    tokens=margins.fit(f"{place}[{len(out)}].tokens", having),
                    share=significant(len(having) / len(lives)),
                )
            )
    return tuple(out)


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
