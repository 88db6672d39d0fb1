"""CPU of the live client per call and per streamed token, against the bare loop in the same run.

    python benchmarks/client_cpu.py [--rounds 3] [--mock PATH/mock.c]

Both clients take turns against one server in another process, so that the machine's noise falls on both. CPU time is
what a client's process used, user and system, from its first request to its last completion: the bare loop's, and a
live run's with plan, driver, prompts corrected by usage, time-outs, typed events and records on disk.

Without a delay the bare loop is as fast as the server, and the server never sleeps; a slower client wakes it with each
request, and pays for that. With a delay both clients have the same load.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from typing import NamedTuple

import bare_loop
import client
import uvloop

from workloom.plan import Closed


class Case(NamedTuple):
    name: str
    calls: int
    concurrency: int
    tokens: int
    ttft_ms: float
    gap_ms: float
    goal: float
    """At most so many times the bare loop."""
    of_session: int = 1
    """Calls of a session."""


CASES = (
    Case("8 tokens a call, 128 calls at once", 4000, 128, 8, 0, 0, 2.0),
    Case("the same in sessions of 10 calls", 4000, 128, 8, 0, 0, 2.0, 10),
    Case("8 tokens a call, 128 at once, the first after 20 ms", 4000, 128, 8, 20, 0, 2.0),
    Case("200 tokens a call, 64 streams", 320, 64, 200, 0, 0, 1.5),
    Case("256 streams of 100 tokens/s", 256, 256, 200, 50, 10, 1.3),
)


def bare_cpu_s(port: int, calls: int, concurrency: int, tokens: int) -> float:
    """CPU seconds of the bare loop."""
    before = time.process_time()
    uvloop.run(bare_loop.drive(port, calls, concurrency, tokens))
    return time.process_time() - before


def compare(case: Case, rounds: int, scale: float, args: argparse.Namespace) -> None:
    """Both clients in turn, and how they compare."""
    calls = max(2, round(case.calls * scale)) // case.of_session * case.of_session or case.of_session
    with client.server(args.mock, case.ttft_ms, case.gap_ms) as server:
        bare, ours = [], []
        for turn in range(rounds + 1):
            plan = client.plan(calls, Closed(case.concurrency), case.tokens, calls=case.of_session)
            gc.collect()
            pair = bare_cpu_s(server.port, calls, case.concurrency, case.tokens), client.run(server.port, plan)[0]
            if turn:  # the first warms up
                bare.append(pair[0] / calls)
                ours.append(pair[1] / calls)
    ratio = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
    print(case.name)
    for who, values in (("bare loop", bare), ("workloom", ours)):
        per_call = statistics.median(values) * 1e6
        print(f"  {who:10} {per_call:8.1f} us CPU a call  {per_call / case.tokens:7.2f} us a token")
    print(
        f"  ratio      {ratio:8.2f} (goal {case.goal}): {'reached' if ratio <= case.goal else 'NOT REACHED'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of the cases to run, from 0 (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the calls (a rough figure below 1)")
    client.with_mock(parser)
    args = parser.parse_args()
    for i, case in enumerate(CASES):
        if args.cases is None or i in args.cases:
            compare(case, args.rounds, args.scale, args)


if __name__ == "__main__":
    main()
