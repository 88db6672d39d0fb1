"""Plans: pure functions of (content, seed, k), honest arrivals, context limits, files that survive."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from engine_world import profile
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions

from workloom.engine.engine import Engine
from workloom.errors import PlanError, Refused
from workloom.plan import Closed, Context, Limits, Load, Open, Plan, Recipe, Replay, TraceRef, make, read, write
from workloom.plan.context import fit
from workloom.plan.load import arrivals, open_load
from workloom.plan.plan import per_request
from workloom.plan.source import Source
from workloom.prefix import Key
from workloom.prompt import planned
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span, prompt_tokens, validate
from workloom.traces import native, open_trace


def chain(name: str, calls: int = 3, fresh: int = 100, output: int = 10, start_s: float | None = None) -> Session:
    made = (
        Call(
            f"c{i}",
            output,
            after=(Edge(f"c{i - 1}"),) if i else (),
            inherit=Inherit(f"c{i - 1}") if i else None,
            spans=() if i else (Span("scaffold", 50, "trace"),),
            fresh=(Part("user", fresh),),
        )
        for i in range(calls)
    )
    return Session(name, tuple(made), start_s=start_s)


def plan_of(folder: Path, made: list[Session], load: Load, clock: bool = False, **rest: object) -> Plan:
    path = folder / "trace.jsonl"
    native.write(path, Header(source="test", common_clock=clock), made)
    return make(Recipe(TraceRef((str(path),)), load, **rest))  # type: ignore[arg-type]


def test_instance_k_is_a_pure_function_of_content_seed_and_k(tmp_path: Path) -> None:
    made = [chain(f"s{i}") for i in range(7)]
    plan = plan_of(tmp_path, made, Closed(2), limits=Limits(duration_s=1.0), seed=3)
    backwards = [plan.instance(k) for k in reversed(range(30))]
    assert list(itertools.islice(plan.instances(), 30)) == backwards[::-1]
    assert sorted(i.session.id for i in backwards[-7:]) == [f"s{i}" for i in range(7)], "each once an epoch"
    assert [i.recycled for i in backwards[::-1]] == [k // 7 for k in range(30)]
    other = plan_of(tmp_path, made, Closed(2), limits=Limits(duration_s=1.0), seed=4)
    assert [other.instance(k).session.id for k in range(30)] != [i.session.id for i in backwards[::-1]]


def test_the_hash_says_what_is_asked_for_and_not_where_the_trace_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made = [chain("s")]
    here, there = plan_of(tmp_path / "a", made, Closed(2)), plan_of(tmp_path / "b", made, Closed(2))
    assert here.hash == there.hash
    assert plan_of(tmp_path / "a", made, Closed(3)).hash != here.hash
    assert plan_of(tmp_path / "a", made, Closed(2), seed=1).hash != here.hash
    assert plan_of(tmp_path / "a", [chain("s", fresh=101)], Closed(2)).hash != here.hash


def test_poisson_gaps_have_their_rate_and_their_tail() -> None:
    """Clipping gaps at three means, as one public harness does, raises the rate by 5 % and leaves no gap above 3."""
    instants = np.array(list(itertools.islice(arrivals(Open(2.0), 5), 40_000))) / 1e9
    gaps = np.diff(instants)
    assert np.isclose(gaps.mean(), 0.5, rtol=0.02)
    assert np.isclose((gaps > 1.5).mean(), np.exp(-3), rtol=0.1)
    assert gaps.max() > 4.0
    assert np.isclose(gaps.std() / gaps.mean(), 1, rtol=0.03)
    fraction = instants % 1.0
    assert np.isclose((fraction < 0.1).mean(), 0.1, atol=0.01), "no arrivals on every whole second"


def test_clipped_gaps_are_asked_for_by_name_and_raise_the_rate() -> None:
    """To repeat measurements that were made so: at three means the rate is 1 / (1 - exp(-3)) times the nominal one."""
    whole, clipped = (
        np.diff(np.array(list(itertools.islice(arrivals(load, 5), 40_000))) / 1e9)
        for load in (Open(2.0), Open(2.0, clip_means=3.0))
    )
    assert np.allclose(clipped, whole.clip(max=1.5), atol=2e-9), "the same gaps, cut"
    assert np.isclose(0.5 / clipped.mean(), 1 / (1 - np.exp(-3)), rtol=0.01)


def test_two_rates_divide_one_sequence_of_gaps() -> None:
    slow, fast = (np.array(list(itertools.islice(arrivals(Open(rate, clip_means=3.0), 5), 50))) for rate in (1.0, 4.0))
    assert np.allclose(slow, 4 * fast, atol=3)
    assert not np.allclose(slow, list(itertools.islice(arrivals(Open(1.0, clip_means=3.0), 6), 50)), rtol=1e-3)


def test_a_load_without_a_clip_is_written_as_ever_and_a_clip_changes_the_hash(tmp_path: Path) -> None:
    plain, clipped = Open(2.0), Open(2.0, clip_means=3.0)
    assert msgspec.to_builtins(plain) == {"type": "open", "sessions_per_s": 2.0, "arrival": "poisson", "cv": 1.0}
    assert plan_of(tmp_path, [chain("s")], plain).hash != plan_of(tmp_path, [chain("s")], clipped).hash
    assert msgspec.json.decode(msgspec.json.encode(clipped), type=Load) == clipped
    for wrong in (Open(2.0, clip_means=0.0), Open(2.0, "constant", clip_means=3.0), Open(2.0, clip_means=np.nan)):
        with pytest.raises(PlanError, match="clipped"):
            plan_of(tmp_path, [chain("s")], wrong)


@given(st.floats(0.2, 4.0))
@settings(max_examples=10, deadline=None)
def test_gamma_gaps_have_their_mean_and_coefficient_of_variation(cv: float) -> None:
    gaps = np.diff(np.array(list(itertools.islice(arrivals(Open(4.0, "gamma", cv), 1), 60_000)))) / 1e9
    assert np.isclose(gaps.mean(), 0.25, rtol=0.08)
    assert np.isclose(gaps.std() / gaps.mean(), cv, rtol=0.08)


def test_constant_gaps_are_absolute_ticks() -> None:
    assert list(itertools.islice(arrivals(Open(3.0, "constant"), 0), 4)) == [0, 333333333, 666666667, 1000000000]


def test_requests_per_second_are_divided_by_the_mean_calls_of_a_session(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [chain("a", 2), chain("b", 6)], Open(1.0))
    assert per_request(2.0, plan) == 0.5


def test_replay_needs_a_common_clock_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="share no clock") as caught:
        plan_of(tmp_path, [chain("a")], Replay())
    assert "--concurrency" in str(caught.value)
    plan = plan_of(tmp_path, [chain("b", start_s=9.0), chain("a", start_s=4.0)], Replay(2.0), clock=True)
    assert [i.session.id for i in plan.instances()] == ["a", "b"]
    assert list(plan.due()) == [0, 2_500_000_000]


def test_all_faults_of_a_plan_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(tmp_path, [chain("a")], Closed(0), limits=Limits(duration_s=-1.0), context=Context(1))
    for part in ("concurrency", "--duration", "--max-context"):
        assert part in str(caught.value)


def test_unknown_arrivals_are_refused() -> None:
    assert open_load(3.0, "poisson") == Open(3.0)
    assert open_load(3.0, "constant") == Open(3.0, "constant")
    assert open_load(3.0, "gamma:2.5") == Open(3.0, "gamma", 2.5)
    assert open_load(3.0, "poisson:clip=3") == Open(3.0, clip_means=3.0)
    for text in ("gama", "gamma", "gamma:x", "poisson:2", "poisson:clip=", "poisson:clip=x", "constant:clip=3"):
        with pytest.raises(PlanError):
            open_load(3.0, text)


def test_a_session_stops_before_the_call_that_does_not_fit_and_so_does_what_needs_it() -> None:
    session = chain("s", 5)
    limit = 50 + 3 * 110
    assert [prompt.tokens + call.output_tokens for call, prompt in planned(session)][2] == limit
    fitted = fit(session, Context(limit))
    assert fitted.session is not None
    assert [call.id for call in fitted.session.calls] == ["c0", "c1", "c2"]
    assert fitted.calls_left_out == 2
    assert fit(session, Context(limit, "skip")).session is None
    with pytest.raises(PlanError, match="session s, call c3"):
        fit(session, Context(limit, "refuse"))


def test_cutting_drops_the_oldest_text_after_the_scaffold() -> None:
    session = chain("s", 6)
    fitted = fit(session, Context(400, "cut"))
    assert fitted.session is not None
    assert len(fitted.session.calls) == 6
    assert fitted.calls_cut > 0
    validate(fitted.session)
    for call, prompt in planned(fitted.session):
        assert prompt.tokens + call.output_tokens <= 400
        assert prompt.key.ids[0] == planned(session)[0][1].key.ids[0], "the scaffold stays"
    last = fitted.session.calls[-1]
    assert last.fresh[-1] == session.calls[-1].fresh[-1], "what is new is never cut"


def test_what_inherits_so_many_tokens_of_a_call_that_was_cut_is_still_a_session() -> None:
    calls = (
        Call("a", 10, fresh=(Part("definition", 50), Part("user", 250))),
        Call("b", 50, after=(Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 250),)),
        Call("c", 5, after=(Edge("b"),), inherit=Inherit("b", 600), fresh=(Part("tool", 1),)),
    )
    fitted = fit(Session("s", calls), Context(606, "cut"))
    assert fitted.session is not None
    validate(fitted.session)
    assert fitted.calls_cut == 2
    assert [prompt.tokens for _, prompt in planned(fitted.session)] == [300, 310, 601]


def test_a_limit_is_what_the_engine_takes(tmp_path: Path) -> None:
    """Whole blocks, and the last token of an answer needs none."""
    server = profile(kv_tokens=100, block_tokens=64)
    assert server.longest_call == 65
    engine = Engine(server)
    engine.submit(0, "fits", Key().plus(1, 60), 2, 5)
    with pytest.raises(Refused):
        engine.submit(0, "does not", Key().plus(1, 61), 2, 5)
    session = Session("s", (Call("zero", 0, fresh=(Part("user", 65),)),))
    with pytest.raises(PlanError, match=r"only session does not fit into the context\n.*\n  found: 66 tokens"):
        plan_of(tmp_path, [session], Closed(1), context=Context(65))


def test_prompts_and_answers_of_no_tokens_are_asked_for_as_one(tmp_path: Path) -> None:
    session = Session("s", (Call("a", 0), Call("b", 5, after=(Edge("a"),), inherit=Inherit("a"))))
    plan = plan_of(tmp_path, [session], Closed(1))
    a, b = plan.instance(0).session.calls
    assert (a.output_tokens, a.fresh_tokens, b.output_tokens) == (1, 1, 5)
    assert prompt_tokens(plan.instance(0).session) == {"a": 1, "b": 2}
    assert plan.left_out() == {"recorded outputs of 0 tokens, asked for as 1": 1}


def test_every_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [chain(f"s{i}") for i in range(9)], Closed(2), limits=Limits(duration_s=1.0))
    orders = {tuple(plan.instance(9 * epoch + k).session.id for k in range(9)) for epoch in range(5)}
    assert len(orders) == 5


def test_replay_of_a_session_without_a_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="has no start"):
        plan_of(tmp_path, [chain("a", start_s=5.0), chain("b")], Replay(), clock=True)


@pytest.mark.parametrize(
    ("load", "limits"),
    [
        (Open(1e-300), Limits()),
        (Open(float("nan")), Limits()),
        (Open(1.0, "gamma", 1e-200), Limits()),
        (Replay(1e-300), Limits()),
        (Closed(1), Limits(duration_s=1e300)),
        (Closed(1), Limits(duration_s=float("nan"))),
    ],
)
def test_numbers_out_of_this_world_are_refused(tmp_path: Path, load: Load, limits: Limits) -> None:
    with pytest.raises(PlanError, match="cannot be made"):
        plan_of(tmp_path, [chain("a", start_s=1.0)], load, clock=True, limits=limits)


@given(
    sessions(max_calls=12, min_output=0, stop_after=True),
    st.integers(20, 4000),
    st.sampled_from(["stop", "cut", "skip"]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_policy_no_call_is_longer_than_the_context(session: Session, limit: int, policy: str) -> None:
    fitted = fit(session, Context(limit, policy))  # type: ignore[arg-type]
    if fitted.session is None:
        return
    validate(fitted.session)
    assert all(prompt.tokens + call.output_tokens <= limit for call, prompt in planned(fitted.session))
    assert len(fitted.session.calls) + fitted.calls_left_out == len(session.calls)


def test_a_trace_of_which_nothing_fits_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--max-context"):
        plan_of(tmp_path, [chain("a")], Closed(1), context=Context(100))


def test_a_plan_file_gives_the_same_plan_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [chain(f"s{i}") for i in range(4)], Open(0.5), limits=Limits(sessions=9), seed=2)
    write(plan, tmp_path / "plan.json")
    recipe = read(tmp_path / "plan.json")
    assert recipe is not None
    again = make(recipe)
    assert again.hash == plan.hash
    assert list(again.instances()) == list(plan.instances())
    assert read(tmp_path / "trace.jsonl") is None, "a trace is no plan"


def test_a_plan_file_that_was_changed_or_whose_trace_was_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [chain("s")], Closed(3))
    path = tmp_path / "plan.json"
    write(plan, path)
    whole = path.read_text()
    path.write_text(whole.replace('"concurrency": 3', '"concurrency": 4'))
    with pytest.raises(PlanError, match="changed"):
        read(path)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(PlanError, match="damaged"):
        read(path)
    path.write_text(whole)
    native.write(tmp_path / "trace.jsonl", Header(source="test"), [chain("s", fresh=7)])
    recipe = read(path)
    assert recipe is not None
    with pytest.raises(PlanError, match="not the one"):
        make(recipe)


def test_plans_are_equal_in_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    plan_of(tmp_path, [chain(f"s{i}") for i in range(9)], Closed(2))
    code = (
        "from workloom.plan import *; import sys;"
        "p = make(Recipe(TraceRef((sys.argv[1],)), Open(1.0), Limits(sessions=20), seed=5));"
        "d = p.due(); print(p.hash, [(i.session.id, next(d)) for i in p.instances()])"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "trace.jsonl")],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(outs) == 1
    assert len(outs.pop()) > 200


def test_a_default_that_is_spelled_out_is_the_same_trace(tmp_path: Path) -> None:
    line = '{"id":"s","calls":[{"id":"a","output_tokens":3,%s"fresh":[{"kind":"user","tokens":9}]}]}'
    hashes = set()
    for name, more in (("a", ""), ("b", '"agent":"main",')):
        path = tmp_path / f"{name}.jsonl"
        path.write_text('{"format":"workloom","version":1}\n' + line % more + "\n")
        hashes.add(Source(open_trace([path]), Context()).content_hash)
    assert len(hashes) == 1


def test_a_disk_without_room_for_the_spool_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    plan, limit = tmp_path / "plan.json", 40 * 1024
    trace = Path(__file__).parent.parent / "src" / "workloom" / "data" / "canonical.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "workloom.cli", "plan", trace, "-o", plan],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1 and done.stderr.startswith("error: the trace could not be spooled")
    assert "TMPDIR" in done.stderr and "Traceback" not in done.stderr
    assert not plan.exists()
