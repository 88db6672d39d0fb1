"""Pools that grow and shrink: when, how soon it helps, who goes, and what it costs."""

from __future__ import annotations

from cluster_world import Clustered, toy
from engine_world import Turn, fitting, play, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.engine.cluster import Cluster
from workloom.engine.engine import Finished
from workloom.engine.fleet import Autoscale, Fleet, Pool
from workloom.engine.profile import Tier
from workloom.prefix import Key

NS = 1e-9
RULES = Autoscale(
    most=3, up_outstanding=2, down_outstanding=1, every_s=100 * NS, start_s=250 * NS, cool_down_s=300 * NS
)


def cluster(rules: Autoscale = RULES) -> Cluster:
    return Cluster(Fleet((Pool(toy(None), autoscale=rules),), "least_outstanding"))


def submit(to: Cluster, at_ns: int, name: str, output: int = 20) -> None:
    number = sum(map(ord, name))
    to.submit(at_ns, name, Key((number,), (10,)), 10_000 + number, output)


def run(of: Cluster) -> list[Finished]:
    out = []
    while (at := of.next_ns()) is not None:
        out += of.advance(at)
    return out


def test_a_pool_grows_at_a_look_and_what_it_grew_by_helps_after_its_start() -> None:
    scaled = cluster()
    for i in range(6):
        submit(scaled, 0, f"a{i}", 60)
    scaled.advance(99)
    assert len(scaled.replicas) == 1, "it has not looked yet"
    scaled.advance(100)
    assert [(r.began_ns, r.ready_ns) for r in scaled.replicas] == [(0, 0), (100, 350)]
    submit(scaled, 349, "b")
    submit(scaled, 350, "c")
    assert {call: r.name for call, r in scaled._where.items() if call in "bc"} == {"b": "0", "c": "1"}
    scaled.advance(399)
    assert len(scaled.replicas) == 2, "it rests until 400"
    scaled.advance(400)
    assert len(scaled.replicas) == 3
    scaled.advance(800)
    assert len(scaled.replicas) == 3, "three are the most"


def test_a_replica_that_goes_takes_no_calls_finishes_those_it_has_and_costs_until_then() -> None:
    scaled = Cluster(Fleet((Pool(toy(None), 2, autoscale=RULES),), "round_robin"))
    submit(scaled, 0, "long", 40)
    submit(scaled, 0, "other", 40)
    ended = max(end.done_ns for end in run(scaled))
    assert ended > 200, "one call each is below two and not below one: two looks change nothing"
    scaled.advance(ended + 200)
    gone = [r for r in scaled.replicas if r.gone_ns is not None]
    assert [r.name for r in gone] == ["1"], "the newest of the idle ones"
    assert gone[0].gone_ns is not None and ended <= gone[0].gone_ns <= ended + 100
    cost = scaled.replica_s(ended + 200)[0]
    assert cost == (ended + 200 + gone[0].gone_ns) / 1e9
    assert [name for _, name, _ in scaled.left] == ["1"]
    submit(scaled, ended + 300, "again")
    submit(scaled, ended + 300, "once more")
    assert {end.replica for end in run(scaled)} == {"0"}


def test_one_that_drains_is_gone_when_its_last_call_is() -> None:
    scaled = Cluster(Fleet((Pool(toy(None), 2, autoscale=replace(RULES, down_outstanding=1.9)),), "round_robin"))
    submit(scaled, 0, "a", 60)
    submit(scaled, 0, "b", 60)
    scaled.advance(100)
    draining = scaled.replicas[1]
    assert draining.draining and draining.gone_ns is None
    submit(scaled, 101, "c", 5)
    ends = {end.call: end for end in run(scaled)}
    assert {call: end.replica for call, end in ends.items()} == {"a": "0", "b": "1", "c": "0"}
    assert draining.gone_ns == ends["b"].done_ns
    assert len(list(scaled.present())) == 1


def test_kv_use_makes_a_pool_grow_where_it_is_asked_for() -> None:
    rules = replace(RULES, up_outstanding=100, down_outstanding=1, up_kv=0.5)
    scaled = Cluster(Fleet((Pool(replace(toy(160), max_batched_tokens=128), autoscale=rules),)))
    scaled.submit(0, "big", Key((1,), (100,)), 2, 40)
    scaled.advance(100)
    assert len(scaled.replicas) == 2


def test_an_idle_night_costs_no_looks_and_the_looks_go_on_at_their_instants() -> None:
    scaled = cluster(replace(RULES, every_s=1e-6))
    submit(scaled, 0, "a")
    run(scaled)
    night = 10**15
    began = scaled._scaling.scalers[0].next_ns
    for i in range(6):
        submit(scaled, night + 1, f"b{i}", 200)
    assert scaled._scaling.scalers[0].next_ns == night + 1000 and (night - began) % 1000 == 0
    scaled.advance(night + 1000)
    assert [r.began_ns for r in scaled.replicas] == [0, night + 1000]


HOST = Tier("host", tokens=200, read_bytes_per_s=2e9, write_bytes_per_s=1e9, latency_ps=4_000)
SERVERS = {"plain": toy(), "swap": replace(toy(120), preemption="swap", tiers=(HOST,))}


@given(
    worlds(), st.sampled_from(["round_robin", "session", "prefix", "power_of_two"]), st.sampled_from(sorted(SERVERS))
)
@settings(max_examples=40, deadline=None)
def test_growing_and_shrinking_loses_no_call_and_leaping_is_stepping(
    world: tuple[list[list[Turn]], list[int]], router: str, server: str
) -> None:
    chains, starts = fitting(world[0], 120), world[1]
    rules = Autoscale(
        most=3, up_outstanding=1.5, down_outstanding=1, every_s=40 * NS, start_s=30 * NS, cool_down_s=20 * NS
    )
    fleet = Fleet((Pool(SERVERS[server], autoscale=rules),), router)
    leaping, stepping = Clustered(fleet), Clustered(fleet, leap=False)
    log = play(leaping, chains, starts)
    assert play(stepping, chains, starts) == log
    assert [end.replica for end in stepping.ended] == [end.replica for end in leaping.ended]
    assert len(log) == sum(map(len, chains)) == len({done.call for done in log})
    for replica in leaping.cluster.replicas:
        assert replica.outstanding == 0 and replica.engine.kv_usage(10**9) == 0
        assert replica.engine.tiers is None or not replica.engine.tiers.tiers[0].lent, "what was swapped out came back"
        assert replica.gone_ns is None or replica.gone_ns >= replica.began_ns
    there = [r for r in leaping.cluster.present() if not r.draining]
    assert 1 <= len(there) <= 3
