"""What a capacity search found, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from workloom.answers.capacity import Beside, Capacity, Span
from workloom.answers.capacity.fleet import Fleet
from workloom.answers.capacity.probe import Number, heard
from workloom.cli.show import console
from workloom.metrics.catalog import Unit, catalog
from workloom.metrics.figure import figure
from workloom.metrics.text import quantity

SHOWN = ("ttft_p95", "tbc_p95", "e2e_p95", "hit_rate", "output_tokens_per_s", "goodput_calls_per_s")


def show(found: Capacity) -> None:
    """The answer, what it feels like there, and every run."""
    out = console()
    out.print(Text(f"capacity of {found.target} for {found.workload}", style="bold"), soft_wrap=True)
    out.print(Text("  " + ", ".join(found.slos)), soft_wrap=True)
    for line in lines(found):
        out.print(Text("  " + line), soft_wrap=True)
    if found.beside:
        out.print("\nabout the edge (middle of the runs at each load):", highlight=False)
        out.print(_beside(found.beside, found))
    out.print("\nruns:")
    out.print(_probes(found))


def lines(found: Capacity) -> list[str]:
    """The answer in words."""
    unit = found.over.unit
    if found.value is None:
        said = {
            "never holds": f"no load that holds was found ({found.why})",
            "always holds": f"no load that breaks a promise was found ({found.why})",
            "not enough data": f"not enough data: {found.why}",
        }
        told = [said.get(found.status, found.why)]
        return told + _binding(found)
    assert found.low is not None and found.high is not None and found.spread is not None
    told = [f"{_load(found.value)} {unit}, {found.level:.0%} interval {_load(found.low)} to {_load(found.high)}"]
    if not found.precise:
        half = (found.high - found.low) / 2 / found.value
        told.append(f"±{half:.1%} and not the ±{found.precision:.1%} that were asked for: raise --max-probes")
    if found.likely is not None:
        told.append(f"nine of ten such runs hold {_load(found.likely)}; single runs lie ±{found.spread:.1%} apart")
    told += _binding(found)
    for cliff in found.cliffs:
        unit_of = _unit(cliff.figure)
        before, after = (_said(value, unit_of) for value in (cliff.before, cliff.after))
        told.append(
            f"cliff: {cliff.figure} goes from {before} at {_load(cliff.load)} to {after} at {_load(cliff.beyond)}"
        )
    if found.unused:
        told.append(f"{found.unused} runs of the directory were not asked for and are left out")
    return told


def _binding(found: Capacity) -> list[str]:
    if not found.binding:
        return []
    said = ", ".join(f"{one.slo} in {one.broke} of {one.of}" for one in found.binding)
    where = "just beyond it" if found.value is not None else "in the runs that did not hold"
    return [f"what breaks {where}: {said}"]


def _beside(groups: Sequence[Beside], found: Capacity) -> Table:
    names = [name for name in groups[0].figures if name in SHOWN or name in _asked(found)]
    table = _table(found.over.unit, "hold", *names)
    for group in groups:
        cells = [_said(group.figures[name].middle, _unit(name)) if name in group.figures else "-" for name in names]
        table.add_row(_load(group.load), f"{group.held} of {group.runs}", *cells)
    return table


def _asked(found: Capacity) -> set[str]:
    return {cliff.figure for cliff in found.cliffs}


def _probes(found: Capacity) -> Table:
    figures = list(dict.fromkeys(met.slo for probe in found.probes for met in probe.slos))
    table = _table("", "for", found.over.unit, "seed", "window", "calls", *figures)
    for probe in found.probes:
        values = {met.slo: met for met in probe.slos}
        cells = []
        for slo in figures:
            met = values.get(slo)
            style = {"fail": "red", "not enough data": "yellow"}.get(met.verdict, "") if met else ""
            mark = {"fail": " x", "not enough data": " ?"}.get(met.verdict, "") if met else ""
            cells.append(Text((_said(met.value, _unit_of_slo(slo)) if met else "-") + mark, style=style))
        table.add_row(
            str(probe.number + 1), probe.purpose, _load(probe.load), str(probe.seed), f"{probe.window_s:,.0f} s",
            f"{probe.calls:,}", *cells,
        )  # fmt: skip
    return table


def show_fleet(both: Fleet) -> None:
    """The table of a fleet."""
    out = console()
    out.print(Text(f"\n{both.second} against {both.first}, {both.level:.0%} intervals", style="bold"), soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row(f"useful work ({both.unit})", _span(both.useful_work))
    table.add_row("slack of a fleet sized for the first", _span(both.slack, percent=True))
    table.add_row("fleet that the second needs, of that of the first", _span(both.fraction, percent=True))
    out.print(table)


def _span(span: Span, *, percent: bool = False) -> str:
    if percent:
        return f"{span.value:.1%} ({span.low:.1%} to {span.high:.1%})"
    return f"{span.value:.3g} ({span.low:.3g} to {span.high:.3g})"


def _said(value: Number, unit: Unit) -> str:
    return "-" if value is None else quantity(heard(value), unit)


def _load(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.3g}"


def _unit(name: str) -> Unit:
    """The unit of a figure that is kept by name."""
    if name in catalog():
        return catalog()[name].unit
    return "1/s" if name.startswith("goodput") else figure(name).about.unit


def _unit_of_slo(text: str) -> Unit:
    from workloom.answers.slo import slo

    return slo(text).figure.about.unit


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column == "for" else "right", no_wrap=column not in columns[6:])
    return table
