"""The coverage study as a test: intervals of engine runs against one much longer run. benchmarks/coverage.py is it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import coverage as study  # noqa: E402

from workloom.metrics.uncertainty import enough  # noqa: E402
from workloom.metrics.uncertainty.difference import differences  # noqa: E402


def test_a_run_of_the_study_has_what_the_table_is_made_of() -> None:
    run = study.columns(study.play("closed", 60, 1))
    begin, end = 20.0, 150.0
    for asked in study.FIGURES:
        told = study.judged(run, asked, begin, end)
        assert told.sessions > 20 and (told.value is not None or "effective values beyond" in told.why), asked.name
    ttft = study.judged(run, study.FIGURES[1], begin, end)
    due = (run["due"] >= begin) & (run["due"] < end)
    assert ttft.value == pytest.approx(np.median(run["ttft"][due]))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["open", "closed"])
def test_intervals_of_engine_runs_hold_what_they_say(kind: str) -> None:
    """200 runs each; the limits are 93 and 97 %, with two standard errors of 200 (3.1 %) for chance."""
    runs = [study.columns(study.play(kind, study.SESSIONS, seed)) for seed in range(200)]
    long = study.columns(study.play(kind, study.LONG_SESSIONS // 2, study.LONG_SEED))
    for asked in study.FIGURES:
        if asked.column == "tokens" or enough.sessions_needed(asked.figure) > 120:
            continue
        made = study.row(runs, kind, asked, 120, study.truth(long, kind, asked))
        assert made.given < 0.5 or made.covered >= 0.93 - 0.031, (asked.name, made)
        assert made.given < 0.5 or made.covered <= 0.97 + 0.031, (asked.name, made)
    begin, end = study.SETTLED_S[kind], study.SETTLED_S[kind] + 120 / study.RATE_PER_S
    ttft = next(asked for asked in study.FIGURES if asked.name == "TTFT p95")
    seen = [study.observed(run, ttft.column, begin, end) for run in runs]
    told = [differences(a, b, ttft.figure, paired=False) for a, b in zip(seen[::2], seen[1::2], strict=True)]
    assert sum(one.p_value < 0.05 for one in told if one.p_value is not None) <= 9
