"""`workloom capacity` and `workloom slo` on small engines whose capacity is known, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workloom.answers import trial
from workloom.cli import app
from workloom.drive.http import HttpOptions
from workloom.errors import Hopeless, UsageError
from workloom.execute import Live

ONE_CALL = (
    '{"format":"workloom","version":1,"source":"test"}\n'
    '{"id":"a","calls":[{"id":"0","output_tokens":200,"fresh":[{"kind":"user","tokens":100}]}]}\n'
)
ENGINE = ("--engine", "llama-3.1-8b-h100x1", "--jobs", "1")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "one.jsonl"
    path.write_text(ONE_CALL)
    return str(path)


def run(*words: str) -> int:
    """The exit code of a command."""
    try:
        app([*words], exit_on_error=False, print_error=False, result_action="return_value")
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run("capacity", *words, "--json") in (0, 4)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_as_many_sessions_as_the_engine_runs_at_once(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With room for 4 calls a fifth session waits for the end of another: over a second, where a prefill takes a
    hundredth of one. So the frontier of TTFT is at 4, whatever the seed."""
    words = [
        trace,
        *ENGINE,
        "--max-num-seqs",
        "4",
        "--over",
        "concurrency",
        "--calls",
        "160",
        "--slo",
        "ttft_p95<=0.3s",
    ]
    (found,) = asked(capsys, *words, "--from", "2", "--beside", "1", "-o", str(tmp_path / "out"))["capacities"]
    assert (found["value"], found["low"], found["high"], found["precise"]) == (4, 4, 4, True)
    assert [one["slo"] for one in found["binding"]] == ["ttft_p95<=0.3s"]
    (cliff,) = [one for one in found["cliffs"] if one["figure"] == "ttft_p95"]
    assert (cliff["load"], cliff["beyond"]) == (4, 5)
    history = (tmp_path / "out" / "history.jsonl").read_bytes()
    assert len(history.splitlines()) == len(found["probes"])
    (again,) = asked(capsys, *words, "--from", "2", "--beside", "1", "-o", str(tmp_path / "out"))["capacities"]
    assert again == found
    assert (tmp_path / "out" / "history.jsonl").read_bytes() == history


def test_twice_the_sessions_take_twice_the_replicas(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [trace, *ENGINE, "--max-num-seqs", "4", "--router", "least_outstanding", "--over", "replicas"]
    for sessions, replicas in (("8", 2), ("12", 3)):
        out = str(tmp_path / sessions)
        slo = ("--slo", "ttft_p95<=0.3s", "--calls", "160", "--beside", "0", "--concurrency", sessions, "-o", out)
        (found,) = asked(capsys, *words, *slo)["capacities"]
        assert (found["value"], found["low"], found["high"]) == (replicas, replicas, replicas)


def test_a_run_is_judged_and_the_exit_code_says_how(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert run("run", trace, *ENGINE[:2], "--concurrency", "4", "--sessions", "300", "-o", out) == 0
    capsys.readouterr()
    assert run("slo", out, "--slo", "ttft_p95<=10s", "--slo", "errors<2%") == 0
    assert "pass" in capsys.readouterr().out
    assert run("slo", out, "--slo", "ttft_p95<=1ms", "--slo", "errors<2%", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], [one["verdict"] for one in told["slos"]]) == ("fail", ["fail", "pass"])
    assert run("slo", out, "--slo", "ttft_p99.9<=10s", "--slo-judge", "point") == 4  # 300 calls, 5,000 are needed


def test_runs_that_are_too_short_are_not_judged(trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (trace, *ENGINE, "--over", "concurrency", "--calls", "20", "--max-num-seqs", "2", "--slo", "ttft_p99<=0.3s")
    (found,) = asked(capsys, *words, "-o", str(tmp_path / "out"))["capacities"]
    assert found["status"] == "not enough data"
    assert "ttft_p99 needs 500" in found["why"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--salt", "5"], "each hits the KV of the one before"),
        (["--text", "recorded"], "each hits the KV of the one before"),
        (["--rate", "2"], "what is looked for cannot be given"),
        (["--over", "replicas", "--rate", "2"], "a live server has the replicas it has"),
    ],
)
def test_a_live_search_in_which_runs_would_meet_is_refused_before_the_first(
    trace: str, tmp_path: Path, more: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(
            *("capacity", trace, "--url", "http://127.0.0.1:9/v1", "--model", "any", "--slo", "errors<2%"),
            *more,
            *("-o", str(tmp_path / "out")),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("calls", "status", "code"), [("120", "never holds", 3), ("20", "not enough data", 4)])
def test_a_promise_that_no_load_keeps_is_broken_where_the_runs_can_tell(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: str, status: str, code: int
) -> None:
    words = ("--over", "concurrency", "--calls", calls, "--slo", "ttft_p95<=1us", "--json")
    assert run("capacity", trace, *ENGINE, *words, "-o", str(tmp_path / "out")) == code
    (found,) = json.loads(capsys.readouterr().out)["capacities"]
    assert found["status"] == status


def test_a_server_that_is_gone_has_broken_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE_S", 0.0)
    gone = Live(http=HttpOptions(urls=("http://127.0.0.1:9/v1",), model="m", salt=1), salt=1)
    with pytest.raises(Hopeless, match="the server was lost"):
        trial.require_server(gone, Path("probe-000"), "the same command goes on")
