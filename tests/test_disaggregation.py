"""Prefill here, decode there: what each token waits for, what goes over the link, and that nothing gets lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from cluster_audit import AuditedCluster, DecodeAudit
from cluster_world import Clustered, done, split, toy
from engine_world import Turn, fitting, play, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.engine.check import check
from workloom.engine.cluster import Cluster
from workloom.engine.engine import Engine, Finished
from workloom.engine.events import Ran, Received
from workloom.engine.fleet import Fleet, Pool, Transfer, checked
from workloom.engine.profile import FrontEnd, Profile, Tier
from workloom.errors import Refused, UsageError
from workloom.prefix import Key


def run(of: Cluster) -> dict[str, Finished]:
    out = {}
    while (at := of.next_ns()) is not None:
        out |= {end.call: end for end in of.advance(at)}
        for replica in of.replicas:
            check(replica.engine)
    return out


def text(number: int, tokens: int) -> Key:
    return Key((number,), (tokens,))


def alone(prompt: Key, output: int) -> list[int]:
    """When a single engine makes the tokens of a lone call, picoseconds."""
    engine = Engine(toy(None))
    engine.submit(0, "a", prompt, 100, output)
    while (at := engine.next_ns()) is not None:
        for end in engine.advance(at):
            return done(end).tokens_ps
    raise AssertionError("it ended")


def test_the_first_token_does_not_know_of_the_transfer_and_the_others_come_after_it() -> None:
    """30 tokens of 10 bytes at 10 bytes/ns, after 20 ns: 50 ns from the first token to a place in the batch."""
    cluster = Cluster(split(server=toy(None)))
    cluster.submit(0, "a", text(1, 30), 100, 5)
    (end,) = run(cluster).values()
    tokens, single = done(end).tokens_ps, alone(text(1, 30), 5)
    assert tokens[0] == single[0]
    there_ns = -(-tokens[0] // 1000) + 20 + 30
    assert tokens[1] - there_ns * 1000 == single[1] - single[0], "a decode step from the instant it is there"
    assert [b - a for a, b in pairwise(tokens[1:])] == [b - a for a, b in pairwise(single[1:])]
    assert (end.replica, end.output_tokens, end.preemptions) == ("1", 5, 0)
    prefill, decode = cluster.gauges().values()
    assert (prefill.prompt_tokens, prefill.generated_tokens) == (30, 1)
    assert (decode.prompt_tokens, decode.queries_tokens, decode.generated_tokens) == (0, 0, 4)


def test_an_answer_of_one_token_never_leaves_its_prefill_replica() -> None:
    cluster = Cluster(split())
    cluster.submit(0, "a", text(1, 30), 100, 1)
    (end,) = run(cluster).values()
    assert (end.replica, end.output_tokens) == ("0", 1) and cluster.replicas[0].link is not None
    assert cluster.replicas[0].link.transfers == 0


def test_what_the_decode_replica_has_of_a_prompt_does_not_go_again() -> None:
    cluster = Cluster(split(server=toy(None)))
    cluster.submit(0, "a", text(1, 30), 100, 6)
    ended = run(cluster)["a"].done_ns
    link = cluster.replicas[0].link
    assert link is not None and link.bytes == 300
    prompt = text(1, 30).plus(100, 6).plus(2, 7)
    cluster.submit(ended, "b", prompt, 101, 2)
    run(cluster)
    has = 35 // 4 * 4  # whole blocks of prompt and answer, the last token of which has no KV
    assert link.bytes == 300 + (43 - has) * 10


def test_transfers_of_one_prefill_replica_go_one_after_the_other() -> None:
    slow = Transfer(bytes_per_s=1e9, latency_s=0)
    cluster = Cluster(split(1, 2, replace(toy(None), max_batched_tokens=64), slow))
    cluster.submit(0, "a", text(1, 20), 100, 2)
    cluster.submit(0, "b", text(2, 20), 101, 2)
    ends = run(cluster)
    second = {call: done(end).tokens_ps[1] for call, end in ends.items()}
    assert abs(second["b"] - second["a"] - 200_000) < 10_000, "200 bytes at a byte a nanosecond"
    assert {end.replica for end in ends.values()} == {"1", "2"}


def test_a_front_end_stands_before_the_prefill_and_delivers_at_both_ends() -> None:
    plain = replace(toy(None), front_end=FrontEnd(call_ps=7_000))
    kind = replace(plain, front_end=FrontEnd(call_ps=7_000, first_token_ps=9_000, end_ps=11_000))
    ends = []
    for server in (plain, kind):
        cluster = Cluster(split(server=server))
        cluster.submit(0, "a", text(1, 12), 100, 3)
        cluster.submit(0, "one", text(2, 12), 101, 1)
        ends.append(run(cluster))
    before, after = ends
    for call, late in (("a", 0), ("one", 9)):
        assert done(after[call]).tokens_ps[0] - done(before[call]).tokens_ps[0] == 9_000
        assert done(after[call]).tokens_ps[1:] == done(before[call]).tokens_ps[1:]
        assert abs(after[call].done_ns - before[call].done_ns - 11 - late) <= 1


@pytest.mark.parametrize("at_ns", [1, 12, 40, 80, 120])
def test_a_client_may_go_at_any_time_and_nothing_stays_behind(at_ns: int) -> None:
    """In the front end, in the prefill, on the link, in the decode."""
    cluster = Cluster(split())
    cluster.submit(0, "a", text(1, 30), 100, 30)
    cluster.submit(0, "b", text(2, 30), 101, 30)
    cluster.cancel(at_ns, "a")
    cluster.cancel(at_ns, "a")
    ends = run(cluster)
    assert {call: end.status for call, end in ends.items()} == {"a": "cancelled", "b": "done"}
    assert len(done(ends["a"]).tokens_ps) == ends["a"].output_tokens < 30
    assert all(time <= max(ends["a"].done_ns, at_ns) * 1000 for time in done(ends["a"]).tokens_ps)
    assert all(r.outstanding == 0 and r.engine.kv_usage(10**6) == 0 for r in cluster.replicas)


def test_a_call_that_its_decode_replica_preempts_is_computed_again_there() -> None:
    tight = replace(toy(64), max_num_seqs=4)
    cluster = Cluster(split(1, 1, tight))
    for i in range(3):
        cluster.submit(0, f"c{i}", text(i + 1, 16), 100 + i, 25)
    ends = run(cluster)
    assert sum(end.preemptions for end in ends.values()) > 0
    assert [end.output_tokens for end in ends.values()] == [25] * 3
    assert cluster.gauges()["1"].preemptions == sum(end.preemptions for end in ends.values())


def test_a_decode_replica_swaps_what_it_preempts_and_computes_nothing_again() -> None:
    """The KV that came over the link goes to host memory and back; no prompt is computed there."""
    audited: list[Ran] = []

    def make(name: str, server: Profile) -> Engine:
        return Engine(
            server, listener=lambda event: audited.append(event) if name == "1" and isinstance(event, Ran) else None
        )

    tight = replace(toy(64), max_num_seqs=4, preemption="swap", tiers=(HOST,))
    cluster = Cluster(split(1, 1, tight), engines=make)
    for i in range(3):
        cluster.submit(0, f"c{i}", text(i + 1, 16), 100 + i, 25)
    ends = run(cluster)
    assert sum(end.preemptions for end in ends.values()) > 0
    assert [end.output_tokens for end in ends.values()] == [25] * 3
    assert audited and not any(ran.prefills for ran in audited)


def test_what_a_decode_replica_could_never_hold_is_refused_at_once() -> None:
    server = toy(64)
    pools = (Pool(toy(None), role="prefill"), Pool(server, role="decode"))
    cluster = Cluster(checked(Fleet(pools)))
    with pytest.raises(Refused, match="decode replica"):
        cluster.submit(0, "a", text(1, 50), 100, 20)
    assert cluster.next_ns() is None
    with pytest.raises(UsageError, match="kv_token_bytes"):
        checked(Fleet((Pool(replace(server, kv_token_bytes=0), role="prefill"), pools[1])))


HOST = Tier("host", tokens=200, read_bytes_per_s=2e9, write_bytes_per_s=1e9, latency_ps=4_000)
SERVERS = {
    "plain": toy(160),
    "host tier": replace(toy(140), tiers=(HOST,)),
    "swap": replace(toy(120), preemption="swap", tiers=(HOST,)),
    "swap of states": replace(toy(400), preemption="swap", tiers=(replace(HOST, tokens=80),), state_groups=1),
    "swap, scheduling ahead": replace(toy(120), preemption="swap", tiers=(HOST,), async_scheduling=True),
}


@given(
    worlds(),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([None, "prefix_exact", "least_kv"]),
    st.sampled_from(sorted(SERVERS)),
)
@settings(max_examples=60, deadline=None)
def test_every_call_ends_once_with_all_its_tokens_and_leaping_is_stepping(
    world: tuple[list[list[Turn]], list[int]], prefill: int, decode: int, decode_router: str | None, server: str
) -> None:
    chains, starts = fitting(world[0], 120), world[1]
    fleet = replace(split(prefill, decode, SERVERS[server]), decode_router=decode_router)
    leaping, stepping, watched = Clustered(fleet), Clustered(fleet, leap=False), Clustered(fleet, looks=True)
    log = play(leaping, chains, starts)
    assert play(stepping, chains, starts) == log == play(watched, chains, starts)
    assert len(log) == sum(map(len, chains)) == len({each.call for each in log})
    outputs = {f"{chain}/{turn}": each.output for chain, turns in enumerate(chains) for turn, each in enumerate(turns)}
    for each in log:
        assert each.tokens_ps == sorted(each.tokens_ps)
        assert each.status == "cancelled" or len(each.tokens_ps) == outputs[each.call]
    gauges = leaping.cluster.gauges()
    assert sum(g.generated_tokens for g in gauges.values()) == sum(len(each.tokens_ps) for each in log)
    assert all(r.outstanding == 0 and r.engine.kv_usage(10**9) == 0 for r in leaping.cluster.replicas)


DECODERS = {
    "plain": toy(160),
    "ahead": replace(toy(160), async_scheduling=True),
    "states": replace(toy(480), state_groups=1),
    "tight": replace(toy(140), max_num_seqs=3, watermark_blocks=2),
}


@given(worlds(), st.integers(1, 2), st.integers(1, 2), st.sampled_from(sorted(DECODERS)))
@settings(max_examples=40, deadline=None)
def test_what_each_replica_did_follows_from_its_events(
    world: tuple[list[list[Turn]], list[int]], prefill: int, decode: int, server: str
) -> None:
    """Those that decode tell when a call that came with its KV was given blocks, and how many were there."""
    chains, starts = fitting(world[0], 120), world[1]
    fleet = split(prefill, decode, DECODERS[server])
    audited = AuditedCluster(fleet)
    play(Clustered(fleet, cluster=audited.cluster), chains, starts)
    audited.settle()


def test_a_call_that_came_with_its_kv_is_told_and_one_wrong_figure_of_it_is_noticed() -> None:
    audited = AuditedCluster(split(server=toy(160)))
    for i in range(2):
        audited.cluster.submit(i, f"c{i}", text(1, 24), 100 + i, 4)
    run(audited.cluster)
    audited.settle()
    decoder = audited.engines[1]
    received = [event for event in decoder.told if isinstance(event, Received)]
    assert [(event.call, event.held_tokens) for event in received] == [("c0", 0), ("c1", 24)]
    for lie in ({"held_tokens": 20}, {"at_ps": received[1].at_ps + 1}):
        books = DecodeAudit(decoder.profile)
        for call in decoder.audit.calls.values():
            books.receive(call.submitted_ps // 1000, call.name, call.prompt, call.answer, call.outputs)
        with pytest.raises(AssertionError):
            for event in decoder.told:
                books.hear(event._replace(**lie) if event is received[1] else event)  # type: ignore[arg-type]
