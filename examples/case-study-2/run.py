"""Case study 2: a chain and a DAG of the same calls at the same rate.

python examples/case-study-2/run.py            writes the table of published against simulated figures
python examples/case-study-2/run.py --without all      what the conclusions become without the quirks
python examples/case-study-2/run.py --rows FILE        replay the arrivals in measured rows, instead of seeds
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from h100 import published
from h100.experiment import SHAPES, Shape, plan, run, ttfc_by_call
from h100.figures import Figures
from h100.options import Asked, add_quirks, parser, told
from h100.rows import unit_starts
from h100.tables import BOTH, Row, of_figure, publish

from workloom.plan import Plan

SESSIONS_PER_S = 0.18
SIBLINGS = slice(5, 14)
"""Calls of the DAG that come at once, by threes."""
PUBLISHED = published.read(Path(__file__).parent, dict[str, dict[str, float]])


def main(argv: list[str] | None = None) -> list[Row]:
    made = parser("Case study 2: a chain and a DAG at 0.18 sessions/s", "qwen3.5-35b-a3b-h100", "case-study-2")
    add_quirks(made)
    made.add_argument("--rows", type=Path, help="measured rows (.parquet) at that rate, whose arrivals to replay")
    asked = made.parse_args(argv, namespace=Asked())
    rows = table(asked)
    title = f"case study 2, {asked.label}" + (", measured arrivals" if asked.rows else "")
    publish(asked.out, title, rows)
    publish(asked.out, title + ", nine siblings", siblings(asked))
    return rows


def plans(asked: Asked, shape: Shape) -> list[Plan]:
    """One of the measured arrivals, or one of each seed."""
    starts = unit_starts(asked.rows, SESSIONS_PER_S) if asked.rows is not None else []
    seeds = range(1 if starts else asked.seeds)
    return [plan(shape, SESSIONS_PER_S, asked.out, quirks=asked.quirks, seed=s, unit_starts=starts) for s in seeds]


def siblings(asked: Asked) -> list[Row]:
    """Median TTFC of the nine calls of the DAG that come at once, in the order they are sent."""
    found = [ttfc_by_call(made, asked.profile)[SIBLINGS] for made in plans(asked, "dag")]
    return [
        Row(f"TTFC p50 of sibling {i + 1}", "DAG", None, values, "s")
        for i, values in enumerate(zip(*found, strict=True))
    ]


def table(asked: Asked) -> list[Row]:
    """Every published figure of both shapes, and their ratios DAG / chain."""
    found: dict[str, list[Figures]] = {s: [run(made, asked.profile) for made in plans(asked, s)] for s in SHAPES}
    rows = []
    for figure, values in PUBLISHED.items():
        per_shape = {shape: [float(getattr(f, figure)) for f in found[shape]] for shape in SHAPES}
        rows += [of_figure(figure, s, values[s], per_shape[s]) for s in SHAPES if s in values]
        if len(values) == 2:
            ratios = [d / c for d, c in zip(per_shape["dag"], per_shape["linear"], strict=True)]
            rows.append(of_figure(figure, BOTH, values["dag"] / values["linear"], ratios))
    return rows


if __name__ == "__main__":
    sys.exit(told(main))
