"""CPU of the live client per call and per streamed token, against the bare loop in the same run.

    python benchmarks/client_cpu.py [--rounds 3] [--c-mock PATH]

Both clients take turns against one server in another process, so that the machine's noise falls on both. CPU time is
what a client's process used, user and system, from its first request to its last completion: the bare loop's, and a
live run's with plan, driver, prompts, typed events and records on disk.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time

import bare_loop
import client
import uvloop

from workloom.plan import Closed

CASES = (
    # name, calls, concurrency, tokens a call, at most this many times the bare loop, goal
    ("8 tokens a call, 128 calls at once", 4000, 128, 8, 4.0, 2.0),
    ("200 tokens a call, 64 streams", 320, 64, 200, 1.5, 1.5),
)


def bare_cpu_s(port: int, calls: int, concurrency: int, tokens: int) -> float:
    """CPU seconds of the bare loop."""
    before = time.process_time()
    uvloop.run(bare_loop.drive(port, calls, concurrency, tokens))
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--c-mock", help="a built mock server in C to use instead of the null server")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the calls (a rough figure below 1)")
    args = parser.parse_args()
    with client.server(*(["0", "0"] if args.c_mock else []), c_mock=args.c_mock) as port:
        for name, calls, concurrency, tokens, limit, goal in CASES:
            calls = max(2, round(calls * args.scale))
            bare, ours = [], []
            for turn in range(args.rounds + 1):
                plan = client.plan(calls, Closed(concurrency), tokens)
                gc.collect()
                pair = bare_cpu_s(port, calls, concurrency, tokens) / calls, client.run(port, plan)[0] / calls
                if turn:  # the first warms up
                    bare.append(pair[0])
                    ours.append(pair[1])
            ratio = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
            print(f"{name}")
            for who, values in (("bare loop", bare), ("workloom", ours)):
                per_call = statistics.median(values) * 1e6
                print(f"  {who:10} {per_call:8.1f} us CPU a call  {per_call / tokens:7.2f} us a token")
            verdict = (
                "goal reached" if ratio <= goal else "limit kept, goal not reached" if ratio <= limit else "MISSED"
            )
            print(f"  ratio      {ratio:8.2f} (at most {limit}, goal {goal}): {verdict}")


if __name__ == "__main__":
    main()
