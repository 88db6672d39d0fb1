"""The engine against the slow reference (tests/reference), to the picosecond and block for block, with any feature.

Worlds are graphs of calls in closed loop on toy servers with any of the features a profile can have. What is compared:
every instant of every call, cached tokens, preemptions, the order in which calls end; and at the end what is in the
free queue and in every tier, block for block, in order.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from engine_world import (
    FEATURES,
    TIERS,
    Fast,
    Node,
    Slow,
    Turn,
    below,
    graph,
    graphs,
    play_graph,
    profile,
    queues,
    servers,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workloom.engine.hints import Hints
from workloom.engine.profile import Profile, Retention, Speculative

SLOW = list(HealthCheck)


def compare(nodes: list[Node], server: Profile, *, prefix_cache: bool = True, leap: bool = True) -> Slow:
    """Play a world on both and compare; the reference, for a look at what happened."""
    fast = Fast(server, prefix_cache=prefix_cache, leap=leap)
    slow = Slow(server, prefix_cache=prefix_cache)
    fast_log = play_graph(fast, nodes)
    slow_log = play_graph(slow, nodes)
    for one, other in zip(fast_log, slow_log, strict=False):
        assert one == other
    assert len(fast_log) == len(slow_log) == len(nodes), "every call ends once"
    assert fast.engine.queue.evicted == slow.engine.evicted_blocks
    assert fast.engine.scheduler.preemptions == slow.engine.preemptions
    ours, theirs = queues(fast, slow)
    assert ours == theirs
    above, under = below(fast, slow)
    assert above == under
    return slow


@pytest.mark.parametrize("feature", FEATURES)
@given(data=st.data())
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_one_feature_at_a_time(feature: str, data: st.DataObject) -> None:
    compare(data.draw(graphs()), data.draw(servers([feature])), leap=data.draw(st.booleans()))


@given(graphs(), servers(), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_all_features_together(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    compare(nodes, server, prefix_cache=cache, leap=leap)


@pytest.mark.long
@given(graphs(most=25), servers(), st.booleans(), st.booleans())
@settings(max_examples=5000, deadline=None, suppress_health_check=SLOW)
def test_many_worlds(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    compare(nodes, server, prefix_cache=cache, leap=leap)


def crowd(hints: Hints) -> list[Node]:
    """Four chains that want more room than there is, now and again."""
    return graph([[Turn(None, 9, 12, 6, 0, None, hints) for _ in range(3)] for _ in range(4)], [0, 3, 5, 9])


def test_the_worlds_of_these_tests_bite() -> None:
    """A canary: each feature that acts on memory does so in a small crowd, and changes what comes out."""
    plain = profile(kv_tokens=96)
    servers_ = {
        "plain": plain,
        "states": msgspec.structs.replace(plain, state_groups=3, kv_tokens=120),
        "pins": msgspec.structs.replace(plain, retention=Retention(pinned_tokens=40)),
        "ttl": msgspec.structs.replace(plain, retention=Retention(ttl_ps=20_000)),
        "watermark": msgspec.structs.replace(plain, watermark_blocks=3),
        "sglang": msgspec.structs.replace(plain, cache="sglang"),
        "prefill first": msgspec.structs.replace(plain, mixing="prefill_first"),
        "tiers": msgspec.structs.replace(plain, tiers=TIERS[1], kv_token_bytes=10),
        "swap": msgspec.structs.replace(plain, tiers=TIERS[1], kv_token_bytes=10, preemption="swap"),
        "speculation": msgspec.structs.replace(plain, speculative=Speculative(3, 2.5)),
        "ahead": msgspec.structs.replace(plain, async_scheduling=True),
    }
    ends, seen = {}, Counter[str]()
    for name, server in servers_.items():
        slow = compare(crowd(Hints(pin_tokens=25)), server)
        ends[name] = tuple(end.done_ps for end in slow.engine.finished.values())
        seen["preempted"] += slow.engine.preemptions
        seen["evicted"] += slow.engine.evicted_blocks
        seen["loaded"] += slow.engine.scheduler.loads_ever
    assert min(seen[what] for what in ("preempted", "evicted", "loaded")) > 0
    assert [name for name in ends if name != "plain" and ends[name] == ends["plain"]] == []


def test_who_waits_is_looked_at_when_those_who_ran_are_gone() -> None:
    """A call that loads is preempted for one that joins; when that one is done it is its turn, though nobody comes.

    (The engine stood still here once.)
    """
    turn = Turn(None, 12, 19, 4, 1, None)
    nodes = [
        Node("0", (), turn, 998, True),
        Node("1", (0,), turn._replace(keep=0), 1001, True),
        Node("2", (), Turn(None, 3, 20, 4, 0, None), 1002),
        Node("3", (0, 0), Turn(None, 0, 13, 8, 17, None), 1003),
        Node("4", (1,), Turn(0, 3, 18, 7, 1, 5), 1004, True),
        Node("5", (0, 2), Turn(None, 0, 12, 2, 63, None), 1005),
    ]
    server = profile(max_batched_tokens=24, kv_tokens=80, kv_token_bytes=10, state_groups=1, tiers=TIERS[1])
    slow = compare(nodes, server)
    assert slow.engine.finished["5"].preemptions == 1
