"""What the simulator costs: calls per second, how the cost grows, and how fast traces come in.

    python benchmarks/simulator.py [--weka ../shared/data/weka] [--million] [--hot]

Prints: the WEKA set at concurrency 8 with infinite capacity, on one replica and on four; one-token calls per second,
records on disk included; CPU per call at 1,000, 10,000 and 100,000 calls, with 1x, 30x and 1,000x the tokens, and with
10x the output tokens alone; the reader's MB/s and memory. --million: a million small calls, and the memory they take.
--hot: where the time of small calls goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from workloom.drive.driver import Options, Progress
from workloom.engine import profile as profiles
from workloom.engine.fleet import Fleet, Pool
from workloom.execute import Simulated, execute
from workloom.plan import Closed, Context, Limits, Recipe, TraceRef, make
from workloom.session import Call, Edge, Header, Inherit, Part, Session
from workloom.traces import native, open_trace

ENGINE = "llama-3.1-8b-h200x1"


def chains(calls: int, fresh: int, output: int, wait_s: float = 1.0, length: int = 5) -> list[Session]:
    """Sessions of `length` calls in a chain, each inheriting all of the one before."""
    sessions = []
    for s in range(calls // length):
        chain = [
            Call(
                f"c{i}",
                output,
                after=(Edge(f"c{i - 1}", wait_s, "tool"),) if i else (),
                inherit=Inherit(f"c{i - 1}") if i else None,
                fresh=(Part("user", fresh),),
            )
            for i in range(length)
        ]
        sessions.append(Session(f"s{s}", tuple(chain)))
    return sessions


def timed_run(folder: Path, sessions: list[Session], total: int, concurrency: int) -> float:
    """CPU seconds of a run of `total` calls on infinite KV, from plan to tables."""
    recipe, target = small(folder, sessions, total, concurrency)
    return spent_on(recipe, target, folder / f"run{total}-{time.perf_counter_ns()}")


def small(folder: Path, sessions: list[Session], total: int, concurrency: int) -> tuple[Recipe, Simulated]:
    """So many calls of the sessions, over and over, on infinite KV."""
    trace = folder / "trace.jsonl"
    native.write(trace, Header(source="benchmark"), sessions)
    length = len(sessions[0].calls)
    recipe = Recipe(
        TraceRef((str(trace),)), Closed(concurrency), Limits(sessions=total // length), context=Context(10_000_000)
    )
    return recipe, Simulated(replace(profiles.load(ENGINE), max_model_len=10_000_000, kv_tokens=None))


def spent_on(recipe: Recipe, target: Simulated, out: Path) -> float:
    """CPU seconds of a run."""
    began = time.process_time()
    execute(make(recipe), target, out, options=Options(), progress=Progress(), argv=[], summarize=lambda run: b"{}")
    return time.process_time() - began


def weka_fleet(weka: Path, folder: Path) -> None:
    """All files at once on four replicas behind a router, from the first byte read to the tables."""
    profile = replace(profiles.load("llama-3.1-70b-h200x4"), max_model_len=1_000_000, kv_tokens=None)
    sessions = len(list(weka.glob("*.json")))
    for router in ("round_robin", "prefix"):
        fleet = Fleet((Pool(profile, replicas=4),), router=router)
        recipe = Recipe(TraceRef((str(weka),)), Closed(sessions), Limits(sessions=sessions), context=Context(1_000_000))
        spent = spent_on(recipe, Simulated.of(fleet), folder / f"fleet-{router}")
        print(f"WEKA, all {sessions} files at once, 4 replicas, {router}: {spent:.1f} s CPU (goal: under 30)")


def million(folder: Path) -> None:
    """A million calls of 200 + 50 tokens; run it alone, its memory is that of the process."""
    began = time.perf_counter()
    spent = timed_run(folder, chains(1000, 200, 50), 1_000_000, 32)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall = time.perf_counter() - began
    print(f"1,000,000 calls: {spent:.0f} s CPU, {wall:.0f} s wall (goal: 600), at most {peak:.2f} GB (goal: 4)")


def hot(folder: Path) -> None:
    """Where the time of 20,000 small calls goes."""
    recipe, target = small(folder, chains(1000, 200, 50), 20_000, 32)
    watched = cProfile.Profile()
    watched.runcall(spent_on, recipe, target, folder / "hot")
    pstats.Stats(watched).sort_stats("tottime").print_stats(40)


def weka_run(weka: Path, folder: Path) -> None:
    """The command a user types, start-up and tables included."""
    command = [sys.executable, "-m", "workloom.cli", "run", str(weka), "--concurrency", "8", "--engine"]
    command += ["llama-3.1-70b-h200x4", "--max-model-len", "1000000", "--kv-tokens", "inf", "-o", str(folder / "weka")]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"WEKA, concurrency 8, infinite KV: {time.perf_counter() - began:.1f} s wall (goal: under 15)")


def weka_import(weka: Path) -> None:
    files = sorted(weka.glob("*.json"))
    size = sum(f.stat().st_size for f in files) / 1e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    calls = sum(len(session.calls) for session in open_trace([str(weka)]))
    spent = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    largest = max(f.stat().st_size for f in files) / 1e6
    print(
        f"WEKA import: {size:.0f} MB, {calls} calls in {spent:.2f} s CPU: {size / spent:.0f} MB/s (goal 60); "
        f"memory grew by {grown:.0f} MB (largest file {largest:.1f} MB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weka", type=Path, default=Path("../shared/data/weka"))
    parser.add_argument("--most", type=int, default=100_000, help="calls of the longest run")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--hot", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.million or options.hot:
            (million if options.million else hot)(folder)
            return
        if options.weka.is_dir():
            weka_import(options.weka)
            weka_run(options.weka, folder)
            weka_fleet(options.weka, folder)
        else:
            print(f"no WEKA files at {options.weka}: left out")
        one = [Session(f"s{i}", (Call("c", 1, fresh=(Part("user", 64),)),)) for i in range(1000)]
        timed_run(folder, one, 500, 64)
        spent = timed_run(folder, one, 10_000, 64)
        print(f"one-token calls: {10_000 / spent:,.0f} a CPU second, driver and records included (goal 3,000)")
        some = chains(1000, 200, 50)
        for calls in (1_000, 10_000, 100_000):
            if calls <= options.most:
                spent = timed_run(folder, some, calls, 32)
                print(f"{calls:>7,} calls of 200 + 50 tokens: {1e6 * spent / calls:6.0f} us CPU a call")
        for times in (1, 30, 1000):
            spent = timed_run(folder, chains(1000, 20 * times, 5 * times), 5_000, 32)
            print(f"  5,000 calls of {20 * times:,} + {5 * times:,} tokens: {1e6 * spent / 5_000:6.0f} us CPU a call")
        for wait_s, said in ((0.0, "as many under way"), (1.0, "more under way, as waits stay")):
            least = [
                min(timed_run(folder, chains(1000, 200, n, wait_s), 5_000, 32) for _ in range(2)) for n in (50, 500)
            ]
            print(f"10x the output tokens, {said}: {least[1] / least[0]:.2f} times as long (goal: at most 1.3)")


if __name__ == "__main__":
    main()
