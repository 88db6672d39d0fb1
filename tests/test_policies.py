"""Scheduling policies: each keeps its order whatever comes, is preempted or goes away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloom.engine.hints import Hints
from workloom.engine.policies import POLICIES, Waiting, make_waiting
from workloom.engine.sequence import Sequence
from workloom.errors import ProfileError
from workloom.prefix import Key


def call(name: str, tokens: int = 10, at: int = 0, priority: int = 0, expected: float | None = None) -> Sequence:
    sequence = Sequence(name, Key((1,), (tokens,)), 2, 5, Hints(priority=priority, expected_output_tokens=expected))
    sequence.queued_ps = at
    return sequence


def names(waiting: Waiting) -> list[str]:
    return [sequence.call for sequence in waiting]


def test_first_come_is_first_served_and_a_preempted_call_goes_before() -> None:
    waiting = make_waiting("fcfs")
    for name in "abc":
        waiting.append(call(name))
    newer, older = call("newer"), call("older")
    waiting.appendleft(newer)  # preempted first, being the newest
    waiting.appendleft(older)
    assert names(waiting) == ["older", "newer", "a", "b", "c"]


def test_the_shortest_job_is_first_and_equals_stay_as_they_came() -> None:
    waiting = make_waiting("sjf")
    for name, tokens, expected in [("a", 50, None), ("b", 20, 40.0), ("c", 10, None), ("d", 50, None), ("e", 20, 3.0)]:
        waiting.append(call(name, tokens, expected=expected))
    assert names(waiting) == ["c", "e", "a", "d", "b"]
    waiting.appendleft(call("preempted", 10_000))
    assert waiting.head().call == "preempted"


def test_the_most_urgent_call_is_first_then_who_came_first() -> None:
    waiting = make_waiting("priority")
    for name, at, priority in [("a", 1, 0), ("b", 2, -5), ("c", 3, 0), ("d", 4, 7)]:
        waiting.append(call(name, at=at, priority=priority))
    assert names(waiting) == ["b", "a", "c", "d"]
    waiting.appendleft(call("ran", at=0, priority=0))
    assert names(waiting) == ["b", "ran", "a", "c", "d"], "a preempted call does not pass one more urgent"


def test_calls_of_one_instant_stay_as_they_came_and_preempted_ones_are_before_them() -> None:
    waiting = make_waiting("priority")
    first, second, third = (call(name) for name in "abc")
    waiting.append(third)
    waiting.appendleft(second)
    waiting.appendleft(first)
    assert names(waiting) == ["a", "b", "c"]


def test_who_gives_way_is_the_newest_or_the_least_urgent() -> None:
    newest_first = [call("c", at=3, priority=1), call("b", at=2, priority=9), call("a", at=1, priority=9)]
    assert {name: make_waiting(name).victim(iter(newest_first)).call for name in POLICIES} == {
        "fcfs": "c",
        "sjf": "c",
        "priority": "b",
    }


def test_an_unknown_policy_gets_a_hint() -> None:
    with pytest.raises(ProfileError, match="no scheduling policy called priorty") as caught:
        make_waiting("priorty")
    assert caught.value.hint == "did you mean priority?"


Order = Callable[[list[tuple[int, Sequence]]], list[Sequence]]


def _fcfs(held: list[tuple[int, Sequence]]) -> list[Sequence]:
    return [sequence for _, sequence in sorted(held, key=lambda entry: entry[0])]


def _sjf(held: list[tuple[int, Sequence]]) -> list[Sequence]:
    def rank(entry: tuple[int, Sequence]) -> tuple[bool, float, int]:
        place, sequence = entry
        length = sequence.prompt_tokens + (sequence.hints.expected_output_tokens or 0)
        return place >= 0, length if place >= 0 else 0, place

    return [sequence for _, sequence in sorted(held, key=rank)]


def _priority(held: list[tuple[int, Sequence]]) -> list[Sequence]:
    return [
        sequence
        for _, sequence in sorted(held, key=lambda entry: (entry[1].hints.priority, entry[1].queued_ps, entry[0]))
    ]


ORDERS: dict[str, Order] = {"fcfs": _fcfs, "sjf": _sjf, "priority": _priority}
CALLS = st.builds(
    call,
    st.just("call"),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(-1, 1),
    st.none() | st.integers(0, 3).map(float),
)
DOINGS = st.lists(st.tuples(st.sampled_from(["append", "appendleft", "popleft", "remove"]), CALLS, st.integers(0, 99)))


@given(st.sampled_from(sorted(POLICIES)), DOINGS)
def test_a_queue_is_the_list_of_its_calls_sorted(name: str, doings: list[tuple[str, Sequence, int]]) -> None:
    """Whatever happens, the order is that of the plain definition: a list, sorted anew each time."""
    assert set(ORDERS) == set(POLICIES)
    waiting, held = make_waiting(name), []
    for place, (doing, sequence, at) in enumerate(doings, 1):
        if doing in ("append", "appendleft"):
            getattr(waiting, doing)(sequence)
            held.append((place if doing == "append" else -place, sequence))
        elif held:
            order = ORDERS[name](held)
            gone = order[0] if doing == "popleft" else order[at % len(order)]
            if doing == "popleft":
                assert waiting.head() is gone and waiting.popleft() is gone
            else:
                waiting.remove(gone)
            held = [entry for entry in held if entry[1] is not gone]
        assert list(waiting) == ORDERS[name](held)
        assert len(waiting) == len(held)
    if held:
        assert waiting.head() is ORDERS[name](held)[0]


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_call_that_does_not_wait_cannot_be_removed(name: str) -> None:
    waiting = make_waiting(name)
    waiting.append(call("a"))
    with pytest.raises(KeyError):
        waiting.remove(call("b"))
    assert names(waiting) == ["a"]


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_cancelled_calls_leave_nothing_behind(name: str) -> None:
    """Thousands that come and go while one waits: what is kept stays small, and none comes back."""
    waiting = make_waiting(name)
    kept = call("kept", tokens=10**6, at=10**6, priority=9)
    waiting.append(kept)
    for i in range(2000):
        gone = call(f"gone {i}", at=i)
        waiting.append(gone)
        waiting.remove(gone)
    waiting.append(call("next", tokens=10**7, at=10**7, priority=10))
    assert len(getattr(waiting, "_heap", ())) < 50
    assert [waiting.popleft().call, waiting.popleft().call, len(waiting)] == ["kept", "next", 0]
