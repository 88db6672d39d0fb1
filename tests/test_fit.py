"""Fitting: what sessions were drawn from comes back, and what was tried is told."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats
from strategies import workload as any_sessions
from workload_strategies import possible

from workloom.cli import main
from workloom.errors import WorkloadError
from workloom.model.facts import facts
from workloom.model.families import Exponential, Family, Fixed, Lognormal, Quantiles, Uniform
from workloom.model.fit import Fitted, fit
from workloom.model.fit.lives import lives
from workloom.model.fit.margins import Choosing, Margins, steps
from workloom.model.fit.scaffolds import pool
from workloom.model.workload import builtin
from workloom.model.workload.file import dump, load
from workloom.model.workload.generate import generate, header
from workloom.model.workload.spec import (
    Agent,
    Compaction,
    Delegate,
    First,
    History,
    Kind,
    Memory,
    Reworded,
    Rewrite,
    Scaffold,
    Turn,
    Workload,
)
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span, validate
from workloom.traces import native, open_trace

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared/data"
CANONICAL = ROOT / "src/workloom/data/canonical.jsonl"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real traces at ../shared/data")

ONE = First(Lognormal(900.0, 0.8), Lognormal(90.0, 0.9))
TOOL = Turn(Lognormal(300.0, 1.2), Lognormal(120.0, 1.0), Lognormal(2.0, 1.4))
SUB = Agent(First(Lognormal(400.0, 0.5), Lognormal(100.0, 0.5)), Uniform(2.0, 6.0), {"tool": TOOL})


def loop(**more: Any) -> Agent:
    return Agent(ONE, **{"calls": Lognormal(15.0, 0.4), "turns": {"tool": TOOL}, **more})


def refit(workload: Workload, sessions: int = 300, seed: int = 3, choosing: Choosing = "best") -> Fitted:
    """The fit to sessions that were drawn from a workload."""
    drawn = generate(workload, seed, sessions)
    return fit(facts(drawn), header(workload), name=workload.name, choosing=choosing)


def again(agent: Agent, sessions: int = 300, **others: Agent) -> Agent:
    """What comes back of an agent."""
    return refit(Workload({"main": agent, **others}), sessions).workload.agents["main"]


def alike(found: Family, told: Family, within: float = 0.15) -> bool:
    """Whether two distributions say about the same, by their quartiles and the tenth at either end."""
    at = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    return bool((np.abs(found.quantile(at) - told.quantile(at)) <= within * np.abs(told.quantile(at))).all())


def ranks(sessions: Iterable[Session]) -> list[float]:
    """Rank correlations of fresh tokens, output and wait behind tools."""
    rows = [
        (c.fresh_tokens, c.output_tokens, c.after[0].wait_s)
        for s in sessions
        for c in s.calls
        if c.after and c.after[0].gap == "tool" and c.inherit is not None and c.inherit.tokens is None
    ]
    table = np.array(rows)
    return [float(stats.spearmanr(table[:, i], table[:, j]).statistic) for i, j in ((0, 1), (0, 2), (1, 2))]


# ------------------------------------------------------------------------------------------------- known truths return


UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example takes a second or two, and a smaller one says no more."""
truths = given(
    st.fixed_dictionaries(
        {
            "medians": st.tuples(*[st.floats(50, 5000)] * 2, st.floats(0.5, 60)),
            "sigmas": st.tuples(*[st.floats(0.3, 1.8)] * 3),
            "told": st.tuples(*[st.floats(-0.4, 0.6)] * 3),
            "own": st.tuples(*[st.floats(0, 0.4)] * 3),
            "carry": st.tuples(*[st.floats(-0.2, 0.6)] * 3),
            "calls": st.floats(8, 25),
            "seed": st.integers(0, 99),
        }
    ).filter(lambda truth: possible(truth["told"], truth["own"], truth["carry"], (0, 0, 0)))
)


@settings(max_examples=1, deadline=None, phases=UNSHRUNK)
@truths
def test_margins_ranks_and_memory_come_back(truth: dict[str, Any]) -> None:
    come_back(**truth)


