"""Every figure that a user sees of a simulated run follows from its event log, and a wrong one is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from run_audit import Book, Figures, at, compare, compare_samples, keep, read

import workloom

CANONICAL = Path(workloom.__file__).parent / "data/canonical.jsonl"
ENGINE = ["--engine", "llama-3.1-70b-h200x4", "--block-tokens", "256", "--kv-tokens", "160000"]


class Ran(NamedTuple):
    """A run on disk and its books."""

    books: list[Book]
    figures: Figures
    summary: dict[str, Any]
    samples: list[dict[str, Any]]
    lines: list[dict[str, Any]]


def run(folder: Path, options: str) -> Ran:
    folder.mkdir(exist_ok=True)
    log = folder / "events.jsonl"
    words = ["run", str(CANONICAL), "-o", str(folder / "run"), *ENGINE, *options.split(), "--event-log", str(log)]
    done = subprocess.run([sys.executable, "-m", "workloom.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "run/summary.json").read_bytes())
    window = summary["window"]
    books = read(log)
    samples = pq.read_table(folder / "run/server.parquet").to_pylist()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return Ran(books, Figures(books, window["start_ns"], window["end_ns"]), summary, samples, lines)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A cache too small for its calls: evictions and preemptions."""
    return run(tmp_path_factory.mktemp("crowded"), "--concurrency 8")


def check(run: Ran) -> None:
    compare(run.figures, run.summary)
    compare_samples(run.books, run.samples, run.summary)
    gauges = run.summary["server"]["gauges"]
    running, waiting = run.figures.occupancy_means()
    assert gauges["running"]["mean"] == pytest.approx(running, rel=0.05), "looked at once a second"
    assert gauges["waiting"]["mean"] == pytest.approx(waiting, rel=0.05, abs=0.05)


def test_every_figure_of_a_run_follows_from_its_event_log(crowded: Ran) -> None:
    check(crowded)
    ours = crowded.figures.all
    assert len(ours) > 60
    assert ours["server.growth.preemptions"] > 0 and 0 < ours["engine_hit_rate"] < 1
    assert 0 < ours["calls.due"] < ours["calls.recorded"], "some came when the window was over"


def test_so_do_those_of_two_replicas_with_a_host_tier_and_speculation(tmp_path: Path) -> None:
    two = run(tmp_path, "--concurrency 12 --sessions 8 --replicas 2 --router prefix --host-tokens 400000")
    fast = run(tmp_path / "fast", "--concurrency 4 --sessions 4 --acceptance 2.2 --draft-tokens 3")
    assert len(two.books) == 2
    assert sum(line.get("fetched", []) != [] for line in two.lines) > 10, "some was read from the host"
    assert any(line.get("tokens", 1) > 1 for line in fast.lines)
    check(two)
    check(fast)


def test_any_figure_that_is_a_little_wrong_is_noticed(crowded: Ran) -> None:
    unnoticed = []
    for path in crowded.figures.all:
        summary = deepcopy(crowded.summary)
        *way, last = path.split(".")
        wrong = at(summary, ".".join(way)) if way else summary
        value = wrong[last]
        wrong[last] = (
            value + (10 if path == "throughput.output_tokens" else 1) if isinstance(value, int) else value * 1.001
        )
        try:
            compare(crowded.figures, summary)
        except AssertionError as noticed:
            assert str(noticed).startswith(f"{path}: ")
        else:
            unnoticed.append(path)
    assert unnoticed == []


def test_a_sample_that_is_wrong_is_noticed(crowded: Ran) -> None:
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
        samples = deepcopy(crowded.samples)
        mine = [sample for sample in samples if sample["name"] == name]
        mine[len(mine) // 2]["value"] += 1
        with pytest.raises(AssertionError, match=name):
            compare_samples(crowded.books, samples, crowded.summary)
    summary = deepcopy(crowded.summary)
    summary["server"]["gauges"]["waiting"]["mean"] *= 1.0001
    with pytest.raises(AssertionError, match="waiting"):
        compare_samples(crowded.books, crowded.samples, summary)


@pytest.mark.parametrize(
    ("event", "field", "by"),
    [("submitted", "at_ns", 1), ("queued", "at_ps", 1), ("admitted", "cached_tokens", -256), ("ran", "first_ps", 1)],
)
def test_a_log_with_one_wrong_figure_does_not_add_up(crowded: Ran, event: str, field: str, by: int) -> None:
    where = [n for n, line in enumerate(crowded.lines) if line.get("event") == event and line[field] >= 256]
    lines, number = list(crowded.lines), where[len(where) // 5]
    lines[number] = lines[number] | {field: lines[number][field] + by}
    with pytest.raises(AssertionError):
        keep(lines)


@pytest.mark.parametrize("event", ["ran", "ended", "evicted"])
def test_a_log_that_lacks_a_line_does_not_add_up(crowded: Ran, event: str) -> None:
    where = [number for number, line in enumerate(crowded.lines) if line.get("event") == event]
    lines = list(crowded.lines)
    del lines[where[len(where) // 5]]
    with pytest.raises(AssertionError):
        keep(lines)
