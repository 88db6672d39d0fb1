"""Case study 3: the highest rate of chains, and of DAGs, that one GPU serves within an SLO.

python examples/case-study-3/run.py            writes the table of published against simulated figures
python examples/case-study-3/run.py --without all      what the conclusions become without the quirks
python examples/case-study-3/run.py --rows FILE        replay the arrivals in measured rows, instead of seeds
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
from h100.experiment import CALLS, DURATION_S, SHAPES, Shape, plan, run
from h100.options import Asked, parser
from h100.rows import continued, unit_starts
from h100.tables import Row, publish

from workloom.answers.frontier import Frontier, Limit, Series, miss, search, spread

PUBLISHED = Path(__file__).with_name("published.json")
TBC_LIMITS_S = (0.075, 0.074, 0.076)
"""The limit, and 1 ms to either side of it: TBC p95 hardly rises with the load where it meets the limit."""
LOW, HIGH, STEP = 3.0, 9.0, 0.1
"""Requests per second that are searched."""
UNITS = {"tbc_p95_s": "ms", "hit_rate": "", "prompt_reuse": "", "rate": ""}


def limits(tbc_s: float) -> list[Limit]:
    """The SLO: TTFC p95 <= 0.75 s, TBC p95 <= 75 ms, under 2 % errors."""
    return [Limit("ttfc_p95_s", 0.75), Limit("tbc_p95_s", tbc_s), Limit("failed", 0.02)]


def main(argv: list[str] | None = None) -> list[Row]:
    made = parser("Case study 3: the frontier under an SLO", "qwen3.5-35b-a3b-h100", "case-study-3")
    made.add_argument("--step", type=float, default=STEP, help="requests/s between rates (default %(default)s)")
    made.add_argument("--rows", type=Path, help="measured rows (.parquet) whose arrivals to replay")
    made.add_argument("--rows-rate", type=float, default=0.8, help="their sessions/s (default %(default)s)")
    asked = made.parse_args(argv, namespace=Asked())
    found = {shape: [series(asked, shape, seed) for seed in range(asked.seeds)] for shape in SHAPES}
    frontiers = {
        shape: [[search(s, limits(tbc_s), LOW, HIGH, asked.step) for tbc_s in TBC_LIMITS_S] for s in found[shape]]
        for shape in SHAPES
    }
    rows = table(found, frontiers)
    publish(asked.out, f"case study 3, {asked.label}" + (", measured arrivals" if asked.rows else ""), rows)
    for shape in SHAPES:
        tell(shape, frontiers[shape])
    return rows


def series(asked: Asked, shape: Shape, seed: int) -> Series:
    """Runs of one seed at rates in requests per second."""
    starts: list[float] = []
    if asked.rows is not None:
        longest = HIGH / CALLS[shape] * DURATION_S
        starts = continued(unit_starts(asked.rows, asked.rows_rate), longest, seed)

    def measure(rate: float) -> dict[str, float]:
        made = plan(shape, rate / CALLS[shape], asked.out, quirks=asked.quirks, seed=seed, unit_starts=starts)
        return run(made, asked.profile).named()

    return Series(measure)


def table(found: dict[Shape, list[Series]], frontiers: dict[Shape, list[list[Frontier]]]) -> list[Row]:
    """Every published figure: rho*, what was measured at it, the DAG at the chain's rho*, and useful work."""
    published: dict[str, dict[str, dict[str, float]]] = msgspec.json.decode(PUBLISHED.read_bytes())
    best: dict[Shape, list[float]] = {s: [f[0].holds or float("nan") for f in frontiers[s]] for s in SHAPES}
    rows = [
        Row("rho*, requests/s", shape, published["frontier"][shape]["rate"], tuple(best[shape])) for shape in SHAPES
    ]
    for shape in SHAPES:
        for figure, value in published["frontier"][shape].items():
            if figure != "rate":
                values = tuple(s.at(rate)[figure] for s, rate in zip(found[shape], best[shape], strict=True))
                rows.append(Row(f"{figure} at rho*", shape, value, values, UNITS.get(figure, "s")))
    for figure, value in published["replay"]["dag"].items():
        if figure != "rate":
            values = tuple(s.at(published["replay"]["dag"]["rate"])[figure] for s in found["dag"])
            rows.append(Row(f"{figure} at 5.50", "dag", value, values, UNITS.get(figure, "s")))
    work = tuple(d / c for d, c in zip(best["dag"], best["linear"], strict=True))
    rows.append(Row("useful work", "dag / linear", published["fleet"]["useful_work"]["ratio"], work))
    slack = tuple(1 - 1 / ratio for ratio in work)
    rows.append(Row("slack of a fleet for chains", "dag", published["fleet"]["slack"]["share"], slack, "%"))
    return rows


def tell(shape: Shape, frontiers: list[list[Frontier]]) -> None:
    """The interval of rho* over all seeds and readings of the limit, and whether it holds the published one."""
    value = msgspec.json.decode(PUBLISHED.read_bytes())["frontier"][shape]["rate"]
    between = spread(f for of_seed in frontiers for f in of_seed)
    if between is None:
        print(f"{shape}: no frontier between {LOW:g} and {HIGH:g} requests/s")
        return
    off = miss(between, value)
    limited = sorted({figure for of_seed in frontiers for f in of_seed for figure in f.limited_by})
    holds = "holds" if not off else f"misses by {off:.1%}"
    print(
        f"{shape}: rho* {between[0]:.2f} to {between[1]:.2f} requests/s over {len(frontiers)} seeds and TBC limits of "
        f"{', '.join(f'{limit * 1e3:g}' for limit in sorted(TBC_LIMITS_S))} ms; it {holds} the published {value:.2f}; "
        f"limited by {', '.join(limited)}"
    )


if __name__ == "__main__":
    main()
