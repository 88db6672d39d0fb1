"""One run made several times with seeds of its own: what differs between them is what one interval should have said.

DIR/repeats.json    which seeds
DIR/seed-7          a run directory like any other
DIR/seed-8
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from workloom.errors import StoreError, UsageError
from workloom.metrics.catalog import catalog
from workloom.metrics.estimate import Estimate, estimates
from workloom.metrics.figure import Figure, figure
from workloom.metrics.measured import Measured, measured
from workloom.metrics.uncertainty.between import between
from workloom.store import open_run
from workloom.store.run import write_whole

FILE = "repeats.json"
USUAL = (
    "ttft_p50",
    "ttft_p95",
    "tbc_p50",
    "tbc_p95",
    "e2e_p50",
    "e2e_p95",
    "task_makespan_p50",
    "task_makespan_p90",
    "output_tokens_per_s",
    "errors",
)
"""Shown where nobody names figures, as far as there is such a metric."""
NORMAL = 1.959963984540054
"""Half widths of a 95 % interval in standard errors, of many sessions."""


class Definition(Struct, frozen=True):
    """What repeats.json holds."""

    seeds: list[int]
    argv: list[str] = []


class Row(Struct, frozen=True):
    """One figure over all runs: `between` rests on the runs' values alone, `within` are the intervals of each run."""

    figure: str
    unit: str
    between: Estimate
    within: list[Estimate]
    spread: float | None = None
    """Standard deviation of the runs' values, over what their own intervals promise: near 1 if these are honest.
    None: fewer than two runs have an interval."""


class Repeats(Struct, frozen=True):
    """All runs of one folder, by seed."""

    runs: list[str]
    seeds: list[int]
    rows: list[Row]
    missing: list[int] = []
    """Seeds whose run is not there, or holds no call."""


def folder(path: Path, seed: int) -> Path:
    """Where the run with a seed lies."""
    return path / f"seed-{seed}"


def is_repeats(path: Path | str) -> bool:
    """Whether a directory holds the runs of one command with --seeds."""
    return (Path(path) / FILE).is_file()


def define(path: Path, seeds: Sequence[int], argv: list[str]) -> None:
    """Begin such a directory."""
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / FILE, msgspec.json.format(msgspec.json.encode(Definition(list(seeds), argv)), indent=1) + b"\n")


def definition(path: Path) -> Definition:
    """Which seeds a directory is about. Raises StoreError."""
    try:
        return msgspec.json.decode((path / FILE).read_bytes(), type=Definition)
    except (OSError, msgspec.MsgspecError) as fault:
        raise StoreError("these are no repeated runs", where=str(path), expected=f"a {FILE}", found=fault) from fault


def figures_of(more: Iterable[Figure] = ()) -> list[Figure]:
    """The usual figures, and more of them, each once."""
    known = {word for metric in catalog().values() for word in (metric.name, metric.short)}
    usual = [name for name in USUAL if name in known or name.rpartition("_")[0] in known]
    return list(dict.fromkeys([*more, *map(figure, usual)]))


def repeats(path: Path, figures: Sequence[Figure], promised: Collection[Figure] = ()) -> Repeats:
    """The figures of all runs of a directory, with what they say together. `promised`: those that SLOs are about."""
    found: list[tuple[int, list[Estimate]]] = []
    seeds = definition(path).seeds
    for seed in seeds:
        if (folder(path, seed) / "manifest.json").exists():
            run = measured(open_run(folder(path, seed)))
            if len(run.calls):
                found.append((seed, _estimates(run, figures, promised)))
    rows = [row(about, [told[i] for _, told in found]) for i, about in enumerate(figures)] if found else []
    there = [seed for seed, _ in found]
    return Repeats(
        [folder(path, seed).name for seed in there], there, rows, [seed for seed in seeds if seed not in there]
    )


def _estimates(run: Measured, figures: Sequence[Figure], promised: Collection[Figure]) -> list[Estimate]:
    """The figures of a run; of a role that it has no call of there is none."""
    out = []
    for about in figures:
        try:
            out += estimates(run.as_promised() if about in promised else run, [about])
        except UsageError as fault:
            out.append(Estimate(about.say(), None, why=f"not enough data: {fault.what}"))
    return out


def row(about: Figure, within: list[Estimate]) -> Row:
    """One figure over several runs."""
    values = [e.value for e in within if e.value is not None and math.isfinite(e.value)]
    widths = [
        e.high - e.low for e in within if e.low is not None and e.high is not None and math.isfinite(e.high - e.low)
    ]
    spread = None
    if len(values) > 1 and len(widths) == len(values) and sum(widths) > 0:
        promised = math.sqrt(float(np.mean(np.square(widths)))) / 2 / NORMAL
        spread = float(np.std(values, ddof=1)) / promised
    return Row(about.say(), about.about.unit, between(within), within, spread)
