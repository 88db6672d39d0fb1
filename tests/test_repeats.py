"""The same run made with several seeds: each is kept, and what differs between them stands beside what one promises."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_cli import workloom
from test_until import trace
from test_workers import url as url  # the server, as a fixture

from workloom.answers.repeats import USUAL, define, definition, figures_of, is_repeats, repeats, row
from workloom.answers.slo import slo
from workloom.cli.repeats import _conclude
from workloom.cli.slo_options import SloOptions
from workloom.errors import StoreError
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import figure
from workloom.store import open_run


def run(value: float, wide: float) -> Estimate:
    """What one run says: a value with its interval."""
    return Estimate("ttft_p95", value, value - wide, value + wide, sessions=100, values=300)


def test_the_spread_between_runs_is_told_in_what_their_own_intervals_promise() -> None:
    """Values 1, 2, 3 have a standard deviation of 1; intervals of +-1.96 promise one of 1."""
    found = row(
        figure("ttft_p95"), [run(1.0, 1.959963984540054), run(2.0, 1.959963984540054), run(3.0, 1.959963984540054)]
    )
    assert found.spread == pytest.approx(1.0)
    assert found.between.value == pytest.approx(2.0)
    assert found.between.low is not None and found.between.low < 1 and found.unit == "s"
    half = row(
        figure("ttft_p95"), [run(1.0, 3.919927969080108), run(2.0, 3.919927969080108), run(3.0, 3.919927969080108)]
    )
    assert half.spread == pytest.approx(0.5)


def test_runs_without_an_interval_have_no_spread_to_compare() -> None:
    without = Estimate("ttft_p95", 1.0, why="not enough data")
    assert row(figure("ttft_p95"), [run(1.0, 0.5), without]).spread is None
    assert row(figure("ttft_p95"), [run(1.0, 0.5)]).spread is None
    assert row(figure("ttft_p95"), [run(1.0, 0.5), run(math.inf, 0.5)]).spread is None


def test_figures_are_asked_for_once() -> None:
    found = figures_of([figure("ttft_p95"), figure("ttft_max")])
    names = [about.say() for about in found]
    assert names[:2] == ["ttft_p95", "ttft_max"] and len(names) == len(set(names)) <= len(USUAL) + 1


def test_runs_of_several_seeds_are_those_that_each_seed_makes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", trace(tmp_path), "--engine", "llama-3.1-8b-h200x1", "--sessions", "60"]
    out = tmp_path / "many"
    assert workloom(monkeypatch, *argv, "--seed", "7", "--seeds", "3", "--jobs", "2", "--json", "-o", str(out)) == 0
    document = json.loads(capsys.readouterr().out)
    assert is_repeats(out) and definition(out).seeds == document["repeats"]["seeds"] == [7, 8, 9]
    alone = tmp_path / "alone"
    assert workloom(monkeypatch, *argv, "--seed", "8", "-o", str(alone)) == 0
    for file in ("calls.parquet", "sessions.parquet", "server.parquet"):
        assert (alone / file).read_bytes() == (out / "seed-8" / file).read_bytes()
    by_name = {row["figure"]: row for row in document["repeats"]["rows"]}
    values = [one["value"] for one in by_name["ttft_p50"]["within"]]
    assert len(values) == 3 and len(set(values)) > 1
    assert by_name["ttft_p50"]["between"]["value"] == pytest.approx(sum(values) / 3)
    assert open_run(out / "seed-9").manifest.seed == 9


def test_goals_and_promises_are_about_each_run_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", trace(tmp_path), "--engine", "llama-3.1-8b-h200x1", "--seeds", "3", "--sessions", "60"]
    more = ["--until", "ttft_p95±0.1%", "--slo", "ttft_mean<=1min", "--json"]
    assert workloom(monkeypatch, *argv, *more, "-o", str(tmp_path / "a")) == 4, "none of them reached it"
    document = json.loads(capsys.readouterr().out)
    assert document["until"] == {f"seed-{seed}": "not reached" for seed in range(3)}
    assert [one["verdict"] for one in document["slos"]] == ["pass"]
    broken = ["--slo", "ttft_mean<=1us"]
    assert workloom(monkeypatch, *argv, *broken, "-o", str(tmp_path / "b")) == 3
    assert "fail" in capsys.readouterr().out


def test_live_runs_are_made_one_after_the_other_and_meet_no_text_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """With one salt for all, the second run would find every prompt of the first in the server's cache."""
    argv = ["run", trace(tmp_path), "--url", url, "--sessions", "12", "--max-wait", "0", "--salt", "5"]
    out = tmp_path / "live"
    assert workloom(monkeypatch, *argv, "--isolation", "before", "--seeds", "2", "-o", str(out)) == 0
    told = capsys.readouterr()
    assert "run 2 of 2, seed 1: done" in told.err
    for seed in (0, 1):
        first = [call for call in open_run(out / f"seed-{seed}").calls() if call.ordinal == 0]
        assert len(first) == 12 and sum(call.cached_tokens or 0 for call in first) == 0


def test_what_makes_no_sense_is_refused_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", trace(tmp_path), "--engine", "llama-3.1-8b-h200x1", "-o", str(tmp_path / "out")]
    for more in (["--seeds", "0"], ["--seeds", "2", "--jobs", "0"], ["--jobs", "2"]):
        assert workloom(monkeypatch, *argv, *more) == 2
        assert "--seeds" in capsys.readouterr().err or "--jobs" in more
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match="no repeated runs"):
        repeats(tmp_path, [])


def test_promises_of_runs_without_a_call_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that were all lost say nothing, and nothing is no pass."""
    define(tmp_path, [1, 2], [])
    assert _conclude(tmp_path, True, [slo("errors<2%")], SloOptions(), ()) == 4
    (told,) = json.loads(capsys.readouterr().out)["slos"]
    assert (told["verdict"], told["estimate"]["why"]) == ("not enough data", "not enough data: no run holds a call")
