"""How alike two workloads are, as tables and charts."""

from __future__ import annotations

from workloom.answers.fidelity import LEVEL, Fidelity, Line
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.table import Column, Table
from workloom.report.units import Cell, text

GROUPS = {
    "margin": "Margins",
    "arrivals": "Arrivals",
    "together": "Rank correlations of calls behind tools",
    "cache": "Prefix cache",
    "engine": "On the engine",
}
"""Titles of the groups of lines, in the order they are shown."""
NOTE = (
    "Medians of both. KS: the largest difference of the distribution functions (tolerance 0.1). p: the chance of such "
    "a difference if whole sessions of both were exchanged at random. Moved: Wasserstein's distance over the real mean "
    "(tolerance 25%)."
)


def sections(found: Fidelity, real: str, other: str) -> list[Section]:
    """Verdicts first, then the curves; `real` and `other` are what the two are called."""
    tables = tuple(
        _table(title, lines)
        for group, title in GROUPS.items()
        if (lines := [line for line in found.lines if line.group == group])
    )
    return [
        Section("verdicts", "How alike", lead(found, real, other), tables),
        Section("curves", "Hit rate against KV capacity", "", (), (_curves(found, real, other),)),
    ]


def lead(found: Fidelity, real: str, other: str) -> str:
    """The outcome in words."""
    differing = [line.name for line in found.lines if line.verdict == "differs"]
    said = f"{found.count('alike')} of {len(found.lines)} comparisons of {other} with {real} are alike"
    if differing:
        said += f", {len(differing)} differ ({', '.join(differing)})"
    unknown = found.count("not enough data")
    if unknown:
        said += f", {unknown} cannot be told from so few sessions"
    banded = [line for line in found.lines if line.band is not None and line.distance is not None]
    said += (
        f". {sum(line.in_band for line in banded)} of {len(banded)} distances are within the band: what {LEVEL:.0%} "
    )
    said += "of random halves of "
    said += f"{found.band_sessions:,} real sessions are from each other. "
    said += f"{found.real_sessions:,} and {found.other_sessions:,} sessions, copies left out. Runs: {found.engine}, "
    said += f"{found.concurrency} sessions at once, seed {found.seed}"
    ours, theirs = found.left_out
    if ours or theirs:
        said += f"; its context has no room for {text(ours, 'share')} and {text(theirs, 'share')} of the calls, which "
        said += "are not in its lines"
    return said + "."


def _table(title: str, lines: list[Line]) -> Table:
    margins = lines[0].group == "margin"
    columns = [Column("", align="left"), Column("real"), Column("other"), Column("KS" if margins else "apart")]
    columns += [Column("band"), Column("p"), Column("moved"), Column("band")] if margins else []
    columns += [] if margins else [Column("tolerance"), Column("band")]
    columns.append(Column("verdict", align="left"))
    return Table(title, tuple(columns), tuple(_row(line) for line in lines), NOTE if margins else "")


def _row(line: Line) -> tuple[Cell, ...]:
    name = f"{line.name}, tokens" if line.unit == "tokens" else line.name
    cells: list[Cell] = [name, text(line.real, line.unit), text(line.other, line.unit)]
    if line.group == "margin":
        cells += [text(line.distance), text(line.band), text(line.p)]
        cells += [text(line.moved, "share"), text(line.moved_band, "share")]
    else:
        unit = "share" if line.unit in ("share", "s", "IDC") else ""
        cells += [text(line.distance, unit), text(line.tolerance, unit), text(line.band, unit)]
    return (*cells, line.verdict)


def _curves(found: Fidelity, real: str, other: str) -> Figure:
    names = {"real": real, "other": other}
    return Figure(
        key="capacity",
        title="Hit rate of an LRU prefix cache against its capacity",
        kind="line",
        x=Axis("KV capacity", "tokens", log=True),
        y=Axis("hit rate", "share"),
        series=tuple(
            Series(names[name], tuple(map(float, curve.capacity_tokens)), curve.lru_hit_rate)
            for name, curve in found.curves.items()
        ),
        note="The same load over as many sessions of either; each call takes its nominal time.",
        wide=True,
    )
