"""Case study 2: a chain and a DAG of the same calls at the same rate.

python examples/case-study-2/run.py            writes the table of published against simulated figures
python examples/case-study-2/run.py --without all      what the conclusions become without the quirks
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
from h100.experiment import SHAPES, plan, run
from h100.figures import Figures
from h100.options import Asked, parser
from h100.rows import unit_starts
from h100.tables import Row, publish

SESSIONS_PER_S = 0.18
PUBLISHED = Path(__file__).with_name("published.json")
UNITS = {"prompt_tokens": "", "hit_rate": "", "decodes_max": "n", "decodes_many": "%", "tbc_p99_s": "ms"}


def main(argv: list[str] | None = None) -> list[Row]:
    made = parser("Case study 2: a chain and a DAG at 0.18 sessions/s", "qwen3.5-35b-a3b-h100", "case-study-2")
    made.add_argument("--rows", type=Path, help="measured rows (.parquet) at that rate: replay their arrivals, too")
    asked = made.parse_args(argv, namespace=Asked())
    rows = table(asked)
    publish(asked.out, f"case study 2, {asked.label}", rows)
    if asked.rows is not None:
        publish(asked.out, f"case study 2, {asked.label}, measured arrivals", table(asked, asked.rows))
    return rows


def table(asked: Asked, measured: Path | None = None) -> list[Row]:
    """Every published figure of both shapes, and their ratios DAG / linear."""
    published: dict[str, dict[str, float]] = msgspec.json.decode(PUBLISHED.read_bytes())
    starts = unit_starts(measured, SESSIONS_PER_S) if measured is not None else []
    found: dict[str, list[Figures]] = {}
    for shape in SHAPES:
        found[shape] = [
            run(
                plan(shape, SESSIONS_PER_S, asked.out, quirks=asked.quirks, seed=seed, unit_starts=starts),
                asked.profile,
            )
            for seed in range(1 if starts else asked.seeds)
        ]
    rows = []
    for figure, values in published.items():
        per_shape = {shape: tuple(float(getattr(f, figure)) for f in found[shape]) for shape in SHAPES}
        rows += [Row(figure, s, values.get(s), per_shape[s], UNITS.get(figure, "s")) for s in SHAPES if s in values]
        if len(values) == 2:
            ratios = tuple(d / c for d, c in zip(per_shape["dag"], per_shape["linear"], strict=True))
            rows.append(Row(figure, "dag / linear", values["dag"] / values["linear"], ratios))
    return rows


if __name__ == "__main__":
    main()
