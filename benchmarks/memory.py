"""Memory of the live client: 256 streams, and 1,000 live sessions of 100,000 tokens.

    python benchmarks/memory.py [--streams 256] [--sessions 1000] [--tokens 100000]

Each case runs in a process of its own, its records going to disk as in every run; what is told is its greatest
proportional share of memory (PSS), from its start to the tables that it writes at the end, all modules included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import threading
from collections.abc import Callable
from pathlib import Path

import client

from workloom.plan import Closed, Plan
from workloom.session import Call, Edge, Inherit, Part, Session

STREAMS_MB, SESSIONS_MB = 120, 1000


def streaming(streams: int) -> Plan:
    return client.plan(2 * streams, Closed(streams), 200)


def long_lived(sessions: int, tokens: int, wait_s: float) -> Plan:
    """Sessions of two calls, the second long after the first of all of them: they are all alive meanwhile."""
    calls = (
        Call("first", 8, fresh=(Part("user", tokens),)),
        Call("second", 8, (Edge("first", wait_s, "human"),), inherit=Inherit("first"), fresh=(Part("user", 64),)),
    )
    return client.plan_of([Session(str(i), calls) for i in range(sessions)], Closed(sessions), sessions)


def peak_mb(mock: Path, gap_ms: float, make: Callable[..., Plan], *sizes: float) -> float:
    """The most memory of a process that carries out a plan."""
    with client.server(mock, 50.0, gap_ms) as server, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (server.port, make, sizes))


def _peak_mb(port: int, make: Callable[..., Plan], sizes: tuple[float, ...]) -> float:
    seen, done = [pss_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(pss_mb())

    watching = threading.Thread(target=watch)
    watching.start()
    client.run(port, make(*sizes), keep=False, correct=False)
    seen.append(pss_mb())
    done.set()
    watching.join()
    return max(seen)


def pss_mb() -> float:
    found = re.search(r"^Pss: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1e3


def show(what: str, found_mb: float, goal_mb: float) -> None:
    verdict = "reached" if found_mb <= goal_mb else "NOT REACHED"
    print(f"{what}: {found_mb:.0f} MB at most (goal {goal_mb} MB): {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--wait", type=float, default=20.0, help="seconds between the two calls of a session")
    client.with_mock(parser)
    args = parser.parse_args()
    show(f"{args.streams} streams of 100 tokens/s", peak_mb(args.mock, 10.0, streaming, args.streams), STREAMS_MB)
    found_mb = peak_mb(args.mock, 0.0, long_lived, args.sessions, args.tokens, args.wait)
    show(f"{args.sessions} live sessions of {args.tokens:,} tokens", found_mb, SESSIONS_MB)


if __name__ == "__main__":
    main()
