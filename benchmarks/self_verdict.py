"""Whether the tool knows when it cannot be trusted: verdicts at 0.8 and 1.5 times the limits that selftest finds.

    python benchmarks/self_verdict.py [--runs 20] [--seconds 2.5] [--calls LIMIT] [--tokens LIMIT]

At 0.8 of a limit 19 of 20 runs must be valid, at 1.5 of it 19 of 20 invalid. Limits that are not given are measured
first. Run it on a machine that does nothing else: what others take is taken from the tool, and it says so.
"""

from __future__ import annotations

import argparse
from collections import Counter

from workloom.answers.selftest import RESOLUTION, SECONDS, Measure, limit, null_server

LEVELS = ((0.8, "valid"), (1.5, "invalid"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--calls", type=float, help="the limit in calls/s")
    parser.add_argument("--tokens", type=float, help="the limit in streamed tokens/s")
    args = parser.parse_args()
    for unit in ("calls", "tokens"):
        with null_server() as url:
            measure = Measure(url, args.seconds)
            measure.run(unit, 500, 1.05)
            top = getattr(args, unit)
            if top is None:
                top = limit(unit, Measure(url, SECONDS / 15), print).per_s
                print(f"limit: {top:,.0f} {unit}/s (to within {RESOLUTION - 1:.0%})")
            for level, expected in LEVELS:
                trials = [measure.trial(unit, level * top) for _ in range(args.runs)]
                verdicts = Counter(str(trial.verdict) for trial in trials)
                others = Counter(trial.rule for trial in trials if trial.verdict != expected)
                met = "met" if verdicts[expected] >= 0.95 * args.runs else "MISSED"
                print(
                    f"{level} x {top:,.0f} {unit}/s: {verdicts[expected]} of {args.runs} {expected}: {met}"
                    f"{f' (others: {dict(verdicts)}, by {dict(others)})' if others else ''}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