@pytest.mark.long
@settings(max_examples=40, deadline=None, phases=UNSHRUNK)
@truths
def test_margins_ranks_and_memory_come_back_of_many(truth: dict[str, Any]) -> None:
    come_back(**truth, sessions=400)


def come_back(
    medians: tuple[float, ...],
    sigmas: tuple[float, ...],
    told: tuple[float, ...],
    own: tuple[float, ...],
    carry: tuple[float, ...],
    calls: float,
    seed: int,
    sessions: int = 200,
) -> None:
    fresh, output, wait = (Lognormal(m, s) for m, s in zip(medians, sigmas, strict=True))
    pairs = ("fresh output", "fresh wait", "output wait")
    names = ("fresh", "output", "wait")
    memory = Memory(dict(zip(names, own, strict=True)), dict(zip(names, carry, strict=True)))
    turn = Turn(fresh, output, wait, ranks=dict(zip(pairs, told, strict=True)))
    workload = Workload({"main": Agent(ONE, Lognormal(calls, 0.4), {"tool": turn}, memory=memory)})
    drawn = list(generate(workload, seed, sessions))
    found = fit(facts(iter(drawn)), header(workload), name="x").workload
    agent = found.agents["main"]
    made = list(generate(found, seed + 1, sessions))
    for name, sigma, share in zip(names, sigmas, own, strict=True):
        error = 3 * sigma * math.sqrt(share / sessions + 4 / (sessions * calls))
        told_of, made_of = (np.quantile(of_calls(s)[name], (0.25, 0.5, 0.75, 0.9)) for s in (drawn, made))
        assert np.abs(np.log((made_of + 1) / (told_of + 1))).max() < 0.1 + 1.5 * error, name
        assert abs(agent.memory.session.get(name, 0.0) - share) < 0.12, name
    for name, value in zip(names, carry, strict=True):
        assert abs(agent.memory.carry.get(name, 0.0) - value) < 0.12, name
    true, back = ranks(drawn), ranks(made)
    assert max(abs(a - b) for a, b in zip(true, told, strict=True)) < 0.1
    assert max(abs(a - b) for a, b in zip(true, back, strict=True)) < 0.1


def of_calls(sessions: Iterable[Session]) -> dict[str, list[float]]:
    calls = [call for session in sessions for call in session.calls if call.after]
    return {
        "fresh": [call.fresh_tokens for call in calls],
        "output": [call.output_tokens for call in calls],
        "wait": [call.after[0].wait_s for call in calls],
    }


def test_parameters_of_a_family_come_back_by_name() -> None:
    agent = again(loop(memory=Memory({"fresh": 0.1})), 150)
    for found, told in (
        (agent.first.fresh, ONE.fresh),
        (agent.first.output, ONE.output),
        (agent.calls, Lognormal(15.0, 0.4)),
    ):
        assert alike(found, told, 0.25), "of some hundreds of values another family may be as near"
    for name in ("fresh", "output", "wait"):
        found, told = getattr(agent.turns["tool"], name), getattr(TOOL, name)
        assert isinstance(found, Lognormal)
        assert abs(math.log(found.median / told.median)) < 0.12 and abs(found.sigma - told.sigma) < 0.08


def test_traits_that_go_together_come_back() -> None:
    memory = Memory({"fresh": 0.4, "output": 0.3}, ranks={"calls first": 0.5, "first fresh": 0.5, "fresh output": -0.6})
    found = again(loop(memory=memory), 250).memory
    assert abs(found.ranks["calls first"] - 0.5) < 0.12
    assert abs(found.ranks["first fresh"] - 0.5) < 0.15
    assert abs(found.ranks["fresh output"] + 0.6) < 0.15
    assert "output wait" not in found.ranks, "sessions have no share in waits"


