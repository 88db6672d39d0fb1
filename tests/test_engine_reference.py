"""The engine against the slow reference (tests/reference), to the picosecond and block for block, whatever it is made of.

Worlds are graphs of calls in closed loop on toy servers with any of the features a profile can have. What is compared:
every instant of every call, cached tokens, preemptions, the order in which calls end; and between steps the free queue,
block for block.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from engine_world import FEATURES, Fast, Node, Slow, Turn, below, graph, graphs, play_graph, profile, queues, servers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workloom.engine.hints import Hints
from workloom.engine.profile import Profile, Retention

EVERYTHING = [name for name in FEATURES if name != "tiers"]


def compare(nodes: list[Node], server: Profile, *, prefix_cache: bool = True, leap: bool = True) -> Fast:
    """Play a world on both and compare; the engine, for a look at what happened."""
    fast = Fast(server, prefix_cache=prefix_cache, leap=leap)
    slow = Slow(server, prefix_cache=prefix_cache)
    fast_log = play_graph(fast, nodes)
    slow_log = play_graph(slow, nodes)
    for one, other in zip(fast_log, slow_log, strict=False):
        assert one == other
    assert len(fast_log) == len(slow_log) == len(nodes), "every call ends once"
    assert fast.engine.queue.evicted == slow.engine.evicted_blocks
    assert fast.engine.scheduler.preemptions == slow.engine.preemptions
    for ours, theirs in (queues(fast, slow), below(fast, slow)):
        assert ours == theirs
    return fast


@pytest.mark.parametrize("feature", EVERYTHING)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_feature_at_a_time(feature: str, data: st.DataObject) -> None:
    compare(data.draw(graphs()), data.draw(servers([feature])), leap=data.draw(st.booleans()))


@given(graphs(), servers(EVERYTHING), st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_all_features_together(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    compare(nodes, server, prefix_cache=cache, leap=leap)


@pytest.mark.long
@given(graphs(most=30), servers(EVERYTHING), st.booleans(), st.booleans())
@settings(max_examples=6000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_worlds(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    compare(nodes, server, prefix_cache=cache, leap=leap)
