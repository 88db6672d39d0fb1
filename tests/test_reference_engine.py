"""Stories that pin the reference engine's rules, each worked out by hand, and what must hold whatever happens.

Unless a story says otherwise a step takes 100 ps, whatever is in it, and a block holds 4 tokens.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ReferenceEngine, Step, step_ps

from workloom.engine.profile import FitError, FrontEnd, Profile, StepCost
from workloom.errors import Refused
from workloom.prefix import Key, PrefixTree

FLAT = StepCost(
    weights_ps=100, prefill_base_ps=0, prefill_token_ps=0, sequence_ps=0, pair_ps=0, context_token_ps=0
)  # every step takes 100 ps


def profile(blocks: int | None = 100, **changes: object) -> Profile:
    small = Profile(
        name="small",
        model="",
        gpu="",
        gpus=1,
        dtype="",
        source="",
        error=FitError(0, 0, None, 0, 0),
        not_identified={},
        step=FLAT,
        front_end=FrontEnd(),
        max_model_len=1000,
        max_num_seqs=16,
        max_batched_tokens=100,
        block_tokens=4,
        kv_tokens=None if blocks is None else blocks * 4 + 3,  # what does not make a block is no room
    )
    return msgspec.structs.replace(small, **changes)


def text(number: int, tokens: int, *more: int) -> Key:
    """text(1, 8, 2, 3): 8 tokens of text 1, then 3 of text 2."""
    key = Key().plus(number, tokens)
    for n, t in zip(more[::2], more[1::2], strict=True):
        key = key.plus(n, t)
    return key


def run(engine: ReferenceEngine, *calls: tuple[int, str, Key, int]) -> ReferenceEngine:
    """Submit (at, id, prompt, output tokens) and run until nothing is left; the answer's text is the call's own."""
    for at_ps, id, key, outputs in calls:
        engine.submit(at_ps, id, key, answer_of(id), outputs)
    engine.drain()
    return engine


def answer_of(id: str) -> int:
    return 1000 + sum(ord(letter) << (8 * i) for i, letter in enumerate(id))


def cached(engine: ReferenceEngine) -> dict[str, int]:
    return {id: call.cached_tokens for id, call in engine.finished.items()}


def admissions(engine: ReferenceEngine) -> dict[str, list[int]]:
    """Id -> starts of the steps that admitted it."""
    out: dict[str, list[int]] = {}
    for step in engine.steps:
        for id in step.admitted:
            out.setdefault(id, []).append(step.start_ps)
    return out


# -- the cache ------------------------------------------------------------------------------------------------------


def test_whole_blocks_hit() -> None:
    engine = run(ReferenceEngine(profile()), (0, "a", text(1, 10), 1), (500, "b", text(1, 12), 1))
    assert cached(engine) == {"a": 0, "b": 8}


def test_the_last_prompt_token_is_always_computed() -> None:
    engine = run(ReferenceEngine(profile()), (0, "a", text(1, 8), 1), (500, "b", text(1, 8), 1))
    assert cached(engine) == {"a": 0, "b": 4}
    assert [step.n for step in engine.steps] == [8, 4]


def test_generated_tokens_hit_but_for_the_last_which_is_never_computed() -> None:
    for outputs, hit in ((2, 4), (3, 8)):  # 6 + outputs - 1 tokens have KV: 7 or 8
        child = text(1, 6, answer_of("a"), outputs, 2, 9)
        engine = run(ReferenceEngine(profile()), (0, "a", text(1, 6), outputs), (500, "b", child, 1))
        assert cached(engine)["b"] == hit


def test_texts_part_where_their_history_does() -> None:
    engine = run(
        ReferenceEngine(profile()),
        (0, "a", text(1, 4, 2, 8), 1),
        (500, "same", text(1, 4, 2, 9), 1),
        (1000, "other-history", text(3, 4, 2, 9), 1),
        (1500, "restarted", text(1, 4, 1, 9), 1),
    )
    assert cached(engine) == {"a": 0, "same": 12, "other-history": 0, "restarted": 4}


def test_a_prefix_is_evicted_from_its_end() -> None:
    engine = run(
        ReferenceEngine(profile(blocks=4)),
        (0, "a", text(1, 12), 1),  # blocks 0 1 2; free then: 3 2 1 0
        (500, "b", text(2, 8), 1),  # takes 3 and 2
        (1000, "c", text(1, 13), 1),
    )
    assert cached(engine)["c"] == 8
    assert engine.evicted_blocks == 1 + 2  # block 2 by b, then both of b's by c


def test_what_was_used_longest_ago_goes_first_and_a_hit_counts_as_use() -> None:
    engine = run(
        ReferenceEngine(profile(blocks=4)),
        (0, "a", text(1, 4), 1),  # free: 1 2 3 0
        (500, "b", text(2, 4), 1),  # free: 2 3 0 1
        (1000, "a2", text(1, 5), 1),  # hits 0, takes 2; free: 3 1 2 0
        (1500, "c", text(3, 12), 1),  # takes 3 1 2: b is gone
        (2000, "a3", text(1, 5), 1),
        (2500, "b2", text(2, 5), 1),
    )
    assert cached(engine) == {"a": 0, "b": 0, "a2": 4, "c": 0, "a3": 4, "b2": 0}


def test_blocks_never_to_be_reused_stand_in_the_same_queue() -> None:
    """Here two plain blocks were free when the reusable one went: it had been freed before them."""
    engine = run(
        ReferenceEngine(profile(blocks=3)),
        (0, "a", text(1, 4), 1),  # free: 1 2 0
        (500, "p", text(2, 3), 1),  # free: 2 0 1
        (1000, "q", text(3, 3), 1),  # free: 0 1 2
        (1500, "r", text(4, 3), 1),  # takes 0
        (2000, "a2", text(1, 5), 1),
    )
    assert cached(engine)["a2"] == 0
    assert engine.evicted_blocks == 1


def test_a_block_is_findable_after_the_step_that_filled_it_and_copies_are_kept() -> None:
    engine = ReferenceEngine(profile(blocks=6))
    run(engine, (0, "a", text(1, 5), 1), (0, "b", text(1, 5), 1), (50, "c", text(1, 5), 1))
    assert cached(engine) == {"a": 0, "b": 0, "c": 4}  # a and b in one step, c in the next
    (copies,) = engine.pool.found.values()
    assert [block.number for (block,) in copies] == [0, 2]
    # free: 4 5 | 1 0 by a | 3 2 by b; then c hits 0, the copy registered first, takes 4 and frees 4 0.
    assert [block.number for block in engine.pool.free] == [5, 1, 3, 2, 4, 0]


def test_the_other_copy_is_found_when_the_first_is_evicted() -> None:
    engine = ReferenceEngine(profile(blocks=4))
    run(engine, (0, "a", text(1, 5), 1), (0, "b", text(1, 5), 1))  # free: 1 0 3 2
    run(engine, (500, "c", text(2, 8), 1), (1000, "d", text(1, 5), 1))  # c takes 1 and 0
    assert engine.evicted_blocks == 1
    assert cached(engine)["d"] == 4


def test_without_a_prefix_cache_nothing_hits_and_time_is_the_only_difference() -> None:
    engine = run(
        ReferenceEngine(profile(blocks=4), prefix_cache=False), (0, "a", text(1, 9), 2), (500, "b", text(1, 9), 2)
    )
    assert cached(engine) == {"a": 0, "b": 0}
    assert engine.evicted_blocks == 0


def test_an_infinite_cache_forgets_nothing() -> None:
    calls = [(500 * i, f"c{i}", text(i, 400), 1) for i in range(50)]
    engine = run(ReferenceEngine(profile(blocks=None)), *calls, (30_000, "again", text(0, 400), 1))
    assert cached(engine)["again"] == 396
    assert engine.evicted_blocks == 0


# -- the scheduler --------------------------------------------------------------------------------------------------


def test_tokens_come_at_the_ends_of_steps() -> None:
    engine = run(ReferenceEngine(profile()), (30, "a", text(1, 10), 3))
    call = engine.finished["a"]
    assert (call.first_ps, call.token_times_ps, call.done_ps) == (130, [130, 230, 330], 330)


def test_a_long_prompt_is_computed_in_chunks_beside_the_decodes() -> None:
    engine = run(ReferenceEngine(profile(max_batched_tokens=8)), (0, "a", text(1, 4), 9), (10, "b", text(2, 20), 2))
    assert [(s.n, s.B, s.pairs, s.ctx) for s in engine.steps[:5]] == [
        (4, 0, 8, 0),
        (7, 1, 24, 5),
        (7, 1, 7 * 7 + 24, 6),
        (6, 1, 6 * 14 + 18, 7),
        (0, 2, 0, 8 + 21),
    ]
    assert engine.finished["b"].token_times_ps == [400, 500]


def test_a_running_call_beyond_the_budget_waits_a_step() -> None:
    engine = run(
        ReferenceEngine(profile(max_batched_tokens=2)), *[(0, id, text(i, 1), 3) for i, id in enumerate("abc")]
    )
    assert [step.B + step.n for step in engine.steps] == [2, 2, 2, 1, 1, 1]
    assert engine.finished["c"].token_times_ps == [400, 500, 600]  # a and b used up the budget of three steps


def test_no_more_calls_than_max_num_seqs() -> None:
    engine = run(ReferenceEngine(profile(max_num_seqs=2)), *[(0, id, text(i, 3), 2) for i, id in enumerate("abc")])
    assert admissions(engine) == {"a": [0], "b": [0], "c": [200]}


def test_the_newest_call_is_preempted_and_recomputes_its_answer_too() -> None:
    engine = run(ReferenceEngine(profile(blocks=4)), (0, "a", text(1, 7), 10), (0, "b", text(2, 7), 3))
    # Both hold 2 blocks and have 2 tokens at 200. Then a needs a third: b goes, its end first, and finds no room
    # (3 blocks for 9 tokens) until a is done, when nothing is left of it: a took its 2 blocks, it takes 3 of a's.
    assert engine.finished["a"].token_times_ps == [100 * i for i in range(1, 11)]
    b = engine.finished["b"]
    assert (b.token_times_ps, b.preemptions, b.cached_tokens) == ([100, 200, 1100], 1, 0)
    assert engine.steps[2].preempted == ["b"] and engine.steps[2].B == 1
    assert engine.steps[10].n == 9
    assert (engine.preemptions, engine.evicted_blocks) == (1, 2 + 3)


def test_nothing_is_admitted_in_a_step_that_preempts() -> None:
    engine = run(
        ReferenceEngine(profile(blocks=3, max_batched_tokens=5)), (0, "a", text(1, 4), 3), (0, "b", text(2, 9), 1)
    )
    # At 100 a takes the last free block, and b (1 token done, 1 block) finds none for 4 more: it is itself the newest.
    # Its own block would do for a fresh start of 4 tokens at once.
    assert engine.steps[1] == Step(100, 200, n=0, B=1, ctx=5, preempted=["b"])
    assert admissions(engine)["b"][:2] == [0, 200]


def test_a_preempted_call_finds_what_is_left_of_itself() -> None:
    engine = run(ReferenceEngine(profile(blocks=6)), (0, "a", text(1, 7), 4), (0, "b", text(2, 14), 9))
    # At 200 a needs a 3rd block and takes the end of b, which is preempted: free then 4 3 2. At 300, b (16 tokens)
    # would need all of its 4 blocks, 3 of them hits at rest, and 3 are free. At 400 a is done.
    assert admissions(engine) == {"a": [0], "b": [0, 400]}
    assert engine.steps[4].n == 16 - 12
    assert engine.finished["b"].cached_tokens == 0  # hits count at the first admission only


def test_calls_preempted_together_come_back_in_their_order_and_ahead_of_others() -> None:
    outputs = {"a": 4, "b": 5, "c": 3, "d": 2}
    calls = [(0, id, text(i, 4), outputs[id]) for i, id in enumerate("abcd")]
    engine = run(ReferenceEngine(profile(blocks=4)), *calls, (10, "e", text(9, 1), 1))
    # At 100 each holds 1 block and needs a 2nd: d goes for a, c for b. Later c and d need 2 each, e needs 1.
    assert engine.steps[1].preempted == ["d", "c"]
    assert admissions(engine) == {"a": [0], "b": [0], "c": [0, 400], "d": [0, 500], "e": [600]}
    assert {id: engine.finished[id].done_ps for id in "abcd"} == {"a": 400, "b": 500, "c": 600, "d": 600}


def test_a_head_that_does_not_fit_holds_up_those_behind() -> None:
    engine = run(
        ReferenceEngine(profile(blocks=4)), (0, "a", text(1, 9), 4), (10, "b", text(2, 8), 1), (20, "c", text(3, 2), 1)
    )
    assert admissions(engine) == {"a": [0], "b": [400], "c": [400]}


def test_hits_at_rest_take_room_and_hits_in_use_do_not() -> None:
    calls = [(500, "x", text(2, 5), 9), (510, "b", text(1, 9), 1)]
    engine = run(ReferenceEngine(profile(blocks=4)), (0, "a", text(1, 8), 1), *calls)
    # b needs 1 new block and its 2 hits, which nobody uses; x left 2 free.
    assert admissions(engine)["b"] == [500 + 900]
    engine = run(ReferenceEngine(profile(blocks=4)), (0, "a", text(1, 9), 4), (10, "b", text(1, 9), 1))
    assert admissions(engine)["b"] == [100]  # the hits are a's own blocks, in use: 1 new block is all it needs


def test_a_refused_head_is_tried_again_only_when_a_block_was_freed() -> None:
    engine = run(ReferenceEngine(profile(blocks=5)), (0, "a", text(1, 8), 5), (0, "b", text(1, 8, 2, 5), 1))
    # At 0, b wants 4 blocks and 3 are free. From 100 on 2 of them are a's: 2 would do, and 2 are free.
    assert admissions(engine)["b"] == [500]
    assert cached(engine)["b"] == 8


def test_what_can_never_be_served_is_refused_at_once() -> None:
    engine = ReferenceEngine(profile(blocks=4, max_model_len=20))
    engine.submit(0, "fits", text(1, 10), 1, 7)  # 16 tokens of KV
    with pytest.raises(Refused, match="KV cache"):
        engine.submit(0, "wide", text(1, 10), 1, 8)
    with pytest.raises(Refused, match="longer"):
        engine.submit(0, "long", text(1, 10), 1, 11)
    engine.submit(0, "just", text(1, 4), 1, 1)
    engine.drain()
    assert engine.finished.keys() == {"fits", "just"}
    run(ReferenceEngine(profile(max_model_len=20)), (0, "just", text(1, 10), 10))


# -- the front end, boundaries, cancels -------------------------------------------------------------------------------


def test_the_front_end_takes_one_call_at_a_time() -> None:
    slow = profile(front_end=FrontEnd(call_ps=10, prompt_token_ps=2))
    engine = run(ReferenceEngine(slow), (0, "a", text(1, 5), 1), (0, "b", text(2, 45), 1), (500, "c", text(3, 5), 1))
    assert admissions(engine) == {"a": [20], "b": [120], "c": [520]}


def test_a_call_waits_for_the_boundary_behind_its_exit_but_wakes_an_idle_engine_at_once() -> None:
    calls = [(0, "a", text(1, 4), 3), (100, "at", text(2, 4), 1), (101, "after", text(3, 4), 1)]
    engine = run(ReferenceEngine(profile()), *calls, (300, "idle", text(4, 4), 1), (300, "idle2", text(5, 4), 1))
    # "at" leaves the front end at the very boundary at 100, which belongs to those before it.
    assert admissions(engine) == {"a": [0], "at": [200], "after": [200], "idle": [300], "idle2": [300]}


def test_what_follows_from_a_completion_is_in_time_for_the_step_that_begins_there() -> None:
    engine = ReferenceEngine(profile())
    engine.submit(0, "a", text(1, 4), 9, 1)
    engine.submit(0, "b", text(2, 4), 9, 3)
    assert engine.next_ps() == 100
    engine.run_until(100)
    assert list(engine.finished) == ["a"]
    engine.cancel(100, "b")
    engine.submit(100, "c", text(3, 4), 9, 1)  # the engine is idle now, so c starts a step itself
    assert engine.next_ps() == 200
    engine.run_until(10_000)
    assert admissions(engine)["c"] == [100]
    assert engine.finished["b"].done_ps == 100
    assert engine.next_ps() is None


def test_a_running_call_is_cancelled_at_the_next_boundary_and_frees_its_blocks() -> None:
    engine = ReferenceEngine(profile(blocks=4))
    engine.submit(0, "a", text(1, 9), 9, 6)
    engine.submit(10, "b", text(2, 8), 9, 1)
    engine.cancel(250, "a")
    engine.drain()
    a = engine.finished["a"]
    assert (a.cancelled, a.done_ps, a.token_times_ps) == (True, 300, [100, 200, 300])
    assert admissions(engine)["b"] == [300]


def test_a_call_that_waits_is_cancelled_at_once_and_what_it_reserved_stays_reserved() -> None:
    engine = ReferenceEngine(profile(max_num_seqs=1, front_end=FrontEnd(call_ps=50)))
    for id in "abcd":
        engine.submit(0, id, text(ord(id), 4), 9, 5)
    engine.cancel(60, "c")  # in the front end from 100 to 150
    engine.cancel(130, "b")  # waiting since 100
    engine.run_until(130)
    assert [(id, call.done_ps, call.cancelled) for id, call in engine.finished.items()] == [
        ("c", 60, True),
        ("b", 130, True),
    ]
    engine.cancel(560, "a")  # ended at 550
    engine.drain()
    assert not engine.finished["a"].cancelled
    assert admissions(engine) == {"a": [50], "d": [550]}
    late = ReferenceEngine(profile(front_end=FrontEnd(call_ps=50)))
    late.submit(0, "a", text(1, 4), 9, 1)
    late.submit(0, "b", text(2, 4), 9, 1)
    late.cancel(0, "a")
    late.drain()
    assert admissions(late) == {"b": [100]}


# -- the time of a step -----------------------------------------------------------------------------------------------


def test_a_batch_of_decodes_is_padded_to_a_graph() -> None:
    cost = msgspec.structs.replace(FLAT, sequence_ps=10, context_token_ps=1, graph_sizes=(1, 2, 4), launch_ps=9999)
    assert [step_ps(cost, Step(0, B=b, ctx=7)) for b in (1, 2, 3, 4, 5)] == [117, 127, 147, 147, 157]
    no_graphs = msgspec.structs.replace(cost, graph_sizes=())
    assert step_ps(no_graphs, Step(0, B=3, ctx=7)) == 137


def test_experts_are_read_by_the_tokens_of_the_step_padding_too() -> None:
    cost = msgspec.structs.replace(FLAT, experts_ps=1000, experts=4, experts_per_token=1, graph_sizes=(4,))
    assert step_ps(cost, Step(0, B=1)) == 100 + round(1000 * (1 - 0.75**4))
    assert step_ps(cost, Step(0, B=1, n=1)) == 100 + round(1000 * (1 - 0.75**2))


def test_a_step_with_prefill_takes_the_longest_of_weights_work_and_launch() -> None:
    cost = msgspec.structs.replace(
        FLAT, prefill_base_ps=50, prefill_token_ps=10, sequence_ps=3, pair_ps=2, context_token_ps=1, launch_ps=200
    )
    cost = msgspec.structs.replace(cost, admit_ps=40)
    assert step_ps(cost, Step(0, n=2, B=1, pairs=4, ctx=5)) == 200  # 100 + 3 + 8 + 5 < 200
    assert step_ps(cost, Step(0, n=2, B=1, pairs=4, ctx=5, admitted=["a", "b"])) == 280
    assert step_ps(cost, Step(0, n=20, B=1, pairs=4, ctx=5, admitted=["a"])) == 50 + 200 + 3 + 8 + 5


# -- whatever happens -------------------------------------------------------------------------------------------------

keys = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda pieces: text(*[number for piece in pieces for number in piece])
)
submissions = st.lists(
    st.tuples(st.integers(0, 3000), keys, st.integers(1, 12), st.none() | st.integers(0, 1500)), min_size=1, max_size=12
)


@given(submissions, st.integers(12, 30), st.integers(1, 5), st.integers(1, 20), st.booleans())
def test_every_call_ends_once_with_its_tokens(calls, blocks, seqs, budget, cache) -> None:
    engine = ReferenceEngine(
        profile(blocks, max_num_seqs=seqs, max_batched_tokens=budget, front_end=FrontEnd(7, 1)), prefix_cache=cache
    )
    for i, (at_ps, key, outputs, cancel_ps) in enumerate(calls):
        engine.submit(at_ps, i, key, 100 + i, outputs)
        if cancel_ps is not None:
            engine.cancel(at_ps + cancel_ps, i)
    engine.drain()
    assert engine.finished.keys() == set(range(len(calls)))
    for i, (at_ps, key, outputs, cancel_ps) in enumerate(calls):
        end = engine.finished[i]
        assert end.token_times_ps == sorted(set(end.token_times_ps))
        assert end.cached_tokens % 4 == 0 and end.cached_tokens < key.tokens
        if end.cancelled:
            assert cancel_ps is not None and end.done_ps >= at_ps + cancel_ps and len(end.token_times_ps) < outputs
        else:
            assert len(end.token_times_ps) == outputs and end.token_times_ps[-1] == end.done_ps
    assert len(engine.pool.free) == blocks, "everything is given back"
    assert engine.preemptions == sum(call.preemptions for call in engine.finished.values())


@given(submissions, st.integers(37, 2000))
def test_looking_more_often_changes_nothing(calls, every_ps) -> None:
    logs = []
    for stops in ([], range(0, 6000, every_ps)):
        engine = ReferenceEngine(profile(15, max_num_seqs=4, max_batched_tokens=12, front_end=FrontEnd(3, 1)))
        for i, (at_ps, key, outputs, cancel_ps) in enumerate(calls):
            engine.submit(at_ps, i, key, 100 + i, outputs)
            if cancel_ps is not None:
                engine.cancel(at_ps + cancel_ps, i)
        for stop_ps in stops:
            engine.run_until(stop_ps)
            engine.next_ps()
        engine.drain()
        logs.append((engine.finished, engine.steps))
    assert logs[0] == logs[1]


@given(submissions)
def test_submitting_as_time_goes_by_is_the_same_as_submitting_ahead(calls) -> None:
    ahead, along = (ReferenceEngine(profile(15, max_num_seqs=4, max_batched_tokens=12)) for _ in range(2))
    for i, (at_ps, key, outputs, _) in sorted(enumerate(calls), key=lambda call: call[1][0]):
        ahead.submit(at_ps, i, key, 100 + i, outputs)
        along.run_until(at_ps)
        along.submit(at_ps, i, key, 100 + i, outputs)
    ahead.drain()
    along.drain()
    assert (ahead.finished, ahead.steps) == (along.finished, along.steps)


@given(st.lists(st.tuples(keys, st.integers(1, 12)), min_size=1, max_size=12))
def test_alone_and_with_infinite_room_hits_are_ideal(calls) -> None:
    engine, tree = ReferenceEngine(profile(None, max_batched_tokens=7)), PrefixTree()
    for i, (key, outputs) in enumerate(calls):
        engine.submit(i * 100_000, i, key, i % 3, outputs)
        engine.drain()
        ideal = tree.match(key.cut(key.tokens - 1)) // 4 * 4
        assert engine.finished[i].cached_tokens == ideal
        computed = key.plus(i % 3, outputs - 1)
        tree.add(computed.cut(computed.tokens // 4 * 4))
