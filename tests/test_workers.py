"""Several worker processes make the run that one makes: the same calls, one window, one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workloom.drive.driver import End
from workloom.execute.workers import merged
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import open_run
from workloom.traces import native

S = 10**9
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """`workloom serve` as a process."""
    argv = [sys.executable, "-m", "workloom.cli", "serve", "--engine", "llama-3.1-8b-h200x1", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert " at " in said, said
        yield said.split(" at ")[1].split(" ")[0]
        process.send_signal(signal.SIGINT)


def trace(folder: Path, sessions: int, calls: int, output: int = 6, wait_s: float = 0.01) -> str:
    line = [
        Call(
            f"c{i}",
            output,
            after=(Edge(f"c{i - 1}", wait_s, "tool"),) if i else (),
            inherit=Inherit(f"c{i - 1}") if i else None,
            spans=() if i else (Span("tools", 300, "trace"),),
            fresh=(Part("user", 40),),
        )
        for i in range(calls)
    ]
    path = folder / "trace.jsonl"
    native.write(path, Header(source="test"), [Session(f"s{i}", tuple(line)) for i in range(sessions)])
    return str(path)


def workloom(*argv: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "workloom.cli", *argv], capture_output=True, text=True, timeout=120)


def test_one_and_four_workers_make_the_same_calls(tmp_path: Path, url: str) -> None:
    argv = ["run", trace(tmp_path, 12, 4), "--url", url, "--concurrency", "6", "--salt", "7", "--json"]
    rows = {}
    for workers in ("1", "4"):
        out = str(tmp_path / f"run{workers}")
        done = workloom(*argv, "--workers", workers, "-o", out)
        assert done.returncode == 0, done.stderr
        run = open_run(out)
        rows[workers] = [
            (r.instance, r.call, r.status, r.planned_prompt_tokens, r.output_tokens, r.prompt_tokens)
            for r in run.calls()
        ]
        assert len(run.manifest.workers) == int(workers)
        assert len({cost.pid for cost in run.manifest.workers}) == int(workers)
        assert json.loads(done.stdout)["calls"]["recorded"] == 48
    assert rows["1"] == rows["4"]
    assert len(rows["1"]) == 48 and {status for _, _, status, *_ in rows["1"]} == {"ok"}


def test_windows_of_all_workers_open_at_one_instant_behind_their_warm_up(tmp_path: Path, url: str) -> None:
    argv = ["run", trace(tmp_path, 8, 12), "--url", url, "--concurrency", "5", "--workers", "3", "--duration", "1"]
    argv += ["--start", "0.2-0.6:index", "--warmup-calls", "1", "--warmup-pause", "0.2", "-o", str(tmp_path / "run")]
    done = workloom(*argv)
    assert done.returncode == 0, done.stderr
    run = open_run(str(tmp_path / "run"))
    start, end = run.manifest.window_start_ns, run.manifest.window_end_ns
    assert end == start + S
    calls = list(run.calls())
    warm = [r for r in calls if r.phase == "warmup"]
    assert {r.instance % 3 for r in warm} == {0, 1, 2}
    assert max(r.done_ns or 0 for r in warm) <= start - S // 5
    assert min(r.due_ns for r in calls if r.phase == "run") >= start


def interrupted(tmp_path: Path, url: str, workers: str, *, presses: int) -> Path:
    out = tmp_path / "run"
    argv = ["run", trace(tmp_path, 4, 30, output=120), "--url", url, "--concurrency", "4", "--duration", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workloom.cli", *argv, "--workers", workers, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 60
    while not (out / "manifest.json").exists() or not any(True for _ in open_run(out).calls()):
        assert time.monotonic() < patience and process.poll() is None
        time.sleep(0.05)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    return out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_interrupt_lets_calls_in_flight_end(tmp_path: Path, url: str, workers: str) -> None:
    run = open_run(interrupted(tmp_path, url, workers, presses=1))
    assert run.manifest.status == "interrupted"
    rows = list(run.calls())
    assert rows and {r.status for r in rows} == {"ok"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_second_interrupt_cuts_them_off_and_keeps_their_rows(tmp_path: Path, url: str, workers: str) -> None:
    run = open_run(interrupted(tmp_path, url, workers, presses=2))
    assert run.manifest.status == "interrupted"
    assert {r.status for r in run.calls()} == {"ok", "censored"}


def test_a_killed_run_of_several_workers_is_recovered_and_its_workers_go_with_it(tmp_path: Path, url: str) -> None:
    out = tmp_path / "run"
    argv = ["run", trace(tmp_path, 4, 30, output=20), "--url", url, "--concurrency", "4", "--duration", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workloom.cli", *argv, "--workers", "2", "-o", str(out)], stderr=subprocess.DEVNULL
    )
    patience = time.monotonic() + 60
    while len([p for p in out.glob("journal.*") if p.stat().st_size > 3000]) < 2:
        assert time.monotonic() < patience and process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        int(pid) for pid in children if b"workloom.drive.scrape" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    process.kill()
    process.wait()
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < patience, "the workers outlive their parent"
        time.sleep(0.05)
    run = open_run(out)
    assert run.manifest.status == "killed"
    assert {r.instance % 2 for r in run.calls()} == {0, 1}
    assert not list(out.glob("journal*"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b" Z " not in Path(f"/proc/{pid}/stat").read_bytes()


def test_the_load_is_as_asked_while_it_is_so_in_every_worker() -> None:
    def end(window: float, loaded: float, reason: str = "sessions") -> End:
        return End(0, round(window * S) + 1, round(loaded * S), 3, reason)  # type: ignore[arg-type]

    both = merged([end(5, 5), end(7, 7)], True)
    assert (both.window_end_ns, both.loaded_until_ns, both.sessions) == (5 * S + 1, 5 * S, 6)
    assert merged([end(9, 3), end(12, 2)], True).window_end_ns == 12 * S + 1, "no slot was used again in either"
    assert merged([end(9, 3), end(4, 4)], True).window_end_ns == 4 * S + 1
    assert merged([end(9, 9, "duration"), end(9, 9, "hopeless")], True).reason == "hopeless"
    assert merged([end(5, 5), end(7, 7)], False).window_end_ns == 7 * S + 1, "arrivals: until the last of them all"
