"""The command as a user types it: results, errors with hints, runs that repeat to the byte, runs that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workloom.cli import main
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import open_run
from workloom.traces import native

ROOT = Path(__file__).parent.parent
CANONICAL = str(ROOT / "src/workloom/data/canonical.jsonl")
SMALL = ["--sessions", "3", "--engine", "llama-3.1-8b-h200x1"]


def workloom(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["workloom", *argv])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def process(*argv: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workloom.cli", *argv],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_prints_its_numbers_and_show_prints_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert workloom(monkeypatch, "run", CANONICAL, *SMALL, "-o", out) == 0
    first = capsys.readouterr()
    assert "TTFT" in first.out
    assert "In words" in first.out
    assert "run kept in" in first.err
    assert workloom(monkeypatch, "show", out) == 0
    assert capsys.readouterr().out == first.out
    assert workloom(monkeypatch, "show", out, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["calls"]["ok"] == shown["calls"]["due"] > 20
    assert 0 <= shown["run"]["loaded_until_ns"] < shown["run"]["window_end_ns"]
    assert sorted(os.listdir(out)) == [
        "calls.parquet",
        "manifest.json",
        "plan.json",
        "server.parquet",
        "sessions.parquet",
        "summary.json",
    ]


def test_inspect_gives_the_promised_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert workloom(monkeypatch, "inspect", CANONICAL, "--json") == 0
    keys = json.loads(capsys.readouterr().out)
    for key in (
        "sessions",
        "calls",
        "prompt_tokens",
        "output_tokens",
        "cached_blocks",
        "ideal_hit_rate",
        "ideal_hit_rate_with_outputs",
        "depth_max",
        "width_max",
    ):
        assert key in keys
    assert keys["sessions"] == 20


def test_profiles_lists_source_error_and_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workloom(monkeypatch, "profiles") == 0
    said = capsys.readouterr().out
    for word in ("llama-3.1-70b-h200x4", "qwen3-32b-h200x2", "131,072", "aiconfigurator-core", "not identified"):
        assert word in said


def test_profiles_lists_cards_and_what_is_computed_from_them_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workloom(monkeypatch, "profiles") == 0
    said = capsys.readouterr().out
    for word in ("qwen3.5-35b-a3b", "10 + 30 with states", "h100_sxm.yaml", "off by up to 22%"):
        assert word in said
    assert workloom(monkeypatch, "profiles", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["profiles"]) >= 10 and {"h100", "h200"} == {gpu["name"] for gpu in listed["gpus"]}
    name = f"roofline:{listed['models'][0]['name']}@h200x4,gemm=0.7"
    options = ("--concurrency", "2", "--sessions", "2", "--engine", name)
    assert workloom(monkeypatch, "run", CANONICAL, *options, "-o", str(tmp_path / "run")) == 0
    assert name in (tmp_path / "run" / "manifest.json").read_text()


def test_a_plan_runs_as_the_command_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, here, there = str(tmp_path / "plan.json"), str(tmp_path / "a"), str(tmp_path / "b")
    limit = ["--max-context", "131072", "--sessions", "3"]
    assert workloom(monkeypatch, "plan", CANONICAL, *limit, "--concurrency", "2", "-o", plan) == 0
    assert workloom(monkeypatch, "run", plan, "--engine", "llama-3.1-8b-h200x1", "-o", here) == 0
    direct = [CANONICAL, *limit, "--concurrency", "2", "--engine", "llama-3.1-8b-h200x1", "-o", there]
    assert workloom(monkeypatch, "run", *direct) == 0
    assert digest(here) == digest(there)
    assert workloom(monkeypatch, "run", plan, "--concurrency", "3", "--engine", "llama-3.1-8b-h200x1") == 2
    assert "--concurrency" in capsys.readouterr().err


def digest(run: str | Path, table: str = "calls.parquet") -> str:
    return hashlib.sha256((Path(run) / table).read_bytes()).hexdigest()


def test_runs_of_one_plan_in_processes_with_other_hash_seeds_are_equal_to_the_byte(tmp_path: Path) -> None:
    made = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        argv = ["run", CANONICAL, "--engine", "qwen3-32b-h100x2", "--rate", "0.02", "--seed", seed]
        made[name] = process(*argv, "-o", str(tmp_path / name), PYTHONHASHSEED=str(ord(name)))
    for name, running in made.items():
        _, err = running.communicate(timeout=60)
        assert running.returncode == 0, (name, err)
    for table in ("calls.parquet", "sessions.parquet"):
        assert digest(tmp_path / "a", table) == digest(tmp_path / "b", table)
    assert digest(tmp_path / "a") != digest(tmp_path / "c"), "another seed is another run"


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["run", CANONICAL], 2, "--engine NAME"),
        (["run", CANONICAL, "--engine", "lama-8b-h200"], 1, "did you mean llama-3.1-8b-h200x1"),
        (["run", CANONICAL, *SMALL, "--concurency", "3"], 2, "Did you mean --concurrency"),
        (["run", CANONICAL, *SMALL, "--concurrency", "0"], 1, "1 or more"),
        (["run", CANONICAL, *SMALL, "--concurrency", "3", "--rate", "1"], 2, "one kind of load"),
        (["run", CANONICAL, *SMALL, "--replay"], 1, "share no clock"),
        (["run", CANONICAL, *SMALL, "--arrival", "gamma:2"], 2, "--rate"),
        (["run", CANONICAL, *SMALL, "--rate", "1", "--arrival", "gama"], 1, "gamma:CV"),
        (["run", CANONICAL, *SMALL, "--kv-tokens", "many"], 2, "inf"),
        (["run", CANONICAL, *SMALL, "--max-context", "50"], 1, "--max-context"),
        (["run", CANONICAL, *SMALL, "--context-policy", "refuse", "--max-context", "9000"], 1, "session "),
        (["run", CANONICAL, *SMALL, "--seed", "x"], 2, "random"),
        (["run", CANONICAL, *SMALL, "--url", "http://127.0.0.1:1/v1"], 2, "one target"),
        (["run", CANONICAL, *SMALL, "--endpoint", "completions"], 2, "--url"),
        (["run", CANONICAL, "--url", "http://127.0.0.1:1/v1"], 1, "is the server up"),
        (["run", "no-such-trace", *SMALL], 1, "no such file"),
        (["run", CANONICAL, *SMALL, "--timeout", "0"], 2, "--timeout"),
        (["run", CANONICAL, *SMALL, "--timeout", "nan"], 2, "--timeout"),
        (["run", CANONICAL, *SMALL, "--drain", "inf"], 2, "--drain"),
        (["run", CANONICAL, *SMALL, "--duration", "1e300"], 1, "--duration"),
        (["run", CANONICAL, *SMALL, "--rate", "1e-300"], 1, "rate"),
        (["run", CANONICAL, *SMALL, "--calls", "2.5"], 2, "--calls"),
        (["plan", CANONICAL, "-o", "no-such-folder/plan.json"], 1, "cannot be written"),
        (["serve", "--engine", "llama-3.1-8b-h200x1", "--port", "99999"], 2, "65535"),
        (["show", "no-such-run"], 1, "hint"),
        (["rnu", CANONICAL], 2, 'Did you mean "run"'),
        (["serve"], 2, "--engine"),
    ],
)
def test_bad_input_gets_one_error_with_a_hint_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert workloom(monkeypatch, *argv) == code
    streams = capsys.readouterr()
    assert said in streams.err
    assert streams.err.count("error: ") == 1
    assert "Traceback" not in streams.err
    assert streams.out == ""
    assert os.listdir(tmp_path) == []


def test_a_directory_that_holds_a_run_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert workloom(monkeypatch, "run", CANONICAL, *SMALL, "-o", out) == 0
    before = digest(out)
    assert workloom(monkeypatch, "run", CANONICAL, *SMALL, "-o", out) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert digest(out) == before


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from workloom.cli import main\n"
        "main()\n"
        "heavy = ('numpy', 'pyarrow', 'aiohttp', 'yaml', 'workloom.plan', 'workloom.engine')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_command_line_reference_is_what_help_says() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/make_cli_docs.py"), "--check"], check=True)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`workloom serve` in another process; its URL."""
    serving = process("serve", "--engine", "llama-3.1-8b-h200x1", "--port", "0")
    assert serving.stdout is not None
    yield serving.stdout.readline().split(" at ")[1].split(" ")[0]
    serving.send_signal(signal.SIGINT)
    assert serving.wait(10) == 0


