"""Memory in the engine: state pages, mixing, limits, time to live, pins, merged duplicates."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from engine_world import Fast, Turn, fitting, play, profile, worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.engine.check import check
from workloom.engine.engine import Engine, Finished
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd, Profile, Retention, StepCost
from workloom.errors import ProfileError, Refused
from workloom.prefix import Key

Chains = tuple[list[list[Turn]], list[int]]
FLAT = StepCost(weights_ps=100_000, prefill_base_ps=0, prefill_token_ps=0, sequence_ps=0, pair_ps=0, context_token_ps=0)
"""Every step takes 100 ns."""


def server(blocks: int | None = None, block_tokens: int = 4, **more: Any) -> Profile:
    """A made-up server without a front end on which every step takes 100 ns."""
    kv = None if blocks is None else blocks * block_tokens
    toy = profile(kv_tokens=kv, block_tokens=block_tokens, max_batched_tokens=64, step=FLAT, front_end=FrontEnd())
    return msgspec.structs.replace(toy, **more)


def hybrid(blocks: int | None = None, groups: int = 2, **more: Any) -> Profile:
    return server(blocks, state_groups=groups, **more)


def run(engine: Engine, *calls: tuple[int, str, Key, int], hints: Hints | None = None) -> dict[str, Finished]:
    """Submit calls (at ns, name, prompt, output tokens) with answers of their own and run until all is over."""
    ended: dict[str, Finished] = {}
    for number, (at, call, prompt, output) in enumerate(calls):
        for end in engine.advance(at):
            ended[end.call] = end
        engine.submit(at, call, prompt, 1_000_000 + number, output, hints or Hints())
    while (at_ns := engine.next_ns()) is not None:
        for end in engine.advance(at_ns):
            ended[end.call] = end
        check(engine)
    return ended


def text(*pieces: int) -> Key:
    """text(7, 100, 12, 30): 100 tokens of text 7, then 30 of text 12."""
    return Key().then(zip(pieces[::2], pieces[1::2], strict=True))


class _Steps(Engine):
    """An engine that notes the prefill chunks of every step."""

    def __init__(self, profile: Profile) -> None:
        self.chunks: list[dict[str, int]] = []
        super().__init__(profile)
        schedule = self.scheduler.schedule

        def noted(at_ps: int) -> Any:
            batch = schedule(at_ps)
            self.chunks.append({sequence.call: chunk for sequence, chunk in batch.prefills})
            return batch

        self.scheduler.schedule = noted  # type: ignore[method-assign]


# -- state pages ------------------------------------------------------------------------------------------------------


def test_a_prefill_is_cut_at_the_last_whole_block() -> None:
    engine = _Steps(server(block_tokens=1056, max_batched_tokens=8192, state_groups=3))
    ended = run(engine, (0, "a", text(1, 2300), 1), (1000, "b", text(1, 2200, 2, 1540), 1))
    assert ended["b"].cached_tokens == 2112
    assert [c for c in engine.chunks if c] == [{"a": 2112}, {"a": 188}, {"b": 1056}, {"b": 572}]


@given(worlds(), st.sampled_from([64, 72, 96, None]), st.sampled_from([2, 4, 5]), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_leaping_equals_stepping_with_states(world: Chains, kv: int | None, block: int, groups: int) -> None:
    chains, starts = world
    toy = msgspec.structs.replace(
        profile(kv_tokens=None if kv is None else kv + 2 * groups * block, block_tokens=block), state_groups=groups
    )
    chains = fitting(chains, 60)
    stepping = Fast(toy, leap=False, log_steps=1)
    assert play(Fast(toy), chains, starts) == play(stepping, chains, starts)


H100 = dict(block_tokens=1056, kv_tokens=741 * 1056, max_num_seqs=1024, max_batched_tokens=8192, state_groups=3)
"""vLLM 0.17.1 as the rows of notes/simulation.md were measured on it."""


class _Session:
    """One session of case study 2 or 3 as that server sees it: answers come back in another form, and the template
    adds 17 tokens, of which 6 open the answer, and 5.67 for every turn behind it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prompts: dict[int, Key] = {}
        self.blocks: dict[int, int] = {}

    def send(self, at_ns: int, node: int, parent: int | None, level: int, said: int) -> None:
        tokens = 500 + 800 * level + 17 + round(5.67 * level)
        key = Key()
        if parent is not None:
            before = self.prompts[parent]
            key = before.cut(before.tokens - 6).plus(5_000 + parent, 300)
        self.prompts[node] = key.plus(1_000 + said, tokens - key.tokens)
        self.engine.submit(at_ns, str(node), self.prompts[node], 9_000 + node, 300)

    def drain(self) -> int:
        """Let everything end; when it did."""
        at = 0
        while (next_ns := self.engine.next_ns()) is not None:
            at = next_ns
            for ended in self.engine.advance(at):
                self.blocks[int(ended.call)] = ended.cached_tokens // 1056
            check(self.engine)
        return at


