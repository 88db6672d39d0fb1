"""How often a 95 % interval holds the true value: many short engine runs against one a hundred times as long.

    python benchmarks/coverage.py make --kept DIR [--seeds 0 1000] [--longs 3]    runs, one file each; can be resumed
    python benchmarks/coverage.py judge --kept DIR                                what they cover, into coverage.json
    python benchmarks/coverage.py ramps --kept DIR                                how often a ramp of 20 % is found
    python benchmarks/coverage.py docs [--check]                                  coverage.json into docs/uncertainty.md

A short run is 220 sessions on the simulated engine, of which a window of settled load is measured: after 15 s, about
four times as long as a session lives, for as long as so many sessions take to come. Longer windows are cut from the
long runs, of 12,200 sessions each. The truth is the mean over the long runs. Metrics are the real ones. Intervals that
are withheld for want of sessions are asked for all the same, so that the table can say what withholding is good for.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from workloom.answers.simulated import play
from workloom.clock import NS
from workloom.engine.profile import load as load_profile
from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.figure import figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.metrics.uncertainty import enough
from workloom.metrics.uncertainty.difference import differences
from workloom.metrics.uncertainty.ratio import begun
from workloom.metrics.uncertainty.stationary import stationarity
from workloom.plan import Closed, Limits, Load, Open, Recipe, TraceRef, Waits, make
from workloom.records import CallRecord, SessionRecord

WORKLOAD = """
workload: 1
name: coverage
agents:
  main:
    calls: {family: quantiles, points: [[0, 1], [0.2, 1], [0.5, 2], [0.8, 4], [0.95, 6], [1, 9]]}
    first:
      fresh: {family: lognormal, median: 1500, sigma: 0.8}
      output: {family: lognormal, median: 40, sigma: 1.0}
    turns:
      tool:
        fresh: {family: lognormal, median: 600, sigma: 0.8}
        output: {family: lognormal, median: 40, sigma: 1.0}
        wait: {family: lognormal, median: 1, sigma: 0.7}
    memory:
      session: {fresh: 0.3, output: 0.3, wait: 0.3}
"""
PROFILE = "llama-3.1-8b-h100x1"
LOADS: dict[str, Load] = {"open": Open(3.0), "closed": Closed(10)}
RATE_PER_S = {"open": 3.0, "closed": 2.72}
"""Sessions that come: about ten at once in both, a third of what the engine can take."""
LIVES_PER_SESSION = 0.095
"""A window of one session more is so much longer, in lives of a session."""
SETTLED_S, SETTLED_LONG_S = 15.0, 30.0
SESSIONS, LONG_SESSIONS, LONG_SEED = 220, 12_200, 5000
COUNTS, COUNTS_OF_LONG = (60, 120), (240, 400)
FIGURES = tuple(
    figure(name)
    for name in (
        *("ttft_mean", "ttft_p50", "ttft_p95", "e2e_mean", "e2e_p95", "tpot_mean", "tbc_mean", "tbc_p50", "tbc_p95"),
        *("makespan_mean", "makespan_p50", "makespan_p90", "output_tokens_per_s", "calls_per_s", "hit_rate"),
    )
)
AA = ("ttft_mean", "ttft_p95", "e2e_mean", "tpot_mean")
HERE = Path(__file__).parent
KEPT, DOCS = HERE / "coverage.json", HERE.parent / "docs" / "uncertainty.md"
BEGIN, END = "<!-- benchmarks/coverage.py docs writes what follows -->", "<!-- until here -->"
Records = tuple[list[CallRecord], list[SessionRecord]]


class Row(Struct):
    """Shares of the windows: `given` an interval, and of these `covered`; the truth is `below` and `above` the others.

    `width`: median of (high - low) / truth; `scatter`: what it would be if the spread of the values themselves were
    known, 3.92 standard deviations. `claimed`: whether an interval is given for so many sessions at all.
    """

    load: str
    figure: str
    sessions: int
    windows: int
    given: float
    covered: float
    below: float
    above: float
    width: float
    scatter: float
    claimed: bool


class Study(Struct):
    """`differ`: pairs of short runs of one load that differ at the 5 % level, of `pairs`, by load and figure."""

    runs: int
    longs: int
    rows: list[Row]
    pairs: int
    differ: dict[str, int]


def played(kind: str, sessions: int, seed: int) -> Records:
    """One seeded run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.yaml"
        path.write_text(WORKLOAD)
        trace = TraceRef((str(path),), generate=sessions)
        kept = play(
            make(Recipe(trace, LOADS[kind], Limits(sessions=sessions), Waits(None), seed=seed)), load_profile(PROFILE)
        )
    return kept.calls, kept.sessions


def made(folder: Path, kind: str, seed: int) -> Records:
    return msgspec.msgpack.decode((folder / f"{kind}_{seed}.bin").read_bytes(), type=Records)


def window(first_s: float, seconds: float) -> Window:
    return Window(round(first_s * NS), round((first_s + seconds) * NS))