def test_humans_and_their_share_come_back() -> None:
    human = Turn(Lognormal(60.0, 1.0), Lognormal(200.0, 0.7), Lognormal(40.0, 1.0), share=Uniform(0.1, 0.4))
    agent = again(loop(turns={"tool": TOOL, "human": human}), 150)
    assert list(agent.turns) == ["tool", "human"]
    found = agent.turns["human"]
    assert alike(found.fresh, human.fresh) and alike(found.output, human.output) and alike(found.wait, human.wait)
    assert found.share is not None
    assert abs(found.share.overall_mean - 0.25) < 0.03
    spread = np.subtract(*found.share.quantile(np.array([0.9, 0.1])))
    assert abs(spread - 0.24) < 0.08, "the sessions' own spread, without that of few calls"
    even = again(loop(turns={"tool": TOOL, "human": replace(human, share=Fixed(0.2))}), 60).turns["human"].share
    assert even is not None and np.subtract(*even.quantile(np.array([0.9, 0.1]))) < 0.12


def test_compaction_comes_back_as_a_rule() -> None:
    rule = Compaction(Lognormal(40_000.0, 0.1), Lognormal(9000.0, 0.15), share=0.7, rewrite_after=0.4)
    agent = again(loop(calls=Uniform(80.0, 200.0), history=History(compaction=rule), scaffold=(TEXT,)), 40)
    found = agent.history.compaction
    assert found is not None and found.call is None
    assert alike(found.trigger, rule.trigger, 0.06), "a little low: it lies between a context and the one after"
    assert alike(found.target, rule.target, 0.1)
    assert abs(found.share - 0.7) < 0.12 and abs(found.rewrite_after - 0.4) < 0.1
    assert agent.history.reworded is None
    assert agent.history.rewrite is None or agent.history.rewrite.share < 0.001, "a summary longer than what it sums up"


TEXT = Scaffold("tools", Fixed(3000.0), "trace")


def test_answers_that_come_back_as_other_text_and_rewrites_come_back() -> None:
    history = History(
        Reworded(Quantiles(((0.0, 0.0), (0.5, 0.0), (0.5001, 0.6), (1.0, 0.6))), Lognormal(100.0, 0.8)),
        Rewrite(0.05, Uniform(0.3, 0.8), Fixed(0.9)),
    )
    workload = Workload({"main": loop(history=history, calls=Uniform(15.0, 60.0), scaffold=(TEXT,))}, block_tokens=64)
    found = refit(workload, 80).workload.agents["main"].history
    assert found.reworded is not None and found.rewrite is not None
    assert alike(found.reworded.new, Lognormal(100.0, 0.8))
    share = found.reworded.share
    assert abs(share.overall_mean - 0.3 * 0.95) < 0.1
    assert share.quantile(0.2) < 0.1 < 0.45 < share.quantile(0.8), "some sessions have it, some have not"
    assert abs(found.rewrite.share - 0.05) < 0.015
    assert alike(found.rewrite.keeps, Uniform(0.3, 0.8), 0.2)
    assert abs(found.rewrite.size.quantile(0.5) - 0.93) < 0.05, "what the call adds is in it"


def test_subagents_come_back() -> None:
    delegate = Delegate(
        "explore",
        0.6,
        Uniform(0.6, 3.4),
        Uniform(0.6, 3.4),
        0.6,
        Uniform(1.6, 4.4),
        0.7,
        Lognormal(1.0, 0.5),
        Fixed(3.0),
    )
    (found,) = again(loop(calls=Uniform(12.0, 20.0), delegates=(delegate,)), 180, explore=SUB).delegates
    assert found.agent == "explore" and found.levels == 1
    assert abs(found.sessions - 0.6) < 0.1 and abs(found.waits - 0.6) < 0.1 and abs(found.reported - 0.7) < 0.15
    for sizes, told in ((found.times, {1, 2, 3}), (found.at_once, {1, 2, 3})):
        assert isinstance(sizes, Quantiles)
        assert {value for _, value in sizes.points} == told and abs(sizes.overall_mean - 2) < 0.15
    assert found.later is not None and abs(found.later.overall_mean - 3) < 0.3
    assert alike(found.spawn, Lognormal(1.0, 0.5)) and found.report == Fixed(3.0)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels_of_delegation_come_back(level: int) -> None:
    nested = replace(SUB, delegates=(Delegate("explore", levels=level),))
    workload = refit(Workload({"main": loop(delegates=(Delegate("explore"),)), "explore": nested}), 25).workload
    assert workload.agents["main"].delegates[0].levels == 1
    below = workload.agents["explore"].delegates
    assert [found.levels for found in below] == ([level] if level > 1 else [])
    assert all(found.sessions == 1.0 for found in below), "those that may not are not asked"
    itself = Workload({"main": loop(calls=Fixed(2.0), delegates=(Delegate("main", levels=level),))})
    assert refit(itself, 25).workload.agents["main"].delegates[0].levels == level