def test_a_linear_session_hits_as_the_h100_did() -> None:
    session = _Session(Engine(server(**H100)))
    at = 0
    for turn in range(5):
        session.send(at, turn, turn - 1 if turn else None, turn, turn)
        at = session.drain()
    assert [session.prompts[turn].tokens for turn in range(5)] == [517, 1323, 2128, 2934, 3740]
    assert [session.blocks[turn] for turn in range(5)] == [0, 0, 1, 2, 2]


def test_a_dag_session_whose_siblings_say_the_same_hits_as_the_h100_did() -> None:
    """Siblings wait for the state that the first of them makes: 25 blocks of 15 calls, a hit rate of 0.690."""
    session = _Session(Engine(server(**H100)))
    session.send(0, 0, None, 0, 0)
    session.send(session.drain(), 1, 0, 1, 1)
    at = session.drain()
    for node in (2, 3, 4):
        session.send(at, node, 1, 2, 2)
    at = session.drain()
    for node in range(5, 14):
        parent = 2 + (node - 5) // 3
        session.send(at, node, parent, 3, 3 + parent)
    session.send(session.drain(), 14, 13, 4, 14)
    session.drain()
    assert [session.blocks[node] for node in range(15)] == [0, 0, 1, 2, 2] + [2] * 9 + [2]
    prompts = sum(key.tokens for key in session.prompts.values())
    assert 25 * 1056 / prompts == pytest.approx(0.690, abs=0.005)


def test_a_call_holds_its_state_pages_and_for_one_step_the_old_ones_too() -> None:
    engine = hybrid(20, groups=2)
    used = []
    one = Engine(engine, leap=False)
    one.submit(0, "a", text(1, 6), 9, 5)
    while (at := one.next_ns()) is not None:
        used.append(20 - one.queue.free)
        one.advance(at)
    # 4 tokens in 1 block; 2 more in a second, from the old pages; 7 and 8; the 9th turns the page again; 10 does not.
    assert used == [1 + 2, 2 + 4, 2 + 2, 2 + 2, 3 + 4, 3 + 2]


def test_states_are_found_where_a_step_ended_and_nowhere_else() -> None:
    toy = hybrid(max_batched_tokens=12)
    a = (0, "a", text(1, 30), 8)  # steps end at 12, 24, 28, 30; its answer comes to 32 and 36
    ended = run(
        Engine(toy),
        a,
        (5_000, "at 28", text(1, 30, 2, 5), 1),
        (6_000, "at 24", text(1, 27, 3, 5), 1),
        (7_000, "at 12", text(1, 23, 4, 5), 1),
        (8_000, "nowhere", text(1, 11, 5, 5), 1),
        (9_000, "in the answer", text(1, 30, 1_000_000, 7, 6, 5), 1),
    )
    assert [end.cached_tokens for end in ended.values()] == [0, 28, 24, 12, 0, 36]


def test_a_state_in_the_making_is_waited_for_and_the_queue_behind_with_it() -> None:
    engine = _Steps(hybrid())
    ended = run(engine, (0, "a", text(1, 10), 1), (0, "like a", text(1, 8, 2, 4), 1), (0, "other", text(3, 3), 1))
    assert engine.chunks == [{"a": 8}, {"a": 2, "like a": 4, "other": 3}]
    assert ended["like a"].cached_tokens == 8
    engine = _Steps(server())
    run(engine, (0, "a", text(1, 10), 1), (0, "like a", text(1, 8, 2, 4), 1), (0, "other", text(3, 3), 1))
    assert engine.chunks == [{"a": 10, "like a": 12, "other": 3}], "without states nobody waits, and nobody hits"


