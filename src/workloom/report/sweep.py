"""A sweep as tables and charts: every figure with its interval, the trade-off of two of them, each along the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from workloom.answers.sweep.pareto import outline
from workloom.answers.sweep.points import Setting
from workloom.answers.sweep.results import Question, Results, Row, Told
from workloom.metrics.figure import Figure as Named
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section, page
from workloom.report.table import Column, Table
from workloom.report.units import Cell, span, text

CURVES = ("concurrency", "rate", "time-scale", "replicas")
"""Options that make one curve of the chart: the first of these that varies, else the last option that does."""
NO_INTERVAL = "[?]"
ONE_SEED = "In brackets: 95% intervals, from drawing the sessions of a run anew."
SEVERAL = "The mean of several seeds, in brackets its 95% interval from the spread between them (three seeds or more)."
WITHOUT = "[?]: too little data for an interval; –: for the figure itself."


def sweep_page(found: Results, question: Question, when: str = "") -> str:
    """The report as one HTML file."""
    subtitle = " ".join([*found.workload, *found.options])
    return page("Sweep", subtitle, sections(found, question), when=when)


def sections(found: Results, question: Question) -> list[Section]:
    """The table; what is traded for what; each figure along the sweep."""
    tables = [points_table(found, question)]
    if any(row.runs > 1 for row in found.rows):
        tables.append(spread_table(found, question))
    out = [
        Section("trade-off", "Trade-off", lead(found, question), figures=(trade_off(found, question),)),
        Section("points", "Points", "", tuple(tables)),
    ]
    curves = tuple(figure for named in question.figures if (figure := _along(found, named)) is not None)
    return [*out, Section("along", "Figures along the sweep", figures=curves)] if curves else out


def lead(found: Results, question: Question) -> str:
    """What came out, in words."""
    rows = found.rows
    ran = [row for row in rows if row.runs]
    said = f"{len(rows)} point{'s' * (len(rows) != 1)}"
    said += "" if len(ran) == len(rows) else f", {len(rows) - len(ran)} of them without a run"
    best = sum(found.front)
    said += f"; {best} on the front of {title(question.y)} against {title(question.x)}."
    if question.slos:
        verdicts = [row.verdict for row in rows if row.verdict is not None]
        parts = [f"{verdicts.count(each)} {each}" for each in ("pass", "fail", "not enough data")]
        said += f" Promised: {', '.join(slo.text for slo in question.slos)}: {', '.join(parts)}."
    return said


def title(figure: Named) -> str:
    """A figure in words: `TTFT p95`, with those calls it is about."""
    said = f"{figure.about.title} {figure.statistic}".strip()
    return said + (f" [{', '.join(f'{key} {value}' for key, value in figure.of)}]" if figure.of else "")


# -- tables


def points_table(found: Results, question: Question) -> Table:
    """A row a point: its options, its figures with their intervals, verdict and front."""
    options = varied(found.rows)
    promised, failed = bool(question.slos), any(row.error for row in found.rows)
    columns = [Column(option, align="left") for option in options] or [Column("point", align="left")]
    columns += [Column("SLOs", align="left")] * promised + [Column("front", align="left")]
    columns += [Column("error", align="left")] * failed
    columns += [Column(_heading(figure)) for figure in question.figures]
    rows: list[tuple[Cell, ...]] = []
    for row, best in zip(found.rows, found.front, strict=True):
        cells: list[Cell] = [_setting(row, option) for option in options] or [row.label]
        cells += [_verdict(row)] * promised + ["yes" if best else ""]
        cells += [_error(row)] * failed
        cells += [_told(row.figures.get(figure.say()), figure.about.unit) for figure in question.figures]
        rows.append(tuple(cells))
    several = any(row.runs > 1 for row in found.rows)
    return Table(
        "Figures and their intervals", tuple(columns), tuple(rows), f"{SEVERAL if several else ONE_SEED} {WITHOUT}"
    )


def spread_table(found: Results, question: Question) -> Table:
    """The least and the most of the runs under several seeds."""
    columns = [Column("point", align="left"), Column("seeds"), *(Column(_heading(f)) for f in question.figures)]
    rows = []
    for row in found.rows:
        cells: list[Cell] = [row.label, row.runs]
        for figure in question.figures:
            told = row.figures.get(figure.say())
            spread = None if told is None else span(told.least, told.most, figure.about.unit, "–")
            cells.append(spread)
        rows.append(tuple(cells))
    return Table("Least and most of the seeds", tuple(columns), tuple(rows))


def _heading(figure: Named) -> str:
    unit = figure.about.unit
    return title(figure) if unit in ("s", "share", "ratio", "count") else f"{title(figure)} ({unit})"


def _told(told: Told | None, unit: str) -> Cell:
    """`1.23 s [1.10–1.40 s]`."""
    if told is None or told.estimate.value is None:
        return None
    estimate = told.estimate
    interval = span(estimate.low, estimate.high, unit, "–")
    return f"{text(estimate.value, unit)} {NO_INTERVAL if interval is None else f'[{interval}]'}"


def _setting(row: Row, option: str) -> str:
    setting = next((each for each in row.settings if each.option == option), None)
    return "" if setting is None else " ".join(setting.values) or "not given"


def _verdict(row: Row) -> str:
    if row.verdict is None:
        return ""
    if row.verdict == "pass":
        return "pass"
    return f"{row.verdict}: {', '.join(each.slo for each in row.judgements if each.verdict == row.verdict)}"


def _error(row: Row) -> str:
    if not row.error:
        return ""
    ran = f"{row.runs} of {row.asked} ran; " if row.asked > 1 else ""
    return ran + row.error.splitlines()[0]


# -- charts


def varied(rows: Sequence[Row]) -> list[str]:
    """Options that points set, in the order they are named."""
    return list(dict.fromkeys(setting.option for row in rows for setting in row.settings))


def curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what they share but for the option along a curve: one series each."""
    along = along_which(rows)
    found: dict[str, list[Row]] = {}
    for row in rows:
        rest = [setting for setting in row.settings if setting.option != along]
        found.setdefault(_series_name(rest), []).append(row)
    return found