@pytest.mark.parametrize("history_of", [{}, {5: 3}])
def test_a_dag_comes_back(history_of: dict[int, int]) -> None:
    graph = ((), (0,), (0,), (0,), (1, 2), (3, 4))
    turn = replace(TOOL, wait=Fixed(0.0))
    dag = Agent(ONE, turns={"tool": turn}, graph=graph, history_of=history_of, scaffold=(TEXT,))
    found = again(dag, 200)
    assert found.graph == graph and found.history_of == history_of and found.calls == Fixed(1.0)
    assert alike(found.turns["tool"].fresh, TOOL.fresh) and alike(found.turns["tool"].output, TOOL.output)
    for name in ("cs2-dag", "cs2-linear"):
        published = builtin.builtin(name)
        assert refit(published, 20).workload.agents["main"] == published.agents["main"]


def test_calls_at_once_that_differ_from_life_to_life_are_told_as_a_loop_and_that_is_said() -> None:
    dags = {f"d{i}": Agent(ONE, turns={"tool": TOOL}, widths=(1, 2 + i, 1)) for i in range(2)}
    found = refit(Workload(dags, sessions=(Kind("d0"), Kind("d1"))), 60)
    assert found.workload.agents["main"].graph == ()
    assert "calls at once" in found.notes["agents.main.calls"]


def test_scaffolds_and_who_shares_them_come_back() -> None:
    pooled = Scaffold("docs", Lognormal(700.0, 0.7), "trace", 0.6, pool=30)
    session = Scaffold("repo", Lognormal(3000.0, 0.3))
    own = Scaffold("notes", Lognormal(300.0, 0.3), "agent", 0.8)
    delegate = Delegate("explore", 0.5, at_once=Fixed(2.0))
    sub = replace(SUB, scaffold=(session,))
    agents = refit(
        Workload({"main": loop(scaffold=(TEXT, pooled, session, own), delegates=(delegate,)), "explore": sub})
    )
    found = {text.name: text for text in agents.workload.agents["main"].scaffold}
    assert list(found) == ["shared 0", "documents of main", "session scaffold", "own scaffold of main"]
    assert found["shared 0"] == Scaffold("shared 0", Fixed(3000.0), "trace")
    assert found["documents of main"].shared == "trace" and found["documents of main"].pool in range(28, 33)
    assert abs(found["documents of main"].share - 0.6) < 0.1
    assert found["session scaffold"].shared == "session" and found["session scaffold"].share == 1.0
    assert alike(found["session scaffold"].tokens, session.tokens)
    assert found["own scaffold of main"].shared == "agent"
    assert alike(found["own scaffold of main"].tokens, own.tokens)
    assert abs(found["own scaffold of main"].share - 0.8) < 0.1
    (shared,) = agents.workload.agents["explore"].scaffold
    assert shared.name == "session scaffold", "of one name, so of one text"


