"""An engine with memory tiers: loading, prefetch, swap, states; and what a host tier is worth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from engine_world import Fast, Turn, fitting, play, profile, worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.engine.check import check
from workloom.engine.engine import Engine, Finished
from workloom.engine.events import Admitted, Event, Preempted, Ran
from workloom.engine.profile import FrontEnd, Profile, Retention, StepCost, Tier, load
from workloom.errors import ProfileError
from workloom.prefix import Key

Chains = tuple[list[list[Turn]], list[int]]
FLAT = StepCost(weights_ps=100_000, prefill_base_ps=0, prefill_token_ps=0, sequence_ps=0, pair_ps=0, context_token_ps=0)
"""Every step takes 100 ns."""
BLOCK = 4


def host(tokens: int | None = None, read_block_ns: float = 10, **more: Any) -> Tier:
    """A tier that a block of 4 tokens (of a byte each) comes from in so many nanoseconds; it is written in 1 ns."""
    return Tier("host", tokens, BLOCK * 1e9 / read_block_ns, BLOCK * 1e9, **more)


def server(blocks: int, *tiers: Tier, **more: Any) -> Profile:
    """A made-up server without a front end."""
    toy = profile(kv_tokens=blocks * BLOCK, max_batched_tokens=64, step=FLAT, front_end=FrontEnd())
    return msgspec.structs.replace(toy, tiers=tiers, kv_token_bytes=1, **more)


def drain(engine: Engine) -> dict[str, Finished]:
    """Let everything end, with a look at the books each time something did."""
    ended = {}
    while (at_ns := engine.next_ns()) is not None:
        ended |= {end.call: end for end in engine.advance(at_ns)}
        check(engine)
    return ended


def first_ns(end: Finished) -> int:
    return end.tokens[0].end_ps // 1000


def text(number: int, tokens: int) -> Key:
    return Key().plus(number, tokens)


def warmed(engine: Engine) -> Engine:
    """Text 1 (of 32 tokens, 8 blocks) was computed, then evicted by text 2 (of 40): 8 blocks of it in the host."""
    engine.submit(0, "one", text(1, 33), 901, 1)
    drain(engine)
    engine.submit(1_000, "two", text(2, 40), 902, 1)
    drain(engine)
    return engine


def test_an_evicted_prefix_is_read_back_instead_of_computed_again() -> None:
    events: list[Event] = []
    engine = warmed(Engine(server(10, host()), listener=events.append))
    engine.submit(5_000, "again", text(1, 33), 903, 1)
    end = drain(engine)["again"]
    assert end.cached_tokens == 32
    assert first_ns(end) == 5_000 + 8 * 10 + 100, (
        "8 blocks of 10 ns, then a step: nothing else runs, so it begins at once"
    )
    assert end.admitted_ns == 5_080, "when it began to compute"
    assert [e for e in events if isinstance(e, Admitted)][-1] == Admitted(5_000_000, "again", 32, (("host", 32),))
    assert engine.tiers is not None
    gauges = engine.gauges()[""]
    assert (gauges.external_queries_tokens, gauges.external_hits_tokens) == (33 + 40 + 33, 32)
    assert (gauges.read_bytes, gauges.written_bytes) == (32, engine.tiers.tiers[0].pages * BLOCK)


def test_while_one_loads_others_decode_and_it_joins_at_the_first_boundary_after() -> None:
    engine = warmed(Engine(server(20, host(read_block_ns=25), max_num_seqs=2)))
    engine.cache.pop(18)  # all that can be found is gone from the GPU
    engine.scheduler.close(2_000_000)
    engine.queue.put_plain(18)
    engine.submit(5_000, "busy", text(3, 8), 903, 9)
    engine.submit(5_050, "loads", text(1, 33), 904, 1)
    engine.submit(5_060, "behind", text(4, 4), 905, 1)
    ends = drain(engine)
    assert [s.at(i) // 1000 for s in ends["busy"].tokens for i in range(s.length)] == [
        5_000 + 100 * i for i in range(1, 10)
    ]
    assert ends["loads"].admitted_ns == 5_300, "from 5,100 on it reads for 200 ns"
    assert ends["behind"].admitted_ns == 5_400, "who loads has one of the two seats"


def test_a_load_that_ends_within_a_step_waits_for_its_end() -> None:
    engine = warmed(Engine(server(20, host(read_block_ns=25.125))))
    engine.cache.pop(18)
    engine.scheduler.close(2_000_000)
    engine.queue.put_plain(18)
    engine.submit(5_000, "busy", text(3, 8), 903, 9)
    engine.submit(5_050, "loads", text(1, 33), 904, 1)
    assert drain(engine)["loads"].admitted_ns == 5_400, "read by 5,301"


@pytest.mark.parametrize("at_ns", [5_001, 5_079, 5_100, 5_179])
def test_a_call_cancelled_while_it_loads_or_after_leaves_nothing_behind(at_ns: int) -> None:
    engine = warmed(Engine(server(10, host())))
    engine.submit(5_000, "again", text(1, 33), 903, 5)
    engine.advance(at_ns - 1)
    check(engine)
    engine.cancel(at_ns, "again")
    end = drain(engine)["again"]
    assert (end.status, end.output_tokens) == ("cancelled", 0 if at_ns <= 5_080 else 1)
    assert engine.queue.free == engine.queue.blocks
    engine.submit(9_000, "later", text(1, 33), 904, 1)
    assert drain(engine)["later"].cached_tokens == 32, "it can be had again"


def test_prefetch_reads_while_a_call_waits_for_its_turn() -> None:
    def second(prefetch: bool) -> Finished:
        engine = warmed(Engine(server(30, host(read_block_ns=25, prefetch=prefetch), max_num_seqs=1)))
        engine.cache.pop(28)
        engine.scheduler.close(2_000_000)
        engine.queue.put_plain(28)
        engine.submit(5_000, "busy", text(3, 8), 903, 9)
        engine.submit(5_050, "waits", text(1, 33), 904, 1)
        return drain(engine)["waits"]

    assert first_ns(second(prefetch=False)) == 5_900 + 8 * 25 + 100
    assert first_ns(second(prefetch=True)) == 5_900 + 100, "its blocks came while it stood in the queue"


def test_what_was_fetched_ahead_is_given_back_to_calls_that_run() -> None:
    engine = warmed(Engine(server(11, host(prefetch=True), max_num_seqs=1)))
    engine.submit(5_000, "grows", text(3, 4), 903, 40)
    engine.submit(5_050, "waits", text(1, 33), 904, 1)
    ends = drain(engine)
    assert engine.tiers is not None
    assert engine.tiers.tiers[0].reads.transfers == 2, "fetched, given back, and read again on its turn"
    assert (ends["grows"].preemptions, ends["waits"].cached_tokens) == (0, 32)


def computed_tokens(events: list[Event]) -> int:
    return sum(chunk * e.steps for e in events if isinstance(e, Ran) for _, chunk, _ in e.prefills)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_a_call_that_is_swapped_out_goes_on_without_computing_again(preemption: str) -> None:
    events: list[Event] = []
    engine = Engine(server(10, host(), preemption=preemption), prefix_cache=False, listener=events.append)
    engine.submit(0, "old", text(1, 16), 901, 20)
    engine.submit(0, "new", text(2, 16), 902, 20)
    ends = drain(engine)
    assert [e.call for e in events if isinstance(e, Preempted)] == ["new"]
    assert [end.output_tokens for end in ends.values()] == [20, 20]
    assert len({s.at(i) for s in ends["new"].tokens for i in range(s.length)}) == 20
    again = computed_tokens(events) - 32
    assert (again == 0) == (preemption == "swap"), again
    assert engine.tiers is not None
    tier = engine.tiers.tiers[0]
    assert (tier.reads.bytes > 0) == (preemption == "swap")
    assert tier.lent == 0, "what was lent came back"


def test_without_room_to_swap_to_a_call_is_computed_again() -> None:
    events: list[Event] = []
    tiny = server(10, host(tokens=BLOCK), preemption="swap")
    engine = Engine(tiny, prefix_cache=False, listener=events.append)
    engine.submit(0, "old", text(1, 16), 901, 20)
    engine.submit(0, "new", text(2, 16), 902, 20)
    drain(engine)
    assert computed_tokens(events) > 32


def test_states_are_kept_and_read_like_blocks() -> None:
    engine = Engine(server(14, host(), state_groups=2))
    engine.submit(0, "one", text(1, 33), 901, 1)
    drain(engine)
    engine.submit(1_000, "two", text(2, 40), 902, 1)
    drain(engine)
    engine.submit(5_000, "again", text(1, 33), 903, 1)
    end = drain(engine)["again"]
    assert end.cached_tokens == 32
    assert engine.tiers is not None
    read = engine.tiers.tiers[0].reads.bytes // BLOCK
    assert first_ns(end) == 5_000 + 10 * read + 100
    assert read == 6 + 2, "6 blocks (2 of the 8 are still on the GPU), and the state behind them in two pages"


def test_forgetting_the_cache_forgets_the_tiers() -> None:
    engine = warmed(Engine(server(10, host())))
    assert engine.reset_prefix_cache(4_000)
    engine.submit(5_000, "again", text(1, 33), 903, 1)
    assert drain(engine)["again"].cached_tokens == 0


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"kv_token_bytes": 0}, "bytes of KV"),
        ({"preemption": "swap", "tiers": ()}, "needs a tier"),
        ({"preemption": "swap", "mixing": "prefill_first"}, "prefill_first"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(more: dict[str, Any], what: str) -> None:
    with pytest.raises(ProfileError, match=what):
        Engine(msgspec.structs.replace(server(10, host()), **more))


# -- any world


@st.composite
def tiered(draw: st.DrawFn) -> Profile:
    """Small servers with one tier or two, on which everything else that memory can do happens too."""
    block, groups = draw(st.sampled_from([2, 4, 5])), draw(st.sampled_from([0, 0, 1, 2]))
    speeds = st.sampled_from([1e9, 1e11, 1e12])
    tier = st.builds(
        Tier,
        name=st.just("tier"),
        tokens=st.sampled_from([None, 64, 128, 400]),
        read_bytes_per_s=speeds,
        write_bytes_per_s=speeds,
        latency_ps=st.sampled_from([0, 501, 9_001]),
        write=st.sampled_from(["evict", "through"]),
        prefetch=st.booleans(),
    )
    more: dict[str, Any] = {"mixing": draw(st.sampled_from(["decode_first", "decode_first", "prefill_first"]))}
    if more["mixing"] == "decode_first":
        more["preemption"] = draw(st.sampled_from(["swap", "recompute"]))
    if not groups:
        more["cache"] = draw(st.sampled_from(["vllm", "vllm", "sglang"]))
    if draw(st.booleans()):
        more["retention"] = Retention(draw(st.sampled_from([None, 50_000])), draw(st.sampled_from([0, 40])))
    toy = profile(kv_tokens=draw(st.sampled_from([64, 64, 72, 96])) + 2 * groups * block, block_tokens=block)
    return msgspec.structs.replace(
        toy,
        tiers=tuple(draw(st.lists(tier, min_size=1, max_size=2))),
        kv_token_bytes=1,
        state_groups=groups,
        async_scheduling=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "sjf"])),
        watermark_blocks=draw(st.sampled_from([0, 0, 2])),
        **more,
    )


@given(worlds(), tiered())
@settings(max_examples=80, deadline=None)
def test_leaping_equals_stepping_with_tiers(world: Chains, server: Profile) -> None:
    chains, starts = world
    chains = fitting(chains, 60)
    stepping = Fast(server, leap=False, log_steps=1)
    assert play(Fast(server), chains, starts) == play(stepping, chains, starts)


def test_the_worlds_of_this_test_bite() -> None:
    """A canary: without reads, writes, preemptions and swaps in such worlds the test above would prove nothing."""
    chains = [[Turn(None, 9, 14, 12, 0, None) for _ in range(6)] for _ in range(5)]
    tiers = (Tier("host", 128, 1e11, 1e11), Tier("disk", None, 1e11, 1e11))
    toy = msgspec.structs.replace(profile(kv_tokens=96), tiers=tiers, kv_token_bytes=1, preemption="swap")
    server = Fast(toy)
    play(server, fitting(chains, 80), [0, 3, 5, 9, 12])
    engine = server.engine
    assert engine.tiers is not None
    assert engine.scheduler.preemptions > 0
    assert engine.tiers.hits_tokens > 0
    assert all(tier.writes.bytes > 0 and tier.reads.bytes > 0 for tier in engine.tiers.tiers)


# -- what it is worth


def test_a_host_tier_is_worth_what_arithmetic_says() -> None:
    """Two sessions of 60,000 tokens take turns on an H100 that holds one. An 8B model's token is 131,072 bytes: 2.05 us
    over PCIe, against 20 us and more to compute it (notes on KV arithmetic: offloading is about 10 times as cheap)."""
    base = msgspec.structs.replace(load("llama-3.1-8b-h100x1"), kv_tokens=64_000)
    context = 60_000

    def turns(server: Profile) -> tuple[list[int], list[int]]:
        """Of each turn but the first of each session: its TTFT in ns, and the tokens that were read from the host."""
        events: list[Event] = []
        engine, at, ttft_ns = Engine(server, listener=events.append), 0, []
        for turn in range(6):
            engine.submit(at, str(turn), text(1 + turn % 2, context).plus(100 + turn, 100), 1_000 + turn, 1)
            end = drain(engine)[str(turn)]
            ttft_ns.append(first_ns(end) - at)
            at = end.done_ns + 1_000_000_000
        read = [sum(tokens for _, tokens in e.fetched) for e in events if isinstance(e, Admitted)]
        return ttft_ns[2:], read[2:]

    on_gpu, _ = turns(msgspec.structs.replace(base, kv_tokens=None))
    computed, _ = turns(base)
    reloaded, read = turns(msgspec.structs.replace(base, tiers=(Tier("host", 400_000, 64e9, 64e9),)))
    assert base.kv_token_bytes == 131_072
    assert min(read) > context * 9 // 10
    for gpu_ns, without_ns, ttft_ns, tokens in zip(on_gpu, computed, reloaded, read, strict=True):
        assert ttft_ns - gpu_ns == pytest.approx(tokens * 2_048, rel=1e-5), "reading it, and nothing else"
        assert without_ns - gpu_ns > tokens * 19_000, "computing it: 19 us a token, and more with context"
        assert without_ns / ttft_ns > 9
