"""Sessions, prompts and what they share."""

from __future__ import annotations

from itertools import combinations, product, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions, workload

from workloom.drive.frame import CompletionsFrame
from workloom.drive.render import Renderer
from workloom.drive.text import Texts
from workloom.errors import TraceError, UsageError
from workloom.prefix import Key, PrefixTree, common
from workloom.prompt import Isolation, Prompts, planned, scaffolds
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
@settings(max_examples=40, deadline=None)
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


# --- what instances share


MODES: tuple[Isolation, ...] = ("after", "before", "none", "play")
WAYS = [*((mode, False) for mode in MODES), *((mode, True) for mode in ("after", "none", "play"))]


@given(workload(max_sessions=2, max_calls=5, max_tokens=40), st.sampled_from(WAYS))
@settings(max_examples=60, deadline=None)
def test_simulation_and_wire_agree_on_what_is_shared(load: list[Session], way: tuple[Isolation, bool]) -> None:
    """Of any two prompts: as many words in common as their keys have tokens; one more may be chance."""
    texts, frame, sent = Texts(3), CompletionsFrame(), []
    for session in load:
        for instance in (0, 1):
            renderer = Renderer(texts, frame)
            for _, prompt in planned(session, instance, *way):
                rendered = renderer.render(prompt)
                sent.append((prompt.key, b"".join(rendered.fragments).removeprefix(b'"prompt":"').split()))
    for (key, words), (other, others) in combinations(sent, 2):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False)))
        assert common(key, other) <= same <= common(key, other) + 1


@given(sessions())
@settings(max_examples=40, deadline=None)
def test_isolation_says_what_two_instances_of_a_session_share(session: Session) -> None:
    scaffold = scaffolds(session)
    for mode in MODES:
        pairs = zip(planned(session, 0, mode), planned(session, 1, mode), strict=True)
        for (call, one), (_, two) in pairs:
            shared = common(one.key, two.key)
            whole, lead = one.tokens, one.lead_tokens
            assert shared == {"after": lead, "before": 0, "none": whole, "play": scaffold[call.id].tokens}[mode]
            assert shared == lead  # what the driver adds to the tree that all sessions of a run share


@given(workload(max_sessions=2))
@settings(max_examples=30, deadline=None)
def test_only_trace_spans_are_shared_by_sessions_and_in_some_modes_not_even_those(load: list[Session]) -> None:
    for mode in MODES:
        made = [planned(session, k, mode) for k, session in enumerate(load)]
        for (_, one), (_, two) in product(made[0], made[-1] if len(made) > 1 else []):
            shared = common(one.key, two.key)
            assert shared <= min(one.lead_tokens, two.lead_tokens)
            assert shared == 0 or mode in ("after", "none")


def recorded(name: str, tools: int, system: int, agent_tools: int) -> Session:
    """As a reader of hashed traces gives it: a scaffold of the main agent, and a subagent that shares 20 of it."""
    root = Call(
        "r0", 5, fresh=(Part("definition", tools, "tools"), Part("definition", system, "system"), Part("user", 9))
    )
    sub = (Part("definition", agent_tools, "tools"), Part("user", 9))
    one, two = (Call(f"s{i}", 5, (Edge("r0"),), f"Explore:{i}", inherit=Inherit("r0", 20), fresh=sub) for i in range(2))
    return Session(
        name, (root, one, two, Call("r1", 5, (Edge("r0"),), inherit=Inherit("r0"), fresh=(Part("tool", 9),)))
    )


def test_a_recycled_session_finds_its_scaffold_and_no_more_in_play() -> None:
    session = recorded("a", 100, 50, 60)
    plays = [dict((call.id, prompt) for call, prompt in planned(session, k, "play")) for k in (0, 1)]
    assert {i: common(plays[0][i].key, plays[1][i].key) for i in plays[0]} == {"r0": 150, "s0": 80, "s1": 80, "r1": 150}


def test_a_shared_scaffold_is_one_text_for_all_sessions_kind_of_agent_by_kind() -> None:
    sessions = [recorded("a", 100, 50, 60), recorded("b", 90, 40, 70)]
    one, two = (
        dict((call.id, prompt) for call, prompt in planned(session, k, share_scaffold=True))
        for k, session in enumerate(sessions)
    )
    assert common(one["r0"].key, two["r0"].key) == 130
    assert common(one["s0"].key, two["s0"].key) == 80
    assert common(one["s0"].key, one["s1"].key) == 20  # as the session says: other definitions
    assert common(one["r0"].key, one["s0"].key) == 20
    assert common(one["r1"].key, two["r1"].key) == 130


@given(sessions(max_tokens=50))
@settings(max_examples=50, deadline=None)
def test_sharing_the_scaffold_changes_nothing_within_a_session(session: Session) -> None:
    alone, shared = planned(session), planned(session, share_scaffold=True)
    for i, j in combinations(range(len(alone)), 2):
        assert common(shared[i][1].key, shared[j][1].key) == common(alone[i][1].key, alone[j][1].key)


@given(sessions())
@settings(max_examples=25, deadline=None)
def test_no_isolation_changes_how_long_prompts_are(session: Session) -> None:
    for mode, share in WAYS:
        lengths = [prompt.tokens for _, prompt in planned(session, 0, mode, share)]
        assert lengths == list(prompt_tokens(session).values())


def test_a_scaffold_cannot_be_shared_and_private() -> None:
    with pytest.raises(UsageError):
        Prompts(Session("s", (Call("a", 1),)), 0, "before", share_scaffold=True)


def test_a_piece_knows_whose_answer_it_repeats_and_what_was_said() -> None:
    fresh = (Part("report", 5, from_call="a"), Part("user", 5, from_call="a"), Part("tool", 3, text="so it is"))
    session = Session("s", (Call("a", 10, fresh=(Part("user", 5),)), Call("b", 1, (Edge("a"),), fresh=fresh)))
    (_, first), (_, second) = planned(session)
    assert [piece.source for piece in second.pieces] == [first, None, None]
    assert [piece.said for piece in second.pieces] == [None, None, "so it is"]
