"""Sessions drawn from workloads: motifs by their exact shapes, seeds by their bytes, margins by their distributions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats
from workload_strategies import possible, workloads

from workloom.drive.driver import Options, Progress
from workloom.engine import profile as profiles
from workloom.errors import WorkloadError
from workloom.execute import Simulated, execute
from workloom.model.families import Exponential, Family, Fixed, Gamma, Lognormal, Normal, Pareto, Quantiles, Uniform
from workloom.model.workload.dag import levels
from workloom.model.workload.file import dump
from workloom.model.workload.generate import generate, header
from workloom.model.workload.opening import drawn
from workloom.model.workload.spec import (
    MOST_CALLS,
    Agent,
    Compaction,
    Delegate,
    Final,
    First,
    History,
    Kind,
    Memory,
    Opening,
    Retry,
    Reworded,
    Rewrite,
    Scaffold,
    Turn,
    Workload,
)
from workloom.plan import Closed, Context, Recipe, TraceRef, make
from workloom.session import Call, Session, Span, prompt_tokens, validate
from workloom.traces import native


def n(value: float) -> Fixed:
    return Fixed(float(value))


def turn(fresh: float = 20, output: float = 5, wait: float = 2.0, **more: Any) -> Turn:
    return Turn(n(fresh), n(output), n(wait), **more)


ONE = First(n(100), n(10))
STEPS: Family = Quantiles(((0.0, 0.0), (0.5, 0.0), (0.5001, 1.0), (1.0, 1.0)))
"""0 for half of all, 1 for the others."""


def loop(calls: float, **more: Any) -> Agent:
    return Agent(ONE, calls=n(calls), **{"turns": {"tool": turn()}, **more})


def of(agent: Agent, **others: Agent) -> Workload:
    return Workload({"main": agent, **others}, name="w")


def sessions(workload: Workload, count: int = 1, seed: int = 7) -> list[Session]:
    made = list(generate(workload, seed, count))
    for session in made:
        validate(session)
    return made


def shape(session: Session) -> list[str]:
    """A line a call: what it waits for, what it begins with, what is new, what it answers."""
    lines = []
    for call in session.calls:
        after = " ".join(f"{edge.call}+{edge.wait_s:g}{edge.gap[:2]}" for edge in call.after) or "-"
        kept = "" if call.inherit is None else call.inherit.call
        if call.inherit is not None and call.inherit.tokens is not None:
            kept += f"[{call.inherit.tokens}]"
        begins = " ".join([*([kept] if kept else []), *(f"{s.name}({s.tokens})" for s in call.spans)]) or "-"
        new = " ".join(f"{p.kind}:{p.tokens}" + (f"<{p.from_call}" if p.from_call else "") for p in call.fresh)
        cut = f"!{call.stop_after}" if call.stop_after is not None else ""
        lines.append(f"{call.id} | {after} | {begins} | {new or '-'} | {call.output_tokens}{cut}")
    return lines


# ------------------------------------------------------------------------------------------------------------- motifs


def test_a_single_call() -> None:
    assert [shape(s) for s in sessions(of(Agent(ONE)), 2)] == [["c0 | - | - | user:100 | 10"]] * 2


def test_a_loop_of_tools_with_a_final_answer_and_pauses() -> None:
    agent = loop(4, final=Final(n(77)), pauses={3: 30.0})
    assert shape(*sessions(of(agent))) == [
        "c0 | - | - | user:100 | 10",
        "c1 | c0+2to | c0 | tool:20 | 5",
        "c2 | c1+30to | c1 | tool:20 | 5",
        "c3 | c2+2to | c2 | tool:20 | 77",
    ]
    assert shape(*sessions(of(loop(1, final=Final(n(77)))))) == ["c0 | - | - | user:100 | 77"]


def test_gaps_of_humans_and_tools_in_their_shares() -> None:
    turns = {"tool": turn(), "human": turn(9, 8, 60.0, share=n(0.25)), "network": turn(0, 1, 0.5, share=n(0.125))}
    calls = [call for s in sessions(of(loop(40, turns=turns)), 100) for call in s.calls[1:]]
    kinds = {(e.gap, e.wait_s, c.fresh[0].kind if c.fresh else None, c.output_tokens) for c in calls for e in c.after}
    assert kinds == {("tool", 2.0, "tool", 5), ("human", 60.0, "user", 8), ("network", 0.5, None, 1)}
    gaps = [call.after[0].gap for call in calls]
    assert abs(gaps.count("human") / len(gaps) - 0.25) < 0.03 and abs(gaps.count("network") / len(gaps) - 0.125) < 0.02
    assert shape(*sessions(of(loop(2, turns={"human": turn(part="report")}))))[1] == "c1 | c0+2hu | c0 | report:20 | 5"


def test_the_first_calls_read() -> None:
    agent = loop(5, opening=(Opening(2, n(700)),), turns={"tool": turn(), "human": turn(share=n(0))})
    assert [call.fresh_tokens for call in sessions(of(agent))[0].calls] == [100, 700, 700, 20, 20]


def test_subagents_that_are_waited_for_report_into_the_next_call() -> None:
    delegate = Delegate("sub", at_once=n(2), spawn=n(1), report=n(3))
    sub = loop(2, scaffold=(Scaffold("tools", n(50)),))
    assert shape(*sessions(of(loop(2, delegates=(delegate,)), sub=sub))) == [
        "c0 | - | - | user:100 | 10",
        "sub:1/0 | c0+1sp | tools(50) | user:100 | 10",
        "sub:1/1 | sub:1/0+2to | sub:1/0 | tool:20 | 5",
        "sub:2/0 | c0+1sp | tools(50) | user:100 | 10",
        "sub:2/1 | sub:2/0+2to | sub:2/0 | tool:20 | 5",
        "c1 | c0+2to sub:1/1+3or sub:2/1+3or | c0 | report:5<sub:1/1 report:5<sub:2/1 tool:20 | 5",
    ]


def test_subagents_in_the_background_report_later_or_never() -> None:
    later = Delegate("sub", waits=0, later=n(3))
    told = shape(*sessions(of(loop(9, delegates=(later,)), sub=Agent(ONE))))
    spawning = next(line for line in told if line.startswith("sub:1/0")).split(" | ")[1].partition("+")[0]
    joining = next(line for line in told if "sub:1/0+0or" in line)
    number = int(spawning[1:]) + 3
    assert joining == f"c{min(number, 8)} | c{min(number, 8) - 1}+2to sub:1/0+0or | " + (
        f"c{min(number, 8) - 1} | report:10<sub:1/0 tool:20 | 5"
    )
    last = Delegate("sub", waits=0, later=n(50), times=n(3))
    (session,) = sessions(of(loop(4, delegates=(last,)), sub=Agent(ONE)))
    assert [p.kind for p in session.calls[-1].fresh] == ["report"] * 3 + ["tool"], "all come with the last call"
    for never in (Delegate("sub", waits=0), Delegate("sub", waits=0, later=n(3), reported=0)):
        (session,) = sessions(of(loop(4, delegates=(never,)), sub=Agent(ONE)))
        assert len(session.calls) == 5
        assert [len(call.after) for call in session.calls if call.agent == "main"] == [0, 1, 1, 1]


def test_shares_of_delegation_come_out() -> None:
    delegate = Delegate("sub", sessions=0.25, times=n(2), waits=0.5, later=n(4), reported=0.5)
    waited = later = never = with_subagents = 0
    made = sessions(of(loop(30, delegates=(delegate,)), sub=Agent(ONE)), 400)
    for session in made:
        main = {c.id: i for i, c in enumerate(c for c in session.calls if c.agent == "main")}
        subs = [call for call in session.calls if call.agent != "main"]
        with_subagents += bool(subs)
        assert len(subs) in (0, 2)
        for sub in subs:
            joins = [c for c in session.calls if any(e.call == sub.id for e in c.after)]
            distance = main[joins[0].id] - main[sub.after[0].call] if joins else 0
            waited, later, never = waited + (distance == 1), later + (distance > 1), never + (not joins)
    total = waited + later + never
    assert abs(with_subagents / len(made) - 0.25) < 0.07
    assert abs(waited / total - 0.5) < 0.1 and abs(later / total - 0.25) < 0.1


@pytest.mark.parametrize("nested", [1, 2, 5])
def test_delegation_nests_to_its_level_and_no_deeper(nested: int) -> None:
    sub = loop(2, delegates=(Delegate("sub", levels=nested),))
    (session,) = sessions(of(loop(2, delegates=(Delegate("sub"),)), sub=sub))
    by_id = {call.id: call for call in session.calls}
    depth = {"main": 0}
    for call in session.calls:
        if call.agent not in depth:
            depth[call.agent] = depth[by_id[call.after[0].call].agent] + 1
    assert max(depth.values()) == nested, "its own level counts: main, sub:1, ..."
    assert len(depth) == nested + 1


def test_an_agent_that_spawns_itself_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_CALLS == 100_000
    monkeypatch.setattr("workloom.model.workload.agent.MOST_CALLS", 3_000)
    wild = Delegate("main", times=n(10), at_once=n(50), levels=20)
    with pytest.raises(WorkloadError, match=r"a session grows without end(.|\n)*3,000 calls"):
        next(generate(of(loop(50, delegates=(wild,))), 1, 1))
    with pytest.raises(WorkloadError, match="a session grows without end"):
        next(generate(of(loop(1e9)), 1, 1))
    ring = {f"a{i}": loop(2, delegates=(Delegate(f"a{(i + 1) % 9}", levels=20),)) for i in range(9)}
    with pytest.raises(WorkloadError, match="subagents are nested too deeply"):
        next(generate(Workload(ring), 1, 1))


def test_a_graph_goes_on_from_the_last_call_it_names_or_the_one_it_is_told() -> None:
    graph = ((), (0,), (0,), (0,), (1, 2), (3, 4))
    agent = Agent(ONE, turns={"tool": turn()}, graph=graph, history_of={5: 3}, final=Final(n(99)), pauses={5: 8.0})
    assert shape(*sessions(of(agent))) == [
        "c0 | - | - | user:100 | 10",
        "c1 | c0+2to | c0 | tool:20 | 5",
        "c2 | c0+2to | c0 | tool:20 | 5",
        "c3 | c0+2to | c0 | tool:20 | 5",
        "c4 | c1+8to c2+8to | c2 | tool:20 | 5",
        "c5 | c3+2to c4+2to | c3 | tool:20 | 99",
    ]


@pytest.mark.parametrize(
    ("widths", "graph"),
    [
        ((1,), [()]),
        ((1, 3, 1), [(), (0,), (0,), (0,), (1, 2, 3)]),
        ((1, 2, 5), [(), (0,), (0,), (1,), (1,), (1,), (2,), (2,)]),
        ((1, 5, 2), [(), *[(0,)] * 5, (1, 2), (3, 4, 5)]),
        ((1, 2, 2, 1), [(), (0,), (0,), (1,), (2,), (3, 4)]),
    ],
)
def test_widths_fan_out_and_join_evenly(widths: tuple[int, ...], graph: list[tuple[int, ...]]) -> None:
    assert list(levels(widths)) == graph
    (session,) = sessions(of(Agent(ONE, turns={"human": turn(part=None)}, widths=widths)))
    assert [tuple(int(edge.call[1:]) for edge in call.after) for call in session.calls] == graph
    assert all(call.fresh[0].kind == "user" for call in session.calls)


@given(st.lists(st.integers(1, 9), max_size=6))
def test_every_call_of_a_level_is_reached_and_waited_for(widths: list[int]) -> None:
    graph = levels((1, *widths))
    assert len(graph) == 1 + sum(widths)
    waited = {parent for parents in graph for parent in parents}
    assert waited == set(range(len(graph) - ([1, *widths][-1]))), "all but the last level"


def test_siblings_of_a_fan_out_send_texts_of_their_own() -> None:
    (session,) = sessions(of(Agent(ONE, turns={"tool": turn()}, widths=(1, 3))))
    assert len({(call.inherit, call.fresh) for call in session.calls[1:]}) == 1, "equal in size, and each fresh"
    assert all(not call.spans and call.fresh_tokens == 20 for call in session.calls[1:])


def test_a_retry_is_the_same_prompt_to_the_word() -> None:
    retry = Retry(1.0, at_most=2, wait=n(9), after=n(3))
    (session,) = sessions(of(loop(2, retries=retry, scaffold=(Scaffold("s", n(7)),))))
    assert shape(session) == [
        "c0 | - | s(7) | user:100 | 10!3",
        "c1 | c0+9or | c0[107] | - | 10!3",
        "c2 | c1+9or | c1[107] | - | 10",
        "c3 | c2+2to | c2 | tool:20 | 5!3",
        "c4 | c3+9or | c3[137] | - | 5!3",
        "c5 | c4+9or | c4[137] | - | 5",
    ]
    prompts = prompt_tokens(session)
    assert [prompts[f"c{i}"] for i in range(6)] == [107] * 3 + [137] * 3
    mild = sessions(of(loop(40, retries=Retry(0.2, at_most=9))), 100)
    tries = [call.stop_after is not None for s in mild for call in s.calls]
    assert abs(np.mean(tries) - 0.2) < 0.02


def test_a_context_that_would_grow_beyond_the_trigger_begins_anew() -> None:
    compaction = Compaction(n(200), n(120), rewrite_after=1.0)
    agent = loop(8, history=History(compaction=compaction), scaffold=(Scaffold("s", n(40)),))
    (session,) = sessions(of(agent))
    assert shape(session) == [
        "c0 | - | s(40) | user:100 | 10",
        "c1 | c0+2to | c0 | tool:20 | 5",
        "c2 | c1+2to | c1 | tool:20 | 5",
        "c3 | c2+2to | c2[40] | summary:60 tool:20 | 5",
        "c4 | c3+2to | c3[40] | injected:85 tool:20 | 5",
        "c5 | c4+2to | c4 | tool:20 | 5",
        "c6 | c5+2to | c5 | tool:20 | 5",
        "c7 | c6+2to | c6[40] | summary:60 tool:20 | 5",
    ]
    assert list(prompt_tokens(session).values()) == [140, 170, 195, 120, 145, 170, 195, 120]


def test_a_summary_may_be_a_call_of_its_own() -> None:
    agent = loop(3, history=History(compaction=Compaction(n(150), n(90), call=n(33))), scaffold=(Scaffold("s", n(40)),))
    assert shape(*sessions(of(agent, w=agent)))[1:] == [
        "c1 | c0+2to | c0 | injected:1 | 33",
        "c2 | c1+0or | c1[40] | summary:30 tool:20 | 5",
        "c3 | c2+2to | c2 | tool:20 | 5",
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(200, 3000), st.integers(1, 3000), st.integers(0, 150), st.integers(1, 90), st.integers(1, 5))
def test_no_prompt_is_beyond_the_trigger(trigger: int, target: int, scaffold: int, fresh: int, seed: int) -> None:
    compaction = Compaction(n(trigger), n(target), call=n(5) if seed % 2 else None)
    text = (Scaffold("s", n(scaffold)),)
    turns = {"tool": Turn(Uniform(0.0, float(fresh)), Uniform(1.0, float(fresh)), n(0))}
    agent = Agent(First(n(10), n(5)), n(60), turns, history=History(compaction=compaction), scaffold=text)
    for session in sessions(of(agent), 3, seed):
        prompts = prompt_tokens(session)
        for before, call in pairwise(session.calls):
            summary = any(part.kind == "summary" for part in call.fresh)
            anew = call.inherit is not None and call.inherit.tokens == scaffold
            if not (call.fresh and call.fresh[0].kind == "injected"):
                assert prompts[call.id] <= max(trigger, scaffold + fresh)
            assert anew or not summary
            if not anew:
                assert call.inherit is not None and call.inherit.tokens is None, "what is not compacted is kept"
                assert call.inherit.call == before.id


def test_sessions_that_begin_beyond_the_trigger_or_have_none_never_compact() -> None:
    far = loop(9, history=History(compaction=Compaction(n(50), n(40))))
    assert prompt_tokens(sessions(of(far))[0])["c8"] == 100 + 10 + 8 * 25 - 5
    some = loop(30, history=History(compaction=Compaction(n(300), n(150), share=0.25)))
    having = [any(p.kind == "summary" for c in s.calls for p in c.fresh) for s in sessions(of(some), 300)]
    assert abs(np.mean(having) - 0.25) < 0.07


def test_answers_that_come_back_as_other_text() -> None:
    agent = loop(3, history=History(reworded=Reworded(n(1), n(8))))
    assert shape(*sessions(of(agent)))[1:] == [
        "c1 | c0+2to | c0[100] | answer:10 tool:8 | 5",
        "c2 | c1+2to | c1[118] | answer:5 tool:8 | 5",
    ]
    shorter = loop(2, history=History(reworded=Reworded(n(1), n(-4))))
    assert shape(*sessions(of(shorter)))[1] == "c1 | c0+2to | c0[100] | answer:6 | 5"
    blocks = replace(of(loop(2, history=History(reworded=Reworded(n(1), n(8), whole=0.0)))), block_tokens=40)
    assert shape(*sessions(blocks))[1] == "c1 | c0+2to | c0[40] | answer:70 tool:8 | 5", "its last block is not kept"
    half = loop(50, history=History(reworded=Reworded(STEPS, n(8))))
    shares = [
        np.mean([c.inherit.tokens is not None for c in s.calls[1:] if c.inherit]) for s in sessions(of(half), 200)
    ]
    assert set(shares) == {0.0, 1.0} and abs(np.mean(shares) - 0.5) < 0.12, "a share of every session, drawn once"


def test_prompts_that_are_changed_further_up() -> None:
    agent = loop(3, history=History(rewrite=Rewrite(1.0, n(0.5), n(0.8))))
    assert shape(*sessions(of(agent)))[1:] == [
        "c1 | c0+2to | c0[55] | injected:33 tool:20 | 5",
        "c2 | c1+2to | c1[56] | injected:34 tool:20 | 5",
    ]
    gone = loop(2, turns={"tool": turn(0)}, history=History(rewrite=Rewrite(1.0, n(0), n(0))))
    assert shape(*sessions(of(gone)))[1] == "c1 | c0+2to | c0[0] | injected:1 | 5", "a prompt has a token at least"


# ---------------------------------------------------------------------------------------------------------- scaffolds


def spans(made: Sequence[Session]) -> list[list[Span]]:
    """The texts that each agent of each session begins with."""
    return [list(call.spans) for session in made for call in session.calls if call.inherit is None]


def test_a_pool_is_shared_between_sessions_and_each_text_has_its_length() -> None:
    text = Scaffold("docs", Uniform(100.0, 900.0), "trace", pool=8)
    made = [span for (span,) in spans(sessions(of(Agent(ONE, scaffold=(text,))), 400))]
    lengths: dict[str, set[int]] = {}
    for span in made:
        assert span.scope == "trace"
        lengths.setdefault(span.name, set()).add(span.tokens)
    assert sorted(lengths) == [f"docs {i}" for i in range(8)]
    assert all(len(found) == 1 for found in lengths.values()), "one text has one length"
    assert len({min(found) for found in lengths.values()}) > 5, "and different ones have different lengths"
    assert min(np.unique([span.name for span in made], return_counts=True)[1]) > 25, "they are drawn evenly"


def test_who_shares_a_text() -> None:
    size = Uniform(100.0, 90_000.0)
    texts = (Scaffold("all", size, "trace"), Scaffold("ours", size), Scaffold("mine", size, "agent"))
    sub = Agent(ONE, scaffold=texts)
    made = sessions(of(loop(2, scaffold=texts, delegates=(Delegate("sub", at_once=n(2)),)), sub=sub), 40)
    every = [[list(call.spans) for call in s.calls if call.inherit is None] for s in made]
    assert len({texts[0] for session in every for texts in session}) == 1
    for session in every:
        assert len({texts[1] for texts in session}) == 1, "one for a session"
        assert len({texts[2] for texts in session}) == 3, "one for an agent"
        assert len({texts[2].name for texts in session}) == 3, "by its name, whatever its length"
    assert len({session[0][1].tokens for session in every}) > 30, "another length in every session"
    assert {texts[1].scope for session in every for texts in session} == {"session"}, "and another text"


def test_a_share_of_sessions_has_a_text_and_all_agents_of_it() -> None:
    text = (Scaffold("notes", n(50), share=0.3),)
    made = sessions(of(loop(2, scaffold=text, delegates=(Delegate("sub"),)), sub=Agent(ONE, scaffold=text)), 400)
    having = [{bool(call.spans) for call in s.calls if call.inherit is None} for s in made]
    assert all(len(found) == 1 for found in having)
    assert abs(np.mean([found == {True} for found in having]) - 0.3) < 0.07


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_cycle_and_a_random_order_of_kinds() -> None:
    agents = {"a": Agent(First(n(1), n(1))), "b": Agent(First(n(2), n(1)))}
    cycle = Workload(agents, sessions=(Kind("a"), Kind("b", count=2)), order="cycle")
    assert [s.calls[0].fresh_tokens for s in sessions(cycle, 7)] == [1, 2, 2, 1, 2, 2, 1]
    mixed = Workload(agents, sessions=(Kind("a", 1.0), Kind("b", 3.0)))
    assert abs(np.mean([s.calls[0].fresh_tokens == 1 for s in sessions(mixed, 600)]) - 0.25) < 0.06
    assert [s.calls[0].fresh_tokens for s in sessions(Workload(agents), 2)] == [1, 1], (
        "the first agent, if none is told"
    )


def test_starts_users_and_models() -> None:
    agent = Agent(ONE, models={"big": 0.75, "small": 0.25})
    workload = replace(of(agent), arrivals=Exponential(4.0), users=3)
    made = sessions(workload, 800)
    assert header(workload).common_clock and made[0].start_s == 0.0
    starts = [s.start_s for s in made if s.start_s is not None]
    gaps = np.diff(starts)
    assert (gaps >= 0).all() and stats.kstest(gaps, "expon", args=(0, 4)).pvalue > 1e-3
    assert {s.user for s in made} == {"u0", "u1", "u2"}
    assert abs(np.mean([s.calls[0].model == "big" for s in made]) - 0.75) < 0.06
    assert [s.id for s in made[:2]] == ["w-0", "w-1"] and {s.workflow for s in made} == {"w"}
    assert not header(of(agent)).common_clock and sessions(of(agent))[0].start_s is None


def test_waits_on_a_clock_that_ticks() -> None:
    workload = replace(of(loop(60, turns={"tool": Turn(n(1), n(1), Exponential(3.0))})), tick_s=0.5)
    waits = [edge.wait_s for s in sessions(workload, 5) for call in s.calls for edge in call.after]
    assert {wait % 0.5 for wait in waits} == {0.0} and abs(np.mean(waits) - 3) < 0.6


@settings(max_examples=25, deadline=None)
@given(workloads(), st.integers(0, 99))
def test_whatever_a_workload_says_its_sessions_are_valid(workload: Workload, seed: int) -> None:
    try:
        made = sessions(workload, 3, seed)
    except WorkloadError as fault:
        assert "without end" in str(fault)
        return
    for session in made:
        assert min(prompt_tokens(session).values()) >= 1
        assert min(call.output_tokens for call in session.calls) >= 1
        (root,) = (call for call in session.calls if not call.after)
        assert root is session.calls[0] and root.agent == "main"
        assert all(len(call.spans) == 0 or call.inherit is None for call in session.calls)


def test_zero_tokens_negative_values_and_far_tails_make_valid_sessions() -> None:
    zero = Turn(n(0), n(0), Normal(-5.0, 1.0))
    agent = Agent(First(n(0), n(0)), n(5), {"tool": zero})
    assert shape(*sessions(of(agent)))[:2] == ["c0 | - | - | user:1 | 1", "c1 | c0+0to | c0 | - | 1"]
    wild = Turn(Pareto(1.0, 0.2), Lognormal(5.0, 9.0), Pareto(1.0, 0.1))
    sessions(of(Agent(First(Normal(0.0, 1e6), Normal(0.0, 50.0)), n(200), {"tool": wild})), 20)
    for beyond in (Fixed(1e15), Lognormal(5.0, 300.0)):
        with pytest.raises(WorkloadError, match="a distribution is beyond all tokens and seconds"):
            sessions(of(Agent(First(beyond, n(1)))))


# --------------------------------------------------------------------------------------------------------------- seeds

RICH = Workload(
    {
        "main": Agent(
            First(Lognormal(900.0, 0.8), Lognormal(90.0, 0.8)),
            calls=Gamma(9.0, 2.0),
            turns={
                "tool": Turn(
                    Lognormal(200.0, 1.2), Lognormal(80.0, 1.0), Lognormal(2.0, 1.5), ranks={"fresh wait": 0.4}
                ),
                "human": Turn(Exponential(40.0), Exponential(90.0), Lognormal(40.0, 1.0), share=Uniform(0.0, 0.4)),
            },
            models={"big": 0.5, "small": 0.5},
            scaffold=(Scaffold("tools", Uniform(100.0, 2000.0), "trace", pool=5), Scaffold("notes", Exponential(99.0))),
            memory=Memory({"fresh": 0.3, "output": 0.2}, {"wait": 0.4}, {"calls first": 0.3, "fresh output": 0.5}),
            history=History(
                Reworded(Uniform(0.0, 0.5), Normal(30.0, 40.0)),
                Rewrite(0.1, Uniform(0.2, 0.9)),
                Compaction(Lognormal(3000.0, 0.2), n(900), 0.8, n(200), 0.5),
            ),
            delegates=(Delegate("sub", 0.7, Uniform(1.0, 3.0), Uniform(1.0, 3.0), 0.5, Uniform(2.0, 4.0), 0.7),),
            retries=Retry(0.1, 3),
        ),
        "sub": Agent(First(n(50), Exponential(30.0)), Uniform(1.0, 4.0), {"tool": turn()}),
    },
    arrivals=Exponential(3.0),
    users=9,
)

_PRINT = """
import sys
from pathlib import Path
from workloom.model.workload.file import load
from workloom.model.workload.generate import generate
from hashlib import sha256
import msgspec
print(sha256(b"".join(map(msgspec.json.encode, generate(load(Path(sys.argv[1])), 7, 40)))).hexdigest())
"""


def digest(workload: Workload, seed: int, count: int) -> str:
    import msgspec

    return hashlib.sha256(b"".join(map(msgspec.json.encode, generate(workload, seed, count)))).hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(dump(RICH), "utf-8")
    found = {
        subprocess.run(
            [sys.executable, "-c", _PRINT, str(path)],
            env={**os.environ, "PYTHONHASHSEED": hashed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hashed in ("0", "1", "random")
    }
    assert found == {digest(RICH, 7, 40)}
    assert digest(RICH, 8, 40) not in found


def test_the_bytes_are_those_of_the_day_this_was_written() -> None:
    plain = of(loop(5, turns={"tool": Turn(Lognormal(200.0, 1.2), Uniform(1.0, 99.0), Exponential(2.0))}))
    assert digest(plain, 7, 20) == "b464b869a8ea7dee8f96bd508005a23b6912bfe21ed95342fdf491279a4f8a53", (
        "traces made by seed are published: a change is told in the CHANGELOG"
    )


def test_a_session_does_not_depend_on_how_many_are_made() -> None:
    few, many = sessions(RICH, 5), sessions(RICH, 30)
    assert many[:5] == few
    assert len({s.calls for s in many}) == 30
    endless = generate(RICH, 7)
    assert list(islice(endless, 5)) == few


def test_what_one_agent_waits_changes_no_draw_of_another() -> None:
    sub = RICH.agents["sub"]
    slower = replace(sub, turns={"tool": Turn(Exponential(7.0), Exponential(9.0), Pareto(1.0, 2.0))})
    edited = replace(RICH, agents={**RICH.agents, "sub": slower})

    def told(call: Call) -> tuple[Any, ...]:
        sizes = [(p.kind, p.tokens) for p in call.fresh if p.kind != "report"]
        return call.id, call.model, call.spans, sizes, call.output_tokens, call.after[:1]

    def of_main(made: list[Session]) -> list[Any]:
        no_compaction = [s for s in made if not any(p.kind == "summary" for c in s.calls for p in c.fresh)]
        return [(s.id, [told(c) for c in s.calls if c.agent == "main"]) for s in no_compaction]

    before, after = dict(of_main(sessions(RICH, 40))), dict(of_main(sessions(edited, 40)))
    both = before.keys() & after.keys()
    assert len(both) > 10 and sessions(RICH, 40) != sessions(edited, 40)
    for name in both:
        assert [call[:3] for call in before[name]] == [call[:3] for call in after[name]]
        assert [call[4:] for call in before[name]] == [call[4:] for call in after[name]]


def test_a_wait_that_is_edited_leaves_all_sizes_as_they_were() -> None:
    main = RICH.agents["main"]
    tool = replace(main.turns["tool"], wait=Pareto(3.0, 1.1))
    edited = replace(RICH, agents={**RICH.agents, "main": replace(main, turns={**main.turns, "tool": tool})})
    for one, other in zip(sessions(RICH, 20), sessions(edited, 20), strict=True):
        assert [(c.id, c.fresh, c.output_tokens, c.spans) for c in one.calls] == [
            (c.id, c.fresh, c.output_tokens, c.spans) for c in other.calls
        ]


# ------------------------------------------------------------------------------------------------- margins and ranks


def measures(made: Sequence[Session]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Fresh tokens, output and wait of every call of the loops, one after the other, with the number of its session."""
    rows = [
        (float(c.fresh_tokens), float(c.output_tokens), c.after[0].wait_s, float(k), float(i))
        for k, s in enumerate(made)
        for i, c in enumerate(s.calls)
        if i
    ]
    return np.array(rows)