def test_texts_of_two_roles_are_not_mixed_up() -> None:
    """Two roles with a text of the trace each, and texts that each shares with its like only."""
    one = (Scaffold("a", Fixed(500.0), "trace"), Scaffold("mine", Fixed(70.0)))
    two = (Scaffold("b", Fixed(900.0), "trace"), Scaffold("ours", Fixed(80.0)))
    both = (Delegate("x", at_once=Fixed(2.0)), Delegate("y", at_once=Fixed(2.0)))
    agents = {"main": loop(delegates=both), "x": replace(SUB, scaffold=one), "y": replace(SUB, scaffold=two)}
    found = refit(Workload(agents), 40).workload.agents
    assert [(t.name, t.tokens, t.shared) for t in found["x"].scaffold] == [
        ("shared 0", Fixed(500.0), "trace"),
        ("scaffold of x", Fixed(70.0), "session"),
    ] or [t.name for t in found["x"].scaffold] == ["shared 1", "scaffold of x"]
    names = [{t.name for t in found[role].scaffold} for role in "xy"]
    assert not names[0] & names[1]


def test_what_belongs_to_the_whole_comes_back() -> None:
    agents = {"main": replace(loop(), models={"big": 0.7, "small": 0.3})}
    workload = Workload(agents, name="w", block_tokens=64, arrivals=Exponential(3.0), users=20)
    found = refit(workload, 150, seed=4).workload
    assert found.name == "w" and found.users == 20 and found.block_tokens == 64
    assert (
        found.source
        == f"fitted to 150 sessions, {sum(len(s.calls) for s in generate(workload, 4, 150)):,} calls (synth w)"
    )
    assert found.arrivals is not None and alike(found.arrivals, Exponential(3.0), 0.2)
    assert abs(found.agents["main"].models["big"] - 0.7) < 0.12
    assert abs(sum(found.agents["main"].models.values()) - 1) < 1e-9


def test_sessions_that_go_on_from_a_large_context_are_a_kind_of_their_own() -> None:
    resumed = replace(loop(), first=First(Lognormal(90_000.0, 0.3), Fixed(5.0)))
    kinds = (Kind("main", 0.75), Kind("resumed", 0.25))
    found = refit(Workload({"main": loop(), "resumed": resumed}, sessions=kinds), 200).workload
    assert [kind.agent for kind in found.sessions] == ["main", "main-resumed"]
    assert abs(found.sessions[0].weight - 0.75) < 0.1
    assert alike(found.agents["main-resumed"].first.fresh, Lognormal(90_000.0, 0.3))
    assert alike(found.agents["main"].first.fresh, ONE.fresh, 0.3)


def test_a_fit_to_what_was_drawn_from_a_fit_is_the_fit(tmp_path: Path) -> None:
    once = refit(Workload({"main": loop(scaffold=(TEXT,))}), 80).workload
    twice = refit(once, 150).workload
    assert list(twice.agents) == list(once.agents)
    for name in ("fresh", "output", "wait"):
        assert alike(
            getattr(twice.agents["main"].turns["tool"], name), getattr(once.agents["main"].turns["tool"], name)
        )


# ----------------------------------------------------------------------------------------------------- what was tried


def test_everything_that_was_tried_is_told() -> None:
    found = refit(Workload({"main": loop()}), 100)
    assert (
        found.sessions == 100
        and found.calls == sum(margin.n for margin in found.margins if "turns.tool.wait" in margin.place) + 100
    )
    by_place = {margin.place: margin for margin in found.margins}
    assert {f"agents.main.{key}" for key in ("first.fresh", "calls", "turns.tool.output")} <= set(by_place)
    for margin in found.margins:
        if margin.choice is None:
            assert margin.taken == "fixed"
            continue
        aics = [tried.aic for tried in margin.choice.fits]
        assert aics == sorted(aics) and len(aics) > 3
        assert (
            margin.choice.best == margin.choice.fits[0].name and margin.choice.runner_up == margin.choice.fits[1].name
        )
        assert all(0 <= tried.ks <= 1 and math.isfinite(tried.bic) for tried in margin.choice.fits)
        assert f"n {margin.n:,}; by AIC" in found.notes[margin.place] and ", then " in found.notes[margin.place]
    text = dump(found.workload, found.notes)
    assert text.count("; by AIC") == sum(margin.choice is not None for margin in found.margins)