def along_which(rows: Sequence[Row]) -> str | None:
    """The option that moves along a curve."""
    options = [option for option in varied(rows) if len({_setting(row, option) for row in rows}) > 1]
    return next((option for option in CURVES if option in options), options[-1] if options else None)


def _series_name(rest: Sequence[Setting]) -> str:
    if len(rest) == 1 and rest[0].values:
        return " ".join(rest[0].values)
    return ", ".join(setting.say() for setting in rest) or "points"


def trade_off(found: Results, question: Question) -> Figure:
    """y against x of all points, error bars both ways, what is beaten pale, and the edge of what can be had."""
    best = dict(zip((row.label for row in found.rows), found.front, strict=True))
    along = along_which(found.rows)
    series = []
    for name, rows in curves(found.rows).items():
        there = [row for row in rows if row.at(question) is not None]
        xs, ys = _columns(there, question.x), _columns(there, question.y)
        series.append(
            Series(
                name,
                tuple(x for x in xs[0] if x is not None),
                ys[0],
                ys[1],
                ys[2],
                xs[1],
                xs[2],
                tuple(_setting(row, along) if along else row.label for row in there),
                tuple(not best[row.label] for row in there),
            )
        )
    edge = outline([at for row in found.rows if (at := row.at(question)) is not None], question.higher)
    missing = sum(row.at(question) is None for row in found.rows)
    note = (
        "The stepped line is the edge of what these points reach; a point that another beats in both figures is pale. "
    )
    note += f"Numbers at the points: {along}. " if along else ""
    note += "Bars: 95% intervals; where they overlap, the order is not certain." + (
        f" {missing} without both figures are not shown." if missing else ""
    )
    x, y = question.x, question.y
    return Figure(
        "front",
        f"{title(y)} against {title(x)}",
        "dots",
        _axis(x, zero=False),
        _axis(y),
        tuple(series),
        note,
        f"What does {_wish(x)} {title(x)} cost in {title(y)}?",
        wide=True,
        front=tuple(edge),
    )


def _wish(figure: Named) -> str:
    return "less" if figure.about.better == "lower" else "more"


def _axis(figure: Named, zero: bool = True) -> Axis:
    unit = figure.about.unit
    return Axis(title(figure), "" if unit in ("ratio", "count") else unit, zero=zero)


def _columns(
    rows: Sequence[Row], figure: Named
) -> tuple[tuple[float | None, ...], tuple[float | None, ...], tuple[float | None, ...]]:
    """Value, low and high of every row; what is infinite or unknown is None."""
    told = [row.figures.get(figure.say()) for row in rows]

    def finite(value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None

    estimates = [None if each is None else each.estimate for each in told]
    values = tuple(None if each is None else finite(each.value) for each in estimates)
    lows = tuple(None if each is None else finite(each.low) for each in estimates)
    highs = tuple(None if each is None else finite(each.high) for each in estimates)
    return values, lows, highs


def _along(found: Results, figure: Named) -> Figure | None:
    """One figure over the option of a curve, where that is a number."""
    along = along_which(found.rows)
    if along is None:
        return None
    series = []
    for name, rows in curves(found.rows).items():
        try:
            xs = tuple(float(_setting(row, along)) for row in rows)
        except ValueError:
            return None
        ys, lows, highs = _columns(rows, figure)
        series.append(Series(name, xs, ys, lows, highs))
    xs = tuple(float(x) for each in series for x in each.x)
    log = len(set(xs)) > 2 and min(xs) > 0 and max(xs) / min(xs) >= 8
    return Figure(figure.say(), title(figure), "band", Axis(along, log=log), _axis(figure), tuple(series))
