"""Case study 3: the highest rate of chains, and of DAGs, that one GPU serves within an SLO.

python examples/case-study-3/run.py            writes the table of published against simulated figures
python examples/case-study-3/run.py --without all      what the conclusions become without the quirks
python examples/case-study-3/run.py --rows FILE        replay the arrivals in measured rows, instead of seeds
python examples/case-study-3/run.py --curve            search nothing, tell figures by load
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from h100 import published
from h100.experiment import CALLS, DURATION_S, SHAPES, Shape, plan, run
from h100.options import Asked, add_quirks, parser, told
from h100.rows import continued, unit_starts
from h100.tables import BOTH, NAMED, Row, of_figure, publish

from workloom.answers.frontier import Frontier, Limit, Series, search
from workloom.errors import UsageError

TBC_LIMITS_S = (0.075, 0.074, 0.076)
"""The limit, and 1 ms to either side of it: TBC p95 hardly rises with the load where it meets the limit."""
LOW, HIGH, STEP = 3.0, 9.0, 0.1
"""Requests per second that are searched."""
CURVE = (4.0, 4.5, 5.0, 5.5, 6.0, 6.5)


PUBLISHED = published.read(Path(__file__).parent, published.Frontiers)


class Found(NamedTuple):
    """Of one shape: runs of every seed, and a frontier of every seed and TBC limit."""

    runs: list[Series]
    frontiers: list[list[Frontier]]

    @property
    def rho(self) -> list[float]:
        """By seed, under the limit as published; nan where no rate held."""
        return [of_seed[0].holds or math.nan for of_seed in self.frontiers]

    @property
    def ends(self) -> list[float]:
        """Both ends of every interval; nan where there is none."""
        intervals = [f.interval or (math.nan, math.nan) for of_seed in self.frontiers for f in of_seed]
        return [end for interval in intervals for end in interval]


def limits(tbc_s: float) -> list[Limit]:
    """The SLO: TTFC p95 <= 0.75 s, TBC p95 <= 75 ms, under 2 % errors."""
    return [Limit("ttfc_p95_s", 0.75), Limit("tbc_p95_s", tbc_s), Limit("failed", 0.02)]


def main(argv: list[str] | None = None) -> list[Row]:
    made = parser("Case study 3: the frontier under an SLO; it takes minutes", "qwen3.5-35b-a3b-h100", "case-study-3")
    add_quirks(made)
    made.add_argument("--step", type=float, default=STEP, help="requests/s between rates (default %(default)s)")
    made.add_argument("--rows", type=Path, help="measured rows (.parquet) whose arrivals to replay")
    made.add_argument("--rows-rate", type=float, default=0.8, help="their sessions/s (default %(default)s)")
    made.add_argument("--curve", action="store_true", help="figures by load, of one seed, in place of the search")
    asked = made.parse_args(argv, namespace=Asked())
    if not 0 < asked.step <= HIGH - LOW:
        raise UsageError("no such step", where="--step", found=f"{asked.step:g}", hint=f"--step {STEP:g}")
    rows = curve(asked) if asked.curve else table({shape: searched(asked, shape) for shape in SHAPES})
    title = f"case study 3, {asked.label}" + (", measured arrivals" if asked.rows else "")
    publish(asked.out, title + (", by load" if asked.curve else ""), rows)
    return rows


def curve(asked: Asked) -> list[Row]:
    """What the limits are asked of, and the hit rate, at rates about the frontier."""
    first = {shape: all_series(asked, shape)[0] for shape in SHAPES}
    return [
        of_figure(name, shape, None, [first[shape].at(rate)[name]], f" at {rate:.2f}")
        for shape in SHAPES
        for rate in CURVE
        for name in ("tbc_p95_s", "ttfc_p95_s", "hit_rate")
    ]


def searched(asked: Asked, shape: Shape) -> Found:
    """The frontiers of a shape, for every seed."""
    runs = all_series(asked, shape)
    frontiers = []
    for seed, one in enumerate(runs):
        frontiers.append([search(one, limits(tbc_s), LOW, HIGH, asked.step) for tbc_s in TBC_LIMITS_S])
        first = frontiers[-1][0]
        by = " and ".join(first.limited_by) or "nothing"
        print(f"{shape}, {seed + 1} of {len(runs)}: rho* {first.holds or math.nan:g}, limited by {by}", file=sys.stderr)
    return Found(runs, frontiers)


def all_series(asked: Asked, shape: Shape) -> list[Series]:
    """Of every seed. Measured arrivals that reach far enough are one series, else seeds draw the rest of them."""
    if asked.rows is None:
        return [series(asked, shape, seed, []) for seed in range(asked.seeds)]
    starts, longest = unit_starts(asked.rows, asked.rows_rate), HIGH / CALLS[shape] * DURATION_S
    if starts[-1] >= longest:
        return [series(asked, shape, 0, starts)]
    return [series(asked, shape, seed, continued(starts, longest, seed)) for seed in range(asked.seeds)]


def series(asked: Asked, shape: Shape, seed: int, starts: list[float]) -> Series:
    """Runs of one seed at rates in requests per second."""

    def measure(rate: float) -> dict[str, float]:
        made = plan(shape, rate / CALLS[shape], asked.out, quirks=asked.quirks, seed=seed, unit_starts=starts)
        return run(made, asked.profile).named()

    return Series(measure)


def table(found: dict[Shape, Found]) -> list[Row]:
    """Every published figure: rho*, the figures at the published rates and at the rho* found, and useful work."""
    rows = []
    for shape in SHAPES:
        value = PUBLISHED.rho[shape]
        rows.append(Row("rho*, requests/s", NAMED[shape], value, tuple(found[shape].rho)))
        rows.append(Row("rho*, TBC limit 74 to 76 ms", NAMED[shape], value, tuple(found[shape].ends)))
    work, gained = _ratios(found["dag"].rho, found["linear"].rho), PUBLISHED.fleet
    rows.append(Row("useful work", BOTH, gained["useful_work"], work))
    rows.append(Row("slack of a fleet for chains", BOTH, gained["slack"], tuple(1 - 1 / x for x in work), "%"))
    for shape in SHAPES:
        for told_at in PUBLISHED.at[shape]:
            there = [one.at(told_at["rate"]) for one in found[shape].runs]
            rows += _figures(shape, told_at, there, f" at {told_at['rate']:.2f}")
    for shape in SHAPES:
        (at_rho,) = (t for t in PUBLISHED.at[shape] if t["rate"] == PUBLISHED.rho[shape])
        pairs = zip(found[shape].runs, found[shape].rho, strict=True)
        rows += _figures(shape, at_rho, [one.at(rho) for one, rho in pairs if not math.isnan(rho)], " at rho*")
    return rows


def _figures(shape: Shape, told_at: dict[str, float], found: list[dict[str, float]], at: str) -> list[Row]:
    return [
        of_figure(name, shape, value, [f[name] for f in found], at) for name, value in told_at.items() if name != "rate"
    ]


def _ratios(above: list[float], below: list[float]) -> tuple[float, ...]:
    """Seed by seed, or of all pairs where one of both has a single run."""
    pairs = zip(above, below, strict=True) if len(above) == len(below) else ((a, b) for a in above for b in below)
    return tuple(a / b for a, b in pairs)


if __name__ == "__main__":
    sys.exit(told(main))
