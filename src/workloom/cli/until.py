"""What `--until` says: before a run how long it may take, after it how well its figures are known."""

from __future__ import annotations

import sys

from rich.table import Table
from rich.text import Text

from workloom.answers.until import Ended, Known, most
from workloom.cli.show import console
from workloom.execute.goals import goal
from workloom.plan import Plan
from workloom.report.units import span, text

NOT_REACHED = 4
"""Exit code of a run that ended at its cap: as for an SLO, not enough data."""
RECYCLED = 1.5
"""From here on the reader is told that sessions came again."""


def announce(plan: Plan) -> None:
    """What the run goes on for, and how long at most."""
    if plan.recipe.limits.until:
        print(f"until {', '.join(plan.recipe.limits.until)}; at most {most(plan)}", file=sys.stderr)
    for one in map(goal, plan.recipe.limits.until or ()):
        if one.relative and one.figure.about.unit == "share" and one.figure.about.better == "lower":
            said = f"{one.say()} is a share of {one.figure.say()}, and cannot be reached while that is 0"
            print(f"warning: {said}; {one.figure.say()}±0.5pp asks for percentage points", file=sys.stderr)


def print_ended(ended: Ended) -> None:
    """A table of how well each figure is known, to stdout, and what came of it."""
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name, words in (
        ("until", True),
        ("figure", False),
        ("95 % interval", False),
        ("half width", False),
        ("", True),
    ):
        table.add_column(name, justify="left" if words else "right", no_wrap=not words)
    for known in ended.goals:
        table.add_row(*(Text(cell) for cell in _row(known)))
    out.print()
    out.print(table)
    out.print(Text(_verdict(ended)), soft_wrap=True)
    if ended.recycled >= RECYCLED:
        out.print(
            f"each session of the workload came {ended.recycled:.1f} times: the intervals are about these sessions; "
            "of a named workload, --generate makes more",
            soft_wrap=True,
        )


def _row(known: Known) -> tuple[str, str, str, str, str]:
    estimate = known.estimate
    about = goal(known.goal)
    unit = about.figure.about.unit
    if estimate.low is None or estimate.high is None:
        return known.goal, text(estimate.value, unit), "–", "–", estimate.why
    wide = known.half_width
    if about.relative and wide is not None and estimate.value:
        said = text(wide / abs(estimate.value), "share")
    else:
        said = text(wide, unit)
    takes = f"takes {known.sessions_needed:,} sessions" if known.sessions_needed is not None else known.why
    value = text(estimate.value, unit)
    return known.goal, value, span(estimate.low, estimate.high, unit) or "–", said, takes


def _verdict(ended: Ended) -> str:
    size = f"{ended.sessions:,} sessions and {ended.calls:,} calls in a window of {text(ended.window_s, 's')}"
    if ended.verdict == "reached":
        return f"reached after {size}, {ended.looks} looks"
    why = f": {'; '.join(ended.never)}" if ended.never else ""
    return f"{ended.verdict.upper()} after {size}{why}"