def test_a_state_of_which_a_page_is_gone_is_not_found() -> None:
    engine = Engine(hybrid(8, groups=2))
    run(engine, (0, "a", text(1, 9), 1))  # 3 blocks, state of 8 kept: its pages went first, after 8 - 7 unused blocks
    hits = run(engine, (1_000, "b", text(2, 4), 1), (2_000, "again", text(1, 9), 1))
    # b takes the unused block and its two pages: of what a let go, plain pages first.
    assert hits["again"].cached_tokens == 8
    hits = run(engine, (3_000, "c", text(3, 8), 1), (4_000, "again", text(1, 9), 1))
    assert hits["again"].cached_tokens == 0 and engine.queue.evicted > 0


def test_a_call_that_needs_more_than_the_pool_with_its_states_is_refused() -> None:
    toy = hybrid(6, groups=2)
    assert toy.longest_call == 2 * 4 + 1
    ended = run(Engine(toy), (0, "just", text(1, 7), 2))
    assert ended["just"].output_tokens == 2
    with pytest.raises(Refused, match="KV cache"):
        Engine(toy).submit(0, "more", text(1, 8), 9, 2)
    assert hybrid(2, groups=2).longest_call == 0


@pytest.mark.parametrize("prompt", [7, 8, 9])
def test_a_call_whose_prompt_another_engine_made_holds_states_like_any_other(prompt: int) -> None:
    """A prompt that ends at a boundary brings a state that stays findable, and its next token turns the page."""
    ended = []
    for leap in (True, False):
        engine = Engine(hybrid(12, groups=2), leap=leap)
        at = 0
        for call, output in (("a", 6), ("b", 9)):
            engine.receive(at, call, text(1, prompt), 1_000_000, output)
            while (next_ns := engine.next_ns()) is not None:
                at = next_ns
                check(engine)
                ended += engine.advance(at)
                check(engine)
        assert engine.queue.free == 12
        again = run(engine, (at + 500, "again", text(1, prompt, 2, 3), 1))
        assert again["again"].cached_tokens == (8 if prompt == 8 else 0)
    assert len(ended) == 4
    assert [end.done_ns for end in ended[:2]] == [end.done_ns for end in ended[2:]]


def test_a_step_shorter_than_a_block_cannot_prefill_a_model_with_states() -> None:
    with pytest.raises(ProfileError, match="shorter than a block"):
        Engine(hybrid(max_batched_tokens=3))
    with pytest.raises(ProfileError, match="sglang"):
        Engine(hybrid(cache="sglang"))


# -- who gets the tokens of a step ------------------------------------------------------------------------------------


