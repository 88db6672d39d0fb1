"""The benchmark scripts run and print a ratio; how good it is is no test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *options: str) -> str:
    command = [sys.executable, FOLDER / script, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


NO_MOCK = ("--mock", "/nowhere")
"""The null server, which is always at hand."""


def test_client_cpu_prints_both_clients_and_the_ratio() -> None:
    out = run("client_cpu.py", "--rounds", "1", "--scale", "0.03", "--cases", "0", "3", *NO_MOCK)
    assert out.count("bare loop") == out.count("workloom") == out.count("ratio") == 2


def test_ttft_error_compares_calls_with_the_server_s_record() -> None:
    out = run("ttft_error.py", "--streams", "4", "--calls", "3", "--tokens", "4", "--rounds", "1", *NO_MOCK)
    assert out.count("starts spread") == out.count("all at once") == 1 and out.count("bare loop  ttft") == 2


def test_long_conversations_and_memory_are_held_against_their_goals() -> None:
    out = run("long_conversations.py", "--rounds", "1", "--turns", "5", "--sessions", "2", *NO_MOCK)
    assert "10 calls of up to 4,9" in out and "goal" in out
    out = run("memory.py", "--streams", "2", "--sessions", "2", "--tokens", "100", "--wait", "0.1", *NO_MOCK)
    assert out.count("MB at most") == 2


def test_characterize_speed_compares_sizes() -> None:
    out = run("characterize_speed.py", "--weka", "/nowhere", "--most", "3000", "--seconds", "0.1")
    assert "one chain" in out and "facts s/1k" in out


@pytest.mark.long
def test_per_iteration_gives_the_engine_s_results_and_the_ratio() -> None:
    out = run("per_iteration.py", "--only", "long answers")
    assert "64 calls, 256,000 tokens" in out and "equal to the picosecond" in out and out.count("us a step") == 1


def test_all_metrics_says_what_a_large_run_costs() -> None:
    out = run("all_metrics.py", "--calls", "1000", "--sessions", "8")
    assert "intervals and workflow" in out and "s of CPU" in out and "GB" in out
