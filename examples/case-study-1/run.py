"""Case study 1: long sessions one after the other, with the prefix cache and without.

python examples/case-study-1/run.py            writes the table of published against simulated figures
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from h100 import published
from h100.options import Asked, parser, told
from h100.tables import Row, publish
from h100.workloads import turns, write

from workloom.answers.simulated import play
from workloom.clock import NS
from workloom.engine.profile import Profile
from workloom.plan import Closed, Recipe, TraceRef, make

PUBLISHED = published.read(Path(__file__).parent, dict[str, list[float]])
PROFILE = str(Path(__file__).with_name("profile.yaml"))
TURNS = 10
"""Of a range."""


def main(argv: list[str] | None = None) -> list[Row]:
    asked = parser("Case study 1: the prefix cache over a long session", PROFILE, "case-study-1").parse_args(
        argv, namespace=Asked()
    )
    found = {
        of: [ttfc_by_turn(asked.profile, seed, asked.out, prefix_cache=of == "cache") for seed in range(asked.seeds)]
        for of in ("cache", "no cache")
    }
    rows = [
        Row(f"TTFC p50, turns {i * TURNS} to {i * TURNS + TURNS - 1}", of, value, tuple(f[i] for f in found[of]), "s")
        for of in found
        for i, value in enumerate(PUBLISHED[of])
    ]
    first, last = PUBLISHED["no cache"][0] / PUBLISHED["cache"][0], PUBLISHED["no cache"][-1] / PUBLISHED["cache"][-1]
    for name, i, value in (("first", 0, first), ("last", len(PUBLISHED["cache"]) - 1, last)):
        gain = tuple(b[i] / a[i] for a, b in zip(found["cache"], found["no cache"], strict=True))
        rows.append(Row(f"TTFC p50, {name} range", "no cache / cache", value, gain))
    publish(asked.out, "case study 1", rows)
    return rows


def ttfc_by_turn(profile: Profile, seed: int, folder: Path, *, prefix_cache: bool) -> list[float]:
    """Median TTFC, in seconds, by range of turns."""
    path = write(folder / f"turns-{seed}.jsonl", turns(seed))
    kept = play(make(Recipe(TraceRef((str(path),)), Closed(1), seed=seed)), profile, prefix_cache=prefix_cache)
    ranges: dict[int, list[float]] = {}
    for record in kept.calls:
        if record.first_ns is not None and record.sent_ns is not None:
            ranges.setdefault(record.ordinal // TURNS, []).append((record.first_ns - record.sent_ns) / NS)
    return [median(ranges[i]) for i in sorted(ranges)]


if __name__ == "__main__":
    sys.exit(told(main))
