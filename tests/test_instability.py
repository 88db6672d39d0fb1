"""What bends and breaks sessions: each rule by hand, with its costs and a near miss; real traces as they are known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from handmade import call, one, session, thread
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions

import workloom
from workloom.model import events
from workloom.model.describe import describe
from workloom.model.events import Event
from workloom.model.facts import facts
from workloom.model.instability import FIELDS, Events, Instability, InstabilitySection
from workloom.model.links import links
from workloom.session import Call, Part, Session, Span
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"
CANONICAL = Path(workloom.__file__).parent / "data/canonical.jsonl"
real = pytest.mark.skipif(not DATA.exists(), reason="no real traces at ../shared/data")


def instability(told: Iterable[Session]) -> Instability:
    section = InstabilitySection()
    for one_session in facts(told):
        section.add(one_session)
    return section.result()


def of(*calls: Call, origin: str | None = None) -> Instability:
    return instability([session(*calls, origin=origin)])


def counts(got: Instability) -> dict[str, int]:
    """Kinds that were seen and how often."""
    return {name: count for name in FIELDS if (count := getattr(got, name).count)}


def cost(kind: Events) -> tuple[int | None, int | None, int | None]:
    return kind.count, kind.tokens_recomputed, kind.tokens_lost


SCAFFOLD = (Span("tools", 100),)


def grown(*more: Call) -> tuple[Call, ...]:
    """A prompt of 1,000 tokens, of which 100 are scaffold, that has grown to 2,000 with an answer of 50; then more."""
    return (
        call("a", fresh=900, spans=SCAFFOLD, out=50),
        call("b", "a", inherit="a", fresh=950, out=50),
        *more,
    )


def test_growing_contexts_are_stable() -> None:
    got = of(*grown(call("c", "b", inherit="b"), call("d", "c:human", inherit=("c", 2060), fresh="answer:3 user:9")))
    assert counts(got) == {}
    assert got.transitions == 3
    assert (got.prompt_tokens, got.computed_tokens) == (1000 + 2000 + 2060 + 2072, 1000 + 950 + 10 + 12)
    assert got.recomputed_share == 0.0


def test_a_compaction_by_its_summary() -> None:
    got = of(*grown(call("c", "b", inherit=("a", 100), fresh="summary:500 injected:600")))
    assert counts(got) == {"compactions": 1}
    assert cost(got.compactions) == (1, 1100, 1950), "1,950 of 2,050 tokens of context are given up"
    assert got.compactions.calls_share == 1 / 3
    assert got.compactions.per_1000_calls == pytest.approx(1000 / 3)


def test_a_compaction_by_its_size() -> None:
    half = of(*grown(call("c", "b", spans=SCAFFOLD, fresh="user:900")))
    assert counts(half) == {"compactions": 1}
    assert cost(half.compactions) == (1, 900, 1950), "the scaffold is held although nothing is inherited"
    more = of(*grown(call("c", "b", spans=SCAFFOLD, fresh="user:901")))
    assert counts(more) == {"context_resets": 1}


def test_a_history_told_anew_is_a_reset() -> None:
    got = of(*grown(call("c", "b", inherit=("b", 999), fresh=1500)))
    assert counts(got) == {"context_resets": 1}
    assert cost(got.context_resets) == (1, 2050 - 999, 2050 - 999), "what stands behind 2,050 tokens is new"


def test_a_history_that_loses_less_is_edited() -> None:
    got = of(*grown(call("c", "b", inherit=("b", 1000), fresh=1500)))
    assert counts(got) == {"history_edits": 1}
    assert cost(got.history_edits) == (1, 1050, 1050)


def test_a_dropped_answer_is_no_edit() -> None:
    assert counts(of(*grown(call("c", "b", inherit=("b", 2000), fresh=10)))) == {}


def test_going_back_to_an_earlier_call_is_a_rewind() -> None:
    got = of(*grown(call("c", "b:human", inherit="a", fresh="user:20")))
    assert counts(got) == {"replans_by_rewind": 1}
    assert cost(got.replans_by_rewind) == (1, 0, 1000), "the second call's 950 tokens and its answer"


def test_a_history_told_anew_without_its_reasoning_is_no_rewind() -> None:
    fresh = [Part("answer", 40, from_call="a"), Part("tool", 950), Part("answer", 40, from_call="b"), Part("user", 9)]
    got = of(*grown(call("c", "b:human", inherit=("a", 1000), fresh=fresh)))
    assert counts(got) == {"history_edits": 1}


def test_a_second_branch_begun_when_the_first_was_answered_is_a_rewind_and_leaves_it_behind() -> None:
    trunk = call("a", fresh=100, out=10, at=(0, 1))
    first = [call("b", "a:human", inherit="a", out=7, at=(2, 3)), call("c", "b", inherit="b", out=7, at=(4, 5))]
    got = of(trunk, *first, call("d", "a:human", inherit="a", fresh=30, at=(6, 7)))
    assert counts(got) == {"replans_by_rewind": 1, "abandoned_branches": 1}
    assert cost(got.replans_by_rewind) == (1, 0, 0)
    assert cost(got.abandoned_branches) == (1, 0, 2 * (10 + 7)), "fresh text and answers of b and c"


def test_branches_side_by_side_are_no_rewind_and_the_last_ones_are_not_abandoned() -> None:
    trunk = call("a", at=(0, 1))
    got = of(trunk, call("b", "a", inherit="a", at=(2, 5)), call("c", "a", inherit="a", fresh=30, at=(2, 6)))
    assert counts(got) == {}


def test_a_branch_whose_context_is_inherited_is_not_abandoned() -> None:
    calls = [call("a"), call("b", "a", inherit="a"), call("c", "a", inherit="a", fresh=30), call("d", "c", inherit="c")]
    assert counts(of(*calls)) == {"abandoned_branches": 1}
    joined = [*calls[:3], call("d", "c b", inherit="b")]
    assert counts(of(*joined)) == {}


def test_a_retry_computes_its_fresh_text_again_and_throws_an_answer_away() -> None:
    again = call("c", "b", inherit="a", fresh=950, out=50)
    got = of(*grown(again))
    assert counts(got) == {"retries": 1}, "and no edit of history"
    assert cost(got.retries) == (1, 950, 50)
    whole = of(*grown(call("c", "b:human", inherit=("b", 2000), fresh=0)))
    assert cost(whole.retries) == (1, 0, 50), "by hashes the prompt is known to be the very same"


def test_a_failure_that_is_retried_loses_its_answer_and_the_retry_computes_the_prompt() -> None:
    calls = [call("a", fresh=1000), call("b", "a", inherit="a", fresh=100, out=3, status="error")]
    got = of(*calls, call("c", "b", inherit="a", fresh=104))
    assert counts(got) == {"retries": 1, "failures": 1}
    assert (cost(got.failures), cost(got.retries)) == ((1, 0, 3), (1, 104, 0))
    alone = of(*calls)
    assert cost(alone.failures) == (1, 0, 103), "all that it computed"


def test_an_aborted_answer_is_lost_where_it_is_not_inherited() -> None:
    calls = [call("a", fresh=1000), call("b", "a", inherit="a", fresh=100, out=30, status="aborted")]
    kept = of(*calls, call("c", "b:human", inherit="b", fresh="user:9"))
    assert cost(kept.aborts) == (1, 0, 0)
    assert counts(kept) == {"aborts": 1, "human_corrections": 1}
    half = of(*calls, call("c", "b:human", inherit=("b", 1117), fresh="user:9"))
    assert cost(half.aborts) == (1, 0, 1135 - 1117)
    dropped = of(*calls, call("c", "b:human", inherit="a", fresh="user:9"))
    assert cost(dropped.aborts) == (1, 0, 130)
    assert counts(dropped) == {"aborts": 1, "human_corrections": 1}, "the context is that of the answered call"


def test_a_client_that_hangs_up_by_plan_aborts() -> None:
    got = of(call("a", fresh=100, out=30, stop_after=8), call("b", "a"))
    assert counts(got) == {"aborts": 1}
    assert cost(got.aborts) == (1, 0, 108)


def test_the_same_tool_again_may_be_a_correction() -> None:
    got = of(
        call("a", fresh="user:9", out=20),
        call("b", "a", inherit="a", fresh="tool.Edit:30", out=21),
        call("c", "b", inherit="b", fresh="tool.Edit:5 tool.Edit:6", out=22),
        call("d", "c", inherit="c", fresh="tool.Edit:7 tool.Bash:8"),
        call("e", "d", inherit="d", fresh="tool.Bash:8"),
        call("f", "e", inherit="e", fresh="tool:8"),
    )
    assert counts(got) == {"self_corrections_at_most": 1}, "d brings results of two tools, f of one without a name"
    assert cost(got.self_corrections_at_most) == (1, 0, 20 + 30), "the answer that asked first, and what came of it"


def running(*more: Call, joined: bool) -> Instability:
    """A subagent of two calls runs from 2 s to 9 s; the user speaks at 5 s."""
    return of(
        call("m1", fresh=100, at=(0, 1)),
        call("s1", "m1:spawn", agent="Explore:s", fresh=40, out=3, at=(2, 3)),
        call("m2", "m1:human", inherit="m1", fresh="user:9", at=(5, 6)),
        call("s2", "s1", agent="Explore:s", inherit="s1", fresh=50, out=4, at=(7, 9)),
        *([call("m3", "m2 s2", inherit="m2", at=(10, 11))] if joined else []),
        *more,
    )


def test_a_human_message_while_subagents_run_changes_the_plan() -> None:
    got = running(joined=True)
    assert counts(got) == {"replans_by_user": 1}
    assert cost(got.replans_by_user) == (1, 0, 0), "its results are waited for later"
    lost = running(call("m3", "m2:human", inherit="m2", fresh="user:9", at=(8, 8.5)), joined=False)
    assert cost(lost.replans_by_user) == (2, 0, 40 + 3 + 50 + 4), "what the subagent did is lost once"
    after = running(call("m3", "m2:human", inherit="m2", fresh="user:9", at=(12, 13)), joined=False)
    assert cost(after.replans_by_user)[0] == 1, "at 12 s it was done"


def test_what_the_trace_does_not_tell_is_not_known() -> None:
    bare = of(call("a"), call("b", "a:none", fresh="tool:10"))
    assert set(bare.not_known) == {
        "compactions",
        "context_resets",
        "history_edits",
        "failures",
        "aborts",
        "self_corrections_at_most",
        "human_corrections",
        "replans_by_user",
        "replans_by_rewind",
    }
    assert bare.failures == Events()
    assert bare.retries == Events(0, 0.0, 0.0, 0, 0.0, 0, None, 0, None)
    told = of(call("a"), call("b", "a", inherit="a", fresh="tool.Bash:10"), origin="openclaw:x.jsonl")
    assert told.not_known == {}
    assert (told.failures.count, told.aborts.count) == (0, 0), "its format would tell"
    seen = of(call("a", status="error"), call("b", "a"))
    assert (seen.failures.count, seen.aborts.count) == (1, None)


def test_agents_without_a_history_do_not_reset_it() -> None:
    helper = [call(f"h{n}", f"h{n - 1}" if n else "", agent="titles", fresh=1000 - 300 * n) for n in range(4)]
    assert counts(of(*helper, *thread("a b"))) == {}
    fan = [call(f"h{n}", "a", agent="main", fresh=50 + n, at=(2 * n, 2 * n + 1)) for n in range(1, 4)]
    assert counts(of(call("a", at=(0, 1)), *fan)) == {"abandoned_branches": 2}, "one after another, but none goes back"


def test_sessions_are_counted_beside_events() -> None:
    bad = [session(*grown(call("c", "b", spans=SCAFFOLD, fresh=500), call("d", "c", inherit="a")), name="x")]
    got = instability([*bad, session(*thread("a b c"), name="y"), session(*thread("a b c"), name="z")])
    assert counts(got) == {"compactions": 1, "replans_by_rewind": 1}
    assert (got.compactions.sessions, got.compactions.sessions_share) == (1, 1 / 3)
    assert (got.compactions.calls_share, got.sessions, got.calls) == (1 / 10, 3, 10)


@settings(max_examples=40, deadline=None)
@given(st.lists(sessions(max_calls=9, recorded=True, stop_after=True), min_size=1, max_size=3))
def test_costs_are_within_what_was_computed(made: list[Session]) -> None:
    for told in facts(made):
        linked = links(told)
        history = list(events.history_changes(told, linked))
        retries = list(events.retries(told, linked))
        assert not {event.place for _, event in history} & {event.place for event in retries}
        for event in [*(event for _, event in history), *retries]:
            assert 0 <= event.recomputed_tokens <= told.calls[event.place].reuse.fresh_tokens
            assert event.lost_tokens >= 0
        broken = [*events.failures(told, linked), *events.aborts(told, linked)]
        ends = list(events.abandoned(told, linked))
        assert not {event.place for event in broken} & {event.place for event in ends}
        spent = sum(c.reuse.fresh_tokens + c.call.answer_tokens for c in told.calls)
        assert sum(event.lost_tokens for event in ends) <= spent, "no call is lost with two branches"
        assert all(event.lost_tokens <= computed(told.calls[event.place]) for event in broken)
    got = instability(made)
    assert got.recomputed_share is None or 0 <= got.recomputed_share <= 1


def computed(c: events.CallFacts) -> int:
    return c.reuse.fresh_tokens + c.call.answer_tokens


def test_an_event_names_the_call_at_which_it_shows() -> None:
    told = one(*grown(call("c", "b", inherit=("b", 1000), fresh=1500)))
    assert list(events.history_changes(told, links(told))) == [("edit", Event(2, 1050, 1050))]


@real
def test_weka_histories_change_as_often_as_an_independent_count_says() -> None:
    got = instability(open_trace([str(DATA / "weka")]))
    plain = describe(open_trace([str(DATA / "weka")]))
    assert got.compactions.count == 33
    changes = [got.compactions, got.context_resets, got.history_edits]
    assert sum(one.count or 0 for one in changes) == plain.context_shrinks + plain.history_edits == 325
    assert got.context_resets.tokens_recomputed_p50 == 83_217
    assert got.history_edits.tokens_recomputed_p50 == 285, "most lose the last block or two"
    assert 0.40 < (got.recomputed_share or 0) < 0.41
    assert set(got.not_known) == {"failures", "aborts", "human_corrections", "self_corrections_at_most"}


@real
def test_agent_logs_tell_their_compaction_and_their_abort() -> None:
    claude = instability(open_trace([str(DATA / "claude-code")]))
    assert (claude.compactions.count, claude.context_resets.count, claude.failures.count) == (1, 0, 0)
    assert claude.compactions.tokens_lost == 119_064
    openclaw = instability(open_trace([str(DATA / "openclaw/interp-session.jsonl")]))
    assert (openclaw.aborts.count, openclaw.compactions.count) == (1, 0)


def test_the_canonical_workload_has_two_compactions() -> None:
    got = instability(open_trace([str(CANONICAL)]))
    assert counts(got) == {"compactions": 2, "self_corrections_at_most": 115}
    assert cost(got.compactions) == (2, 23_996, 209_880)