def asked_of(run: Measured) -> list[Estimate]:
    """Every figure, with an interval however few the sessions are."""
    before = enough.NEEDED
    enough.NEEDED = enough.Rule(0, {}, 0, 0.0, 0)
    try:
        return estimates(run, FIGURES)
    finally:
        enough.NEEDED = before


def short(records: Records, kind: str, sessions: int) -> Measured:
    return measured_records(*records, window=window(SETTLED_S, sessions / RATE_PER_S[kind]))


def cut(records: Records, kind: str, sessions: int) -> Iterator[Measured]:
    """A long run in windows of so many sessions, one after the other."""
    calls = sorted(records[0], key=lambda call: call.due_ns)
    due_s = np.array([call.due_ns for call in calls]) / NS
    came_s = np.array([session.due_ns for session in records[1]]) / NS
    seconds = sessions / RATE_PER_S[kind]
    for first_s in np.arange(SETTLED_LONG_S, due_s[-1] - 40 - seconds, seconds):
        low, high = np.searchsorted(due_s, [first_s - SETTLED_LONG_S, first_s + seconds])
        there = np.flatnonzero((came_s >= first_s - 2 * SETTLED_LONG_S) & (came_s < first_s + seconds))
        yield measured_records(calls[low:high], [records[1][i] for i in there], window=window(first_s, seconds))


def whole(records: Records) -> list[float]:
    """The truth by one long run."""
    run = measured_records(*records)
    last_s = float(run.calls.due_ns.max()) / NS - 40
    told = asked_of(run.within(window(SETTLED_LONG_S, last_s - SETTLED_LONG_S)))
    return [np.nan if one.value is None else one.value for one in told]


def rows(kind: str, sessions: int, told: list[list[Estimate]], truth: list[float]) -> list[Row]:
    """What the windows of one length cover."""
    out = []
    for i, asked in enumerate(FIGURES):
        true, mine = truth[i], [one[i] for one in told]
        ends = np.array([(e.low, e.high) for e in mine if e.low is not None and e.high is not None]).reshape(-1, 2)
        values = np.array([e.value for e in mine if e.value is not None])
        if not len(ends):
            continue
        below, above = float(np.mean(true < ends[:, 0])), float(np.mean(true > ends[:, 1]))
        width = float(np.median(ends[:, 1] - ends[:, 0])) / true
        lives = LIVES_PER_SESSION * sessions
        loaded = enough.follows_load(asked)
        claimed = sessions >= enough.sessions_needed(asked) and (not loaded or lives >= enough.NEEDED.lives)
        shares = (len(ends) / len(mine), 1 - below - above, below, above, width, 3.92 * float(values.std()) / true)
        out.append(Row(kind, asked.say(), sessions, len(mine), *(round(share, 4) for share in shares), claimed))
    return out


