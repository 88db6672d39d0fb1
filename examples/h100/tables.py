"""Published against simulated: one row a figure, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from workloom.answers.frontier import miss

NAMES = {
    "prompt_tokens": ("mean prompt, tokens", "n"),
    "prompt_reuse": ("prompt reuse", ""),
    "ttfc_p95_s": ("TTFC p95", "s"),
    "ttfc_p99_s": ("TTFC p99", "s"),
    "e2e_p95_s": ("E2E p95", "s"),
    "tbc_p95_s": ("TBC p95", "ms"),
    "tbc_p99_s": ("TBC p99, pooled", "ms"),
    "hit_rate": ("hit rate", ""),
    "decodes_max": ("most decodes at once", "n"),
    "decodes_many": ("time at 10 or more", "%"),
}
"""What a table calls the figures of figures.Figures, and their unit."""
NAMED = {"linear": "chain", "dag": "DAG"}
BOTH = "DAG / chain"


class Row(Struct, frozen=True):
    """`values`: one of each run, nan or none where it gave none; the ratio is that of their median. `unit` shapes the
    number: s, ms, %, n or nothing."""

    figure: str
    of: str
    published: float | None
    values: tuple[float | None, ...]
    unit: str = ""

    @property
    def _there(self) -> list[float]:
        return [value for value in self.values if value is not None and not math.isnan(value)]

    @property
    def simulated(self) -> float:
        return float(np.median(self._there)) if self._there else math.nan

    @property
    def ratio(self) -> float | None:
        return None if not self.published else self.simulated / self.published

    @property
    def span(self) -> tuple[float, float]:
        return min(self._there, default=math.nan), max(self._there, default=math.nan)

    @property
    def miss(self) -> float:
        """By what share of the published figure the span of all runs misses it; 0 where it holds it."""
        return miss(self.span, self.published) if self.published else math.nan


def of_figure(name: str, shape: str, published: float | None, values: Sequence[float], at: str = "") -> Row:
    """The row of one figure of figures.Figures."""
    label, unit = NAMES[name]
    return Row(label + at, NAMED.get(shape, shape), published, tuple(values), "" if shape == BOTH else unit)


def number(value: float | None, unit: str) -> str:
    """A figure with three or four digits, in its unit."""
    if value is None or math.isnan(value):
        return "-"
    if unit == "ms":
        return f"{value * 1e3:.1f} ms"
    if unit == "s":
        return f"{value:.3f} s"
    if unit == "%":
        return f"{value:.1%}"
    return f"{value:,.0f}" if unit == "n" else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def span(row: Row) -> str:
    """Lowest to highest run, the unit told once."""
    low, high = (number(value, row.unit) for value in row.span)
    return high if low == high else f"{low.split(' ')[0].rstrip('%')} to {high}"


def ratio(row: Row) -> str:
    return "-" if row.ratio is None else f"{row.ratio:.2f}"


def markdown(rows: Iterable[Row]) -> str:
    """Figure, of what, published, simulated (median), lowest to highest run, ratio."""
    lines = ["| figure | of | published | simulated | runs | ratio |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        cells = [row.figure, row.of, number(row.published, row.unit), number(row.simulated, row.unit)]
        lines.append(f"| {' | '.join([*cells, span(row), ratio(row)])} |")
    return "\n".join(lines) + "\n"


def publish(folder: Path, title: str, rows: Sequence[Row]) -> None:
    """Print a table, and keep it as `TITLE.md` and `TITLE.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(rows)
    print(f"\n{title}\n\n{text}")
    name = title.replace(" ", "-").replace(",", "").lower()
    (folder / f"{name}.md").write_text(text)
    told = [{**msgspec.to_builtins(row), "simulated": row.simulated, "ratio": row.ratio} for row in rows]
    (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
