"""`workloom metrics`: names, figures of a run, breakdowns, prices."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from metric_runs import CANONICAL

from workloom.cli import main
from workloom.metrics.catalog import catalog


def workloom(*argv: str) -> int:
    """The command in this process; its exit code."""
    before, sys.argv = sys.argv, ["workloom", *argv]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("runs") / "run"
    asked = ["--engine", "llama-3.1-8b-h200x1", "--sessions", "10", "--concurrency", "3"]
    assert workloom("run", str(CANONICAL), *asked, "-o", str(path), "--json") == 0
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert workloom("metrics", *argv) == 0
    return capsys.readouterr().out


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    assert all(metric.short in text for metric in catalog().values())
    listed = json.loads(said(capsys, "--json"))
    assert [one["name"] for one in listed] == list(catalog())
    rows = list(csv.DictReader(io.StringIO(said(capsys, "--csv"))))
    assert [row["name"] for row in rows] == list(catalog())


def test_every_metric_of_a_run_with_why_some_have_no_value(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {each["figure"]: each for each in json.loads(said(capsys, directory, "--json"))["estimates"]}
    assert len(found) > len(catalog())
    assert found["ttft_p95"]["value"] > 0 and found["gpu_task_usd"]["value"] is None
    assert "cannot say" in found["gpu_task_usd"]["why"]
    text = said(capsys, directory)
    assert "ttft_p95" in text and "not enough data" in text


def test_figures_prices_and_headlines(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price-per-gpu-hour", "3.6", "--price-per-mtok", "3/15/0.3", "--power-w", "500"]
    document = json.loads(said(capsys, directory, "--headline", "background", *prices, "--json"))
    found = {each["figure"]: each["value"] for each in document["estimates"]}
    assert document["given"]["usd_per_mtok_cached"] == 0.3
    seconds = document["window_s"][1] - document["window_s"][0]
    asked = ["--figure", "gpu_task_usd", "--figure", "sessions_per_s", "--gpus", "8"]
    other = json.loads(said(capsys, directory, *asked, *prices, "--json"))["estimates"]
    assert other[0]["value"] == pytest.approx(8 * found["gpu_task_usd"])
    assert found["task_energy_j"] == pytest.approx(found["gpu_task_usd"] * 500 / 3.6 * 3600)
    assert other[1]["value"] == found["sessions_per_s"] > 1 / seconds
    text = said(capsys, directory, "--headline", "interactive", *prices)
    assert "given: 3.6 USD a GPU-hour; 3 computed, 0.3 cached, 15 output" in " ".join(text.split())
    assert "ttfat_p50" in text


def test_the_beginning_can_be_left_out(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--figure", "ttft_p50", "--json"]
    whole, part = (json.loads(said(capsys, directory, *more, *asked)) for more in ([], ["--skip", "100"]))
    assert part["window_s"] == [whole["window_s"][0] + 100, whole["window_s"][1]]
    assert 0 < part["estimates"][0]["values"] < whole["estimates"][0]["values"]


def test_goodput_by_slos(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    slos = ["--slo", "ttft_p95<=200ms", "--slo", "task_makespan_p90<=60s"]
    document = json.loads(said(capsys, directory, *slos, "--figure", "calls_per_s", "--json"))
    found = {each["figure"]: each["value"] for each in document["estimates"]}
    assert 0 < found["goodput_calls_per_s"] < found["calls_per_s"] and 0 < found["good_task_share"] < 1
    good = document["goodput"]["calls"]
    assert good["per_s"] == pytest.approx(found["goodput_calls_per_s"])
    assert document["goodput"]["broken"] == {"ttft<=0.2": good["ended"] - good["good"]}
    assert "kept every limit. ttft<=0.2 broken by" in " ".join(said(capsys, directory, *slos).split())
    groups = json.loads(said(capsys, directory, *slos, "--by", "agent", "--json"))["groups"]
    by_kind = [{each["figure"]: each["value"] for each in group["estimates"]} for group in groups]
    assert len(by_kind) == 2 and all(0 < kind["good_call_share"] <= 1 for kind in by_kind)
    assert sum(kind["goodput_calls_per_s"] for kind in by_kind) == pytest.approx(found["goodput_calls_per_s"])


def test_kinds_of_calls_as_a_table_and_as_csv(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, directory, "--by", "depth", "--figure", "ttft_p50")
    assert "by depth" in text and "ttft_p50" in text
    rows = list(csv.DictReader(io.StringIO(said(capsys, directory, "--by", "agent", "--csv"))))
    assert {row["agent"] for row in rows} == {"main", "explore"}
    one = list(csv.DictReader(io.StringIO(said(capsys, directory, "--figure", "ttft_p50[agent=main]", "--csv"))))
    mine = next(row for row in rows if row["agent"] == "main" and row["figure"] == "ttft_p50")
    assert float(one[0]["value"]) == float(mine["value"]) and one[0]["unit"] == "s"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--figure", "ttft_p95"], "figures are of a run"),
        (["RUN", "--figure", "tftt_p95"], "did you mean"),
        (["RUN", "--figure", "ttft"], "a value a call"),
        (["RUN", "--price-per-mtok", "3"], "INPUT/OUTPUT"),
        (["RUN", "--gpus", "0"], "at least one GPU"),
        (["RUN", "--power-w", "-1"], "cannot be negative"),
        (["RUN", "--json", "--csv"], "choose one"),
        (["RUN", "--skip", "1e9"], "nothing is left"),
        (["RUN", "--by", "agent", "--figure", "makespan_p50"], "no figure of calls"),
    ],
)
def test_what_cannot_be_is_refused(
    argv: list[str], message: str, directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert workloom("metrics", *(directory if word == "RUN" else word for word in argv)) != 0
    told = capsys.readouterr()
    assert message in " ".join(told.err.split()) and told.out == ""


def test_show_and_summary_say_how_well_figures_are_known(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((Path(directory) / "summary.json").read_text())
    figures = {each["figure"]: each for each in summary["estimates"]}
    assert figures["ttft_p95"]["value"] == pytest.approx(summary["latency"]["ttft_s"]["p95"], rel=0.2)
    assert summary["workflow"]["sessions"]["ended"] == 10
    capsys.readouterr()
    assert workloom("show", directory) == 0
    text = capsys.readouterr().out
    assert "How well the figures are known" in text and "critical path" in text