def judged(folder: Path, kind: str, seeds: range) -> Study:
    """What the kept runs of one load cover."""
    kept = sorted(int(path.stem.split("_")[1]) for path in folder.glob(f"{kind}_*.bin"))
    longs, shorts = [seed for seed in kept if seed >= LONG_SEED], [seed for seed in kept if seed in seeds]
    told: dict[int, list[list[Estimate]]] = {count: [] for count in (*COUNTS, *COUNTS_OF_LONG)}
    truths = []
    for seed in longs:
        records = made(folder, kind, seed)
        truths.append(whole(records))
        for count in COUNTS_OF_LONG:
            told[count] += [asked_of(run) for run in cut(records, kind, count)]
    for seed in shorts:
        records = made(folder, kind, seed)
        for count in COUNTS:
            told[count].append(asked_of(short(records, kind, count)))
    truth = [float(value) for value in np.mean(truths, axis=0)]
    found = [row for count, each in told.items() for row in rows(kind, count, each, truth)]
    print(f"{kind}: {len(shorts)} runs judged", file=sys.stderr, flush=True)
    pairs = min(len(shorts) // 2, 200)
    return Study(
        len(shorts),
        len(longs),
        found,
        pairs,
        {f"{kind} `{name}`": differ(folder, kind, name, shorts[: 2 * pairs]) for name in AA},
    )


def joined(studies: list[Study]) -> Study:
    """Of both loads."""
    every = [row for study in studies for row in study.rows]
    differ = {name: count for study in studies for name, count in study.differ.items()}
    least = min(study.runs for study in studies), min(study.longs for study in studies)
    return Study(*least, every, min(study.pairs for study in studies), differ)


def differ(folder: Path, kind: str, name: str, seeds: list[int]) -> int:
    """How many pairs of runs of one load differ at the 5 % level."""
    asked, found = figure(name), 0
    for one, other in zip(seeds[::2], seeds[1::2], strict=True):
        runs = [short(made(folder, kind, seed), kind, 120) for seed in (one, other)]
        seen = [asked.observe(run) for run in runs]
        when = begun(runs[0]), begun(runs[1])
        p_value = differences(seen[0], seen[1], asked, paired=False, begun=when).p_value
        found += p_value is not None and p_value < 0.05
    return found


def ramps(folder: Path) -> None:
    """Windows of the long runs as they are, and with a TTFT that rises by a fifth: what the stationarity check says."""
    print(
        "| load | sessions | windows | flat ones flagged | rise over all of it found | over the first quarter found |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in LOADS:
        for count, longs in ((120, 2), (400, 4), (800, 8), (1600, 8)):
            found = [
                [flagged(run, over) for over in (0.0, 1.0, 0.25)]
                for seed in range(LONG_SEED, LONG_SEED + longs)
                if (folder / f"{kind}_{seed}.bin").exists()
                for run in cut(made(folder, kind, seed), kind, count)
            ]
            shares = " | ".join(f"{share:.1%}" for share in np.mean(found, axis=0))
            print(f"| {kind} | {count} | {len(found)} | {shares} |", flush=True)


def flagged(run: Measured, over: float) -> bool:
    """Whether the window is called a ramp or a drift, once TTFT rises from 20 % below over so much of it."""
    calls = run.calls
    at = (calls.due_ns - run.window.start_ns) / (run.window.end_ns - run.window.start_ns)
    times = 1 - 0.2 * np.clip(1 - at / over, 0, 1) if over else np.ones(len(at))
    first_ns = calls.sent_ns + (calls.first_ns - calls.sent_ns) * times
    changed = dataclasses.replace(run, calls=dataclasses.replace(calls, first_ns=first_ns))
    return stationarity(changed).verdict in ("ramp", "drift")


def told(study: Study) -> str:
    """The tables of docs/uncertainty.md."""
    error = (0.95 * 0.05 / study.runs) ** 0.5
    out = [
        f"Made: {study.runs:,} runs of each load, and {study.longs} long ones of each ({LONG_SESSIONS:,} sessions),",
        "which are the truth and from which the longer windows are cut. The standard error of a coverage is",
        f"{error:.1%} over all runs. Bold: an interval is given for so many sessions. In brackets: the share of",
        "windows that had one, where it was not all; a dash: hardly any had.",
    ]
    for counts in (COUNTS, COUNTS_OF_LONG):
        heads = [f"{kind} {count}" for kind in LOADS for count in counts]
        out += ["", "| figure | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
        by = {(row.figure, f"{row.load} {row.sessions}"): row for row in study.rows}
        for asked in FIGURES:
            cells = [cell(by.get((asked.say(), head))) for head in heads]
            out.append(f"| `{asked.say()}` | " + " | ".join(cells) + " |")
        windows = {
            head: next((row.windows for row in study.rows if f"{row.load} {row.sessions}" == head), 0) for head in heads
        }
        if counts is COUNTS_OF_LONG:
            out += ["", "Windows: " + ", ".join(f"{head}: {count}" for head, count in windows.items()) + "."]
    out += [
        "",
        f"Pairs of runs of one load (120 sessions each, other seeds) that differ at the 5 % level, of {study.pairs}:",
    ]
    out += ["", "| load and figure | differ |", "| --- | --- |"]
    out += [f"| {name} | {count} |" for name, count in study.differ.items()]
    return "\n".join(out)


def cell(row: Row | None) -> str:
    if row is None or row.given < 0.1:
        return "-"
    mark = "**" if row.claimed else ""
    return f"{mark}{row.covered:.1%}{mark}" + ("" if row.given > 0.985 else f" ({row.given:.0%})")


def docs(check: bool) -> int:
    """Write the tables, or say whether they are what was measured."""
    text = DOCS.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    new = head + BEGIN + "\n\n" + told(msgspec.json.decode(KEPT.read_bytes(), type=Study)) + "\n\n" + END + tail
    if check:
        return int(new != text)
    DOCS.write_text(new)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("make", "judge", "ramps", "docs"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 1000])
    parser.add_argument("--longs", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.what == "docs":
        return docs(asked.check)
    if asked.kept is None:
        parser.error("--kept says where the runs are")
    if asked.what == "ramps":
        ramps(asked.kept)
        return 0
    if asked.what == "judge":
        with ProcessPoolExecutor(len(LOADS)) as pool:
            studies = list(pool.map(judged, [asked.kept] * len(LOADS), LOADS, [range(*asked.seeds)] * len(LOADS)))
        KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(joined(studies)), indent=1) + b"\n")
        return 0
    asked.kept.mkdir(parents=True, exist_ok=True)
    for kind in LOADS:
        for seed in [*range(LONG_SEED, LONG_SEED + asked.longs), *range(*asked.seeds)]:
            path = asked.kept / f"{kind}_{seed}.bin"
            if not path.exists():
                path.write_bytes(
                    msgspec.msgpack.encode(played(kind, SESSIONS if seed < LONG_SEED else LONG_SESSIONS, seed))
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
