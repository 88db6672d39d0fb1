"""Where a session begins when a run opens in the middle of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions

from workloom.plan.start import Start, open_session, timeline
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session


def call(name: str, *after: Edge, at: tuple[float, float] | None = None, inherit: str | None = None) -> Call:
    recorded = None if at is None else Recorded(start_s=at[0], end_s=at[1])
    from_ = None if inherit is None else Inherit(inherit)
    return Call(name, 10, after=after, fresh=(Part("user", 100),), inherit=from_, recorded=recorded)


CHAIN = Session(
    "chain",
    (
        call("a", at=(0, 10)),
        call("b", Edge("a", 20.0), at=(30, 40), inherit="a"),
        call("c", Edge("b", 50.0), at=(90, 100), inherit="b"),
    ),
)


def test_by_the_clock_what_had_begun_is_over_and_the_rest_of_the_wait_is_left() -> None:
    """0.5 of 100 s is the instant 50: b ended at 40, c is due at 90."""
    opening = open_session(CHAIN, Start(by="clock"), 0.5)
    assert opening.before == {"a", "b"}
    assert opening.prefill == ("b",)
    assert opening.rest_s == {"c": 40.0}


def test_a_call_in_flight_at_the_instant_counts_as_over_when_it_ends() -> None:
    opening = open_session(CHAIN, Start(by="clock"), 0.35)
    assert opening.before == {"a", "b"}
    assert opening.rest_s == {"c": 55.0}


def test_by_the_index_the_fraction_of_a_call_is_the_part_of_its_wait_that_is_over() -> None:
    opening = open_session(CHAIN, Start(by="index"), 0.5)  # 1.5 calls
    assert opening.before == {"a"}
    assert opening.prefill == ("a",)
    assert opening.rest_s == {"b": 10.0, "c": 0.0}


@pytest.mark.parametrize("by", ["clock", "index"])
def test_one_call_at_least_is_left(by: str) -> None:
    opening = open_session(CHAIN, Start(by=by), 1.0)  # type: ignore[arg-type]
    assert opening.before == {"a", "b"}


def test_at_0_nothing_is_over() -> None:
    opening = open_session(CHAIN, Start(), 0.0)
    assert opening.before == frozenset() and opening.prefill == ()
    assert opening.rest_s["a"] == 0


def test_streams_that_go_on_are_prefilled_and_those_that_are_over_are_not() -> None:
    """main spawns x (over by 50) and y (still going): y's last context and main's are needed, x's is not."""
    session = Session(
        "fan",
        (
            call("m1", at=(0, 10)),
            call("x1", Edge("m1"), at=(10, 20)),
            call("x2", Edge("x1"), at=(20, 30), inherit="x1"),
            call("y1", Edge("m1"), at=(10, 40)),
            call("y2", Edge("y1", 30.0), at=(70, 80), inherit="y1"),
            call("m2", Edge("x2"), Edge("y2"), at=(90, 100), inherit="m1"),
        ),
    )
    opening = open_session(session, Start(by="clock"), 0.5)
    assert opening.before == {"m1", "x1", "x2", "y1"}
    assert opening.prefill == ("m1", "y1")
    assert opening.rest_s == {"y2": 20.0, "m2": 0.0}


def test_a_trace_without_a_clock_is_timed_by_its_waits_and_a_pace() -> None:
    """100 new tokens at 10,000/s and 10 at 50/s: 0.21 s a call."""
    session = Session("s", (call("a"), call("b", Edge("a", 2.0), inherit="a")))
    assert timeline(session) == {"a": (0.0, pytest.approx(0.21)), "b": (pytest.approx(2.21), pytest.approx(2.42))}


@settings(max_examples=60, deadline=None)
@given(sessions(), st.sampled_from(["clock", "index"]), st.floats(0, 1))
def test_what_is_over_is_closed_under_what_it_waited_for(session: Session, by: str, share: float) -> None:
    opening = open_session(session, Start(by=by), share)  # type: ignore[arg-type]
    by_id = {c.id: c for c in session.calls}
    assert len(opening.before) < len(session.calls)
    for name in opening.before:
        assert all(edge.call in opening.before for edge in by_id[name].after)
    assert set(opening.prefill) <= opening.before
    rest = [c for c in session.calls if c.id not in opening.before]
    for each in rest:
        if each.inherit is not None and each.inherit.call in opening.before:
            assert each.inherit.call in opening.prefill
    assert set(opening.rest_s) == {c.id for c in rest}
    assert all(left >= 0 for left in opening.rest_s.values())


def test_a_capped_wait_keeps_the_share_of_it_that_is_left() -> None:
    """c waits 50 s behind b, which ended at 40; capped at 10 s, at the instant 65 half of it is left."""
    opening = open_session(CHAIN, Start(by="clock"), 0.65, 10.0)
    assert opening.rest_s == {"c": 5.0}
    assert opening.skipped_s == 20.0
    opening = open_session(CHAIN, Start(by="index"), 0.5, 8.0)
    assert opening.rest_s == {"b": 4.0, "c": 0.0}
    assert opening.skipped_s == 6.0