def small_trace(folder: Path) -> str:
    calls = [
        Call(
            f"c{i}",
            6,
            after=(Edge(f"c{i - 1}", 0.01, "tool"),) if i else (),
            inherit=Inherit(f"c{i - 1}") if i else None,
            spans=() if i else (Span("tools", 300, "trace"),),
            fresh=(Part("user", 120),),
        )
        for i in range(4)
    ]
    path = folder / "small.jsonl"
    native.write(path, Header(source="test"), [Session(f"s{i}", tuple(calls)) for i in range(3)])
    return str(path)


def test_a_live_run_from_the_command_line_gives_its_numbers_and_keeps_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret-0123456789")
    argv = ["run", small_trace(tmp_path), "--url", server, "--model", "m", "--concurrency", "3", "--json"]
    argv += ["--api-key-env", "MY_KEY", "--header", "X-Token:very-secret-too", "-o", str(tmp_path / "run")]
    assert workloom(monkeypatch, *argv) == 0
    streams = capsys.readouterr()
    summary = json.loads(streams.out)
    assert summary["calls"]["ok"] == summary["calls"]["due"] == 12
    assert summary["tokens"]["sent_prompt"] == summary["tokens"]["prompt"] == 3 * (420 + 546 + 672 + 798)
    assert summary["run"]["backend"] == "http"
    for path in (tmp_path / "run").iterdir():
        assert b"very-secret" not in path.read_bytes(), path.name
    assert "very-secret" not in streams.out + streams.err