@pytest.mark.parametrize("choosing", ["best", "parametric", "quantiles"])
def test_how_to_choose(choosing: Choosing) -> None:
    agent = refit(Workload({"main": loop()}), 100, choosing=choosing).workload.agents["main"]
    family = agent.turns["tool"].fresh
    assert isinstance(family, Quantiles if choosing == "quantiles" else Lognormal)
    assert alike(family, TOOL.fresh, 0.3), "100 sessions of 15 calls"


def test_a_sample_that_is_no_family_is_taken_as_quantiles() -> None:
    sample = np.concatenate([np.full(500, 100.0), np.linspace(300, 301, 500), [90_000.0]])
    found = Margins().fit("x", sample)
    assert isinstance(found, Quantiles) and abs(found.quantile(0.3) - 100) < 1 and 299 < found.quantile(0.7) < 302
    forced = Margins("parametric").fit("x", sample)
    assert not isinstance(forced, Quantiles)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30_000)), min_size=2, max_size=8, unique_by=lambda p: p[0])
)
def test_counts_of_a_few_are_those_with_their_shares(counted: list[tuple[int, int]]) -> None:
    values, counts = np.array(sorted(counted), dtype=np.float64).T
    found = steps(np.repeat(values, counts.astype(int)))
    shares = counts / counts.sum()
    assert {value for _, value in found.points} <= set(values)
    for value, share, end in zip(values, shares, np.cumsum(shares), strict=True):
        if share > 0.002:
            assert found.quantile(end - share / 2) == value


