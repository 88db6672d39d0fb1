"""Sessions, prompts and what they share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions

from workloom.errors import TraceError
from workloom.prefix import Key, PrefixTree, common
from workloom.prompt import Prompts, planned
from workloom.session import Call, Edge, Inherit, Part, Session, Span, prompt_tokens, ready, validate


def flat(key: Key) -> list[tuple[int, int]]:
    """Every token by name."""
    begins = (0, *key.ends)
    return [(text, i) for text, a, b in zip(key.ids, begins, key.ends, strict=False) for i in range(b - a)]


def key_of(pieces: list[tuple[int, int]]) -> Key:
    key = Key()
    for text, tokens in pieces:
        key = key.plus(text, tokens)
    return key


keys = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=6).map(key_of)


@given(keys, keys)
def test_common_counts_the_tokens_two_sequences_begin_with(a: Key, b: Key) -> None:
    shared = 0
    for x, y in zip(flat(a), flat(b), strict=False):
        if x != y:
            break
        shared += 1
    # A text that goes on in one sequence and begins again in the other parts there, as common() says.
    assert common(a, b) == shared


@given(keys, st.integers(0, 30))
def test_a_cut_key_is_a_prefix(key: Key, tokens: int) -> None:
    assert flat(key.cut(tokens)) == flat(key)[:tokens]


@given(st.lists(keys, max_size=12))
@settings(max_examples=300)
def test_the_tree_finds_the_longest_prefix_shared_with_anything_added(added: list[Key]) -> None:
    tree = PrefixTree()
    for i, key in enumerate(added):
        longest = max((common(key, other) for other in added[:i]), default=0)
        assert tree.match(key) == longest
        assert tree.add(key) == longest


@given(sessions())
@settings(max_examples=100, deadline=None)
def test_prompts_have_the_planned_length_and_begin_with_what_they_inherit(session: Session) -> None:
    lengths = prompt_tokens(session)
    made = planned(session, 3)
    by_id = {call.id: prompt for call, prompt in made}
    for call, prompt in made:
        assert prompt.tokens == lengths[call.id]
        if call.inherit is not None:
            ancestor = by_id[call.inherit.call].key_with_answer()
            assert common(ancestor, prompt.key) >= prompt.base_tokens


@given(sessions())
@settings(max_examples=50, deadline=None)
def test_two_instances_share_trace_spans_and_nothing_else(session: Session) -> None:
    for (call, one), (_, two) in zip(planned(session, 0), planned(session, 1), strict=True):
        lead = 0
        if call.inherit is None:
            for span in call.spans:
                if span.scope != "trace":
                    break
                lead += span.tokens
            assert common(one.key, two.key) == lead


def test_all_is_the_prompt_and_whatever_answer_came() -> None:
    session = Session(
        "s",
        (
            Call("a", 10, fresh=(Part("user", 5),)),
            Call("b", 1, after=(Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 3),)),
        ),
    )
    for came in (0, 4, 30):
        prompts = Prompts(session, 0)
        prompts.make(session.calls[0]).answer_tokens = came
        assert prompts.make(session.calls[1]).tokens == 5 + came + 3


def test_ready_is_the_latest_of_done_plus_wait() -> None:
    call = Call("d", 1, after=(Edge("a", 1.0), Edge("b", 0.5)))
    assert ready(call, {"a": 3.0}) is None
    assert ready(call, {"a": 3.0, "b": 3.4}) == 4.0
    assert ready(Call("r", 1), {}) == 0.0


@pytest.mark.parametrize(
    ("calls", "field"),
    [
        ((), "session s"),
        ((Call("a", 1), Call("a", 1)), "call a, id"),
        ((Call("a", 1, after=(Edge("b"),)), Call("b", 1)), "call a, after"),
        ((Call("a", 1), Call("b", 1, after=(Edge("a", -1.0),))), "after.wait_s"),
        ((Call("a", -1),), "output_tokens"),
        ((Call("a", 1, reasoning_tokens=2),), "reasoning_tokens"),
        ((Call("a", 1, fresh=(Part("user", -3),)),), "fresh[0].tokens"),
        ((Call("a", 1, spans=(Span("x", -3),)),), "spans[x].tokens"),
        ((Call("a", 1, stop_after=0),), "stop_after"),
        ((Call("a", 1), Call("b", 1, inherit=Inherit("a"))), "inherit.call"),
        ((Call("a", 1), Call("b", 1, after=(Edge("a"),), inherit=Inherit("a", 2))), "inherit.tokens"),
    ],
)
def test_a_session_that_cannot_be_is_refused_by_call_and_field(calls: tuple[Call, ...], field: str) -> None:
    with pytest.raises(TraceError) as caught:
        validate(Session("s", calls))
    assert field in str(caught.value)


def test_the_numbers_of_texts_do_not_depend_on_the_order_in_which_calls_become_due() -> None:
    calls = tuple(
        Call(name, 1, after=(Edge("r"),) if name != "r" else (), spans=(Span(f"span {name}", 5),)) for name in "rab"
    )
    numbers = []
    for order in ("rab", "rba"):
        prompts = Prompts(Session("s", calls), 0)
        made = {name: prompts.make(next(c for c in calls if c.id == name)) for name in order}
        numbers.append({name: prompt.key for name, prompt in made.items()})
    assert numbers[0] == numbers[1]
