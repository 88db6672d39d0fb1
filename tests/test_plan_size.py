"""What a run will take is said beforehand, and about right."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import plan_of
from test_cli import workloom
from test_until import ENGINE, plan_until, short_sessions, trace

from workloom.answers.plan_size import Looks, Pilot, look, looked, pilot_of, plan_size, reach, simulated_pilot, size
from workloom.answers.simulated import play
from workloom.engine.fleet import Fleet, Pool
from workloom.metrics.estimate import Estimate
from workloom.metrics.figure import figure
from workloom.metrics.uncertainty.enough import sessions_needed
from workloom.plan import Closed, Limits

PILOT = Pilot(
    "by hand", sessions=100, calls=400, seconds=200.0, prompt_tokens_per_call=50.0, output_tokens_per_call=5.0
)
MEAN = figure("ttft_mean")


def told(share: float, sessions: int = 100) -> Estimate:
    """A mean of 2 s that is known to `share` of it."""
    return Estimate("ttft_mean", 2.0, 2 - 2 * share, 2 + 2 * share, sessions=sessions, values=4 * sessions)


def test_half_the_width_takes_four_times_the_sessions_and_all_that_goes_with_them() -> None:
    looks = Looks(told(0.1), told(0.14, 50), told(0.12, 50))
    found = size(PILOT, MEAN, looks, 0.0500001)
    assert (found.sessions, found.calls, found.seconds) == (400, 1600, pytest.approx(800.0))
    assert (found.prompt_tokens, found.output_tokens) == (80_000, 8_000)
    assert (found.sessions_low, found.sessions_high) == (288, 400), "50 * (12/5)^2, 50 * (14/5)^2 = 392, 400"


@given(st.floats(0.02, 0.5), st.floats(0.005, 0.5))
def test_what_a_size_takes_and_what_it_gives_are_inverse(pilot: float, asked: float) -> None:
    looks = Looks(told(pilot), told(pilot, 50), told(pilot, 50))
    found = size(PILOT, MEAN, looks, asked)
    assert found.sessions is not None and found.sessions >= sessions_needed(MEAN)
    back = reach(PILOT, MEAN, looks, found.sessions)
    assert back.half_width is not None and back.half_width <= asked * 1.0001
    if found.sessions > sessions_needed(MEAN):
        assert back.half_width == pytest.approx(asked, rel=1 / found.sessions + 1e-6)


def test_no_interval_means_no_answer_and_says_why() -> None:
    without = Estimate("ttft_mean", 2.0, why="not enough data: 7 sessions")
    found = size(PILOT, MEAN, Looks(without, without, without), 0.05)
    assert found.sessions is None and "7 sessions" in found.why
    failing = Estimate("ttft_mean", math.inf, math.inf, math.inf)
    assert "calls failed" in size(PILOT, MEAN, Looks(failing, failing, failing), 0.05).why
    assert reach(PILOT, MEAN, Looks(without, without, without), 10).why


@pytest.mark.parametrize(("first", "steady"), [(0.1 * math.sqrt(2), True), (0.1, False), (0.25, False)])
def test_a_pilot_whose_variance_does_not_halve_is_not_to_be_trusted(first: float, steady: bool) -> None:
    found = looked(MEAN, Looks(told(0.1), told(first, 50), told(0.1, 50)))
    assert found.halving == pytest.approx((first / 0.1) ** 2) and found.steady is steady


def test_what_is_said_beforehand_is_about_what_a_run_then_takes() -> None:
    """Pilot and runs have seeds of their own; a run looks at steps of a tenth and twice, so it takes a little more."""
    pilot = simulated_pilot(plan_of(short_sessions(), Closed(6)), Fleet((Pool(ENGINE),)))
    for text in ("ttft_mean±8%", "e2e_mean±8%"):
        about = figure(text.partition("±")[0])
        said = size(pilot_of(pilot, "pilot"), about, look(pilot, about), 0.08).sessions
        took = []
        for seed in (1, 2, 3):
            until = play(plan_until(text, seed=seed), ENGINE).until
            assert until is not None and until.verdict == "reached"
            took.append(until.checks[-1].sessions)
        assert said is not None and 0.3 < said / sorted(took)[1] < 2, (text, said, took)


def test_the_nearest_limit_is_what_counts() -> None:
    pilot = simulated_pilot(plan_of(short_sessions(), Closed(6)), Fleet((Pool(ENGINE),)))
    found = plan_size(pilot, "pilot", [(MEAN, (0.05,))], Limits(sessions=400, calls=100_000))
    assert found.after == "400 sessions" and not found.sizes and len(found.reaches) == 1


def test_the_command_answers_from_a_workload_and_from_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ["--engine", "llama-3.1-8b-h200x1"]
    short = trace(tmp_path)
    assert workloom(monkeypatch, "plan-size", short, *engine, "--until", "ttft_mean±5%", "--json") == 0
    (size,) = json.loads(capsys.readouterr().out)["sizes"]
    assert size["half_width"] == 0.05 and size["sessions"] > sessions_needed(MEAN) and size["seconds"] > 0
    assert workloom(monkeypatch, "plan-size", short, *engine, "--until", "ttft_mean±5%") == 0
    assert "with --until takes 1.4 to 1.9 times as many sessions" in capsys.readouterr().out
    out = str(tmp_path / "run")
    assert workloom(monkeypatch, "run", short, *engine, "--sessions", "200", "-o", out) == 0
    capsys.readouterr()
    assert workloom(monkeypatch, "plan-size", "--from", out, "--duration", "600") == 0
    assert "after 600 s" in capsys.readouterr().out
    assert workloom(monkeypatch, "plan-size", "--from", out, "--concurrency", "3") == 2
    assert "the run says what its load was" in capsys.readouterr().err
    assert workloom(monkeypatch, "plan-size") == 2
