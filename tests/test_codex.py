"""The Codex reader: one call a token count, waits told apart, reasoning left out after the user's next message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import save
from samples.codex import CHILD, PARENT, files

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Session, prompt_tokens, ready, validate
from workloom.traces import Reading, open_trace, sniff

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "codex"
Row = dict[str, Any]


class Rollout:
    """Lines of a rollout as they are written, seconds after noon."""

    def __init__(self, id: str = "s1", **meta: Any) -> None:
        self.rows: list[Row] = []
        self._total = 0
        self.line(0, "session_meta", id=id, source="cli", **meta)

    def line(self, at: float, line_type: str, /, **payload: Any) -> Rollout:
        stamp = f"2026-02-23T12:{int(at) // 60:02d}:{at % 60:06.3f}Z"
        self.rows.append({"timestamp": stamp, "type": line_type, "payload": payload})
        return self

    def event(self, at: float, type: str, **payload: Any) -> Rollout:
        return self.line(at, "event_msg", type=type, **payload)

    def item(self, at: float, type: str, **payload: Any) -> Rollout:
        return self.line(at, "response_item", type=type, **payload)

    def user(self, at: float, text: str = "x" * 40) -> Rollout:
        self.item(at, "message", role="user", content=[{"type": "input_text", "text": text}])
        return self.event(at, "user_message", message=text)

    def asks(self, at: float, *calls: str, tool: str = "shell") -> Rollout:
        for call in calls:
            self.item(at, "function_call", name=tool, call_id=call, arguments="{}")
        return self

    def output(self, at: float, call: str, text: str = "x" * 40) -> Rollout:
        return self.item(at, "function_call_output", call_id=call, output=text)

    def answers(self, at: float, text: str = "x" * 40) -> Rollout:
        return self.item(at, "message", role="assistant", content=[{"type": "output_text", "text": text}])

    def count(self, at: float, prompt: int, output: int, *, cached: int = 0, reasoning: int = 0) -> Rollout:
        self._total += prompt
        self.rows.append(self._count(at, prompt, output, cached, reasoning))
        return self

    def _count(self, at: float, prompt: int, output: int, cached: int, reasoning: int) -> Row:
        last = {"input_tokens": prompt, "cached_input_tokens": cached, "output_tokens": output}
        last["reasoning_output_tokens"] = reasoning
        info = {"total_token_usage": {**last, "input_tokens": self._total}, "last_token_usage": last}
        self.event(at, "token_count", info=info)
        return self.rows.pop()

    def again(self, at: float) -> Rollout:
        """The last count, repeated with the rate limits of the next response."""
        last = next(row for row in reversed(self.rows) if row["payload"].get("info"))
        return self.event(at, "token_count", info=last["payload"]["info"])

    def save(self, folder: Path, name: str = "rollout-1.jsonl") -> Path:
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


def one(path: Path, **options: Any) -> tuple[Session, Reading]:
    reading = open_trace([path], format="codex", **options)
    (session,) = reading
    check(session)
    return session, reading


def check(session: Session) -> None:
    """Valid, and every recorded start is when the waits make the call due."""
    validate(session)
    done: dict[str, float] = {}
    for call in session.calls:
        assert call.recorded is not None
        assert ready(call, done) == pytest.approx(call.recorded.start_s, abs=2e-6), call.id
        assert call.recorded.end_s is not None
        done[call.id] = call.recorded.end_s


def fresh(call: Call) -> list[tuple[str, int]]:
    return [(part.kind, part.tokens) for part in call.fresh]


def after(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def test_one_call_a_distinct_count(tmp_path: Path) -> None:
    rollout = Rollout(base_instructions={"text": "y" * 400}).user(1).event(2, "token_count", info=None)
    rollout.asks(3, "a").count(3, 1000, 30, cached=128).output(5, "a").again(6).answers(7).count(
        7, 1040, 20, cached=1024
    )
    session, reading = one(rollout.save(tmp_path))
    first, second = session.calls
    assert list(prompt_tokens(session).values()) == [1000, 1040]
    assert [(span.tokens, span.scope) for span in first.spans] == [(100, "trace")], "the system prompt is a shared text"
    assert fresh(first) == [("definition", 890), ("user", 10)], "400 + 40 characters seen, the rest is scaffold"
    assert second.inherit == Inherit("c0") and fresh(second) == [("tool", 10)]
    assert [(part.name, part.seconds) for part in second.fresh] == [("shell", 2.0)]
    assert after(second) == [("c0", 2.0, "tool")]
    assert [call.output_tokens for call in session.calls] == [30, 20]
    assert first.recorded and first.recorded.cached_tokens == 128
    assert (first.recorded.start_s, first.recorded.end_s) == (0.0, 2.0)
    assert reading.report.merged == {"token counts that repeat the one before": 1}


def test_parallel_tools_are_one_edge_that_ends_with_the_slowest(tmp_path: Path) -> None:
    rollout = Rollout().user(1).asks(3, "a", "b").count(3, 100, 9).output(4, "a", "x" * 120).output(9, "b", "x" * 40)
    rollout.answers(12).count(12, 149, 5)
    session, _ = one(rollout.save(tmp_path))
    assert after(session.calls[1]) == [("c0", 6.0, "tool")]
    assert [(part.tokens, part.seconds) for part in session.calls[1].fresh] == [(30, 1.0), (10, 6.0)]


def test_the_user_is_waited_for_and_reasoning_leaves(tmp_path: Path) -> None:
    """P1 100 | R 20 A 10 | tool 15, then R 5 A 6; then the user: 100 | 10 | 15 | 6 | user."""
    rollout = Rollout().user(1).asks(3, "a").count(3, 100, 30, reasoning=20).output(4, "a").answers(6)
    rollout.count(6, 145, 11, reasoning=5, cached=130).event(6.1, "task_complete")
    rollout.user(60).answers(62).count(62, 100 + 10 + 15 + 6 + 12, 4, cached=96)
    session, reading = one(rollout.save(tmp_path))
    _, c1, c2 = session.calls
    assert c1.inherit == Inherit("c0"), "within a request of the user the reasoning is in the next prompt"
    assert c2.inherit == Inherit("c0", 100), "after it, what follows the first prompt is computed anew"
    assert fresh(c2) == [("answer", 10), ("tool", 15), ("answer", 6), ("user", 12)]
    assert [part.from_call for part in c2.fresh] == ["c0", None, "c1", None]
    assert after(c2) == [("c1", 54.0, "human")]
    assert reading.report.inferred["reasoning tokens left out after the user's next message"] == 25


def test_the_cache_can_show_that_reasoning_stayed(tmp_path: Path) -> None:
    rollout = (
        Rollout().user(1).answers(3).count(3, 100, 30, reasoning=20).user(60).answers(62).count(62, 150, 4, cached=128)
    )
    session, _ = one(rollout.save(tmp_path))
    assert session.calls[1].inherit == Inherit("c0") and fresh(session.calls[1]) == [("user", 20)]


def test_a_compaction_is_a_call_and_a_reset_context(tmp_path: Path) -> None:
    rollout = Rollout(base_instructions={"text": "y" * 80}).user(1).asks(3, "a").count(3, 100, 10).output(4, "a")
    rollout.count(9, 120, 50).line(9.5, "compacted", message="z" * 200).event(9.6, "context_compacted")
    rollout.answers(12).count(12, 140, 5)
    session, reading = one(rollout.save(tmp_path))
    _, summary, last = session.calls
    assert summary.output_tokens == 50
    assert last.inherit == Inherit("c1", 90), "20 of system prompt and 70 of hidden scaffold"
    assert fresh(last) == [("summary", 50)]
    assert after(last) == [("c1", 0.5, "orchestration")]
    assert reading.report.inferred["histories replaced by a summary (compaction)"] == 1


def test_a_turn_aborted_while_its_tool_ran_is_no_lost_call(tmp_path: Path) -> None:
    rollout = Rollout().user(1).asks(3, "a").count(3, 100, 10).event(9, "turn_aborted").output(9, "a").user(20)
    session, reading = one(rollout.answers(22).count(22, 130, 10).save(tmp_path))
    assert [call.recorded.status for call in session.calls if call.recorded] == ["ok", "ok"]
    assert reading.report.dropped == {
        "turns aborted while no answer was being written: before one began, or while a tool ran": 1
    }


def test_an_aborted_turn_is_a_call_of_estimated_size(tmp_path: Path) -> None:
    rollout = Rollout().user(1).answers(3).count(3, 100, 10).user(9).answers(11, "x" * 80).event(12, "turn_aborted")
    rollout.user(20).answers(23).count(23, 160, 7)
    session, _ = one(rollout.save(tmp_path))
    _, aborted, last = session.calls
    assert aborted.recorded and aborted.recorded.status == "aborted"
    assert aborted.recorded.estimated == ("prompt_tokens", "output_tokens")
    assert (prompt_tokens(session)["c1"], aborted.output_tokens, aborted.stop_after) == (110 + 10, 20, 20)
    assert last.inherit == Inherit("c1") and fresh(last) == [("user", 20)]


def test_a_guess_that_is_too_large_resets_nothing(tmp_path: Path) -> None:
    rollout = Rollout().user(1).answers(3).count(3, 100, 10).user(9, "x" * 800).answers(11).event(12, "turn_aborted")
    rollout.user(20).answers(23).count(23, 160, 7)
    session, _ = one(rollout.save(tmp_path))
    assert session.calls[2].inherit == Inherit("c0")
    assert [part.kind for part in session.calls[2].fresh] == ["user", "answer", "user"]
    assert prompt_tokens(session)["c2"] == 160


def test_files_without_counts_are_estimated(tmp_path: Path) -> None:
    rollout = Rollout().user(1, "x" * 400).asks(3, "a").output(4, "a").asks(6, "b").output(7, "b").answers(9, "x" * 60)
    session, reading = one(rollout.save(tmp_path))
    assert list(prompt_tokens(session).values()) == [100, 111, 122], "2 characters of arguments are a token"
    assert [call.output_tokens for call in session.calls] == [1, 1, 15]
    assert reading.report.inferred["calls without a token count, their sizes estimated from texts"] == 3
    assert after(session.calls[2]) == [("c1", 1.0, "tool")]


def test_items_written_after_their_count_belong_to_it(tmp_path: Path) -> None:
    """Older versions wrote down what a call made when its tools were done."""
    rollout = Rollout().user(1).count(3, 100, 10).asks(8, "a").output(8, "a").count(10, 120, 5).answers(10)
    rollout.user(30).count(33, 140, 5).answers(33)
    session, reading = one(rollout.save(tmp_path))
    assert [after(call) for call in session.calls] == [[], [("c0", 5.0, "tool")], [("c1", 20.0, "human")]]
    assert not reading.report.inferred and not reading.report.dropped


def test_a_running_agents_last_answer_is_left_out(tmp_path: Path) -> None:
    path = Rollout().user(1).answers(3).count(3, 100, 10).user(9).asks(11, "a").save(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"timestamp": "2026-02-2')
    session, reading = one(path)
    assert len(session.calls) == 1
    assert reading.report.dropped == {
        "half-written last line": 1,
        "answers at the end of a file that no token count closes": 1,
    }


def test_calls_a_fork_repeats_are_its_parents(tmp_path: Path) -> None:
    mine, older, newer = (f"019c8a4c-{n}-7000-8000-000000000000" for n in ("5000", "4000", "6000"))
    rollout = Rollout(mine, forked_from_id=older).line(0, "session_meta", id=older, source="cli")
    rollout.event(0, "task_started", turn_id=older).user(0).answers(0).count(0, 100, 10)
    rollout.event(5, "task_started", turn_id=newer).user(5).answers(7).count(7, 150, 9)
    session, reading = one(rollout.save(tmp_path))
    assert session.id == mine
    assert list(prompt_tokens(session).values()) == [150]
    assert fresh(session.calls[0]) == [("definition", 120), ("injected", 20), ("user", 10)]
    assert reading.report.dropped == {"calls repeated from the session a rollout was forked from": 1}
    empty = (
        Rollout(mine, forked_from_id=older).event(0, "task_started", turn_id=older).user(0).answers(0).count(0, 9, 9)
    )
    reading = open_trace([empty.save(tmp_path)], format="codex")
    assert not list(reading) and reading.report.dropped["rollouts with no call of their own"] == 1


# ------------------------------------------------------------------------------------------------------- subagents


def _family(folder: Path) -> list[Path]:
    parent = Rollout("p").user(1).asks(3, "a", tool="spawn_agent").count(3, 100, 10).output(3.5, "a")
    parent.asks(5, "b", tool="wait_agent").count(5, 130, 10).output(30, "b").answers(33).count(33, 160, 10)
    spawn = {"parent_thread_id": "p", "agent_role": "explorer"}
    child = Rollout("k")
    child.rows[0]["payload"]["source"] = {"subagent": {"thread_spawn": spawn}}
    child.user(4).asks(8, "z").count(8, 50, 5).output(10, "z").answers(29).count(29, 70, 5)
    return [child.save(folder, "k.jsonl"), parent.save(folder, "p.jsonl")]


def test_a_subagent_is_spawned_and_joined(tmp_path: Path) -> None:
    (session,) = open_trace(_family(tmp_path))
    check(session)
    calls = {call.id: call for call in session.calls}
    assert {name: call.agent for name, call in calls.items()} == {
        "c0": "main", "a1.0": "explorer:1", "c1": "main", "a1.1": "explorer:1", "c2": "main",
    }  # fmt: skip
    assert after(calls["a1.0"]) == [("c0", 1.0, "spawn")] and calls["a1.0"].inherit is None
    assert after(calls["c2"]) == [("c1", 1.0, "tool"), ("a1.1", 1.0, "orchestration")], (
        "the wait's own time is the subagent's"
    )
    assert [(part.kind, part.from_call) for part in calls["c2"].fresh] == [("report", "a1.1")]


def test_a_subagent_without_its_parent_is_a_session(tmp_path: Path) -> None:
    child, parent = _family(tmp_path)
    parent.unlink()
    session, reading = one(child)
    assert session.id == "k" and {call.agent for call in session.calls} == {"main"}
    sentence = "subagents whose parent's rollout is not among the files, sessions of their own"
    assert reading.report.inferred == {sentence: 1}


def test_files_that_are_each_others_parents_are_sessions(tmp_path: Path) -> None:
    for me, other in (("p", "k"), ("k", "p")):
        rollout = Rollout(me).user(1).answers(3).count(3, 100, 10)
        rollout.rows[0]["payload"]["source"] = {"subagent": {"thread_spawn": {"parent_thread_id": other}}}
        rollout.save(tmp_path, f"{me}.jsonl")
    assert sum(len(session.calls) for session in open_trace(str(tmp_path))) == 2


def test_a_very_deep_chain_of_subagents_is_cut(tmp_path: Path) -> None:
    for n in range(60):
        rollout = Rollout(f"s{n}").user(10 + n).answers(10 + n).count(10 + n, 100, 10)
        rollout.rows[0]["payload"]["source"] = {"subagent": {"thread_spawn": {"parent_thread_id": f"s{n - 1}"}}}
        rollout.save(tmp_path, f"{n:02d}.jsonl")
    assert [len(session.calls) for session in open_trace(str(tmp_path))] == [51, 9]


def test_the_sample(tmp_path: Path) -> None:
    made = files(lambda field: f"T {field}", lambda field: f"N-{field}")
    reading = open_trace(str(save(tmp_path, made)))
    (session,) = reading
    check(session)
    assert session.id == PARENT and CHILD not in session.id
    assert [call.agent for call in session.calls].count("N-agent_role:1") == 1
    assert list(prompt_tokens(session).values()) == [1000, 1200, 1260, 900, 1400, 1450, 700, 714]
    assert not any(part.text for call in session.calls for part in call.fresh)


def test_text_is_kept_when_asked(tmp_path: Path) -> None:
    rollout = Rollout().user(1, "a question").answers(3, "an answer").count(3, 100, 10)
    session, _ = one(rollout.save(tmp_path), text=True)
    assert [part.text for part in session.calls[0].fresh] == [None, "a question"]
    assert session.calls[0].recorded and session.calls[0].recorded.answer == "an answer"


# ------------------------------------------------------------------------------------------------------- bad lines

BAD = {
    "no JSON": (b"{", "line 3", "JSON", ""),
    "no timestamp": (b'{"type": "x"}', "line 3, timestamp", "required", "only"),
    "no time zone": (b'{"timestamp": "2026-02-23T11:40:29", "type": "x"}', "timestamp", "timezone", "2026"),
    "payload is no object": (
        b'{"timestamp": "2026-02-23T11:40:29Z", "type": "event_msg", "payload": 3}', "line 3, payload", "`object`", "3",
    ),
    "negative count": (
        b'{"timestamp": "2026-02-23T11:40:29Z", "type": "event_msg", "payload": {"type": "token_count", "info": '
        b'{"total_token_usage": {"input_tokens": -1, "output_tokens": 1}, "last_token_usage": {}}}}',
        "line 3, payload, info.total_token_usage.input_tokens", ">= 0", "-1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    line, field, expected, found = BAD[name]
    path = Rollout().user(1).answers(3).count(3, 100, 10).save(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and str(path) in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    session, reading = one(path, skip_bad=True)
    assert len(reading.report.skipped) == 1 and prompt_tokens(session) == {"c0": 100}


def test_clocks_that_go_backwards_are_repaired(tmp_path: Path) -> None:
    rollout = Rollout().user(30).answers(33).count(33, 100, 10).user(5).answers(7).count(7, 120, 10)
    session, reading = one(rollout.save(tmp_path))
    assert after(session.calls[1]) == [("c0", 0.0, "human")]
    sentence = "calls whose instants were out of order, moved behind what they follow"
    assert reading.report.inferred[sentence] == 1


def test_other_files_are_no_rollouts(tmp_path: Path) -> None:
    for text in ('{"type": "user", "message": "\\"type\\": \\"session_meta\\""}\n', "", "[]", "a,b\n"):
        path = tmp_path / "x.jsonl"
        path.write_text(text)
        assert sniff(path) != "codex"


# ---------------------------------------------------------------------------------------------------- the real files

real = pytest.mark.skipif(not REAL.is_dir(), reason="the two rollouts of ../shared/data are not here")


@real
def test_the_real_totals() -> None:
    """One call a distinct token count; the sums over calls are the last total_token_usage of each file."""
    sessions = list(open_trace(str(REAL)))
    figures = []
    for session in sessions:
        check(session)
        cached = sum(call.recorded.cached_tokens or 0 for call in session.calls if call.recorded)
        outputs = sum(call.output_tokens for call in session.calls)
        figures.append((len(session.calls), sum(prompt_tokens(session).values()), cached, outputs))
    assert figures == [(81, 7_204_025, 6_836_352, 36_075), (28, 1_751_428, 1_651_968, 14_600)]
    assert [sum(call.reasoning_tokens for call in session.calls) for session in sessions] == [17_896, 4_293]


@real
def test_real_caches_never_hold_more_than_is_inherited() -> None:
    """The provider's cache (128-token blocks) is the judge of the rule about reasoning.

    Of 107 prompts that follow another none had more read from the cache than we say it shares, 96 within two blocks
    of it; 33 had more than the prompt before and its visible answer: the reasoning was in them.
    """
    most, close, reasoned = 0, 0, 0
    for session in open_trace(str(REAL)):
        prompts = prompt_tokens(session)
        calls = {call.id: call for call in session.calls}
        for before, call in zip(session.calls, session.calls[1:], strict=False):
            assert call.inherit is not None and call.recorded is not None
            shared, cached = call.inherit.tokens, call.recorded.cached_tokens or 0
            if shared is None:
                shared = prompts[call.inherit.call] + calls[call.inherit.call].output_tokens
            most += cached > shared
            close += shared - 256 <= cached <= shared
            reasoned += cached > prompts[before.id] + before.output_tokens - before.reasoning_tokens
    assert (most, close, reasoned) == (0, 96, 33)


@real
def test_the_real_report() -> None:
    reading = open_trace(str(REAL))
    list(reading)
    report = reading.report
    assert {gap: count for gap, (count, _) in report.waits.items()} == {"tool": 103, "human": 4}
    assert report.merged == {"token counts that repeat the one before": 107}
    assert report.inferred == {"reasoning tokens left out after the user's next message": 16_774}
    assert not report.dropped and not report.skipped
