"""What an engine counts: hits when a call is admitted, sources when it ends, bytes as they are asked of a tier."""

from __future__ import annotations

from cluster_world import toy
from engine_world import Done, Turn, fitting, play, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.engine.engine import Engine
from workloom.engine.figures import counters
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Tier
from workloom.prefix import Key

HOST = Tier("host", tokens=400, read_bytes_per_s=1e9, write_bytes_per_s=1e9, latency_ps=5_000)
SERVERS = {
    "plain": toy(),
    "host tier": replace(toy(120), tiers=(HOST,)),
    "prefetch": replace(toy(120), tiers=(replace(HOST, prefetch=True),)),
}


class Counted:
    """An engine whose counters are read whenever time moves."""

    def __init__(self, server: str) -> None:
        self.engine = Engine(SERVERS[server])
        self.last: dict[str, float] = {}
        self.ended: dict[str, tuple[int, int]] = {}
        self.prompts: dict[str, int] = {}

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        self.engine.submit(at_ns, call, prompt, answer, output, hints)
        self.prompts[call] = prompt.tokens

    def cancel(self, at_ns: int, call: str) -> None:
        self.engine.cancel(at_ns, call)

    def next_ns(self) -> int | None:
        return self.engine.next_ns()

    def advance(self, to_ns: int) -> list[Done]:
        ends = self.engine.advance(to_ns)
        for end in ends:
            self.ended[end.call] = self.prompts[end.call], end.cached_tokens
        self.read()
        return [
            Done(
                end.call,
                end.status,
                end.cached_tokens,
                end.preemptions,
                [],
                end.done_ns,
                end.queued_ns,
                end.admitted_ns,
            )
            for end in ends
        ]

    def read(self) -> None:
        now = {f"{name}/{of}": value for name, _, values, _ in counters(self.engine) for of, value in values.items()}
        assert all(value >= self.last.get(name, 0) for name, value in now.items()), "counters never fall"
        sources = [value for name, value in now.items() if name.startswith("prompt_tokens_by_source/")]
        assert min(sources) >= 0 and sum(sources) == now["prompt_tokens/"]
        assert now["prefix_cache_hits/"] + now.get("external_prefix_cache_hits/", 0) <= now["prefix_cache_queries/"]
        self.last = now


@given(worlds(), st.sampled_from(sorted(SERVERS)))
@settings(max_examples=40, deadline=None)
def test_counters_never_fall_and_add_up_to_the_calls(world: tuple[list[list[Turn]], list[int]], server: str) -> None:
    counted = Counted(server)
    play(counted, fitting(world[0], 100), world[1])
    last = counted.last
    prompts, cached = (sum(of) for of in zip(*counted.ended.values(), strict=True))
    assert last["prompt_tokens/"] == prompts and last["prompt_tokens_cached/"] == cached
    assert last["prefix_cache_hits/"] + last.get("external_prefix_cache_hits/", 0) == cached
    assert last["prompt_tokens_by_source/external_kv_transfer"] == last.get("external_prefix_cache_hits/", 0)


def test_hits_are_counted_when_a_call_is_admitted_and_its_sources_when_it_ends() -> None:
    engine = Engine(toy(None))
    engine.submit(0, "a", Key((1,), (20,)), 100, 3)
    while (at := engine.next_ns()) is not None:
        engine.advance(at)
        ended = at
    engine.submit(ended, "b", Key((1,), (20,)), 101, 200)
    engine.advance(ended + 200)
    figures = {name: values for name, _, values, _ in counters(engine)}
    assert figures["prefix_cache_queries"] == {"": 40} and figures["prefix_cache_hits"] == {"": 16}
    assert figures["prompt_tokens_by_source"] == {"local_compute": 20, "local_cache_hit": 0, "external_kv_transfer": 0}


def test_bytes_from_host_memory_are_those_of_the_tokens_found_there() -> None:
    """10 bytes a token; the GPU has room for one of the two prompts."""
    engine = Engine(replace(toy(64), tiers=(HOST,)))
    at = 0
    for i, number in enumerate((1, 2, 1)):
        at += 10_000  # what was evicted is in host memory by then
        engine.submit(at, f"c{i}", Key((number,), (56,)), 100 + i, 2)
        while (due := engine.next_ns()) is not None:
            engine.advance(due)
            at = due
    figures = {name: values for name, _, values, _ in counters(engine)}
    found = figures["prompt_tokens_by_source"]
    assert found["external_kv_transfer"] > 0 and found["local_compute"] == 168 - sum(list(found.values())[1:])
    assert figures["kv_offload_total_bytes"]["CPU_to_GPU"] == 10 * found["external_kv_transfer"]
    assert figures["kv_offload_total_bytes"]["GPU_to_CPU"] > 0
    assert figures["kv_offload_total_time"]["CPU_to_GPU"] > 0
