"""Replicas behind a router: exact whoever looks, conserved whatever the router, one replica the same as an engine."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_world import Clustered, Logged, done, fleet, toy
from engine_world import Done, Fast, Turn, fitting, play, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.engine.cluster import Cluster, serving
from workloom.engine.engine import Engine
from workloom.engine.fleet import Fleet, Pool, checked, load
from workloom.engine.hints import Hints
from workloom.engine.profile import FrontEnd, Tier
from workloom.engine.routers import ROUTERS
from workloom.errors import Refused, UsageError
from workloom.prefix import Key

World = tuple[list[list[Turn]], list[int]]
routers = st.sampled_from(sorted(ROUTERS))


def fitted(world: World) -> World:
    return fitting(world[0], 120), world[1]


@given(worlds(), st.sampled_from([64, 160, None]))
@settings(max_examples=25, deadline=None)
def test_a_cluster_of_one_is_the_engine(world: World, kv: int | None) -> None:
    chains, starts = fitting(world[0], 60), world[1]
    one = play(Clustered(fleet(1, server=toy(kv))), chains, starts)
    assert one == play(Fast(toy(kv)), chains, starts)


@given(worlds(), routers, st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_every_call_ends_once_and_each_replica_did_what_it_would_have_done_alone(
    world: World, router: str, replicas: int
) -> None:
    """A replica's calls, fed to an engine of its own at the same instants, end at the same instants."""
    chains, starts = fitted(world)
    clustered = Clustered(fleet(replicas, router))
    play(clustered, chains, starts)
    assert Counter(end.call for end in clustered.ended) == Counter(
        f"{chain}/{turn}" for chain, turns in enumerate(chains) for turn in range(len(turns))
    )
    assert all(replica.outstanding == 0 for replica in clustered.cluster.replicas)
    for name, engine in clustered.engines.items():
        ended = [end for end in clustered.ended if end.replica == name]
        assert {end.call for end in ended} == {call for _, call, *_ in engine.handed}
        assert sorted(alone(engine)) == sorted(done(end) for end in ended)


def alone(logged: Logged) -> list[Done]:
    """What was handed to a replica, handed to an engine that nobody else looks at."""
    engine = Engine(logged.profile)
    events = [(at, 0, i) for i, (at, *_) in enumerate(logged.handed)]
    events += [(at, 1, i) for i, (at, _) in enumerate(logged.gone)]
    out = []
    for at, cancel, i in sorted(events):
        if cancel:
            engine.cancel(at, logged.gone[i][1])
        else:
            engine.submit(*logged.handed[i])
        out += engine.advance(at)
    while (due := engine.next_ns()) is not None:
        out += engine.advance(due)
    return [done(end) for end in out]


HOST = Tier("host", tokens=400, read_bytes_per_s=1e9, write_bytes_per_s=1e9, latency_ps=5_000)
SERVERS = {
    "plain": toy(),
    "ahead": replace(toy(), async_scheduling=True, front_end=FrontEnd(1_777, 29, 3_000, 5_000)),
    "states": replace(toy(480), state_groups=2),
    "host tier": replace(toy(), tiers=(HOST,)),
}


@given(worlds(), routers, st.sampled_from(sorted(SERVERS)))
@settings(max_examples=40, deadline=None)
def test_leaping_or_stepping_looked_at_or_not_calls_go_the_same_ways(world: World, router: str, server: str) -> None:
    """What a router sees of a replica (its load, its KV, its cache) depends on the instant alone."""
    chains, starts = fitted(world)
    of = fleet(3, router, SERVERS[server])
    leaping, stepping, watched = Clustered(of), Clustered(of, leap=False), Clustered(of, looks=True)
    log = play(leaping, chains, starts)
    ways = {end.call: end.replica for end in leaping.ended}
    for other in (stepping, watched):
        assert play(other, chains, starts) == log
        assert {end.call: end.replica for end in other.ended} == ways


def text(number: int, tokens: int) -> Key:
    return Key((number,), (tokens,))


def run(cluster: Cluster) -> dict[str, str]:
    """To the end; which replica answered each call."""
    out = {}
    while (at := cluster.next_ns()) is not None:
        out |= {end.call: end.replica for end in cluster.advance(at)}
    return out