def instants(end: Finished) -> list[int]:
    """When the tokens of an answer came, in steps of 100 ns."""
    return [steps.at(i) // 100_000 for steps in end.tokens for i in range(steps.length)]


def test_prefill_first_pauses_the_decoding_calls() -> None:
    calls = ((0, "a", text(1, 4), 5), (150, "b", text(2, 100), 3))
    beside = run(Engine(server(max_batched_tokens=50)), *calls)
    assert [instants(beside[call]) for call in "ab"] == [[1, 2, 3, 4, 5], [5, 6, 7]]
    first = run(Engine(server(max_batched_tokens=50, mixing="prefill_first")), *calls)
    assert [instants(first[call]) for call in "ab"] == [[1, 2, 5, 6, 7], [4, 5, 6]]


def test_prefill_first_lets_decoding_calls_go_on_while_nobody_finds_room() -> None:
    toy = server(10, mixing="prefill_first")
    ended = run(Engine(toy), (0, "a", text(1, 20), 5), (150, "b", text(2, 24), 2))
    assert [instants(ended[call]) for call in "ab"] == [[1, 2, 3, 4, 5], [6, 7]]


def test_prefill_tokens_of_a_step_can_be_bounded() -> None:
    engine = _Steps(server(max_prefill_tokens=10))
    run(engine, (0, "a", text(1, 14), 1), (0, "b", text(2, 14), 1))
    assert engine.chunks == [{"a": 10}, {"a": 4, "b": 6}, {"b": 8}]


def test_an_admission_leaves_the_watermark_free_unless_nothing_runs() -> None:
    for watermark, came in ((0, [2, 3]), (3, [6, 7])):
        toy = server(8, watermark_blocks=watermark)
        ended = run(Engine(toy), (0, "a", text(1, 16), 5), (50, "b", text(2, 8), 2))
        assert instants(ended["b"]) == came
    alone = run(Engine(server(8, watermark_blocks=8)), (0, "a", text(1, 30), 2))
    assert instants(alone["a"]) == [1, 2]


def test_the_shortest_job_overtakes_a_head_that_was_refused() -> None:
    toy = server(8, policy="sjf")
    calls = ((0, "a", text(1, 20), 5), (50, "long", text(2, 16), 1), (150, "short", text(3, 4), 1))
    ended = run(Engine(toy), *calls)
    assert [instants(ended[call])[0] for call in ("a", "long", "short")] == [1, 6, 3]
    ended = run(Engine(server(8)), *calls)
    assert [instants(ended[call])[0] for call in ("a", "long", "short")] == [1, 6, 6]


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_what_nobody_used_for_the_time_to_live_is_not_found() -> None:
    toy = server(retention=Retention(ttl_ps=1_000_000))
    a = (0, "a", text(1, 9), 1)  # its blocks are free at 100
    assert run(Engine(toy), a, (1_099, "b", text(1, 9), 1))["b"].cached_tokens == 8
    assert run(Engine(toy), a, (1_100, "b", text(1, 9), 1))["b"].cached_tokens == 0
    # The use at 1,000 ends at 1,100: it is found again, though it is older than 1,000.
    used = run(Engine(toy), a, (1_000, "b", text(1, 5), 1), (2_050, "c", text(1, 9), 1))
    assert used["b"].cached_tokens == 4 and used["c"].cached_tokens == 4
    states = run(Engine(hybrid(retention=Retention(ttl_ps=1_000_000))), a, (2_000, "b", text(1, 9), 1))
    assert states["b"].cached_tokens == 0


def test_held_blocks_never_expire() -> None:
    toy = server(retention=Retention(ttl_ps=1_000_000))
    ended = run(Engine(toy), (0, "a", text(1, 8), 50), (4_000, "b", text(1, 9), 1))
    assert ended["b"].cached_tokens == 8


def test_pinned_blocks_are_not_evicted() -> None:
    for room, cached in ((0, 0), (16, 16)):
        engine = Engine(server(10, retention=Retention(pinned_tokens=room)))
        run(engine, (0, "a", text(1, 16, 2, 4), 1), hints=Hints(pin_tokens=17))
        assert engine.cache.pins.blocks == room // 4
        run(engine, (1_000, "flood", text(3, 24), 1), (1_500, "flood again", text(5, 24), 1))
        assert run(engine, (2_000, "b", text(1, 16, 4, 4), 1))["b"].cached_tokens == cached


def test_the_oldest_pin_makes_room_and_one_asked_for_again_is_the_newest() -> None:
    engine = Engine(server(20, retention=Retention(pinned_tokens=16)))
    for at, number in enumerate((1, 2, 1, 3)):
        run(engine, (1_000 * at, f"c{at}", text(number, 9), 1), hints=Hints(pin_tokens=8))
    assert engine.cache.pins.blocks == 4
    run(engine, (8_000, "flood", text(9, 64), 1))
    cached = {n: run(engine, (9_000 + n, f"again{n}", text(n, 9), 1))[f"again{n}"].cached_tokens for n in (1, 2, 3)}
    assert cached == {1: 8, 2: 0, 3: 8}


def test_a_pin_gives_way_to_a_call_that_could_else_not_run() -> None:
    engine = Engine(server(10, retention=Retention(pinned_tokens=32)))
    run(engine, (0, "a", text(1, 33), 1), hints=Hints(pin_tokens=32))
    assert engine.queue.free == 2
    ended = run(engine, (1_000, "wide", text(2, 20), 20))
    assert ended["wide"].output_tokens == 20 and ended["wide"].preemptions == 0
    assert engine.cache.pins.blocks == 0


def test_a_pin_keeps_the_state_at_its_end() -> None:
    engine = Engine(hybrid(10, retention=Retention(pinned_tokens=24)))
    run(engine, (0, "a", text(1, 13), 1), hints=Hints(pin_tokens=13))
    assert engine.cache.pins.blocks == 3 + 2
    run(engine, (1_000, "flood", text(3, 4), 1), (2_000, "flood 2", text(4, 4), 1))
    assert run(engine, (3_000, "b", text(1, 14), 1))["b"].cached_tokens == 12


def test_forgetting_lets_go_of_pins() -> None:
    engine = Engine(server(10, retention=Retention(pinned_tokens=16)))
    run(engine, (0, "a", text(1, 9), 1), hints=Hints(pin_tokens=8))
    assert engine.reset_prefix_cache(1_000)
    check(engine)
    assert run(engine, (2_000, "b", text(1, 9), 1))["b"].cached_tokens == 0


# -- sglang's cache ---------------------------------------------------------------------------------------------------


def test_blocks_computed_twice_are_kept_once() -> None:
    for cache, used in (("vllm", 8), ("sglang", 4)):
        engine = Engine(server(20, cache=cache))
        calls = ((0, "a", text(1, 16), 3), (0, "b", text(1, 16), 3))
        for at, call, key, output in calls:
            engine.submit(at, call, key, 9, output)
        engine.next_ns()
        engine.advance(150)
        check(engine)
        assert 20 - engine.queue.free == used + 2, "of the prompts, and one each for the second token"


def test_blocks_nobody_can_find_are_taken_before_any_that_can() -> None:
    for cache, cached in (("vllm", 0), ("sglang", 16)):
        engine = Engine(server(8, cache=cache))
        run(engine, (0, "a", text(1, 17), 1), (1_000, "b", text(2, 3), 1))  # 4 findable, 4 plain: one of a, one of b
        run(engine, (2_000, "c", text(3, 3), 1), (3_000, "d", text(4, 3), 1), (4_000, "e", text(5, 3), 1))
        run(engine, (5_000, "f", text(6, 15), 1))
        assert run(engine, (6_000, "again", text(1, 17), 1))["again"].cached_tokens == cached


# -- whatever the server ----------------------------------------------------------------------------------------------


class _Asking(Fast):
    """An engine whose calls ask for a part of their prompt to be pinned, and have priorities."""

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        number = answer // 2
        hints = Hints(pin_tokens=prompt.tokens * (number % 4) // 3, priority=number % 3)
        self.engine.submit(at_ns, call, prompt, answer, output, hints)


@st.composite
def servers(draw: st.DrawFn) -> Profile:
    """A toy server with any of what this file is about."""
    block = draw(st.sampled_from([1, 2, 4, 5]))
    cache = draw(st.sampled_from(["vllm", "vllm", "sglang"]))
    groups = draw(st.sampled_from([0, 0, 1, 3])) if cache == "vllm" else 0
    room = draw(st.sampled_from([64, 72, 96, 160, None]))
    retention = Retention(
        ttl_ps=draw(st.sampled_from([None, 20_000, 200_000, 2_000_000])),
        pinned_tokens=draw(st.sampled_from([0, 0, 13, 40, 60])),
    )
    return msgspec.structs.replace(
        profile(kv_tokens=None if room is None else room + 2 * groups * block, block_tokens=block),
        state_groups=groups,
        cache=cache,
        retention=retention,
        mixing=draw(st.sampled_from(["decode_first", "prefill_first"])),
        policy=draw(st.sampled_from(["fcfs", "sjf", "priority"])),
        max_prefill_tokens=draw(st.sampled_from([None, 5, 9])),
        watermark_blocks=draw(st.sampled_from([0, 0, 1, 5])),
        async_scheduling=draw(st.booleans()),
    )


@given(worlds(), servers())
@settings(max_examples=120, deadline=None)
def test_leaping_equals_stepping_whatever_the_server(world: Chains, toy: Profile) -> None:
    chains, starts = world
    chains = fitting(chains, 60)
    stepping = _Asking(toy, leap=False, log_steps=1)
    log = play(_Asking(toy), chains, starts)
    assert log == play(stepping, chains, starts)
    assert sum(len(chain) for chain in chains) >= len(log)