@pytest.mark.parametrize(
    "family",
    [
        Uniform(50.0, 5000.0),
        Exponential(3000.0),
        Lognormal(4000.0, 1.1),
        Gamma(5000.0, 0.7),
        Pareto(900.0, 2.0),
        Quantiles(((0.0, 10.0), (0.3, 800.0), (0.9, 3000.0), (1.0, 90_000.0)), "log"),
        Lognormal(4000.0, 0.5, zeros=0.2),
    ],
    ids=lambda family: family.name,
)
def test_margins_are_those_of_the_workload_whatever_goes_together(family: Family) -> None:
    memory = Memory({"fresh": 0.2, "output": 0.2, "wait": 0.2}, {"fresh": 0.5, "wait": 0.3})
    turns = {"tool": Turn(family, family, family, ranks={"fresh output": 0.6, "fresh wait": -0.3})}
    rows = measures(sessions(of(Agent(ONE, n(4), turns, memory=memory)), 2000))
    for column, least in ((0, 0), (1, 1), (2, 0)):
        values = np.sort(rows[:, column])
        told = family.cdf(values + (0.5 if column < 2 else 1e-6))
        rest = values > least
        distance = np.abs(told - np.arange(1, len(values) + 1) / len(values))[rest].max()
        assert distance < 0.04, "calls of one session go together: as good as some 1,500 that do not"


