"""What the engine reckons in closed form is what counting one by one gives, and a long conversation stays few runs."""

from __future__ import annotations

from engine_world import profile
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.engine.batch import Batch
from workloom.engine.decoding import Decoding
from workloom.engine.engine import Engine
from workloom.engine.sequence import Sequence
from workloom.engine.timeline import Leap, Steps
from workloom.prefix import Key


@given(st.integers(1, 9), st.lists(st.integers(1, 40), max_size=6), st.integers(0, 30), st.integers(1, 40))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_blocks_of_many_steps_are_those_of_each(block: int, prompts: list[int], ticks: int, steps: int) -> None:
    decoding = Decoding(block)
    for number, prompt in enumerate(prompts):
        sequence = Sequence(str(number), Key((number,), (prompt,)), -1, 1000)
        sequence.computed, sequence.order = prompt, number
        decoding.add(sequence, 0)
    decoding.ticks += ticks
    computed = [prompt + ticks for prompt in prompts]

    def begun(step: int) -> int:
        return sum((tokens + step) % block == 0 for tokens in computed)

    assert decoding.next_blocks() == begun(0) == len(decoding.beginning())
    assert decoding.later_blocks(steps) == sum(begun(step) for step in range(1, steps))
    if computed:
        assert decoding.to_boundary() == min(-tokens % block or 1 for tokens in computed)


@given(st.integers(0, 50), st.integers(0, 12), st.integers(0, 9), st.integers(1, 30), st.integers(-20, 6000))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_steps_that_ended_are_found_without_looking_at_each(
    start: int, first: int, slope: int, length: int, at: int
) -> None:
    """Also of steps that take no time, or of which the first takes less than they grow by."""
    leap = Leap(Batch(1, 1, [], 0, length, []), start, 0, first, slope, length)
    ends = [start + sum(first + i * slope for i in range(n + 1)) for n in range(length)]
    assert leap.end_ps == ends[-1]
    assert leap.ended_by(at) == sum(end <= at for end in ends)
    steps = Steps(0, start, first, slope, length)
    assert steps.by(at) == sum(steps.at(i) <= at for i in range(length))


def conversation(engine: Engine, turns: int, tokens: int = 12) -> Key:
    """Each turn says again all that was said before."""
    key, now = Key(), 0
    for turn in range(turns):
        key = key.plus(2 * turn, tokens)
        engine.submit(now, f"turn {turn}", key, 2 * turn + 1, tokens)
        while (at := engine.next_ns()) is not None:
            now = max([now, *(done.done_ns for done in engine.advance(at))])
        key = key.plus(2 * turn + 1, tokens)
    return key


def test_a_conversation_is_one_run_however_long_and_parts_where_another_leaves_it() -> None:
    """What a turn holds and puts back does not grow with the turns before it."""
    engine = Engine(profile(kv_tokens=4000, max_batched_tokens=1000))
    key = conversation(engine, 40)
    hit = engine.cache.lookup(Sequence("", key, -1, 1))
    (run,) = [run for run, _, _ in hit.runs]
    assert (run.start, run.end) == (0, hit.blocks) and hit.tokens > 39 * 24
    other = key.cut(500).plus(-2, 30)
    engine.submit(10**9, "other", other, -3, 5)
    while (at := engine.next_ns()) is not None:
        engine.advance(at)
    (_, begin, cut), (_, after, end) = engine.cache.lookup(Sequence("", key, -1, 1)).runs
    assert (begin, end) == (0, hit.blocks) and cut == after == 500 // engine.profile.block_tokens


def test_a_conversation_is_evicted_from_its_end_and_forgotten_as_a_whole() -> None:
    engine = Engine(profile(kv_tokens=1200, max_batched_tokens=1000))
    key, size = conversation(engine, 30), engine.profile.block_tokens
    reach = engine.cache.lookup(Sequence("", key, -1, 1)).blocks
    plain = engine.queue.plain_ahead
    for taken in range(1, 101, 7):
        engine.cache.pop(plain + 7 if taken == 1 else 7)
        hit = engine.cache.lookup(Sequence("", key, -1, 1))
        assert hit.blocks == reach - taken - 6 and hit.tokens == hit.blocks * size
    engine.cache.forget()
    assert not engine.cache.root.branches and engine.cache.lookup(Sequence("", key, -1, 1)).blocks == 0