def test_calls_of_one_instant_get_into_one_step_of_their_replica() -> None:
    """The cluster may not close an instant while calls still come in at it."""
    together = Cluster(fleet(2, server=replace(toy(None), max_batched_tokens=64, front_end=FrontEnd())))
    for i in range(4):
        together.submit(5, f"c{i}", text(i, 4), 100 + i, 1)
    ends = []
    while (at := together.next_ns()) is not None:
        ends += together.advance(at)
    assert len({end.done_ns for end in ends}) == 1 and len(ends) == 4


def test_models_have_pools_of_their_own_and_an_unknown_one_is_refused_by_name() -> None:
    pools = (Pool(toy(), 1, models=("small",)), Pool(toy(), 2, models=("large", "xl")))
    cluster = Cluster(checked(Fleet(pools)))
    for i, model in enumerate(["small", "large", "xl", "small", ""]):
        cluster.submit(i, f"{i}{model}", text(i, 5), 100 + i, 2, Hints(model=model))
    assert run(cluster) == {"0small": "0", "1large": "1", "2xl": "1", "3small": "0", "4": "0"}
    with pytest.raises(Refused) as refused:
        cluster.submit(10_000, "x", text(9, 5), 109, 2, Hints(model="larg"))
    assert "small, large, xl" in str(refused.value) and "did you mean large?" in str(refused.value)
    assert cluster.next_ns() is None


def test_a_long_call_goes_to_a_replica_that_can_hold_it() -> None:
    pools = (Pool(replace(toy(), max_model_len=50), 2), Pool(replace(toy(), max_model_len=150), 1))
    cluster = Cluster(Fleet(pools, "least_outstanding"))
    cluster.submit(0, "long", text(1, 100), 101, 5)
    cluster.submit(0, "short", text(2, 10), 102, 5)
    with pytest.raises(Refused, match="longer than the model's context"):
        cluster.submit(0, "longer", text(3, 200), 103, 5)
    assert run(cluster) == {"long": "2", "short": "0"}


def test_the_cache_of_every_replica_is_forgotten_and_their_gauges_go_by_number() -> None:
    cluster = Cluster(fleet(2))
    cluster.submit(0, "a", text(1, 20), 101, 3)
    cluster.submit(0, "b", text(1, 20), 102, 3)
    assert not cluster.reset_prefix_cache(30), "calls hold blocks"
    run(cluster)
    gauges = cluster.gauges()
    assert list(gauges) == ["0", "1"] and [g.generated_tokens for g in gauges.values()] == [3, 3]
    assert cluster.reset_prefix_cache(10_000)
    assert [replica.cached_tokens(10_001, text(1, 20)) for replica in cluster.replicas] == [0, 0]


def test_one_replica_needs_no_cluster() -> None:
    assert isinstance(serving(fleet(1)), Engine)
    assert isinstance(serving(fleet(2)), Cluster)


FILE = """
router: prefix
pools:
  - {engine: llama-3.1-8b-h200x1, replicas: 2, override: {kv_tokens: 100000}}
  - {engine: llama-3.1-8b-h200x1, name: spare, autoscale: {most: 3}}
"""


def test_a_fleet_is_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "fleet.yaml"
    path.write_text(FILE)
    found = load(path)
    assert [pool.profile.kv_tokens for pool in found.pools] == [100_000, found.pools[1].profile.kv_tokens]
    assert (found.router, found.pools[1].autoscale is not None, found.gpus) == ("prefix", True, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE.replace("router: prefix", "router: prefx"), "did you mean prefix?"),
        (FILE.replace("most: 3", "most: 3, least: 2"), "pools[1].replicas"),
        (FILE.replace("name: spare", "role: decode"), "prefill and decode belong together"),
        (FILE.replace("kv_tokens: 100000", "kv_tokns: 100000"), "pools[0].override"),
        (FILE.replace("replicas: 2", "replica: 2"), "`$.pools[0]`"),
        ("pools: []", "at least one pool"),
    ],
)
def test_a_fleet_that_cannot_work_is_refused_with_the_place(tmp_path, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load(path)
    assert said in str(refused.value)
