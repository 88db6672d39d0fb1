"""A run that goes on until it knows enough: when it looks, when it ends, and when it never can."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from planned import plan_of
from test_cli import workloom
from test_driver import Scripted
from test_window import Played, chain

from workloom.answers.simulated import Kept, play
from workloom.answers.until import SIMULATED_CALLS, until_known
from workloom.clock import VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import Control, End, Options, Progress, drive
from workloom.engine import profile
from workloom.errors import BackendError, UsageError
from workloom.execute import Simulated, execute
from workloom.execute.goals import goal, goals, half_width
from workloom.execute.until import CONFIRM, FIRST, Check, Pace, Watching, goals_of, read_until, with_alive
from workloom.metrics.estimate import Estimate, estimate
from workloom.metrics.frame import Window
from workloom.metrics.measured import measured_records
from workloom.metrics.summary import summary_json
from workloom.plan import Closed, Limits, Plan
from workloom.records import CallRecord, ChunkRun, Outcome, SessionRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import open_run
from workloom.traces import native

S = 10**9
ENGINE = profile.load("llama-3.1-8b-h200x1")


def short_sessions(many: int = 300) -> list[Session]:
    """Two to four calls of few tokens, so that hundreds of sessions cost a moment."""
    rng = random.Random(1)
    made = []
    for i in range(many):
        calls = [
            Call(
                f"c{j}",
                rng.choice([4, 8, 40]),
                after=(Edge(f"c{j - 1}", 0.1, "tool"),) if j else (),
                inherit=Inherit(f"c{j - 1}") if j else None,
                spans=() if j else (Span("tools", 300, "trace"),),
                fresh=(Part("user", rng.choice([20, 40, 2000])),),
            )
            for j in range(rng.choice([2, 3, 4]))
        ]
        made.append(Session(f"s{i}", tuple(calls)))
    return made


def plan_until(*asked: str, limits: Limits | None = None, seed: int = 0) -> Plan:
    plan = plan_of(short_sessions(), Closed(6), limits or Limits())
    return until_known(Plan(replace(plan.recipe, seed=seed), plan.source), asked, live=False)


# -- what is asked for


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttft_p95±5%", "ttft_p95±5%"),
        ("ttft_s_p95 +- 5 %", "ttft_p95±5%"),
        ("ttft_p95+/-5%", "ttft_p95±5%"),
        ("ttfc_p50±50ms", "ttft_p50±50ms"),
        ("e2e_mean±1.5s", "e2e_mean±1.5s"),
        ("e2e_p90±0.5min", "e2e_p90±30s"),
        ("errors±0.5pp", "errors±0.5pp"),
        ("errors±0.005", "errors±0.5pp"),
        ("ttft_p95[agent=main]±10%", "ttft_p95[agent=main]±10%"),
    ],
)
def test_a_goal_is_a_figure_and_a_half_width_and_is_written_in_one_way(text: str, said: str) -> None:
    assert goal(text).say() == said
    assert goal(said) == goal(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ttft_p95<=1s", "--slo"),
        ("ttft_p95", "quote it"),
        ("ttft_p95±5", "s, ms"),
        ("errors±5ms", "pp"),
        ("ttft_p95±0%", "above 0"),
        ("ttft_p95±200%", "below 100%"),
        ("ttft_max±5%", "no interval"),
        ("tfft_p95±5%", "ttft"),
    ],
)
def test_what_is_no_goal_is_refused_with_the_way_out(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as fault:
        goal(text)
    assert hint in str(fault.value)


def test_the_faults_of_several_goals_are_told_together() -> None:
    with pytest.raises(UsageError) as fault:
        goals(["ttft_p95<=1s", "ttft_p95±5%", "errors±5ms"])
    assert "ttft_p95<=1s" in str(fault.value) and "errors±5ms" in str(fault.value)


@given(st.floats(1e-3, 1e3), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.005, 0.99))
def test_a_goal_is_reached_when_the_mean_of_both_sides_is_within_it(
    value: float, below: float, above: float, share: float
) -> None:
    found = Estimate("ttft_p95", value, value - below, value + above)
    wide = (below + above) / 2
    about = goal(f"ttft_p95±{100 * share:.6f}%")
    wanted = about.half_width * value
    assert about.wanted(found) == pytest.approx(wanted)
    assert about.times(found) == pytest.approx(wide / wanted, rel=1e-6, abs=1e-9)
    assert about.reached(found) == (half_width(found) <= about.wanted(found))  # type: ignore[operator]


@pytest.mark.parametrize(
    "found",
    [
        Estimate("ttft_p95", None, why="not enough data"),
        Estimate("ttft_p95", 1.0, why="not enough data"),
        Estimate("ttft_p95", 1.0, 0.9, math.inf),
        Estimate("ttft_p95", math.inf, math.inf, math.inf),
    ],
)
def test_what_has_no_interval_or_one_without_an_end_is_never_reached(found: Estimate) -> None:
    assert not goal("ttft_p95±99%").reached(found) and not goal("ttft_p95±1000s").reached(found)
    assert goal("ttft_p95±99%").times(found) == math.inf


# -- the plan


def test_a_plan_that_waits_for_figures_has_no_end_of_its_own_and_says_so_in_its_hash() -> None:
    plain = plan_of(short_sessions(), Closed(6))
    plan = until_known(plain, ["ttft_p95+-5%"], live=False)
    assert plain.sessions == 300 and plan.sessions is None, "sessions come again"
    assert plan.recipe.limits == Limits(calls=SIMULATED_CALLS, until=("ttft_p95±5%",))
    live = until_known(plain, ["ttft_p95±5%"], live=True)
    other = until_known(plain, ["ttft_p95±6%"], live=False)
    assert len({plain.hash, plan.hash, live.hash, other.hash}) == 4
    assert live.recipe.limits.duration_s == 3600
    capped = plan_of(short_sessions(), Closed(6), Limits(sessions=50))
    assert until_known(capped, ["ttft_p95±5%"], live=True).recipe.limits == Limits(sessions=50, until=("ttft_p95±5%",))
    assert plan.instance(299).session != plan.instance(300).session or plan.instance(300).recycled == 1


def test_a_role_that_nobody_plays_is_refused_before_the_run() -> None:
    with pytest.raises(UsageError, match="no call of the workload is of this agent"):
        until_known(plan_of(short_sessions(), Closed(6)), ["ttft_p95[agent=mian]±5%"], live=False)


# -- when it looks


def check(sessions: int, times: float | None, never: list[str] | None = None) -> Check:
    return Check(sessions * S, sessions, 3 * sessions, [], times, never or [])


def test_looks_are_few_and_what_was_reached_must_be_reached_again() -> None:
    pace = Pace(goals(["ttft_p95±5%"]))
    assert pace.next == FIRST == 40
    assert not pace.heard(check(40, None)) and pace.next == 60, "no interval: when a p95 has one"
    assert not pace.heard(check(60, None)) and pace.next == 75, "still none: a quarter more"
    assert not pace.heard(check(38, 3.0)) and pace.next == 76, "nine times as many are missing: look at twice"
    assert not pace.heard(check(76, 1.2)) and pace.next == 110, "1.44 times"
    assert not pace.heard(check(110, 0.99)) and pace.next == math.ceil(110 * CONFIRM)
    assert not pace.heard(check(121, 1.01)) and pace.next == math.ceil(121 * 1.1), "it was luck"
    assert not pace.heard(check(134, 0.9))
    assert pace.heard(check(148, 0.9))
    assert pace.until.verdict == "reached" and len(pace.until.checks) == 8


def test_what_cannot_be_reached_ends_the_run_at_the_second_look_that_says_so() -> None:
    pace = Pace(goals(["ttft_p95±5%"]))
    assert not pace.heard(check(30, None, ["too many calls fail"]))
    assert pace.heard(check(38, None, ["too many calls fail"]))
    assert pace.until.verdict == "cannot be reached"


@given(st.lists(st.one_of(st.none(), st.floats(0.5, 50)), min_size=1, max_size=60))
def test_looks_always_move_on_by_a_tenth_at_least(times: list[float | None]) -> None:
    pace, sessions = Pace(goals(["ttft_p95±5%"])), FIRST
    for one in times:
        if pace.heard(check(sessions, one)):
            assert pace.until.verdict == "reached" and one is not None and one <= 1
            return
        assert 1.1 * sessions <= pace.next <= 2 * sessions + 1
        sessions = pace.next


# -- runs in virtual time


def test_a_run_ends_when_its_figure_is_known_and_not_before() -> None:
    plan = plan_until("ttft_mean±10%")
    kept = play(plan, ENGINE)
    assert kept.until is not None and kept.until.verdict == "reached"
    looks = kept.until.checks
    assert [look.reached for look in looks][-2:] == [True, True]
    assert looks[0].sessions == FIRST
    last = looks[-1]
    assert kept.window == Window(0, last.at_ns + 1), "the window ends at the look that decided"
    assert last.at_ns in {record.end_ns for record in kept.sessions}, "and looks come when a session ends"
    run = kept.measured()
    found = estimate(run, goals_of(plan)[0].figure)
    wide = half_width(found)
    assert wide is not None and found.value is not None and wide <= 0.12 * found.value
    due = [record for record in kept.calls if record.due_ns <= last.at_ns]
    assert {record.status for record in due} == {"ok"}, "what was due in the window has ended"
    assert any(record.due_ns > last.at_ns for record in kept.calls), "under the load as it was"


def test_of_several_goals_all_are_reached() -> None:
    alone = [play(plan_until(text), ENGINE).until for text in ("ttft_mean±10%", "e2e_p50±25%")]
    both = play(plan_until("ttft_mean±10%", "e2e_p50±25%"), ENGINE).until
    assert both is not None and both.verdict == "reached"
    assert both.checks[-1].sessions >= max(until.checks[-1].sessions for until in alone if until is not None) * 0.9
    for text, found in zip(both.goals, both.checks[-1].estimates, strict=True):
        assert goal(text).reached(found)


def test_equal_seeds_end_at_one_instant_with_equal_bytes(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        plan = plan_until("ttft_mean±15%", seed=seed)
        execute(
            plan, Simulated(ENGINE), tmp_path / name, options=Options(), progress=Progress(), argv=[],
            summarize=summary_json,
        )  # fmt: skip
        until = read_until(tmp_path / name)
        assert until is not None and until.verdict == "reached"
        files = ("calls.parquet", "sessions.parquet", "server.parquet", "until.json")
        made.append([(tmp_path / name / file).read_bytes() for file in files])
    assert made[0] == made[1]
    assert made[0][3] != made[2][3]
    run = open_run(tmp_path / "a")
    assert run.manifest.status == "finished"
    assert any(note.startswith("until ttft_mean±15%: reached after") for note in run.manifest.notes)
    assert run.manifest.config["recipe"]["limits"]["until"] == ["ttft_mean±15%"]


def test_on_disk_and_in_memory_a_run_ends_at_one_look(tmp_path: Path) -> None:
    plan = plan_until("ttft_mean±15%")
    execute(
        plan,
        Simulated(ENGINE),
        tmp_path / "run",
        options=Options(),
        progress=Progress(),
        argv=[],
        summarize=summary_json,
    )
    kept, stored = play(plan, ENGINE, options=Options()).until, read_until(tmp_path / "run")
    assert kept is not None and stored is not None
    assert [look.at_ns for look in kept.checks] == [look.at_ns for look in stored.checks]


@pytest.mark.parametrize("limits", [Limits(sessions=60), Limits(calls=200), Limits(duration_s=10.0)])
def test_a_cap_ends_it_first(limits: Limits) -> None:
    kept = play(plan_until("ttft_p95±0.1%", limits=limits), ENGINE)
    assert kept.until is not None and kept.until.verdict == "not reached" and kept.until.checks
    if limits.calls is not None:
        assert len(kept.calls) == 200
    elif limits.sessions is not None:
        assert len(kept.sessions) == 60
    else:
        assert kept.window.end_ns == 10 * S


def test_sessions_that_still_go_count_as_cut_off_at_a_look() -> None:
    """Of 40 sessions 10 have ended: makespans of these alone would be those of the short ones."""
    calls = [
        CallRecord(k, f"s{k}", "c0", "main", "m", "ok", k * S, sent_ns=k * S, done_ns=(k + 1) * S) for k in range(40)
    ]
    sessions = [SessionRecord(k, f"s{k}", "ok", k * S, k * S, (k + 1) * S, 1, 1) for k in range(0, 40, 4)]
    run = with_alive(measured_records(calls, sessions, window=Window(0, 50 * S)))
    assert len(run.sessions) == 40 and int(run.sessions.censored.sum()) == 30
    assert np.array_equal(run.sessions.instance, np.arange(40))
    assert np.array_equal(run.sessions.due_ns, np.arange(40) * S)
    assert run.sessions.ok[::4].all() and run.sessions.whole.all()


class Broken(Scripted):
    """A server of which the first call of every n-th session fails."""

    def __init__(self, clock: VirtualClock, every: int) -> None:
        super().__init__(clock, {})
        self.every, self.took = every, random.Random(2)

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        if request.name.endswith("/c0") and int(request.name.partition("/")[0]) % self.every == 0:
            raise BackendError("http_status", "broken", status=500)
        self.script["c0"] = self.script["c1"] = self.took.uniform(0.5, 1.5)
        return await super().call(request, on_chunk)


class Failing:
    """A run against it, with a goal and a cap."""

    def __init__(self, every: int, asked: str) -> None:
        plan = until_known(plan_of([chain(2, 0.0)], Closed(4), Limits(duration_s=3000.0)), [asked], live=True)
        kept, control = Kept(), Control()

        async def main(time: VirtualClock) -> End:
            self.watching = Watching(kept, control, goals_of(plan), time.now, kept.measured)
            return await drive(plan, Broken(time, every), time, self.watching, Options(), control=control)

        self.end = run_virtual(main)


def test_a_server_that_fails_too_often_for_the_figure_does_not_hold_the_run_up_to_its_cap() -> None:
    failing = Failing(2, "e2e_p95±5%")
    until = failing.watching.pace.until
    assert until.verdict == "cannot be reached"
    assert failing.end.reason == "closed" and failing.end.window_end_ns < 300 * S
    assert "of the values are failures" in until.checks[-1].never[0]


def test_a_server_that_fails_seldom_does_not_stop_it() -> None:
    failing = Failing(200, "e2e_p50±5%")
    assert failing.watching.pace.until.verdict == "reached"


# -- the driver's part


def test_a_window_that_is_closed_waits_for_what_was_due_in_it() -> None:
    """Calls of 1 s, back to back in one slot: closed at 2.5 s, the call due at 2 s is waited for, under load."""
    plan = plan_of([chain(1, 0.0)], Closed(1), Limits(duration_s=100.0))
    played = Played(plan, at={2.5: lambda played: played.control.close(round(2.5 * S))})  # type: ignore[arg-type]
    assert played.end.reason == "closed"
    assert played.end.window_end_ns == round(2.5 * S) + 1 and played.end.loaded_until_ns == played.end.window_end_ns
    assert [record.status for record in played.rows().values()][:3] == ["ok", "ok", "ok"]


def test_closing_later_than_the_duration_or_twice_changes_nothing() -> None:
    plan = plan_of([chain(1, 0.0)], Closed(1), Limits(duration_s=5.0))
    late = Played(plan, at={1.0: lambda played: played.control.close(9 * S)})  # type: ignore[arg-type]
    assert late.end.reason == "duration" and late.end.window_end_ns == 5 * S
    acts = {1.0: lambda played: played.control.close(3 * S), 2.0: lambda played: played.control.close(4 * S)}
    twice = Played(plan, at=acts)  # type: ignore[arg-type]
    assert twice.end.reason == "closed" and twice.end.window_end_ns == 3 * S


# -- the command


def trace(folder: Path) -> str:
    path = folder / "short.jsonl"
    native.write(path, Header(source="test"), short_sessions())
    return str(path)


def test_the_command_says_what_was_reached_and_its_exit_code_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", trace(tmp_path), "--engine", "llama-3.1-8b-h200x1"]
    out = str(tmp_path / "a")
    assert workloom(monkeypatch, *argv, "--until", "ttft_mean+-15%", "--until", "errors±1pp", "-o", out) == 0
    told = capsys.readouterr()
    assert "until ttft_mean±15%, errors±1pp; at most 1,000,000 calls" in told.err
    assert "reached after" in told.out and "ttft_mean±15%" in told.out
    out = str(tmp_path / "b")
    assert workloom(monkeypatch, *argv, "--until", "ttft_p95±0.1%", "--sessions", "50", "--json", "-o", out) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["until"]["verdict"] == "not reached" and document["calls"]["ok"] > 50
    (known,) = document["until"]["goals"]
    assert known["goal"] == "ttft_p95±0.1%"
    out = str(tmp_path / "c")
    assert workloom(monkeypatch, *argv, "--until", "ttft_p95<=1s", "-o", out) == 2
    assert "--slo" in capsys.readouterr().err and not Path(out).exists()


def test_promises_are_judged_at_the_end_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", trace(tmp_path), "--engine", "llama-3.1-8b-h200x1", "--sessions", "200"]
    assert workloom(monkeypatch, *argv, "--slo", "ttft_mean<=1min", "-o", str(tmp_path / "a")) == 0
    assert "pass" in capsys.readouterr().out
    assert workloom(monkeypatch, *argv, "--slo", "ttft_mean<=1ms", "--json", "-o", str(tmp_path / "b")) == 3
    document = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in document["slos"]] == ["fail"] and document["calls"]["ok"] > 200
