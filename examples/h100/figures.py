"""Figures of a run as the published experiments define them.

Every definition here was checked on measured rows (tests/test_case_studies.py): TTFC and E2E count from the client's
pick-up, over calls sent before the load ended; percentiles are linear between ranks; the mean prompt is by the client's
own count; prompt reuse is the mean over calls of 1 - new / prompt. TBC is pooled over all gaps of all calls. (The
published TBC p99, 11.1 and 52.4 ms, is of another definition, which the rows do not give away.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workloom.clock import NS
from workloom.metrics.chunks import gaps_s
from workloom.metrics.frame import batches, chunks_of
from workloom.records import CallRecord

Floats = NDArray[np.float64]
MANY = 10
"""Decodes at once that the published text calls many."""
STALL = 2.0
"""A gap longer than so many medians is a stall."""


class Table(Struct, frozen=True):
    """Calls as columns, seconds and tokens; from rows of a measurement or records of a run."""

    ttfc_s: Floats
    e2e_s: Floats
    first_s: Floats
    """Instants of the first and the last chunk."""
    last_s: Floats
    prompt_tokens: Floats
    """By the client's count."""
    new_tokens: Floats
    gaps_s: Floats
    """Of all calls, one behind the other."""
    served_tokens: float | None
    """Prompt tokens by the server's count, and how many of them were cached; None where calls do not tell."""
    cached_tokens: float | None
    failed: int


class Figures(Struct, frozen=True):
    """Seconds, tokens, shares."""

    calls: int
    failed: float
    prompt_tokens: float
    prompt_reuse: float
    ttfc_p50_s: float
    ttfc_p95_s: float
    ttfc_p99_s: float
    e2e_p50_s: float
    e2e_p95_s: float
    tbc_p50_s: float
    tbc_p95_s: float
    tbc_p99_s: float
    stalled: float
    hit_rate: float
    decodes_max: int
    decodes_many: float
    """Of the time in which any call decoded, the share in which `MANY` or more did."""

    def named(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in self.__struct_fields__}


def figures(table: Table) -> Figures:
    """All of them."""
    ttfc, e2e, gaps = (np.sort(x) for x in (table.ttfc_s, table.e2e_s, table.gaps_s))
    most, many = decodes(table.first_s, table.last_s)
    there = table.served_tokens is not None and table.cached_tokens is not None
    sent = len(ttfc) + table.failed
    return Figures(
        calls=len(ttfc),
        failed=table.failed / sent if sent else float("nan"),
        prompt_tokens=float(np.mean(table.prompt_tokens)),
        prompt_reuse=float(np.mean(1 - table.new_tokens / table.prompt_tokens)),
        ttfc_p50_s=_percentile(ttfc, 50),
        ttfc_p95_s=_percentile(ttfc, 95),
        ttfc_p99_s=_percentile(ttfc, 99),
        e2e_p50_s=_percentile(e2e, 50),
        e2e_p95_s=_percentile(e2e, 95),
        tbc_p50_s=_percentile(gaps, 50),
        tbc_p95_s=_percentile(gaps, 95),
        tbc_p99_s=_percentile(gaps, 99),
        stalled=float(np.mean(gaps > STALL * _percentile(gaps, 50))),
        hit_rate=(table.cached_tokens or 0.0) / (table.served_tokens or 1.0) if there else float("nan"),
        decodes_max=most,
        decodes_many=many,
    )


def _percentile(ordered: Floats, level: float) -> float:
    return float(np.percentile(ordered, level)) if len(ordered) else float("nan")


def decodes(first_s: Floats, last_s: Floats) -> tuple[int, float]:
    """The most calls between their first and last chunk at once, and the share of that time in which many are."""
    at = np.concatenate([first_s, last_s])
    change = np.concatenate([np.ones(len(first_s)), -np.ones(len(last_s))])
    order = np.lexsort((change, at))  # one that ends as another begins is gone
    count = np.cumsum(change[order])[:-1]
    spent = np.diff(at[order])
    busy = float(spent[count > 0].sum())
    return int(count.max(initial=0)), float(spent[count >= MANY].sum()) / busy if busy else float("nan")


def of_records(records: Sequence[CallRecord], new_tokens: float, until_s: float | None = None) -> Table:
    """The calls of a run that were due before an instant. Each brought so many new tokens."""
    due = [r for r in records if until_s is None or r.due_ns < until_s * NS]
    mine = [r for r in due if r.status == "ok" and r.first_ns is not None]

    def column(name: str, scale: float = 1.0) -> Floats:
        return np.array([getattr(r, name) for r in mine], dtype=np.float64) / scale

    sent, first, last = (column(name, NS) for name in ("sent_ns", "first_ns", "last_ns"))
    prompt = column("planned_prompt_tokens")
    gaps = [gap for batch in batches(CallRecord, mine) for gap in gaps_s(chunks_of(batch))]
    return Table(
        ttfc_s=first - sent,
        e2e_s=last - sent,
        first_s=first,
        last_s=last,
        prompt_tokens=prompt,
        new_tokens=np.full(len(mine), float(new_tokens)),
        gaps_s=np.concatenate([np.empty(0), *gaps]),
        served_tokens=float(column("prompt_tokens").sum()),
        cached_tokens=float(column("cached_tokens").sum()),
        failed=sum(r.status in ("error", "timeout") for r in due),
    )
