"""Tokens, waits, growth of contexts and concurrency: by hand, against plain counts, and on real traces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import workload

from workloom.model.concurrency import ConcurrencySection, Levels, levels, means, seconds_at
from workloom.model.context import ContextSection, fibonacci
from workloom.model.distribution import SHARES
from workloom.model.facts import SessionFacts, facts
from workloom.model.sizes import TOOLS, FreshKind, SizesSection, Tool
from workloom.model.waits import LIMITS_S, WaitsSection
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session, Span, prompt_tokens
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real traces in ../shared/data are absent")

R = TypeVar("R", covariant=True)


class Section(Protocol[R]):
    def add(self, facts: SessionFacts) -> None: ...
    def result(self) -> R: ...


def told(section: Section[R], sessions: Iterable[Session]) -> R:
    for row in facts(sessions):
        section.add(row)
    return section.result()


# ------------------------------------------------------------------------------------------------------- tokens


def test_tokens_by_sort_by_hand() -> None:
    first = Call("a", 20, spans=(Span("tools", 500, "trace"),), fresh=(Part("user", 30),), reasoning_tokens=5)
    second = Call("b", 10, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 7, "bash", 1.5),))
    sizes = told(SizesSection(), [Session("s", (first, second)), Session("t", (first,))])
    assert sizes.calls == 3
    assert sizes.prompt_tokens.total == 530 + (550 + 7) + 530
    assert sizes.fresh_tokens.total == 30 + 7 + 30
    assert sizes.computed_tokens.total == 530 + 7 + 30, "the span is computed once"
    assert (sizes.output_tokens.total, sizes.reasoning_tokens.total) == (50, 10)
    assert (sizes.output_tokens.per_call.n, sizes.output_tokens.per_call.p50) == (3, 20)
    assert sizes.kinds == (FreshKind("user", 2, 60, 60 / 67), FreshKind("tool", 1, 7, 7 / 67))
    assert sizes.tools == (Tool("bash", 1, 7, 1.5, 1),)
    assert (sizes.tool_names, sizes.other_tools) == (1, None)


def test_tools_beyond_the_first_are_told_together() -> None:
    parts = [Part("tool", 100 - i, f"tool{i}", float(i)) for i in range(TOOLS + 2)]
    parts += [Part("tool", 50, "tool0"), Part("tool", 500)]
    sizes = told(SizesSection(), [Session("s", (Call("a", 1, fresh=tuple(parts)),))])
    assert [tool.name for tool in sizes.tools[:3]] == ["", "tool0", "tool1"]
    assert sizes.tools[1] == Tool("tool0", 2, 150, 0.0, 1), "one of the two does not tell its seconds"
    assert (len(sizes.tools), sizes.tool_names) == (TOOLS, TOOLS + 3)
    assert sizes.other_tools == Tool("others", 3, 81 + 80 + 79, 19.0 + 20 + 21, 3)


@settings(max_examples=40, deadline=None)
@given(workload())
def test_tokens_are_what_a_plain_count_gives(sessions: list[Session]) -> None:
    sizes = told(SizesSection(), sessions)
    calls = [call for session in sessions for call in session.calls]
    parts = [part for call in calls for part in call.fresh]
    assert sizes.prompt_tokens.total == sum(sum(prompt_tokens(session).values()) for session in sessions)
    assert sizes.prompt_tokens.per_call.n == sizes.calls == len(calls)
    assert sizes.fresh_tokens.total == sum(part.tokens for part in parts) == sum(kind.tokens for kind in sizes.kinds)
    assert sizes.fresh_tokens.total <= sizes.computed_tokens.total <= sizes.prompt_tokens.total
    assert {tool.name: (tool.results, tool.timed) for tool in sizes.tools} == {
        name or "": (
            sum(part.kind == "tool" and part.name == name for part in parts),
            sum(part.kind == "tool" and part.name == name and part.seconds is not None for part in parts),
        )
        for name in {part.name for part in parts if part.kind == "tool"}
    }


# -------------------------------------------------------------------------------------------------------- waits


def test_a_call_waits_for_the_longest_of_its_edges() -> None:
    calls = (
        Call("a", 1),
        Call("b", 1, (Edge("a", 0.05, "tool"),)),
        Call("c", 1, (Edge("a", 0.1, "tool"), Edge("b", 20.0, "human"))),
        Call("d", 1, (Edge("c", 4.0, "tool"),)),
    )
    waits = told(WaitsSection(), [Session("s", calls)])
    assert (waits.calls, waits.all.count, waits.all.total_s) == (4, 3, 24.05)
    assert waits.all.under == (1 / 3, 1 / 3, 2 / 3, 1, 1, 1)
    assert set(waits.by_gap) == {"tool", "human"}
    assert (waits.by_gap["tool"].count, waits.by_gap["tool"].wait_s.max) == (2, 4)
    assert waits.by_gap["human"].under == (0, 0, 0, 1, 1, 1)


def test_a_wait_as_long_as_a_limit_is_not_under_it() -> None:
    calls = (Call("a", 1), *(Call(f"b{limit}", 1, (Edge("a", limit, "tool"),)) for limit in LIMITS_S))
    assert told(WaitsSection(), [Session("s", calls)]).all.under == tuple(i / 6 for i in range(6))
    nothing = told(WaitsSection(), [Session("s", calls[:1])])
    assert (nothing.all.count, nothing.all.under, nothing.by_gap) == (0, (), {})


# ------------------------------------------------------------------------------------------------------ context


def chain(name: str, *fresh: int) -> Session:
    """Calls without answers that each keep all and add so many tokens."""
    calls = [
        Call(f"c{i}", 0, (Edge(f"c{i - 1}"),) if i else (), inherit=Inherit(f"c{i - 1}") if i else None)
        for i in range(len(fresh))
    ]
    return Session(
        name,
        tuple(
            Call(c.id, 0, c.after, inherit=c.inherit, fresh=(Part("tool", tokens),))
            for c, tokens in zip(calls, fresh, strict=True)
        ),
    )


def test_growth_by_call_number_and_by_position() -> None:
    sessions = [chain("s", *[10] * 11), chain("t", *[20] * 5), chain("u", 100)]
    context = told(ContextSection(), sessions)
    assert fibonacci(13) == [1, 2, 3, 5, 8, 13]
    assert [(p.at, p.sessions, p.p50) for p in context.by_number] == [
        (1, 3, 20),
        (2, 2, 30),
        (3, 2, 45),
        (5, 2, 75),
        (8, 1, 80),
    ]
    assert (context.by_number[1].p10, context.by_number[1].p90) == (22, 38)
    places = {p.at: p for p in context.by_position}
    assert {p.sessions for p in places.values()} == {2}, "a single call has no beginning and end"
    assert (places[0.0].p50, places[0.5].p50, places[1.0].p50) == (15, 60, 105)
    assert context.main_calls.max == 11


def test_the_main_context_is_the_first_calls_agents_own() -> None:
    session = Session(
        "s",
        (
            Call("a", 0, fresh=(Part("user", 10),)),
            Call("x", 0, (Edge("a"),), agent="Explore", fresh=(Part("user", 900),)),
            Call("unknown", 0, (Edge("a"),)),
            Call("b", 0, (Edge("x"),), fresh=(Part("user", 40),)),
        ),
    )
    context = told(ContextSection(), [session])
    assert [(p.at, p.p50) for p in context.by_number] == [(1, 10), (2, 40)]


def test_overlap_of_consecutive_prompts() -> None:
    session = Session(
        "s",
        (
            Call("a", 20, fresh=(Part("user", 100),)),
            Call("b", 0, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 40),)),
            Call("c", 0, (Edge("b"),), inherit=Inherit("b", 40), fresh=(Part("summary", 60),)),
            Call("d", 0, (Edge("c"),), fresh=(Part("user", 10),)),
            Call("x", 0, (Edge("a"),), agent="Explore", fresh=(Part("user", 5),)),
        ),
    )
    overlap = told(ContextSection(), [session]).overlap
    assert overlap.calls == 3, "b, c and d; an agent's first call goes on from nothing"
    assert overlap.inherited.quantiles[-1] == 120 / 160
    assert overlap.inherited.mean == pytest.approx((120 / 160 + 40 / 100 + 0) / 3)
    assert overlap.kept.mean == pytest.approx((1 + 40 / 160 + 0) / 3)
    assert (overlap.kept_all, overlap.kept_none) == (1 / 3, 1 / 3)


def test_nothing_is_said_of_no_sessions() -> None:
    context = told(ContextSection(), [])
    assert (context.by_number, context.by_position, context.overlap.kept_all) == ((), (), None)
    sizes = told(SizesSection(), [])
    assert (sizes.calls, sizes.prompt_tokens.per_call.mean, sizes.kinds) == (0, None, ())
    flow = told(ConcurrencySection(common_clock=True), [])
    assert (flow.calls, flow.over_time, flow.within_sessions) == (Levels(), None, Levels())


# -------------------------------------------------------------------------------------------------- concurrency


def timed(name: str, at_s: float | None, *spans: tuple[float, float]) -> Session:
    calls = [Call(f"c{i}", 1, recorded=Recorded(start, None, end)) for i, (start, end) in enumerate(spans)]
    return Session(name, tuple(calls), start_s=at_s)


def test_concurrency_by_hand() -> None:
    sessions = [timed("s", 100.0, (0, 4), (2, 6), (8, 10)), timed("t", 105.0, (0, 3)), timed("u", None, (0, 1))]
    flow = told(ConcurrencySection(common_clock=True), sessions)
    assert flow.without_start == 1
    assert flow.calls is not None and flow.sessions is not None
    # s: 1 1 2 2 1 1 0 0 1 1   t: ..... 1 1 1 ..
    assert (flow.calls.seconds, flow.calls.mean, flow.calls.max) == (10, 1.3, 2)
    assert (flow.calls.busy, flow.calls.several, flow.calls.mean_busy) == (1.0, 0.3, 1.3)
    assert (flow.sessions.mean, flow.sessions.max) == (1.3, 2)
    within = flow.within_sessions
    assert (within.seconds, within.mean, within.busy, within.several) == (14, 1.0, 12 / 14, 2 / 14)
    assert (within.mean_busy, within.p50, within.p90, within.max) == (14 / 12, 1, 2, 2)
    assert flow.most_per_session.quantiles[0] == 1 and flow.most_per_session.max == 2
    series = flow.over_time
    assert series is not None and (series.first_s, series.bin_s, len(series.calls)) == (100, 10 / 200, 200)
    assert sum(series.calls) * series.bin_s == pytest.approx(13)
    assert series.calls[50] == pytest.approx(2) and series.sessions[150] == pytest.approx(2)


def test_without_a_common_clock_only_sessions_are_looked_into() -> None:
    flow = told(ConcurrencySection(common_clock=False), [timed("s", 5.0, (0, 4), (2, 6))])
    assert (flow.calls, flow.sessions, flow.over_time) == (None, None, None)
    assert flow.within_sessions.several == 2 / 6


def test_a_call_that_starts_when_another_ends_is_not_beside_it() -> None:
    end = 0.1 + 0.2
    assert end > 0.3, "the dust of binary fractions"
    assert seconds_at([0.0, 0.3], [end, 1.0]) == {1: 1.0}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), min_size=1, max_size=12))
def test_levels_are_what_counting_every_second_gives(spans: list[tuple[int, int]]) -> None:
    starts, ends = [float(start) for start, _ in spans], [float(start + length) for start, length in spans]
    first, last = int(min(starts)), int(max(ends))
    counts = [sum(s <= second < e for s, e in zip(starts, ends, strict=True)) for second in range(first, last)]
    seconds = seconds_at(starts, ends)
    assert {level: s for level, s in seconds.items() if s} == {level: counts.count(level) for level in set(counts)}
    told = levels(seconds)
    if not counts:
        assert told == Levels()
        return
    assert told.mean == pytest.approx(sum(counts) / len(counts))
    ordered = sorted(counts)
    ranks = [max(0, int(np.ceil(share * len(counts) - 1e-6)) - 1) for share in SHARES]
    assert told.quantiles == tuple(ordered[rank] for rank in ranks)
    assert (told.max, told.busy) == (ordered[-1], pytest.approx(sum(n > 0 for n in counts) / len(counts)))
    edges = np.arange(first, last + 1.0)
    assert means(np.array(starts), np.array(ends), edges) == pytest.approx(counts)


# ------------------------------------------------------------------------------------------------ the real files


@real
def test_the_published_figures_of_mooncake() -> None:
    sizes = told(SizesSection(), open_trace([str(DATA / "mooncake/conversation_trace.jsonl")]))
    assert sizes.calls == 12_031
    assert sizes.prompt_tokens.per_call.mean == pytest.approx(12_035, abs=1)
    assert sizes.output_tokens.per_call.mean == pytest.approx(343, abs=1)
    assert sizes.prompt_tokens.per_call.max == 126_195


@real
def test_the_published_waits_of_openclaw() -> None:
    waits = told(WaitsSection(), open_trace([str(DATA / "openclaw/interp-dag.json")])).all
    assert waits.wait_s.p50 == pytest.approx(0.032)
    assert waits.under[0] == pytest.approx(0.789, abs=0.0005), "nearly 80 % under 100 ms"
    assert 1 - waits.under[2] == pytest.approx(0.0625), "6 % over 10 s"


@real
def test_the_figures_of_weka() -> None:
    sizes, context = SizesSection(), ContextSection()
    flow = ConcurrencySection(common_clock=False)
    for row in facts(open_trace([str(DATA / "weka")])):
        for section in (sizes, context, flow):
            section.add(row)
    tokens = sizes.result()
    assert (tokens.calls, tokens.prompt_tokens.total) == (4652, 583_453_329)
    assert (tokens.computed_tokens.per_call.p50, tokens.output_tokens.per_call.p50) == (554.5, 219)
    growth = context.result()
    assert growth.overlap.inherited.p50 is not None and growth.overlap.inherited.p50 > 0.99
    medians = [point.p50 for point in growth.by_position if point.p50 is not None]
    assert medians[-1] > 4 * medians[0]
    within = flow.result().within_sessions
    assert within.max == 5
    assert within.busy == pytest.approx(0.032, abs=0.001), "people and tools take nearly all the time"
