"""What infinite caches held of every prompt, told by who put it there; and results of tools that came before."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import workload

from workloom.model.reuse import ToolReuse, reuse, tool_reuse
from workloom.prefix import Key, common
from workloom.prompt import planned
from workloom.session import Call, Edge, Inherit, Part, Session, Span
from workloom.traces import open_trace

CANONICAL = Path(__file__).parent.parent / "src" / "workloom" / "data" / "canonical.jsonl"
CLAUDE_CODE = Path(__file__).parent.parent.parent / "shared" / "data" / "claude-code"


def test_what_is_held_is_told_by_origin() -> None:
    def session(name: str, user: str | None, scaffold: int) -> Session:
        first = Call("a", 5, spans=(Span("tools", scaffold, "trace"),), fresh=(Part("user", 10),))
        return Session(
            name, (first, Call("b", 5, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 3),))), user=user
        )

    rows = list(
        reuse(
            [
                session("1", "ann", 40),
                session("2", "bob", 70),  # 40 of ann's
                session("3", "ann", 60),  # 40 of her own, 60 of bob's
                session("4", None, 60),  # nobody's: all of it is from others
            ]
        )
    )
    firsts = [(row.held_in_session, row.held_by_user, row.held_with_outputs) for row in rows[::2]]
    assert firsts == [(0, 0, 0), (0, 0, 40), (0, 40, 60), (0, 0, 60)]
    seconds = [(row.held_in_session, row.held_by_user, row.held_with_outputs) for row in rows[1::2]]
    assert seconds == [(55, 55, 55), (85, 85, 85), (75, 75, 75), (75, 75, 75)], "prompt and answer of the call before"
    assert [row.held_by_prompts for row in rows] == [0, 50, 40, 80, 60, 70, 60, 70]


@settings(max_examples=30, deadline=None)
@given(workload(max_tokens=40), st.lists(st.sampled_from((None, "ann", "bob")), min_size=4, max_size=4))
def test_each_origin_is_the_longest_prefix_shared_with_its_sequences(
    sessions: list[Session], users: list[str | None]
) -> None:
    named = [replace(session, user=user) for session, user in zip(sessions, users, strict=False)]
    before: list[tuple[int, str | None, Key]] = []
    rows = iter(reuse(named))
    for k, session in enumerate(named):
        for call, prompt in planned(session, k):
            row = next(rows)
            assert row.call is call

            def most(allowed: list[Key], key: Key = prompt.key) -> int:
                return max((common(key, other) for other in allowed), default=0)

            here = most([key for other, _, key in before if other == k])
            user = most([key for other, who, key in before if other == k or (who is not None and who == session.user)])
            assert (row.held_in_session, row.held_by_user) == (here, user)
            assert row.held_with_outputs == most([key for _, _, key in before])
            before.append((k, session.user, prompt.key_with_answer()))
    assert next(rows, None) is None


def test_canonical_sessions_share_their_scaffold_across_users_alone() -> None:
    rows = list(reuse(open_trace([CANONICAL])))
    assert all(row.held_in_session == row.held_by_user for row in rows), "the trace names no user"
    shared = [row for row in rows if row.held_in_session < row.held_with_outputs]
    assert shared and all(row.call.spans[0].scope == "trace" for row in shared), "a first call and its scaffold"
    assert sum(row.held_in_session for row in rows) < sum(row.held_with_outputs for row in rows)


def result(name: str, text: str | None, tokens: int) -> Part:
    return Part("tool", tokens, name=name, text=text)


def test_equal_results_of_one_tool_are_counted() -> None:
    one = (
        Call("a", 1, fresh=(Part("user", 9, text="ls"), result("bash", "x y", 2), result("bash", "x y", 2))),
        Call("b", 1, (Edge("a"),), fresh=(result("read", "x y", 2), result("bash", "z", 1))),
    )
    two = (Call("a", 1, fresh=(result("bash", "z", 1), result("bash", "x y", 2), Part("tool", 50, name="bash"))),)
    found = tool_reuse([Session("1", one), Session("2", two)])
    assert found == ToolReuse(6, 10, 3, 5, 1, 2), "an equal text of another tool, or of a user, is no equal result"


def test_history_that_a_compaction_sends_again_is_no_new_result() -> None:
    calls = (
        Call("a", 1, fresh=(Part("user", 9), result("bash", "x", 2), result("bash", "y", 3))),
        Call("b", 1, (Edge("a"),), inherit=Inherit("a"), fresh=(result("bash", "x", 2),)),
        Call("c", 1, (Edge("b"),), inherit=Inherit("a", 9), fresh=(result("bash", "x", 2), result("bash", "z", 5))),
        Call("d", 1, (Edge("a"),), agent="explore", fresh=(result("bash", "y", 3),)),
    )
    assert tool_reuse([Session("s", calls)]) == ToolReuse(5, 15, 2, 5, 2, 5, 1, 2), "b and d ran their tools, c did not"


def test_without_texts_nobody_can_know() -> None:
    call = Call("a", 1, fresh=(result("bash", None, 5), result("bash", None, 5), Part("user", 5, text="hello")))
    assert tool_reuse([Session("s", (call,))]) is None
    assert tool_reuse([Session("s", (Call("a", 1, fresh=(result("bash", "\ud800", 5),)),))]) == ToolReuse(1, 5)


@pytest.mark.skipif(not CLAUDE_CODE.is_dir(), reason="the Claude Code sessions of ../shared/data are not here")
def test_a_trace_read_without_texts_says_nothing_of_its_tools() -> None:
    assert tool_reuse(open_trace([CLAUDE_CODE])) is None
    found = tool_reuse(open_trace([CLAUDE_CODE], text=True))
    assert found is not None and 0 < found.repeated <= found.results
    assert found.repeated_in_session <= found.repeated and found.repeated_tokens < found.result_tokens
