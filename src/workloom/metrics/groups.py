"""Which calls of a run are of one kind: by role, by model, by turn, by depth; and figures of each kind beside another.

A role is the name of an agent without what tells several of a kind apart (`Explore:a1`, `explore-3`). Turns are counted
from 0 among the calls of one agent in its session, and stand together in buckets that double: 0, 1, 2-3, 4-7, 8-15, ...
Depth 0 is the root agent, 1 those it spawned. Of sessions that the run began in their middle neither is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from workloom.errors import UsageError, nearest
from workloom.metrics.frame import Bools, Ints
from workloom.metrics.measured import Coded, Measured

if TYPE_CHECKING:
    from workloom.metrics.estimate import Estimate
    from workloom.metrics.figure import By, Figure


def rows_of(run: Measured, of: Iterable[tuple[str, str]]) -> Bools:
    """The rows that are all of these, as (`agent`, `main`), (`turn`, `2-3`) say. Raises UsageError for a role or model
    that nobody has, and for what is no number of a turn."""
    keep = np.ones(len(run.calls), dtype=np.bool_)
    for key, value in of:
        keep &= _numbered(run, key, value) if key in ("turn", "depth") else _named(run, key, value)
    return keep


def _named(run: Measured, key: str, value: str) -> Bools:
    column: Coded = run.role if key == "agent" else run.model
    if value not in column.words:
        close = nearest(value, column.words)
        raise UsageError(
            f"no call of the run is of this {key}",
            expected=", ".join(column.words),
            found=value,
            hint=f"did you mean {close}?" if close else None,
        )
    named: Bools = column.codes == column.words.index(value)
    return named


def _numbered(run: Measured, key: str, value: str) -> Bools:
    low, dash, high = value.partition("-")
    open_ended = value.endswith("+")
    low = low.removesuffix("+")
    if not low.isdigit() or (dash and not high.isdigit()):
        raise UsageError(
            f"a {key} is a number or a range of them", expected=f"{key}=0, {key}=2-3, {key}=8+", found=value
        )
    numbers = _numbers(run, key)
    least = int(low)
    most = np.iinfo(np.int64).max if open_ended else int(high) if dash else least
    inside: Bools = (numbers >= least) & (numbers <= most)
    return inside


def _numbers(run: Measured, key: str) -> Ints:
    from workloom.metrics.workflow.tasks import depths, turns

    return turns(run) if key == "turn" else depths(run)


def bucket(turn: int) -> str:
    """The bucket that a turn stands in: 0, 1, 2-3, 4-7, ..."""
    if turn < 2:
        return str(turn)
    low = 1 << (turn.bit_length() - 1)
    return f"{low}-{2 * low - 1}"


def kinds(run: Measured, by: By) -> list[str]:
    """The kinds of calls due in the window: names in the order they appear, numbers from the lowest."""
    due = run.due
    if by in ("agent", "model"):
        column = run.role if by == "agent" else run.model
        return [column.words[code] for code in np.unique(column.codes[due]).tolist()]
    numbers = np.unique(_numbers(run, by)[due])
    there = numbers[numbers >= 0].tolist()
    return list(dict.fromkeys(bucket(n) if by == "turn" else str(n) for n in there))


class Group(Struct, frozen=True):
    """Figures of the calls of one kind."""

    kind: str
    calls: int
    """Due in the window."""
    estimates: list[Estimate]


def breakdown(run: Measured, by: By, figures: Sequence[Figure]) -> list[Group]:
    """Figures of calls, for each kind of call apart. Raises UsageError for a figure that is none of calls."""
    from workloom.metrics.estimate import estimates

    for figure in figures:
        metric = figure.about
        if metric.of not in ("call", "gap") and not metric.of_calls:
            raise UsageError(f"{metric.short} is no figure of calls", where="--by", found=figure.say())
    out = []
    for kind in kinds(run, by):
        rows = rows_of(run, [(by, kind)])
        out.append(Group(kind, int((run.due & rows).sum()), estimates(run.looking_at(rows), figures)))
    return out
