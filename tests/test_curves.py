"""Hit curves, the optimal bound and retention: hand-made cases, and block-by-block caches on random and real calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from blockcaches import belady_hits, idles, in_list_order, lru_hits, most_hits, uses
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan_of
from strategies import workload
from wekafiles import REAL

from workloom.answers.reuse import reuse_curves
from workloom.drive.nominal import call_order
from workloom.model.curves import (
    MOST_CAPACITIES,
    LruCurve,
    curve,
    idle_distribution,
    kv_use,
    optimal_hits,
    retention,
    stack_offsets,
)
from workloom.model.describe import describe
from workloom.model.paths import Access, Paths, Table
from workloom.plan import Closed, Limits, Recipe, TraceRef, make
from workloom.prefix import Key
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.traces import native, open_trace


def table_of(accesses: list[Access], block_tokens: int, *, outputs: bool = True, bases: bool = True) -> Table:
    paths = Paths(block_tokens, outputs=outputs)
    last = {access.instance: index for index, access in enumerate(accesses)}
    for index, access in enumerate(accesses):
        paths.add(access if bases else access._replace(base=None))
        if last[access.instance] == index:
            paths.forget(access.instance)
    return paths.table()


def rows(table: Table) -> list[tuple[int, int, int, int]]:
    return list(zip(table.t.tolist(), table.p.tolist(), table.a.tolist(), table.b.tolist(), strict=True))


def ends(table: Table) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for p, blocks, free in zip(table.end_p, table.end_blocks, table.end_free_ns, strict=True):
        counts[int(p), int(free)] += int(blocks)
    return counts


def blocks(path: str, sent_s: float, done_s: float, instance: int = 0) -> Access:
    """A call without an answer whose blocks are letters, one token each."""
    key = Key(tuple(ord(letter) for letter in path), tuple(range(1, len(path) + 1)))
    return Access(instance, path, "main", "", key, 1 << 30, 0, round(sent_s * 1e9), round(done_s * 1e9))


# -- by hand


def test_a_compaction_takes_over_the_beginning_of_what_the_call_before_touched() -> None:
    calls = (
        Call("a", 10, fresh=(Part("user", 40),)),
        Call("b", 10, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 20),)),
        Call("c", 10, (Edge("b"),), inherit=Inherit("a", 20), fresh=(Part("summary", 35),)),
    )
    table = table_of(in_list_order([Session("s", calls)]), 10)
    assert rows(table) == [(1, 0, 0, 5), (2, 1, 0, 2)]
    assert table.prompt_blocks.tolist() == [4, 7, 5] and table.blocks.tolist() == [5, 8, 6]
    assert table.distinct_blocks == 5 + 3 + 4 and table.hit_blocks == 7
    lru = LruCurve(table)
    assert [lru.hits(capacity) for capacity in (0, 1, 2, 3, 4, 5, 99)] == [0, 2, 4, 5, 6, 7, 7]
    assert [lru.capacity_blocks(hits) for hits in (0, 1, 2, 3, 7)] == [0, 1, 1, 2, 5]


def test_lru_loses_everything_where_the_optimum_keeps_one_of_two_sessions() -> None:
    table = table_of([blocks("abcde", 0, 1, 0), blocks("vwxyz", 2, 3, 1), blocks("abcde", 4, 5, 0)], 1)
    assert stack_offsets(table).tolist() == [5]
    assert [LruCurve(table).hits(c) for c in (5, 6, 8, 10)] == [0, 1, 3, 5]
    assert optimal_hits(table, [0, 1, 3, 5, 10]) == [0, 1, 3, 5, 5]


def test_a_call_longer_than_the_cache_leaves_its_beginning() -> None:
    """Touched from the last block to the first: what stays of a prompt can be found again."""
    table = table_of([blocks("abcdefgh", 0, 1), blocks("abcdefgh", 2, 3)], 1)
    assert [LruCurve(table).hits(capacity) for capacity in range(9)] == list(range(9))


def test_a_block_is_in_use_until_the_last_call_with_it_has_ended() -> None:
    fork = [
        blocks("abc", 0, 10),
        blocks("abcx", 10, 100),
        blocks("abcy", 12, 20),
        blocks("abcyz", 30, 40),  # a, b and c are still in use by the second call; y has been idle for 10 s
        blocks("abcyz", 130, 131),  # a, b and c have been idle since 100, y and z since 40
    ]
    table = table_of(fork, 1)
    assert rows(table) == [(1, 0, 0, 3), (2, 1, 0, 3), (3, 2, 0, 3), (3, 2, 3, 4), (4, 3, 0, 3), (4, 3, 3, 5)]
    assert (table.free_ns / 1e9).tolist() == [10, 100, 100, 20, 100, 40]
    kept = retention(table, (0.0, 10, 30, 90, None))
    prompt = 3 + 4 + 4 + 5 + 5
    assert [rate * prompt for rate in kept.hit_rate] == pytest.approx([9, 10, 13, 15, 15])
    # x alone is never used again but for the end: 31 s from 100 to 131; the last call's own blocks end with it
    assert kept.idle_token_s == pytest.approx(
        (0, 10 + 3 * 10 + 2 * 10 + 10, 10 + 90 + 60 + 30, 10 + 90 + 180 + 31, 311)
    )
    assert kept.mean_idle_tokens[-1] == pytest.approx(311 / 131)
    use = kv_use(table)
    assert use.busy_token_s.tolist() == [30, 360, 32, 50, 5]
    assert use.idle_token_s.tolist() == [0, 0, 10, 3 * 30 + 2 * 90, 0]
    idle = idle_distribution(table)
    assert (idle.n, idle.p50, idle.p90, idle.max) == (15, 0.0, 90.0, 90.0) and idle.mean == 280 / 15


def test_a_trace_scope_scaffold_outlives_its_session_and_nothing_else_does() -> None:
    def session(name: str) -> Session:
        return Session(name, (Call("a", 5, spans=(Span("tools", 40, "trace"),), fresh=(Part("user", 25),)),))

    paths = Paths(10)
    for access in in_list_order([session("x"), session("y"), session("z")]):
        paths.add(access)
        paths.forget(access.instance)
    (root,) = paths._root.branches.values()
    assert not root.branches, "what was said in a session is gone"
    table = paths.table()
    assert rows(table) == [(1, 0, 0, 4), (2, 1, 0, 4)]
    assert ends(table) == {(0, 10**9): 3, (1, 3 * 10**9): 3, (2, 5 * 10**9): 7}


def test_capacities_are_round_and_reach_from_the_first_hits_to_all() -> None:
    found = curve(table_of([blocks("abcdefghij", 0, 1), blocks("abcdefghij", 2, 3)], 1))
    assert found.capacity_tokens == (1, 2, 3, 5, 7, 10)
    assert found.lru_hit_rate == found.optimal_hit_rate == (0.05, 0.1, 0.15, 0.25, 0.35, 0.5)
    assert [(knee.share, knee.capacity_tokens) for knee in found.knees] == [(0.5, 5), (0.9, 9), (0.95, 10), (0.99, 10)]
    nothing = curve(table_of([blocks("abc", 0, 1)], 1))
    assert (nothing.capacity_tokens, nothing.knees, nothing.reachable_hit_rate) == ((), (), 0.0)
    assert nothing.distinct_tokens == 3


def test_a_chain_of_calls_costs_what_is_new_in_each() -> None:
    calls = [Call("c0", 20, fresh=(Part("user", 100),))]
    calls += [
        Call(f"c{i}", 20, (Edge(f"c{i - 1}"),), inherit=Inherit(f"c{i - 1}"), fresh=(Part("tool", 50),))
        for i in range(1, 200)
    ]
    touched = 0

    class Counting(Paths):
        def _touch(self, *args: object) -> None:
            nonlocal touched
            touched += 1
            super()._touch(*args)  # type: ignore[arg-type]

    paths = Counting(16)
    for access in in_list_order([Session("s", tuple(calls))]):
        paths.add(access)
    assert len(paths.table().t) == 199
    assert touched <= 3 * len(calls), "a walk over the whole history each time takes 40,000"


# -- against caches of single blocks


@st.composite
def call_orders(draw: st.DrawFn) -> list[Access]:
    """Random session DAGs, in the order of a closed loop or one after the other with calls that overlap at will."""
    sessions = draw(workload(max_calls=6, max_tokens=120))
    if draw(st.booleans()):
        return call_order(plan_of(sessions, Closed(draw(st.integers(1, 4)))))
    out, sent = [], 0
    for access in in_list_order(sessions):
        sent += draw(st.integers(0, 3)) * 10**9
        out.append(access._replace(sent_ns=sent, done_ns=sent + draw(st.integers(0, 12)) * 10**9))
    return out


@settings(max_examples=25, deadline=None)
@given(call_orders(), st.sampled_from((8, 16, 64)), st.booleans())
def test_the_lru_curve_is_that_of_a_cache_of_blocks_at_every_capacity(
    order: list[Access], block_tokens: int, outputs: bool
) -> None:
    table, calls = table_of(order, block_tokens, outputs=outputs), uses(order, block_tokens, outputs=outputs)
    assert table.distinct_blocks == len({block for call in calls for block in call.touched})
    lru = LruCurve(table)
    hits = [lru.hits(capacity) for capacity in range(table.distinct_blocks + 2)]
    assert hits == [lru_hits(calls, capacity) for capacity in range(table.distinct_blocks + 2)]
    assert hits == sorted(hits) and hits[-1] == lru.reachable == table.hit_blocks
    assert all(hits[lru.capacity_blocks(wanted)] >= wanted for wanted in range(lru.reachable + 1))
    assert all(hits[lru.capacity_blocks(wanted) - 1] < wanted for wanted in range(1, lru.reachable + 1))


@settings(max_examples=60, deadline=None)
@given(call_orders(), st.sampled_from((8, 16, 64)), st.booleans())
def test_taking_a_chain_over_as_a_whole_changes_nothing(order: list[Access], block_tokens: int, outputs: bool) -> None:
    quick = table_of(order, block_tokens, outputs=outputs)
    slow = table_of(order, block_tokens, outputs=outputs, bases=False)
    assert rows(quick) == rows(slow) and quick.free_ns.tolist() == slow.free_ns.tolist()
    assert ends(quick) == ends(slow)


@settings(max_examples=25, deadline=None)
@given(call_orders(), st.sampled_from((16, 64)))
def test_the_optimal_bound_is_beladys_on_single_blocks(order: list[Access], block_tokens: int) -> None:
    table, calls = table_of(order, block_tokens), uses(order, block_tokens)
    most = table.distinct_blocks
    capacities = sorted({0, 1, 2, 3, most // 8, most // 4, most // 2, most})
    optimal, lru = optimal_hits(table, capacities), LruCurve(table)
    assert optimal == [belady_hits(calls, capacity) for capacity in capacities]
    assert all(best >= lru.hits(capacity) for best, capacity in zip(optimal, capacities, strict=True))
    assert optimal[-1] == lru.reachable


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=2, max_size=6), st.integers(0, 3))
def test_no_policy_beats_the_optimal_bound(paths: list[str], capacity: int) -> None:
    order = [blocks(path, at, at + 0.5) for at, path in enumerate(paths)]
    assert optimal_hits(table_of(order, 1), [capacity]) == [most_hits(uses(order, 1), capacity)]


@settings(max_examples=25, deadline=None)
@given(call_orders(), st.sampled_from((8, 64)))
def test_retention_is_that_of_single_blocks(order: list[Access], block_tokens: int) -> None:
    table, calls = table_of(order, block_tokens), uses(order, block_tokens)
    times = (0.0, 1.0, 5.0, 30.0, None)
    kept, waits = retention(table, times), idles(calls)
    for limit, rate, cost in zip(times, kept.hit_rate, kept.idle_token_s, strict=True):
        longest = float("inf") if limit is None else limit
        hits = sum(wait.again and wait.idle_s <= longest for wait in waits)
        assert rate == pytest.approx(hits * block_tokens / sum(access.prompt.tokens for access in order))
        assert cost == pytest.approx(block_tokens * sum(min(wait.idle_s, longest) for wait in waits), abs=1e-6)
    assert list(kept.hit_rate) == sorted(kept.hit_rate) and list(kept.idle_token_s) == sorted(kept.idle_token_s)
    assert kept.hit_rate[-1] == curve(table).reachable_hit_rate
    idle = np.zeros(len(order))
    for wait in waits:
        idle[wait.last] += block_tokens * wait.idle_s if wait.again else 0
    assert kv_use(table).idle_token_s.tolist() == pytest.approx(idle.tolist(), abs=1e-6)
    reused = sorted(wait.idle_s for wait in waits if wait.again)
    found = idle_distribution(table)
    assert found.n == len(reused) * block_tokens
    if reused:
        assert found.p50 == reused[(len(reused) - 1) // 2] and found.max == reused[-1]
        assert found.mean == pytest.approx(float(np.mean(reused)))


@settings(max_examples=40, deadline=None)
@given(workload(), st.sampled_from((16, 64)))
def test_an_infinite_cache_hits_what_inspect_says(sessions: list[Session], block_tokens: int) -> None:
    order = in_list_order(sessions)
    ideal = described(sessions, block_tokens)
    assert curve(table_of(order, block_tokens)).reachable_hit_rate == ideal[1]
    assert curve(table_of(order, block_tokens, outputs=False)).reachable_hit_rate == ideal[0]


def described(sessions: list[Session], block_tokens: int) -> tuple[float | None, float | None]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        native.write(path, Header(source="test", block_tokens=block_tokens), sessions)
        d = describe(open_trace([path]))
    return d.ideal_hit_rate, d.ideal_hit_rate_with_outputs_blocks


# -- of a plan


def test_the_curves_of_a_plan() -> None:
    def session(name: str, agent: str) -> Session:
        first = Call("a", 10, fresh=(Part("user", 90),), model="m", recorded=Recorded(0.0, end_s=4.0))
        then = Call(
            "b",
            10,
            (Edge("a", 6.0),),
            agent,
            "m",
            Inherit("a"),
            fresh=(Part("tool", 50),),
            recorded=Recorded(0, 0, 2.0),
        )
        return Session(name, (first, then))

    found = reuse_curves(plan_of([session("x", "explore-1"), session("y", "explore-2")], Closed(1), max_wait_s=5), 10)
    assert (found.calls, found.prompt_tokens, found.makespan_s, found.wait_cap_s) == (4, 480, 22.0, 5.0)
    assert found.curve.reachable_hit_rate == 200 / 480 and found.curve.distinct_tokens == 2 * 160
    assert (found.idle_s.n, found.idle_s.p50) == (200, 5.0)
    pressure = {(p.role, p.model): (p.calls, p.busy_token_s, p.idle_token_s) for p in found.pressure}
    assert pressure == {("main", "m"): (2, 2 * 400.0, 2 * 500.0), ("explore", "m"): (2, 2 * 320.0, 0.0)}
    without = reuse_curves(plan_of([session("x", "main"), session("y", "main")], Closed(1)), 10, outputs=False)
    assert without.curve.reachable_hit_rate == 180 / 480


real = pytest.mark.skipif(not REAL.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")


@real
def test_two_real_sessions_in_a_closed_loop_against_single_blocks() -> None:
    files = tuple(str(REAL / f"trace_{number}.json") for number in ("0004", "0006"))
    order = call_order(make(Recipe(TraceRef(files), Closed(2))))
    assert len({access.instance for access in order}) == 2
    table, calls = table_of(order, 64), uses(order, 64)
    lru, most = LruCurve(table), table.distinct_blocks
    assert most == len({block for call in calls for block in call.touched})
    for capacity in (1, lru.capacity_blocks(lru.reachable // 2), lru.capacity_blocks(lru.reachable), most // 3, most):
        assert lru.hits(capacity) == lru_hits(calls, capacity)
    waits = idles(calls)
    kept = retention(table, (10.0,))
    assert kept.idle_token_s[0] == pytest.approx(64 * sum(min(wait.idle_s, 10) for wait in waits))


@real
def test_all_weka_files_in_a_closed_loop() -> None:
    plan = make(Recipe(TraceRef((str(REAL),)), Closed(8), Limits()))
    found = reuse_curves(plan, 64)
    ideal = describe(open_trace([REAL])).ideal_hit_rate_with_outputs_blocks
    assert (found.calls, found.prompt_tokens) == (4652, 583453333)
    assert found.curve.reachable_hit_rate == found.retention.hit_rate[-1] == pytest.approx(ideal, abs=1e-4)
    assert 16 <= len(found.curve.capacity_tokens) <= MOST_CAPACITIES
    pairs = list(zip(found.curve.lru_hit_rate, found.curve.optimal_hit_rate, strict=True))
    assert all(lru <= optimal for lru, optimal in pairs) and pairs == sorted(pairs)
    assert pairs[-1] == (found.curve.reachable_hit_rate, found.curve.reachable_hit_rate)
