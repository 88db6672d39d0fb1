"""Where calls go: one story for every policy, on replicas that are as they are said to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.routers import ROUTERS, Router, named
from workloom.engine.routers.affinity import Thresholds
from workloom.engine.routers.power_of_two import PowerOfTwo
from workloom.engine.routers.prefix import Prefix
from workloom.engine.routers.session import Session
from workloom.errors import UsageError
from workloom.prefix import Key, common


class Said(Struct):
    """A replica that is as it says."""

    number: int
    outstanding: int = 0
    kv: float = 0.0
    cached: int = 0

    def kv_usage(self, at_ns: int) -> float:
        return self.kv

    def cached_tokens(self, at_ns: int, prompt: Key) -> int:
        return self.cached


PROMPT = Key((1, 2), (60, 100))


def ways(router: Router, replicas: Sequence[Said], calls: int, hints: Hints = NO_HINTS) -> list[int]:
    return [router.choose(replicas, 0, PROMPT, hints).number for _ in range(calls)]


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_of_equals_the_first_is_chosen_and_the_only_one_always(name: str) -> None:
    assert ways(named(name)(1), [Said(4)], 3) == [4, 4, 4]
    assert ways(named(name)(1), [Said(2), Said(5)], 1) == [2]


def test_an_unknown_router_is_refused_with_the_names() -> None:
    with pytest.raises(UsageError, match="did you mean round_robin"):
        named("roundrobin")


def test_round_robin_goes_on_when_replicas_come_and_go() -> None:
    router = named("round_robin")(0)
    assert ways(router, [Said(0), Said(1), Said(2)], 4) == [0, 1, 2, 0]
    assert ways(router, [Said(0), Said(2), Said(3)], 3) == [2, 3, 0]


def test_least_outstanding_and_least_kv_look_at_what_they_are_called_after() -> None:
    replicas = [Said(0, 3, 0.1), Said(1, 2, 0.5), Said(2, 2, 0.1)]
    assert ways(named("least_outstanding")(0), replicas, 1) == [1]
    assert ways(named("least_kv")(0), replicas, 1) == [2], "of equal KV the one with less to do"


def test_a_session_stays_where_it_began_until_its_replica_goes() -> None:
    router = Session()
    replicas = [Said(0, 1), Said(1, 0), Said(2, 2)]
    assert ways(router, replicas, 1, Hints(session="a")) == [1]
    replicas[1].outstanding = 9
    assert ways(router, replicas, 1, Hints(session="a")) == [1]
    assert ways(router, replicas, 1, Hints(session="b")) == [0]
    left = [replicas[0], replicas[2]]
    router.gone(1)
    assert ways(router, left, 1, Hints(session="a")) == [0]
    assert ways(router, replicas, 1, Hints(session="a")) == [0], "it does not go back"


def test_sessions_that_were_quiet_for_long_are_forgotten() -> None:
    router = Session(most=2)
    replicas = [Said(0, 0), Said(1, 1)]
    for name in ("a", "b", "a", "c"):  # b was quiet for the longest
        ways(router, replicas, 1, Hints(session=name))
    replicas[0].outstanding = 5
    assert [ways(router, replicas, 1, Hints(session=name))[0] for name in ("a", "c", "b")] == [0, 0, 1]


def test_power_of_two_takes_the_less_busy_of_two_and_every_seed_draws_its_own() -> None:
    replicas = [Said(i, i) for i in range(8)]
    first, again, other = (ways(PowerOfTwo(seed), replicas, 400) for seed in (1, 1, 2))
    assert first == again != other
    counts = Counter(first)
    assert counts[7] == 0 and counts[0] > counts[3] > counts[6] > 0  # pairs that hold it as their best: 7, 4, 1 of 28


def test_prefix_keeps_what_shares_a_prompt_together_until_loads_part_too_far() -> None:
    router = Prefix()
    replicas = [Said(0), Said(1)]
    other = Key((9,), (100,))
    assert router.choose(replicas, 0, PROMPT, NO_HINTS).number == 0
    replicas[0].outstanding = 1
    assert router.choose(replicas, 0, other, NO_HINTS).number == 1, "nothing of it was sent anywhere: the idlest"
    assert router.choose(replicas, 0, PROMPT.plus(3, 20), NO_HINTS).number == 0
    replicas[0].outstanding = 65
    assert router.choose(replicas, 0, PROMPT, NO_HINTS).number == 1, "65 to 0 is too far apart"
    replicas[1].outstanding, replicas[0].outstanding = 64, 90
    assert router.choose(replicas, 0, PROMPT.plus(3, 20), NO_HINTS).number == 0, "90 to 64 is not"


def test_a_short_match_does_not_count() -> None:
    router = Prefix(Thresholds(match=0.5))
    replicas = [Said(0), Said(1)]
    router.choose(replicas, 0, Key((1,), (50,)), NO_HINTS)
    replicas[0].outstanding = 1
    assert router.choose(replicas, 0, Key((1, 7), (50, 100)), NO_HINTS).number == 1, "half is not more than half"
    router = Prefix(Thresholds(match=0.5))
    router.choose([replicas[0]], 0, Key((1,), (50,)), NO_HINTS)
    assert router.choose(replicas, 0, Key((1, 8), (50, 99)), NO_HINTS).number == 0


def test_prefix_exact_asks_the_replicas_themselves() -> None:
    router = named("prefix_exact")(0)
    replicas = [Said(0, 0, cached=10), Said(1, 3, cached=80), Said(2, 2, cached=80)]
    assert ways(router, replicas, 1) == [2]
    replicas[2].cached = 79
    assert ways(router, replicas, 1) == [1]
    replicas[1].cached = replicas[2].cached = 30
    assert ways(router, replicas, 1) == [0], "30 of 100 is not more than 0.3"


keys = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda pieces: Key().then((depth * 10 + text, tokens) for depth, (text, tokens) in enumerate(pieces))
)


@given(st.lists(st.tuples(keys, st.integers(0, 2)), max_size=25), keys)
@settings(max_examples=80, deadline=None)
def test_the_tree_of_prompts_finds_the_longest_beginning_that_each_replica_was_sent(
    sent: list[tuple[Key, int]], prompt: Key
) -> None:
    router = Prefix()
    for key, number in sent:
        router.choose([Said(number)], 0, key, NO_HINTS)
    found = router.matches(prompt)
    for number in range(3):
        longest = max((common(key, prompt) for key, to in sent if to == number), default=0)
        assert found.get(number, 0) == longest
    router.gone(1)
    assert 1 not in router.matches(prompt)


@given(st.lists(st.tuples(keys, st.integers(0, 1)), min_size=1, max_size=40), st.integers(10, 60))
@settings(max_examples=60, deadline=None)
def test_the_tree_is_bounded_and_forgets_the_oldest_first(sent: list[tuple[Key, int]], most: int) -> None:
    router = Prefix(most_tokens=most)
    for key, number in sent:
        router.choose([Said(number)], 0, key, NO_HINTS)
        assert router.matches(key)[number] == key.tokens, "what was sent last is there"
    held: Counter[int] = Counter()
    nodes = [router._root]
    while nodes:
        node = nodes.pop()
        nodes += node.branches.values()
        assert node is router._root or node.held or node.branches, "a node that nobody needs is gone"
        held.update(node.held)
    assert held == Counter(router._tokens)
    for number, tokens in held.items():
        last = next(key for key, to in reversed(sent) if to == number)
        assert tokens <= max(most, last.tokens + most)
