"""A live run goes on until it knows enough: another process looks, by one worker or several, and Ctrl-C still works."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from test_cli import process
from test_until import trace
from test_workers import url as url  # the server, as a fixture
from test_workers import workloom

from workloom.execute.goals import goals
from workloom.execute.referee import Referee
from workloom.execute.until import read_until
from workloom.store import open_run


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_live_run_ends_its_window_when_the_figure_is_known(tmp_path: Path, url: str, workers: str) -> None:
    out = tmp_path / "run"
    argv = ["run", trace(tmp_path), "--url", url, "--concurrency", "8", "--max-wait", "0.005", "--workers", workers]
    done = workloom(*argv, "--until", "e2e_mean±60%", "--duration", "60", "--json", "-o", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    until = read_until(out)
    assert until is not None and until.verdict == document["until"]["verdict"] == "reached"
    assert [check.reached for check in until.checks][-2:] == [True, True]
    run = open_run(out)
    assert run.manifest.window_end_ns is not None and run.manifest.window_end_ns < 60 * 10**9
    assert run.manifest.window_end_ns >= until.checks[-1].at_ns
    assert run.manifest.loaded_until_ns == run.manifest.window_end_ns
    calls = list(run.calls())
    assert {call.status for call in calls if call.due_ns < run.manifest.window_end_ns} == {"ok"}
    assert until.checks[-1].calls <= len(calls), "the looks saw what the journal held"


def test_ctrl_c_ends_it_as_any_run(tmp_path: Path, url: str) -> None:
    out = tmp_path / "run"
    argv = ["run", trace(tmp_path), "--url", url, "--concurrency", "4", "--max-wait", "0.005"]
    running = process(*argv, "--until", "e2e_mean±0.01%", "-o", str(out))
    while not (out / "journal").exists() or (out / "journal").stat().st_size < 5_000:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=30)
    assert running.returncode == 130, told
    run = open_run(out)
    assert run.manifest.status == "interrupted" and "ok" in {call.status for call in run.calls()}
    until = read_until(out)
    assert until is not None and until.verdict == "not reached"


def test_a_referee_that_vanishes_is_told_of_and_asked_no_more(tmp_path: Path) -> None:
    with Referee(tmp_path / "no run here", goals(["ttft_p95±5%"])) as referee:
        referee.ended(10, 0, 10**9)
        assert not referee._busy, "no look before 40 sessions"
        referee.ended(40, 0, 10**9)
        assert referee._busy
        while not referee.over:
            referee.poll()
            time.sleep(0.02)
        assert referee.fault is not None and "there is no run here" in referee.fault
        referee.ended(60, 0, 2 * 10**9)
        assert referee.pace.until.verdict == "not reached"
