"""The engine against a slow model of the same rules, against itself without leaps, and against its own books."""

from __future__ import annotations

import pytest
from engine_world import Fast, Slow, Turn, fitting, play, profile, worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.engine.engine import Engine
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd, StepCost
from workloom.errors import Refused
from workloom.prefix import Key, PrefixTree

Chains = tuple[list[list[Turn]], list[int]]


@given(worlds(), st.sampled_from([64, 72, 96, 160, None]), st.sampled_from([1, 2, 4, 5]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_engine_equals_the_slow_reference_model_to_the_picosecond(
    world: Chains, kv: int | None, block: int, cache: bool
) -> None:
    chains, starts = world
    server = profile(kv_tokens=kv, block_tokens=block)
    chains = fitting(chains, 60)
    fast = play(Fast(server, prefix_cache=cache), chains, starts)
    slow = play(Slow(server, prefix_cache=cache), chains, starts)
    assert fast == slow


@given(worlds(), st.sampled_from([64, 96, 400, None]), st.sampled_from([1, 4, 16]))
@settings(max_examples=200, deadline=None)
def test_leaping_equals_stepping(world: Chains, kv: int | None, block: int) -> None:
    chains, starts = world
    server = profile(kv_tokens=kv, block_tokens=block, max_batched_tokens=8)
    chains = fitting(chains, 60)
    stepping = Fast(server, leap=False, books=False, log_steps=1)
    assert play(Fast(server), chains, starts) == play(stepping, chains, starts)


def test_the_worlds_of_these_tests_bite() -> None:
    """A canary: without preemption, eviction, hits and chunks in them, the two tests above would prove nothing."""
    chains = [[Turn(None, 9, 30, 12, 0, None) for _ in range(4)] for _ in range(4)]
    server = Fast(profile(kv_tokens=96))
    log = play(server, fitting(chains, 80), [0, 3, 5, 9])
    assert server.engine.scheduler.preemptions > 0
    assert server.engine.queue.evicted > 0
    assert sum(done.cached for done in log) > 0
    steps_taken = server.engine.scheduler.step
    assert steps_taken > 2 * len(log)


@given(worlds(cancels=False), st.sampled_from([1, 4, 16]))
@settings(max_examples=150, deadline=None)
def test_with_infinite_capacity_hits_are_the_ideal_and_with_overlap_never_above(world: Chains, block: int) -> None:
    chains, starts = world
    one_by_one = profile(block_tokens=block, max_num_seqs=1, front_end=FrontEnd())
    for server, exact in ((one_by_one, True), (profile(block_tokens=block), False)):
        seen = _Watch(Fast(server))
        log = play(seen, chains, starts)
        tree, known = PrefixTree(), {}
        for name in seen.order:
            key, answer = seen.prompts[name]
            known[name] = min(tree.match(key), key.tokens - 1) // block * block
            done = next(done for done in log if done.call == name)
            if exact:
                tree.add(key.plus(answer, len(done.tokens_ps) - 1))
        if exact:
            assert {done.call: done.cached for done in log} == known
        else:
            everything = PrefixTree()
            for name, (key, answer) in seen.prompts.items():
                limit = min(everything.match(key), key.tokens - 1) // block * block
                assert next(done for done in log if done.call == name).cached <= limit
                everything.add(key.plus(answer, 10_000))


class _Watch(Fast):
    """Remembers what was submitted, and in which order calls were answered (with one seat: admitted)."""

    def __init__(self, fast: Fast) -> None:
        self.engine, self.books = fast.engine, fast.books
        self.prompts: dict[str, tuple[Key, int]] = {}
        self.order: list[str] = []

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        self.prompts[call] = (prompt, answer)
        self.order.append(call)
        super().submit(at_ns, call, prompt, answer, output, hints)


def test_the_last_prompt_token_is_always_computed() -> None:
    engine = Engine(profile(block_tokens=4))
    engine.submit(0, "a", Key().plus(1, 8), 2, 1)
    engine.advance(1_000)
    engine.submit(1_000, "b", Key().plus(1, 8), 3, 1)
    assert engine.advance(2_000)[0].cached_tokens == 4, "8 tokens are known, one block of two may be used"


def test_a_cancelled_call_gives_its_blocks_back_and_keeps_the_tokens_it_made() -> None:
    engine = Engine(profile(kv_tokens=64))
    engine.submit(0, "a", Key().plus(1, 8), 2, 40)
    engine.cancel(100, "a")
    (end,) = engine.advance(10_000)
    assert end.status == "cancelled"
    assert 0 < end.output_tokens < 40
    assert engine.queue.free == engine.queue.blocks
    assert engine.next_ns() is None


def test_a_call_that_can_never_fit_is_refused_at_once() -> None:
    engine = Engine(profile(kv_tokens=64, max_model_len=100))
    with pytest.raises(Refused, match="context"):
        engine.submit(0, "a", Key().plus(1, 90), 2, 20)
    with pytest.raises(Refused, match="KV cache"):
        engine.submit(0, "b", Key().plus(1, 60), 2, 20)
    assert engine.next_ns() is None, "a refused call leaves nothing behind"


def test_how_often_somebody_looks_changes_nothing() -> None:
    chains = [[Turn(None, 9, 20, 12, 5, None) for _ in range(3)] for _ in range(3)]
    quiet, nosy = Fast(profile(kv_tokens=200)), _Nosy(Fast(profile(kv_tokens=200)))
    assert play(quiet, chains, [0, 2, 4]) == play(nosy, chains, [0, 2, 4])


class _Nosy(Fast):
    """Asks for tokens and step ends all the time, as `serve` does."""

    def __init__(self, fast: Fast) -> None:
        self.engine, self.books = fast.engine, fast.books

    def next_ns(self) -> int | None:
        at = super().next_ns()
        if at is not None:
            self.engine.generated("0/0", at)
            step = self.engine.next_step_ns(max(0, at - 50))
            assert step is not None
        return at


def test_tokens_so_far_are_those_of_the_steps_that_ended() -> None:
    engine = Engine(profile())
    engine.submit(0, "a", Key().plus(1, 20), 2, 9)
    seen = []
    at = 0
    while (step := engine.next_step_ns(at)) is not None:
        at = max(step, at + 1)
        seen.append(engine.generated("a", at))
        if engine.advance(at):
            break
    assert seen == sorted(seen)
    assert seen[-2] == 8, "each decode step is one token"


def test_infinite_leaps_cost_events_not_tokens() -> None:
    """A million tokens are a handful of leaps."""
    engine = Engine(profile(max_model_len=3_000_000, max_batched_tokens=1000))
    engine.submit(0, "a", Key().plus(1, 1_000_000), 2, 1_000_000)
    (end,) = engine.advance(1 << 62)
    assert end.output_tokens == 1_000_000
    assert len(end.tokens) == 2


def test_decode_batches_are_padded_to_graph_sizes() -> None:
    step = StepCost(100, 0, 0, 10, 0, 0, graph_sizes=(1, 4))
    engine = Engine(profile(step=step, front_end=FrontEnd()))
    for name in "abc":
        engine.submit(0, name, Key().plus(ord(name), 4), 1000 + ord(name), 2)
    ends = engine.advance(1_000_000)
    assert [end.tokens[0].at(0) for end in ends] == [100] * 3
    assert [end.tokens[-1].at(end.tokens[-1].length - 1) for end in ends] == [100 + 100 + 40] * 3
