"""How the distributions of a fitted workload were chosen, as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from workloom.model.families.choose import Fit
from workloom.model.fit import Fitted
from workloom.model.fit.margins import Margin


def tables(fitted: Fitted) -> Iterator[Table]:
    """A table of all distributions: what was taken, and the two best by AIC with their distance."""
    out = Table(title="Distributions", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name, right in (("of", False), ("n", True), ("taken", False), ("best by AIC", False), ("runner-up", False)):
        out.add_column(name, justify="right" if right else "left", overflow="fold")
    for margin in fitted.margins:
        out.add_row(*(Text(cell) for cell in _cells(margin)))
    yield out


def _cells(margin: Margin) -> tuple[str, ...]:
    place = margin.place.removeprefix("agents.")
    if margin.choice is None:
        return place, f"{margin.n:,}", margin.taken, "", ""
    best, *others = margin.choice.fits
    return place, f"{margin.n:,}", margin.taken, _fit(best, best), _fit(others[0], best) if others else ""


def _fit(fit: Fit, best: Fit) -> str:
    behind = "" if fit is best else f" AIC +{fit.aic - best.aic:,.1f},"
    return f"{fit.name}:{behind} KS {fit.ks:.3f}"
