"""`workloom fidelity`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from workloom.answers.fidelity import Ask
from workloom.answers.fidelity import fidelity as compared
from workloom.cli.engine import EngineOptions
from workloom.cli.options import TraceOptions
from workloom.cli.show import console
from workloom.cli.write import new_file, write_new
from workloom.errors import UsageError
from workloom.model.workload.opening import named, open_sessions
from workloom.report.likeness import sections
from workloom.report.page import page
from workloom.report.terminal import print_tables
from workloom.traces import Reading

TIMES, ENOUGH = 8, 400
"""Sessions made of a workload: so many times the real ones, up to ENOUGH, but not fewer than those."""
OWN = 1 << 32
"""Added to the seed of a workload that stands for the real trace, so that it is not compared with itself."""
ENGINE = "llama-3.1-70b-h200x4"


def fidelity(
    real: str,
    other: str,
    band: str | None,
    out: str | None,
    json: bool,
    concurrency: int,
    seed: int,
    reading: TraceOptions,
    engine: EngineOptions,
) -> None:
    """Compare, print, and write the page if one is asked for."""
    goal = None if out is None else new_file(out, "the report")
    if concurrency < 1:
        raise UsageError(
            "a load has at least one session", where="--concurrency", expected="1 or more", found=concurrency
        )
    profile = replace(engine, engine=engine.engine or ENGINE).profile()
    truth = _open(real, reading, seed + OWN if named(real) is not None else seed)
    block = truth.header.block_tokens or 16
    count = sum(1 for _ in truth)
    sessions = (reading.generate or max(count, min(TIMES * count, ENOUGH))) if named(other) is not None else None
    likeness = open_sessions([other], format=reading.format, skip_bad=reading.skip_bad, seed=seed, sessions=sessions)
    bands = None if band is None else _open(band, reading, seed)
    ask = Ask(profile, concurrency=concurrency, seed=seed, block_tokens=block)
    print(f"comparing {count:,} sessions; runs of both and of halves take half a minute or so", file=sys.stderr)
    found = compared(truth, likeness, ask, bands)
    names = _names(real, other)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        print_tables(console(), sections(found, *names)[:1])
    if goal is not None:
        title = f"{names[1]} against {names[0]}"
        write_new(goal, page(title, "How alike two workloads are", sections(found, *names)))


def _open(path: str, reading: TraceOptions, seed: int) -> Reading:
    return open_sessions([path], format=reading.format, skip_bad=reading.skip_bad, seed=seed, sessions=reading.generate)


def _names(real: str, other: str) -> tuple[str, str]:
    """Short names of the two, which differ."""
    one, two = (Path(path).name.split(".")[0] or path for path in (real, other))
    return (one, two) if one != two else (f"{one} (real)", f"{two} (other)")