samples = st.lists(st.floats(-5, 1e6) | st.integers(0, 3).map(float) | st.just(0.0), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(samples, st.sampled_from(["best", "parametric", "quantiles"]))
def test_every_sample_has_a_distribution_that_can_be_drawn_from(values: list[float], choosing: Choosing) -> None:
    from workloom.model.families.grid import grid

    found = Margins(choosing).fit("x", values)
    table = grid(found)
    if choosing == "quantiles":
        low, high = min(values), max(values)
        slack = 0.6 + 0.001 * max(abs(low), abs(high))
        assert low - slack <= table.at(-5) <= table.at(5) <= high + slack


@given(st.integers(1, 400), st.integers(0, 99))
def test_the_size_of_a_pool_is_told_from_what_was_seen_of_it(size: int, seed: int) -> None:
    uses = 8 * size + 40
    seen = len(set(np.random.Generator(np.random.PCG64(seed)).integers(0, size, uses).tolist()))
    assert abs(pool(uses, seen) - size) <= 1 + 0.02 * size
    assert pool(30, 30) >= 1000, "of texts that never came again there are many"


# ---------------------------------------------------------------------------------------------------------- odd traces


def chain(name: str, calls: int, *, wait_s: float = 0.0, inherit: bool = True) -> Session:
    every = [Call("c0", 5, fresh=(Part("user", 10),))]
    for i in range(1, calls):
        kept = Inherit(f"c{i - 1}") if inherit else None
        fresh = (Part("tool", 3 if inherit else 10 * i + 10),)
        every.append(Call(f"c{i}", 5, (Edge(f"c{i - 1}", wait_s, "tool"),), inherit=kept, fresh=fresh))
    return Session(name, tuple(every))


def of_sessions(sessions: Sequence[Session]) -> Workload:
    found = fit(facts(iter(sessions)), Header(source="odd"), name="odd").workload
    for session in generate(found, 1, 20):
        validate(session)
    return found


def test_a_trace_of_one_call() -> None:
    found = of_sessions([chain("s", 1)])
    assert found == Workload(
        {"main": Agent(First(Fixed(10.0), Fixed(5.0)))},
        name="odd",
        source="fitted to 1 session, 1 call (odd)",
        sessions=(Kind("main"),),
    )


def test_a_trace_of_one_session_whose_calls_never_wait() -> None:
    found = of_sessions([chain("s", 9)]).agents["main"]
    assert found.calls == Fixed(9.0) and found.turns == {"tool": Turn(Fixed(3.0), Fixed(5.0))}


def test_a_trace_that_inherits_nothing_is_told_as_rewrites_that_keep_nothing() -> None:
    found = of_sessions([chain(f"s{i}", 9, inherit=False) for i in range(20)]).agents["main"]
    assert found.history.rewrite is not None
    assert found.history.rewrite.share == 1.0 and found.history.rewrite.keeps == Fixed(0.0)


def test_a_trace_without_sessions_is_refused() -> None:
    with pytest.raises(WorkloadError, match="the trace holds no session"):
        of_sessions([])


def test_calls_that_answer_nothing_and_a_context_of_no_tokens() -> None:
    empty = Session("e", (Call("a", 0), Call("b", 0, (Edge("a"),), inherit=Inherit("a"))))
    of_sessions([empty, chain("s", 3)])


@settings(max_examples=6, deadline=None)
@given(any_sessions(max_sessions=5, max_calls=12), st.sampled_from(["best", "parametric", "quantiles"]))
def test_any_sessions_are_fitted_and_drawn_from(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[Session], choosing: Choosing
) -> None:
    found = fit(facts(iter(sessions)), Header(source="any"), name="any", choosing=choosing)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(dump(found.workload, found.notes), "utf-8")
    assert load(path) == found.workload
    assert (found.sessions, found.calls) == (len(sessions), sum(len(session.calls) for session in sessions))
    for session in generate(found.workload, 1, 5):
        validate(session)


def test_lives_tell_what_became_of_a_context() -> None:
    calls = (
        Call("a", 50, spans=(Span("sys", 300),), fresh=(Part("user", 700),)),
        Call("keep", 50, (Edge("a", 1, "tool"),), inherit=Inherit("a"), fresh=(Part("tool", 20),)),
        Call("reword", 50, (Edge("keep", 2, "human"),), inherit=Inherit("keep", 1070), fresh=(Part("user", 80),)),
        Call("rewrite", 50, (Edge("reword"),), inherit=Inherit("reword", 600), fresh=(Part("tool", 500),)),
        Call(
            "compact", 50, (Edge("rewrite", 9, "tool"),), inherit=Inherit("rewrite", 300), fresh=(Part("summary", 90),)
        ),
    )
    (of_session,) = facts([Session("s", calls)])
    (life,) = lives(of_session)
    assert life.scaffold == [("sys", 300, "alone")] and life.first_tokens == 700 and life.calls == 5
    assert [(s.change, s.gap, s.wait_s) for s in life.steps] == [
        ("keep", "tool", 1),
        ("reword", "human", 2),
        ("rewrite", "tool", 0),
        ("compact", "tool", 9),
    ]
    assert [s.growth_tokens for s in life.steps] == [20, 30, -100, -760]


# ------------------------------------------------------------------------------------------------------- real traces


@real
@pytest.mark.parametrize(
    "name",
    [
        "weka",
        "openclaw/interp-dag.json",
        "openclaw/branching-dag.json",
        "claude-code",
        "codex",
        "mooncake/synthetic_trace.jsonl",
    ],
)
def test_a_real_trace_is_fitted_written_read_and_drawn_from(name: str, tmp_path: Path) -> None:
    reading = open_trace([DATA / name])
    found = fit(facts(reading), reading.header, name="x")
    path = tmp_path / "x.yaml"
    path.write_text(dump(found.workload, found.notes), "utf-8")
    assert load(path) == found.workload
    made = list(generate(found.workload, 1, max(6, min(60, 4000 * found.sessions // found.calls))))
    for session in made:
        validate(session)
    calls = [len(session.calls) for session in made]
    error = 4 * float(np.std(calls)) / math.sqrt(len(calls))
    assert abs(np.mean(calls) - found.calls / found.sessions) < error + 0.1 * found.calls / found.sessions


@real
def test_rank_correlations_of_weka_are_kept_within_a_tenth() -> None:
    sessions = list(open_trace([DATA / "weka"]))
    found = fit(facts(iter(sessions)), Header(block_tokens=64), name="weka").workload
    apart = np.abs(np.subtract(ranks(sessions), ranks(generate(found, 1, 60))))
    assert apart.max() < 0.1


def test_the_canonical_workload_is_fitted() -> None:
    reading = open_trace([CANONICAL])
    found = fit(facts(reading), reading.header, name="canonical").workload
    assert list(found.agents) == ["main", "explore"]
    made = list(generate(found, 1, 100))
    assert max(abs(a - b) for a, b in zip(ranks(reading), ranks(made), strict=True)) < 0.15


# ---------------------------------------------------------------------------------------------------------- commands


def workloom(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["workloom", *argv])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_from_a_trace_to_a_file_to_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, file, drawn = (str(tmp_path / name) for name in ("t.jsonl", "w.yaml", "made.jsonl.zst"))
    native.write(trace, Header(source="test"), [chain(f"s{i}", 4 + i % 3, wait_s=i) for i in range(30)])
    assert workloom(monkeypatch, "fit", trace, "-o", file) == 0
    told = capsys.readouterr()
    assert "runner-up" in told.out and "main.calls" in told.out
    assert f"fitted to 30 sessions, 150 calls; written to {file}" in told.err
    assert load(Path(file)).name == "w"
    assert workloom(monkeypatch, "synth", file, "--sessions", "20", "--seed", "7", "-o", drawn) == 0
    assert f"20 sessions of w, seed 7, written to {drawn}" in capsys.readouterr().err
    assert list(open_trace([drawn])) == list(generate(load(Path(file)), 7, 20))
    assert workloom(monkeypatch, "fit", drawn, "-o", str(tmp_path / "v.yaml"), "--name", "again", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["name"] == "again" and found["sessions"] == 20
    assert {"place", "n", "taken", "choice"} == set(found["margins"][0])
    tried = next(margin["choice"] for margin in found["margins"] if margin["choice"])
    assert {"best", "runner_up", "best_by_bic", "fits"} <= set(tried)
    assert {"aic", "bic", "ks", "ks_p", "log_likelihood", "family"} <= set(tried["fits"][0])


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["fit", "TRACE", "-o", "TRACE"], 2, "there already"),
        (["fit", "TRACE", "-o", "TRACE/x.yaml"], 1, "cannot be written"),
        (["fit", "TRACE", "-o", "nowhere/x.yaml"], 1, "cannot be written"),
        (["fit", "nothing.jsonl", "-o", "x.yaml"], 1, "there is no such file"),
        (["fit", "TRACE", "-o", "x"], 2, "a workload is a YAML file"),
        (["synth", "chat", "--sessions", "2", "-o", "x.yaml"], 2, "a trace is no YAML file"),
        (["synth", "TRACE", "-o", "x.jsonl"], 2, "there is no such workload"),
        (["synth", "chat", "--sessions", "0", "-o", "x.jsonl"], 2, "a trace has at least one session"),
        (["synth", "chat", "--sessions", "2", "-o", "nowhere/x.jsonl"], 1, "cannot be written there"),
        (["synth", "chet", "-o", "x.jsonl"], 2, "did you mean chat?"),
        (["synth", "no.yaml", "-o", "x.jsonl"], 1, "the workload file cannot be read"),
        (["workloads", "code-aq"], 2, "did you mean code-qa?"),
        (["inspect", "code-aq"], 1, "did you mean the workload code-qa?"),
    ],
)
def test_what_goes_wrong_is_said(
    argv: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    native.write("t.jsonl", Header(), [chain("s", 3)])
    assert workloom(monkeypatch, *(part.replace("TRACE", "t.jsonl") for part in argv)) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"], "nothing is left behind"


def test_workloads_are_listed_and_printed_to_be_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workloom(monkeypatch, "workloads") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in builtin.names())
    assert workloom(monkeypatch, "workloads", "chat") == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out, "utf-8")
    assert load(path) == builtin.builtin("chat")
    assert workloom(monkeypatch, "workloads", "--json") == 0
    assert [found["name"] for found in json.loads(capsys.readouterr().out)] == list(builtin.names())
    assert workloom(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["$defs"]["Workload"]["additionalProperties"] is False
