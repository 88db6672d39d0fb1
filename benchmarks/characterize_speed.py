"""What the study of a trace costs as it grows: seconds for every 1,000 calls, however many there are.

    python benchmarks/characterize_speed.py [--weka ../shared/data/weka] [--most 100000] [--most-studied 20000]

Two traces at 1x, 4x and 16x the calls: the sessions of the WEKA folder over and over (without it, sessions of the
built-in workload coding-agent), and one chain, a session of 1,000, 4,000 and 16,000 calls. facts: what every section is
worked out from (`workloom.model.facts`). study: all of `workloom characterize` but its page, which reads the trace
three times and drives two plans. Times are CPU times of this process, the best of the rounds that fit into `--seconds`.
Goal: 1,000 calls cost no more than three times as much in the longest trace as in the shortest. (What they cost more in
a long chain is Python's garbage collector: it looks through all of the one session, again and again.)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from workloom.answers.characterize import characterize
from workloom.model.facts import facts
from workloom.model.workload.builtin import builtin
from workloom.model.workload.generate import generate
from workloom.plan import Closed, Context, Limits, Recipe, TraceRef
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces import native, open_trace

TIMES = (1, 4, 16)
GOAL = 3.0


def chain(calls: int) -> Session:
    """One agent behind a scaffold of 10,000 tokens: each call goes on from the one before."""
    scaffold = (Span("scaffold", 10_000, "trace"),)
    first = Call("c0", 50, spans=scaffold, fresh=(Part("user", 200),))
    later = (
        Call(f"c{i}", 50, (Edge(f"c{i - 1}", 1.0, "tool"),), inherit=Inherit(f"c{i - 1}"), fresh=(Part("tool", 200),))
        for i in range(1, calls)
    )
    return Session("chain", (first, *later))


def over_and_over(sessions: list[Session], times: int) -> Iterator[Session]:
    """The sessions so many times, each with an id of its own."""
    for k in range(times):
        for session in sessions:
            yield replace(session, id=f"{session.id}.{k}")


def best(work: Callable[[], object], seconds: float) -> float:
    """CPU seconds of the fastest round."""
    rounds: list[float] = []
    end = time.monotonic() + seconds
    while not rounds or time.monotonic() < end:
        begun = time.process_time()
        work()
        rounds.append(time.process_time() - begun)
    return min(rounds)


def study(trace: Path, sessions: int) -> None:
    """Everything `workloom characterize` works out, without its page."""
    reference = TraceRef((str(trace),))
    recipe = Recipe(reference, Closed(8), Limits(sessions=sessions), context=Context(None))
    characterize("benchmark", open_trace([trace]), recipe)


def look_through(sessions: list[Session]) -> None:
    """All facts of a trace, one session's at a time."""
    for _ in facts(sessions):
        pass


def row(name: str, sessions: list[Session], folder: Path, most_studied: int, seconds: float) -> tuple[float, float]:
    """Print a line; seconds for 1,000 calls of facts and of the study (0 where it was left out)."""
    calls = sum(len(session.calls) for session in sessions)
    costs = [1000 * best(lambda: look_through(sessions), seconds) / calls, 0.0]
    if calls <= most_studied:
        trace = folder / f"{name.replace(' ', '-')}-{calls}.jsonl.zst"
        native.write(trace, Header(source="benchmark"), sessions, validated=True)
        costs[1] = 1000 * best(lambda: study(trace, len(sessions)), seconds) / calls
    told = f"{costs[1]:12.3f}" if costs[1] else f"{'left out':>12}"
    print(f"{name:16}{len(sessions):10,}{calls:10,}{costs[0]:12.4f}{told}", flush=True)
    return costs[0], costs[1]


def grown(costs: list[tuple[float, float]]) -> None:
    """How much dearer 1,000 calls are in the longest trace than in the shortest."""
    for index, what in enumerate(("facts", "study")):
        known = [cost[index] for cost in costs if cost[index]]
        if len(known) > 1:
            ratio = known[-1] / known[0]
            print(f"{'':16}{what}: x {ratio:.2f} at {TIMES[len(known) - 1]}x ({'met' if ratio <= GOAL else 'MISSED'})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weka", type=Path, default=Path("../shared/data/weka"))
    parser.add_argument("--most", type=int, default=100_000, help="calls of the longest trace")
    parser.add_argument("--most-studied", type=int, default=20_000, help="calls of the longest trace for the study")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    if options.weka.is_dir():
        name, few = "WEKA", list(open_trace([str(options.weka)]))
    else:
        name, few = "coding-agent", list(islice(generate(builtin("coding-agent"), 1), 50))
        print(f"no WEKA files at {options.weka}: sessions of the built-in workload coding-agent")
    print(f"{'':16}{'sessions':>10}{'calls':>10}{'facts s/1k':>12}{'study s/1k':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for label, make in (
            (name, lambda times: list(over_and_over(few, times))),
            ("one chain", lambda times: [chain(1000 * times)]),
        ):
            costs = []
            for times in TIMES:
                sessions = make(times)
                if sum(len(session.calls) for session in sessions) <= options.most:
                    costs.append(row(label, sessions, Path(folder), options.most_studied, options.seconds))
            grown(costs)


if __name__ == "__main__":
    main()