def test_a_second_run_does_not_hit_what_the_first_left_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    trace = small_trace(tmp_path)
    for name in ("first", "second"):
        out = str(tmp_path / name)
        assert workloom(monkeypatch, "run", trace, "--url", server, "--concurrency", "1", "-o", out) == 0
        first = next(iter(open_run(out).calls()))
        assert (first.instance, first.call, first.cached_tokens) == (0, "c0", 0)


def test_the_same_plan_live_and_simulated_has_the_same_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    trace = small_trace(tmp_path)
    for name, target in (("live", ["--url", server]), ("sim", ["--engine", "llama-3.1-8b-h200x1"])):
        assert workloom(monkeypatch, "run", trace, *target, "--concurrency", "1", "-o", str(tmp_path / name)) == 0
    live, sim = open_run(tmp_path / "live"), open_run(tmp_path / "sim")
    assert live.manifest.plan_hash == sim.manifest.plan_hash
    for a, b in zip(live.calls(), sim.calls(), strict=True):
        for name in ("instance", "session", "call", "prompt_tokens", "output_tokens", "cached_tokens"):
            assert getattr(a, name) == getattr(b, name)


def test_a_run_in_which_nothing_worked_says_why_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    argv = ["run", small_trace(tmp_path), "--url", server, "--max-context", "900", "--body", "n=2"]
    assert workloom(monkeypatch, *argv, "-o", str(tmp_path / "run")) == 1
    streams = capsys.readouterr()
    assert "no call succeeded" in streams.err
    assert "`n`" in streams.out or " n " in streams.out, "the server's own words"


def test_a_run_that_ends_early_says_where_its_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    out = str(tmp_path / "run")
    argv = ["run", small_trace(tmp_path), "--url", server, "--max-context", "900", "--body", "n=2", "--duration", "60"]
    assert workloom(monkeypatch, *argv, "-o", out) == 1
    said = capsys.readouterr().err
    assert "100 of the last 100 calls failed" in said
    assert f"workloom show {out}" in said
    assert open_run(out).manifest.status == "failed"


def test_a_run_s_own_plan_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert workloom(monkeypatch, "run", CANONICAL, *SMALL, "-o", first) == 0
    assert workloom(monkeypatch, "run", f"{first}/plan.json", "--engine", "llama-3.1-8b-h200x1", "-o", second) == 0
    assert digest(first) == digest(second)


def test_a_plan_that_the_target_cannot_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(tmp_path / "plan.json")
    assert workloom(monkeypatch, "plan", CANONICAL, "-o", plan) == 0
    assert workloom(monkeypatch, "run", plan, "--engine", "llama-3.1-8b-h200x1", "--max-model-len", "20000") == 1
    assert "--max-context 20000" in capsys.readouterr().err


def test_a_terminal_that_knows_no_fine_signs_gets_plain_ones(tmp_path: Path) -> None:
    running = process("profiles", PYTHONIOENCODING="ascii")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "llama" in out


def test_ctrl_c_ends_a_run_with_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = process("run", CANONICAL, "--engine", "llama-3.1-8b-h200x1", "--duration", "1e9", "-o", str(out))
    while not (out / "journal").exists() or (out / "journal").stat().st_size < 100_000:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "interrupted; what was recorded is kept" in err
    shown = subprocess.run(
        [sys.executable, "-m", "workloom.cli", "show", str(out), "--json"], capture_output=True, text=True, check=True
    )
    summary = json.loads(shown.stdout)
    assert summary["run"]["status"] == "interrupted"
    assert summary["calls"]["ok"] > 100
