"""Published against simulated: one row a figure, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct


class Row(Struct, frozen=True):
    """`values`: one of each run; the ratio is that of their median. `unit` shapes the number: s, ms, %, or none."""

    figure: str
    of: str
    published: float | None
    values: tuple[float, ...]
    unit: str = ""

    @property
    def simulated(self) -> float:
        there = [value for value in self.values if not math.isnan(value)]
        return float(np.median(there)) if there else math.nan

    @property
    def ratio(self) -> float | None:
        return None if not self.published else self.simulated / self.published

    @property
    def span(self) -> tuple[float, float]:
        return min(self.values, default=math.nan), max(self.values, default=math.nan)


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
    return f"{value:.0f}" if unit == "n" else f"{value:.4g}"


def markdown(rows: Iterable[Row]) -> str:
    """Figure, of what, published, simulated (median), lowest to highest run, ratio."""
    lines = ["| figure | of | published | simulated | runs | ratio |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        low, high = (number(value, row.unit) for value in row.span)
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        cells = [row.figure, row.of, number(row.published, row.unit), number(row.simulated, row.unit)]
        lines.append(f"| {' | '.join([*cells, f'{low} to {high}' if low != high else low, ratio])} |")
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
