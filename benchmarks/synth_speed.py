"""How fast sessions are drawn from workloads, and whether memory stays where it is however many there are.

    python benchmarks/synth_speed.py [--seconds 1] [--few 1000] [--many 20000] [NAME ...]

draw: calls of the built-in workloads per CPU second of this process, the best of the rounds that fit into `--seconds`.
write: the same, with the trace written and compressed, as `workloom synth` does it. Goal: 2,000 calls a second; ratio:
what is written to the goal. Peak memory is that of `workloom synth` in a process of its own, for few and for many
sessions; their ratio should be 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from workloom.model.workload.builtin import builtin, names
from workloom.model.workload.generate import generate, header
from workloom.model.workload.spec import Workload
from workloom.session import Session
from workloom.traces import native

GOAL = 2000
MEMORY = "agentic-coding"
PEAK = """
import resource, sys
from workloom.cli import main
main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def draw(workload: Workload, sessions: int) -> int:
    """Calls of so many sessions."""
    return sum(len(session.calls) for session in generate(workload, 7, sessions))


def write(workload: Workload, sessions: int) -> int:
    """The same, written into a temporary file."""
    calls = 0

    def counted() -> Iterator[Session]:
        nonlocal calls
        for session in generate(workload, 7, sessions):
            calls += len(session.calls)
            yield session

    with tempfile.TemporaryDirectory() as folder:
        native.write(Path(folder) / "t.jsonl.zst", header(workload), counted(), validated=True)
    return calls


def best(work: Callable[[Workload, int], int], workload: Workload, sessions: int, seconds: float) -> float:
    """Calls a CPU second in the fastest round."""
    rates: list[float] = []
    end = time.monotonic() + seconds
    while not rates or time.monotonic() < end:
        begun = time.process_time()
        calls = work(workload, sessions)
        rates.append(calls / (time.process_time() - begun))
    return max(rates)


def peak_mb(sessions: int) -> float:
    """Peak memory of the command for so many sessions."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["synth", MEMORY, "--sessions", str(sessions), "-o", f"{folder}/t.jsonl.zst"]
        done = subprocess.run([sys.executable, "-c", PEAK, *argv], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(names()))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=20_000)
    options = parser.parse_args()
    print(f"{'calls a CPU second':20}{'draw':>10}{'write':>10}{'ratio to goal':>16}")
    for name in options.names:
        workload = builtin(name)
        draw(workload, 2)  # what is the same for all sessions is worked out
        calls = draw(workload, 20) / 20
        sessions = max(1, round(2000 / calls))
        drawn, written = (best(work, workload, sessions, options.seconds) for work in (draw, write))
        verdict = "met" if written >= GOAL else "MISSED"
        print(f"{name:20}{drawn:10,.0f}{written:10,.0f}{written / GOAL:12.1f} {verdict}")
    few, many = peak_mb(options.few), peak_mb(options.many)
    print(
        f"peak memory of synth {MEMORY}: {options.few:,} sessions {few:.0f} MB, {options.many:,} sessions {many:.0f} MB"
    )
    print(f"ratio {many / few:.2f}")


if __name__ == "__main__":
    main()