settings_of_ranks = st.tuples(
    *[st.floats(-0.6, 0.6)] * 3, *[st.floats(0, 0.5)] * 3, *[st.floats(-0.3, 0.8)] * 3, *[st.floats(-0.5, 0.5)] * 3
).map(lambda drawn: [round(x, 2) for x in drawn])
settings_of_ranks = settings_of_ranks.filter(lambda drawn: possible(*(drawn[i : i + 3] for i in (0, 3, 6, 9))))


@settings(max_examples=8, deadline=None)
@given(settings_of_ranks, st.integers(2, 25), st.integers(0, 99))
def test_rank_correlations_shares_of_sessions_and_what_carries_over_come_out(
    drawn: list[float], calls: int, seed: int
) -> None:
    pairs = ("fresh output", "fresh wait", "output wait")
    memory = Memory(
        dict(zip(("fresh", "output", "wait"), drawn[3:6], strict=True)),
        dict(zip(("fresh", "output", "wait"), drawn[6:9], strict=True)),
        dict(zip(pairs, drawn[9:], strict=True)),
    )
    family = Lognormal(50_000.0, 1.0)
    turns = {"tool": Turn(family, family, family, ranks=dict(zip(pairs, drawn[:3], strict=True)))}
    rows = measures(sessions(of(Agent(ONE, n(calls), turns, memory=memory)), 12_000 // calls, seed))
    scores = np.log(rows[:, :3] / 50_000)
    ends = np.cumsum(np.r_[0, [calls - 1] * (12_000 // calls)])
    blocks = scores.reshape(-1, calls - 1, 3)
    error = 3.5 * np.sqrt((1 + (calls - 1) * max(drawn[3:6])) * 3 / len(scores))
    for pair, (i, j), told in zip(pairs, ((0, 1), (0, 2), (1, 2)), drawn[:3], strict=True):
        assert abs(stats.spearmanr(scores[:, i], scores[:, j]).statistic - told) < min(0.1, 0.02 + error), pair
    assert ends[-1] == len(scores)
    for i, (own, carry) in enumerate(zip(drawn[3:6], drawn[6:9], strict=True)):
        if calls > 3:
            lag = np.mean([np.mean(blocks[:, t, i] * blocks[:, t + 1, i]) for t in range(calls - 2)])
            assert abs(lag - (own + (1 - own) * carry)) < 0.06 + error
            far = np.mean(blocks[:, 0, i] * blocks[:, -1, i])
            assert abs(far - (own + (1 - own) * carry ** (calls - 2))) < 0.12 + error


def test_traits_of_a_session_go_together() -> None:
    memory = Memory({"fresh": 0.9, "output": 0.9}, ranks={"calls first": 0.6, "first fresh": -0.5, "fresh output": 0.7})
    family = Lognormal(5000.0, 1.0)
    agent = Agent(
        First(family, n(1)),
        Lognormal(20.0, 0.5),
        {"tool": Turn(family, family, ranks={"fresh output": 0.65})},
        memory=memory,
    )
    made = sessions(of(agent), 700)
    calls = [len(s.calls) for s in made]
    first = [s.calls[0].fresh_tokens for s in made]
    fresh, output = ([np.mean(np.log(v)) for v in values] for values in zip(*map(_of_calls, made), strict=True))
    assert abs(stats.spearmanr(calls, first).statistic - 0.6) < 0.1
    assert abs(stats.spearmanr(first, fresh).statistic + 0.5) < 0.1
    assert abs(stats.spearmanr(fresh, output).statistic - 0.7) < 0.1
    assert abs(stats.spearmanr(calls, fresh).statistic) < 0.2, "lengths go with first messages alone"


def _of_calls(session: Session) -> tuple[list[int], list[int]]:
    rest = session.calls[1:] or session.calls
    return [call.fresh_tokens for call in rest], [call.output_tokens for call in rest]


# -------------------------------------------------------------------------------------------------- engine and memory


@settings(max_examples=8, deadline=None)
@given(workloads(), st.integers(0, 9))
def test_drawn_sessions_run_on_the_simulated_engine(
    tmp_path_factory: pytest.TempPathFactory, workload: Workload, seed: int
) -> None:
    run_to_the_end(workload, seed, 4, tmp_path_factory.mktemp("run"))


def run_to_the_end(workload: Workload, seed: int, count: int, folder: Path) -> None:
    """Run sessions on an engine that never lacks room, and see that every call is answered."""
    try:
        made = sessions(workload, count, seed)
    except WorkloadError:
        return
    recipe = Recipe(TraceRef(()), Closed(3), context=Context(100_000_000), seed=seed)
    plan = make(recipe, drawn(workload, seed, count))
    profile = replace(profiles.load("llama-3.1-8b-h200x1"), max_model_len=100_000_000, kv_tokens=None)
    run = execute(
        plan,
        Simulated(profile),
        folder / "run",
        options=Options(),
        progress=Progress(),
        argv=[],
        summarize=lambda run: b"{}",
    )
    by_id = {session.id: prompt_tokens(session) for session in made}
    records = list(run.calls())
    assert sorted((r.session, r.call) for r in records) == sorted((s, c) for s, calls in by_id.items() for c in calls)
    assert {record.status for record in records} == {"ok"}
    assert all(record.planned_prompt_tokens == by_id[record.session][record.call] for record in records)


def test_a_rich_workload_runs_on_the_simulated_engine(tmp_path: Path) -> None:
    run_to_the_end(RICH, 3, 20, tmp_path)


def peak(workload: Workload, count: int) -> int:
    """Bytes at most while sessions are drawn and written one by one, beyond what was there."""
    tracemalloc.start()
    for session in generate(workload, 7, count):
        len(session.calls)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_sessions() -> None:
    for session in generate(RICH, 7, 3):
        len(session.calls)
    few, many = peak(RICH, 40), peak(RICH, 300)
    assert many < 2 * few + 200_000


@pytest.mark.long
def test_memory_of_writing_many_sessions(tmp_path: Path) -> None:
    code = """
import resource, sys
from workloom.cli import main
sys.argv = ["workloom", "synth", "agentic-coding", "--sessions", sys.argv[1], "-o", sys.argv[2]]
main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(count), str(tmp_path / f"{count}.jsonl.zst")],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for count in (2_000, 20_000)
    ]
    assert peaks[1] < 1.1 * peaks[0]


def test_a_written_trace_reads_back_as_what_was_drawn(tmp_path: Path) -> None:
    from workloom.traces import open_trace

    path = tmp_path / "t.jsonl.zst"
    assert native.write(path, header(RICH), generate(RICH, 7, 25), validated=True) == 25
    reading = open_trace([path])
    assert list(reading) == sessions(RICH, 25)
    assert reading.header == header(RICH)


def test_an_agent_of_one_call_delegates_behind_it() -> None:
    helper = Delegate("helper", at_once=n(3), waits=0.0)
    (session,) = sessions(of(Agent(ONE, delegates=(helper,)), helper=Agent(ONE)))
    assert [call.agent for call in session.calls] == ["main", "helper:1", "helper:2", "helper:3"]
    assert {edge.call for call in session.calls[1:] for edge in call.after} == {session.calls[0].id}
