"""The benchmark scripts run and print a ratio; how good it is is no test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *options: str) -> str:
    command = [sys.executable, FOLDER / script, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_client_cpu_prints_both_clients_and_the_ratio() -> None:
    out = run("client_cpu.py", "--rounds", "1", "--scale", "0.03")
    assert out.count("bare loop") == out.count("workloom") == out.count("ratio") == 2


def test_ttft_error_compares_calls_with_the_server_s_record() -> None:
    out = run("ttft_error.py", "--streams", "4", "--calls", "12", "--tokens", "4")
    assert out.count("p99 under") == 2 and "bare loop" in out


def test_characterize_speed_compares_sizes() -> None:
    out = run("characterize_speed.py", "--weka", "/nowhere", "--most", "3000", "--seconds", "0.1")
    assert "one chain" in out and "facts s/1k" in out
