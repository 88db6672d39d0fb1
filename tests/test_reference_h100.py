"""Sessions of the published H100 measurements, worked out by hand: which blocks each call finds.

The server of the rows in ../shared/data/h100-vllm: blocks of 1,056 tokens, three groups of layers with a state beside
one with KV, prefills cut at the last whole block; the template adds 17 + 5.67 * level tokens, of which the last 6 open
the answer, and the answer comes back rewritten. Every call adds 500 tokens and is answered with 300.

    level                0      1      2      3      4
    prompt, tokens     517  1,323  2,128  2,934  3,740
    the same as the
    last call's up to    -    511  1,317  2,122  2,928
    blocks found         0      0      1      2      2
"""

from __future__ import annotations

import msgspec
import pytest
from engine_world import Done, Fast, Server, Slow, profile

from workloom.engine.profile import FrontEnd, Profile, StepCost
from workloom.prefix import Key

BLOCK = 1056
HEAD, TURN, TAIL = 1, 2, 3
MS = 1_000_000
"""Nanoseconds."""

SERVER: Profile = profile(
    block_tokens=BLOCK,
    kv_tokens=741 * BLOCK,
    max_num_seqs=1024,
    max_batched_tokens=8192,
    max_model_len=131_072,
    state_groups=3,
    async_scheduling=True,
    front_end=FrontEnd(10_400_000_000, 5_900_000, 2_500_000_000, 8_000_000_000),
    step=StepCost(
        weights_ps=5_540_000_000,
        prefill_base_ps=22_180_000_000,
        prefill_token_ps=27_500_000,
        sequence_ps=0,
        pair_ps=400,
        context_token_ps=10_000,
        experts_ps=16_640_000_000,
        experts=256,
        experts_per_token=8,
        launch_ps=50_000_000_000,
        admit_ps=8_400_000_000,
        launch_tail_ps=2_300_000_000,
        graph_tokens=512,
        graph_launch_ps=17_200_000_000,
        graph_token_ps=22_200_000,
        graph_sizes=(1, 2, *range(4, 257, 4)),
    ),
)
"""With the coefficients of the feasibility study: they say when, not what is found."""


def prompt(*questions: int) -> Key:
    """A prompt that asks these, one after the other; each was answered, and both are texts of their own numbers."""
    key = Key().plus(HEAD, 11)
    for level, question in enumerate(questions):
        if level:
            key = key.plus(TURN, round(5.67 * level) - round(5.67 * (level - 1)))
        key = key.plus(question, 500)
        if level + 1 < len(questions):
            key = key.plus(10_000 + questions[level + 1], 300)
    return key.plus(TAIL, 6)


def play(server: Server, calls: list[list[tuple[str, Key]]]) -> dict[str, Done]:
    """Groups of calls, each sent 7 ms after all of the group before are done."""
    done: dict[str, Done] = {}
    at = 0
    for group in calls:
        for name, key in group:
            server.submit(at, name, key, 1_000_000 + int(name), 300)
        wanted = len(done) + len(group)
        while len(done) < wanted:
            soon = server.next_ns()
            assert soon is not None
            done |= {each.call: each for each in server.advance(soon)}
            at = soon + 7 * MS
    return done


def found(done: dict[str, Done]) -> list[int]:
    return [done[name].cached // BLOCK for name in sorted(done, key=int)]


@pytest.mark.parametrize("engine", [Slow, Fast])
def test_a_chain_of_five_finds_five_blocks(engine: type[Slow | Fast]) -> None:
    levels = [prompt(*range(100, 101 + level)) for level in range(5)]
    assert [key.tokens for key in levels] == [517, 1323, 2128, 2934, 3740]
    done = play(engine(SERVER), [[(str(level), key)] for level, key in enumerate(levels)])
    assert found(done) == [0, 0, 1, 2, 2]
    assert sum(found(done)) * BLOCK / sum(key.tokens for key in levels) == pytest.approx(0.496, abs=0.001)


@pytest.mark.parametrize("engine", [Slow, Fast])
def test_without_its_template_a_chain_finds_less(engine: type[Slow | Fast]) -> None:
    """2,100 tokens reach the end of one block, the 2,128 that the server sees the end of two."""
    levels = [prompt(*range(100, 101 + level)) for level in range(5)]
    bare = [key.cut(key.tokens - 17 - round(5.67 * level)) for level, key in enumerate(levels)]
    done = play(engine(SERVER), [[(str(level), key)] for level, key in enumerate(bare)])
    assert found(done) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("engine", [Slow, Fast])
def test_a_graph_of_fifteen_finds_twenty_five_blocks(engine: type[Slow | Fast]) -> None:
    """0 -> 1 -> {2,3,4}; 2 -> {5,6,7}, 3 -> {8,9,10}, 4 -> {11,12,13}; then 14, from 13. Siblings ask the same.

    Of three equal siblings that come at once the first finds one block and makes the second; the others wait a step for
    it, since a state that a step makes cannot be used in it.
    """
    siblings = prompt(100, 101, 102)
    leaves = [(str(5 + 3 * parent + i), prompt(100, 101, 102, 103 + parent)) for parent in range(3) for i in range(3)]
    groups = [
        [("0", prompt(100))],
        [("1", prompt(100, 101))],
        [("2", siblings), ("3", siblings), ("4", siblings)],
        leaves,
        [("14", prompt(100, 101, 102, 105, 106))],
    ]
    done = play(engine(SERVER), groups)
    assert found(done) == [0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert sum(found(done)) == 25
    prompts = sum(key.tokens for group in groups for _, key in group)
    assert sum(found(done)) * BLOCK / prompts == pytest.approx(0.690, abs=0.002)


@pytest.mark.parametrize("engine", [Slow, Fast])
def test_without_states_the_siblings_do_not_wait_and_do_not_share(engine: type[Slow | Fast]) -> None:
    """Plain attention, no cut at the block's end: all three are computed at once, from the block their parent left."""
    siblings = [(name, prompt(100, 101, 102)) for name in "234"]
    plain = msgspec.structs.replace(SERVER, state_groups=0, front_end=FrontEnd())
    done = play(engine(plain), [[("0", prompt(100))], [("1", prompt(100, 101))], siblings])
    assert found(done) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("engine", [Slow, Fast])
def test_a_prompt_runs_to_its_last_whole_block_and_then_to_its_end(engine: type[Slow | Fast]) -> None:
    """3,740 tokens with 2,112 found: 1,056 eagerly, then 572; the second launch waits for the first."""
    levels = [prompt(*range(100, 101 + level)) for level in range(5)]
    alone = play(engine(SERVER), [[(str(level), key)] for level, key in enumerate(levels)])["4"]
    first_ps = alone.tokens_ps[0] - 1000 * (alone.admitted_ns or 0)
    eager, second = 50_000_000_000 + 8_400_000_000, 50_000_000_000
    assert first_ps == pytest.approx(eager + second + 2_300_000_000 + 2_500_000_000, abs=1000)
