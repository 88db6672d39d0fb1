"""The Claude Code reader: calls from lines, waits told apart, subagents, compactions, errors, resumed sessions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samples import samples, save
from samples.claude_code import OLD, SESSION, files

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Part, Session, Span, prompt_tokens, ready, validate
from workloom.traces import READERS, Reading, open_trace, sniff

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "claude-code"
Row = dict[str, Any]


class Lines:
    """A file as the program writes it: every line follows the one before unless it is told to follow another."""

    def __init__(self, session: str = "s1", mark: str = "m", **common: Any) -> None:
        self.rows: list[Row] = []
        self.last: str | None = None
        self._common = {"sessionId": session, "isSidechain": False, **common}
        self._mark = mark

    def line(self, at: float, type: str, **more: Any) -> str:
        uuid = f"{self._mark}{len(self.rows)}"
        stamp = f"2026-02-23T12:{int(at) // 60:02d}:{at % 60:06.3f}Z"
        self.rows.append(
            {"type": type, "uuid": uuid, "parentUuid": self.last, "timestamp": stamp, **self._common, **more}
        )
        self.last = uuid
        return uuid

    def user(self, at: float, content: Any = "x" * 40, **more: Any) -> str:
        return self.line(at, "user", message={"role": "user", "content": content}, **more)

    def result(self, at: float, use: str, content: Any = "x" * 40, **more: Any) -> str:
        return self.user(at, [{"type": "tool_result", "tool_use_id": use, "content": content}], **more)

    def answer(
        self,
        at: float,
        id: str,
        prompt: int | tuple[int, int, int] = 1000,
        output: int | None = 100,
        *blocks: Row,
        model: str = "opus",
        **more: Any,
    ) -> str:
        """A line of call `id`; `prompt`: tokens, or what is uncached, read from the cache and written to it."""
        fresh, read, written = (prompt, 0, 0) if isinstance(prompt, int) else prompt
        usage = {"input_tokens": fresh, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
        usage |= {} if output is None else {"output_tokens": output}
        message = {"role": "assistant", "id": id, "model": model, "content": list(blocks) or [says(40)], "usage": usage}
        return self.line(at, "assistant", requestId=f"r{id}", **{"message": message, **more})

    def boundary(self, at: float, trigger: str | None = "manual") -> None:
        above = self.last
        metadata = {} if trigger is None else {"compactMetadata": {"trigger": trigger, "preTokens": 5}}
        self.line(at, "system", subtype="compact_boundary", **metadata)
        self.rows[-1] |= {"parentUuid": None, "logicalParentUuid": above}

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


def says(characters: int) -> Row:
    return {"type": "text", "text": "x" * characters}


def uses(id: str, name: str = "Bash", **arguments: Any) -> Row:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def agent(name: str, start: float, *calls: tuple[float, int], prompt: str = "x" * 40, **more: Any) -> Lines:
    """A subagent's file: its calls by their end and prompt, each answering a tool but the first."""
    lines = Lines(mark=name, isSidechain=True, agentId=name, **more)
    lines.user(start, prompt)
    for index, (end, tokens) in enumerate(calls):
        if index:
            lines.result(end - 1, f"{name}.{index - 1}")
        lines.answer(end, f"{name}.{index}", tokens, 60, uses(f"{name}.{index}"))
    return lines


def noted(id: str, status: str = "completed") -> Row:
    return {"toolUseResult": {"agentId": id, "status": status, "content": []}}


def one(path: Path, **options: Any) -> tuple[dict[str, Call], Reading]:
    """The calls of the only session, which must be due when they were recorded, and what was reported."""
    reading = open_trace([path], **options)
    (session,) = reading
    check(session)
    return {call.id: call for call in session.calls}, reading


def check(session: Session) -> None:
    validate(session)
    ended: dict[str, float] = {}
    for call in session.calls:
        assert call.recorded is not None and call.recorded.start_s is not None and call.recorded.end_s is not None
        due = ready(call, ended)
        assert due is not None and (not call.after or due == pytest.approx(call.recorded.start_s, abs=1e-5)), call.id
        ended[call.id] = call.recorded.end_s


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def fresh(call: Call) -> list[tuple[str, int, str | None]]:
    return [(part.kind, part.tokens, part.name) for part in call.fresh]


def instants(call: Call) -> tuple[float | None, float | None]:
    assert call.recorded is not None
    return call.recorded.start_s, call.recorded.end_s


# --------------------------------------------------------------------------------------------------------- one agent


def test_lines_of_a_call_are_one_and_tools_in_it_run_side_by_side(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0, "x" * 80)
    lines.answer(3, "1", (10, 700, 290), 9, {"type": "thinking", "thinking": "x" * 40, "signature": "y" * 999})
    lines.answer(4, "1", (10, 700, 290), 9, uses("a", "Read"))
    asked = lines.answer(5, "1", (10, 700, 290), 120, uses("b", "Bash"))
    lines.result(7, "b", "x" * 120)
    lines.last = asked
    lines.result(9, "a", "x" * 40)
    lines.answer(12, "2", (5, 1000, 175), 30)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "c1"]
    assert fresh(calls["c0"]) == [("definition", 980, "scaffold"), ("user", 20, None)]
    assert calls["c0"].output_tokens == 120, "the largest of its lines"
    assert instants(calls["c0"]) == (0, 5) and instants(calls["c1"]) == (9, 12)
    assert edges(calls["c1"]) == [("c0", 4, "tool")], "until the last result"
    assert calls["c1"].inherit == Inherit("c0")
    assert calls["c1"].fresh == (Part("tool", 45, "Bash", seconds=2), Part("tool", 15, "Read", seconds=4))
    assert [call.recorded.cached_tokens for call in calls.values() if call.recorded] == [700, 1000]
    assert reading.report.merged == {"lines behind the first of their API call": 2}
    assert reading.header.common_clock and reading.format == "claude-code"


def test_the_prompt_grows_by_more_than_is_visible_and_shrinks(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100, uses("a"))
    lines.result(4, "a", "x" * 400)
    lines.answer(6, "2", 2000, 100, uses("b"))  # 900 more, of which 100 are the result
    lines.result(7, "b", "x" * 400)
    lines.answer(9, "3", (0, 1500, 300), 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert calls["c1"].inherit == Inherit("c0")
    assert fresh(calls["c1"]) == [("injected", 800, "hidden"), ("tool", 100, "Bash")]
    assert calls["c2"].inherit == Inherit("c1", 1500), "what the cache held"
    assert fresh(calls["c2"]) == [("injected", 200, "history"), ("tool", 100, "Bash")]
    assert reading.report.inferred == {
        "prompts that grew by more than twice what is visible: the rest is injected": 1,
        "prompts shorter than the one before: what was read from the cache is kept": 1,
    }


def test_tools_may_run_while_their_call_still_streams(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 1, uses("a", "Read"))
    lines.result(3.5, "a")
    lines.answer(6, "1", 1000, 100, uses("b", "Read"))
    lines.result(6.25, "b")
    lines.answer(9, "2", 1120, 30)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert instants(calls["c0"]) == (0, 6)
    assert [part.seconds for part in calls["c1"].fresh] == [0.5, 0.25]
    assert edges(calls["c1"]) == [("c0", 0.25, "tool")]
    assert reading.report.inferred == {"tools that were done while their call still streamed": 1}


def test_waits_for_the_user_are_told_from_waits_for_tools(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(2, "1", 1000, 100, uses("a", "AskUserQuestion"))
    lines.result(50, "a")
    lines.answer(52, "2", 1200, 100, uses("b", "Bash"))
    lines.result(55, "b")
    lines.user(56, "hook says", isMeta=True)
    lines.answer(58, "3", 1400, 100)
    lines.user(100, "<command-name>/cost</command-name>")
    lines.user(110, "go on")
    lines.answer(112, "4", 1600, 100, uses("c", "Bash"))
    lines.result(113, "c")
    lines.user(115, [{"type": "text", "text": "[Request interrupted by user for tool use]"}])
    lines.user(130, [{"type": "text", "text": "no, like this"}, {"type": "image", "source": {"data": "..."}}])
    lines.answer(133, "5", 3400, 100)
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert [edges(call) for call in calls.values()] == [
        [],
        [("c0", 48, "human")],
        [("c1", 4, "tool")],
        [("c2", 52, "human")],
        [("c3", 18, "human")],
    ]
    kinds = [(part.kind, part.name) for part in calls["c4"].fresh]
    assert kinds == [("tool", "Bash"), ("injected", None), ("user", None), ("user", None)]
    assert calls["c4"].fresh[3].tokens > 1500, "a picture is large"


def test_attachments_are_part_of_the_prompt_and_other_lines_are_not(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.line(0.5, "attachment", attachment={"type": "skill_listing", "content": "x" * 360})
    lines.line(0.6, "progress", data={"type": "hook_progress"})
    lines.rows.append({"type": "queue-operation", "operation": "enqueue", "content": "x"})
    lines.rows.append({"type": "last-prompt", "message": 5, "attachment": [], "toolUseResult": "x"})
    lines.line(0.7, "attachment", attachment={"type": "queued_command", "prompt": "x" * 40})
    lines.line(0.8, "attachment", attachment={"type": 7})
    lines.answer(3, "1", 1000, 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert [(part.kind, part.tokens) for part in calls["c0"].fresh] == [
        ("definition", 877),
        ("user", 10),
        ("injected", 100),
        ("user", 10),
        ("injected", 3),
    ]
    assert reading.report.dropped == {"lines that carry no call: progress, snapshots, notes of the program": 3}


def test_whoever_goes_back_branches_off(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    first = lines.answer(3, "1", 1000, 100)
    lines.user(10, "x" * 400)
    lines.answer(12, "2", 1200, 100)
    lines.last = first
    lines.user(30, "x" * 800)
    lines.answer(33, "3", 1300, 100)
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert [(call.inherit, edges(call)) for call in calls.values()][1:] == [
        (Inherit("c0"), [("c0", 7, "human")]),
        (Inherit("c0"), [("c0", 27, "human")]),
    ]
    assert fresh(calls["c2"]) == [("user", 200, None)], "what was said on the other branch is not in it"


def test_a_line_whose_parent_is_missing_follows_the_line_before(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100)
    lines.last = "nowhere"
    lines.user(9)
    lines.answer(12, "2", 1200, 100)
    lines.result(13, "unknown")
    lines.answer(15, "3", 1400, 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert edges(calls["c1"]) == [("c0", 6, "human")] and calls["c1"].inherit == Inherit("c0")
    assert edges(calls["c2"]) == [("c1", 1, "tool")] and fresh(calls["c2"]) == [("tool", 100, None)]
    assert reading.report.inferred == {
        "lines whose parent is in no file, taken to follow the line before": 1,
        "tool results whose tool call is in no file": 1,
    }


# ----------------------------------------------------------------------------------------------------------- outputs


def test_implausible_outputs_are_estimated_at_four_characters_a_token(tmp_path: Path) -> None:
    lines = Lines()
    for index, (output, characters, tools) in enumerate(
        [(59, 400, 0), (60, 400, 0), (1, 400, 2), (3, 0, 0), (None, 80, 0)]
    ):
        lines.user(10 * index, "x")
        blocks = [says(characters), *(uses(f"{index}.{tool}", "Bash", a=1) for tool in range(tools))]
        lines.answer(10 * index + 3, str(index), 1000 + 300 * index, output, *blocks)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert [call.output_tokens for call in calls.values()] == [100, 60, 196, 3, 20]
    assert [call.recorded.estimated for call in calls.values() if call.recorded] == [
        ("output_tokens",),
        (),
        ("output_tokens",),
        (),
        ("output_tokens",),
    ], "400 / 4 = 100: 59 is too little and 60 is not; 422 / 4 + 2 * 45 = 196"
    assert reading.report.inferred["outputs estimated from what is visible of them"] == 3
    assert "45 tokens a tool call and 4 characters a token" in reading.report.assumptions[0]


def test_characters_per_token_are_those_of_ten_calls_that_tell_them(tmp_path: Path) -> None:
    lines = Lines()
    for index in range(11):
        lines.user(10 * index, "x")
        lines.answer(10 * index + 3, str(index), 1000 + 300 * index, 1, says(200))
        if index < 10:
            lines.answer(10 * index + 4, str(index), 1000 + 300 * index, 245, uses(f"{index}", "B" * 198))
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert calls["c10"].output_tokens == 100, "(400 characters) / (245 - 45 tokens)"
    assert reading.report.inferred["sessions whose characters per token are those of their own calls"] == 1


def test_rates_of_many_sessions_are_one_assumption(tmp_path: Path) -> None:
    for session in range(3):
        lines = Lines(f"s{session}", mark=f"m{session}.")
        for index in range(10):
            lines.user(10 * index, "x")
            lines.answer(10 * index + 3, f"{session}.{index}", 1000 + 300 * index, 1, says(200))
            lines.answer(10 * index + 4, f"{session}.{index}", 1000 + 300 * index, 50 + session, says(1))
        lines.save(tmp_path / f"s{session}.jsonl")
    reading = open_trace(str(tmp_path))
    assert len(list(reading)) == 3
    assert sum("characters a token" in said for said in reading.report.assumptions) == 1


def test_a_prompt_that_is_not_told_is_estimated(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100)
    lines.user(9, "x" * 400)
    lines.answer(12, "2", 0, 100)
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert calls["c1"].inherit == Inherit("c0") and fresh(calls["c1"]) == [("user", 100, None)]
    assert calls["c1"].recorded and calls["c1"].recorded.estimated == ("prompt_tokens",)


# ------------------------------------------------------------------------------------------------------- subagents


def spawning(tool: str = "Task", **arguments: Any) -> Lines:
    lines = Lines()
    lines.user(0)
    lines.answer(2, "1", 1000, 100, uses("t", tool, subagent_type="Explore", **arguments))
    return lines


def test_a_subagent_begins_at_its_task_and_reports_to_the_next_call(tmp_path: Path) -> None:
    lines = spawning()
    lines.answer(2.5, "1", 1000, 100, uses("a", "Bash"))
    lines.result(4, "a")
    lines.result(20, "t", [{"type": "text", "text": "x" * 80}], **noted("abc"))
    lines.answer(24, "2", 1230, 100)
    agent("abc", 3, (8, 800), (19, 950), slug="x").save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "a1.0", "a1.1", "c1"]
    assert [call.agent for call in calls.values()] == ["main", "Explore:1", "Explore:1", "main"]
    assert calls["a1.0"].inherit is None
    assert fresh(calls["a1.0"]) == [("definition", 790, "scaffold"), ("user", 10, None)]
    assert edges(calls["a1.0"]) == [("c0", 0.5, "spawn")]
    assert edges(calls["a1.1"]) == [("a1.0", 10, "tool")]
    assert edges(calls["c1"]) == [("c0", 1.5, "tool"), ("a1.1", 1, "orchestration")]
    assert calls["c1"].fresh == (Part("tool", 43, "Bash", seconds=1.5), Part("report", 87, "Task", from_call="a1.1"))
    assert (reading.report.files, reading.report.subagents, reading.report.async_subagents) == (2, 1, 0)


def test_a_tool_that_answers_behind_a_report_waited_for_the_subagent(tmp_path: Path) -> None:
    lines = spawning()
    lines.answer(2.5, "1", 1000, 100, uses("a", "Skill"))
    lines.result(20, "t", **noted("abc"))
    lines.result(20.75, "a")
    lines.answer(24, "2", 1200, 100)
    agent("abc", 2.25, (19, 800)).save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert instants(calls["a1.0"]) == (2.5, 19), "begun while the call streamed"
    assert edges(calls["c1"]) == [("c0", 0, "orchestration"), ("a1.0", 1.75, "orchestration")]
    assert [part.seconds for part in calls["c1"].fresh] == [None, 0.75]
    assert len(reading.report.inferred) == 1


def test_a_subagent_in_the_background_is_joined_where_its_end_is_told(tmp_path: Path) -> None:
    lines = spawning("Agent", run_in_background=True)
    lines.result(2.5, "t", **noted("abc", "async_launched"))
    lines.answer(5, "2", 1200, 100)
    lines.user(31, "<task-notification>\n<task-id>abc</task-id>\n<status>completed</status></task-notification>")
    lines.answer(34, "3", 1400, 100, uses("b", "Bash"))
    lines.result(35, "b")
    lines.user(40, "<task-notification>\n<task-id>shell</task-id></task-notification>")
    lines.answer(44, "4", 1600, 100)
    agent("abc", 2.5, (30, 800)).save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert edges(calls["c1"]) == [("c0", 0.5, "tool")], "the launch is not the report"
    assert edges(calls["c2"]) == [("c1", 0, "orchestration"), ("a1.0", 1, "orchestration")]
    assert [(part.kind, part.from_call) for part in calls["c2"].fresh] == [("report", "a1.0")]
    assert [(part.kind, part.from_call) for part in calls["c3"].fresh] == [("tool", None), ("tool", None)]
    assert edges(calls["c3"]) == [("c2", 6, "tool")], "of a command in the background, no subagent"
    assert reading.report.async_subagents == 1


def test_a_subagent_that_works_again_waits_for_the_call_that_asked_it_to(tmp_path: Path) -> None:
    lines = spawning()
    lines.result(20, "t", **noted("abc"))
    lines.answer(24, "2", 1200, 100)
    lines.user(60)
    lines.answer(64, "3", 1400, 100, uses("u", "Task", subagent_type="Explore", resume="abc"))
    lines.result(90, "u", **noted("abc"))
    lines.answer(95, "4", 1600, 100)
    sub = agent("abc", 3, (8, 800), (19, 950))
    sub.user(65)
    sub.answer(80, "abc.2", 1200, 60)
    sub.answer(89, "abc.3", 1400, 60)
    sub.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "a1.0", "a1.1", "c1", "c2", "a1.2", "a1.3", "c3"]
    assert edges(calls["a1.2"]) == [("a1.1", 0, "orchestration"), ("c2", 1, "spawn")]
    assert calls["a1.2"].inherit == Inherit("a1.1")
    assert edges(calls["c3"]) == [("c2", 0, "orchestration"), ("a1.3", 1, "orchestration")]
    assert reading.report.inferred["subagents that a later call sent to work again"] == 1


def test_a_subagent_may_be_sent_to_work_again_by_itself_or_twice_at_once(tmp_path: Path) -> None:
    """Nonsense, which makes a valid session with all calls all the same."""
    lines = spawning()
    lines.answer(2.5, "1", 1000, 100, uses("u", "Task"))
    lines.result(20, "u", **noted("abc"))
    lines.result(20, "t", **noted("abc"))
    lines.answer(24, "2", 1200, 100)
    sub = agent("abc", 3, (8, 800), (19, 950))
    sub.answer(21, "abc.2", 1000, 60, uses("v", "Task"), uses("w", "Task"))
    sub.result(22, "w", **noted("abc"))
    sub.result(22, "v", **noted("abc"))
    sub.answer(23, "abc.3", 1100, 60)
    sub.answer(24, "abc.4", 1200, 60)
    sub.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert sorted(calls) == ["a1.0", "a1.1", "a1.2", "a1.3", "a1.4", "c0", "c1"]


def test_what_ran_before_the_session_began_keeps_its_waits_and_no_instants(tmp_path: Path) -> None:
    """Some versions warm subagents up while the user still writes."""
    lines = Lines()
    lines.user(30)
    lines.answer(33, "1", 1000, 100)
    sub = agent("abc", 3, (8, 800), (19, 950), prompt="Warmup")
    sub.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    (session,) = reading = open_trace([lines.save(tmp_path / "s1.jsonl")])
    validate(session)
    calls = {call.id: call for call in session.calls}
    assert instants(calls["c0"]) == (0, 3)
    assert [instants(calls[name]) for name in ("a1.0", "a1.1")] == [(None, None)] * 2
    assert edges(calls["a1.0"]) == [] and edges(calls["a1.1"]) == [("a1.0", 10, "tool")]
    assert reading.report.inferred["calls before the first of their session, whose instants are left out"] == 2


def test_a_report_can_be_fetched(tmp_path: Path) -> None:
    lines = spawning("Agent")
    lines.result(2.5, "t", **noted("abc", "async_launched"))
    lines.answer(5, "2", 1200, 100, uses("w", "TaskOutput", task_id="abc", block=True))
    lines.result(31, "w")
    lines.answer(34, "3", 1400, 100)
    agent("abc", 2.5, (30, 800)).save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert edges(calls["c2"]) == [("c1", 0, "orchestration"), ("a1.0", 1, "orchestration")]


def test_subagents_that_no_result_tells_of_are_found_by_their_prompt_or_by_time(tmp_path: Path) -> None:
    lines = spawning(prompt="look here")
    lines.user(30)
    lines.answer(33, "2", 1200, 100)
    agent("abc", 3, (8, 800), prompt="look here").save(tmp_path / "s1/subagents/agent-abc.jsonl")
    agent("def", 31, (36, 800), prompt="else").save(tmp_path / "s1/subagents/agent-def.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert edges(calls["a1.0"]) == [("c0", 1, "spawn")] and calls["a1.0"].agent == "Explore:1"
    assert edges(calls["a2.0"]) == [("c0", 29, "spawn")] and calls["a2.0"].agent == "agent:2"
    assert edges(calls["c1"]) == [("c0", 28, "human")], "nothing says that it waited for one of them"
    assert reading.report.inferred == {
        "subagents found by the prompt that they were given": 1,
        "subagents put behind the call that went before them": 1,
    }


def test_a_subagent_without_a_file_is_a_tool(tmp_path: Path) -> None:
    lines = spawning(prompt="look here")
    lines.result(20, "t", **noted("abc"))
    lines.answer(24, "2", 1200, 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert edges(calls["c1"]) == [("c0", 18, "tool")]
    assert calls["c1"].fresh == (Part("tool", 100, "Task", seconds=18),)
    assert reading.report.dropped == {"subagents whose calls are in no file: they count as tools": 1}


def test_subagents_of_one_type_and_model_share_their_scaffold(tmp_path: Path) -> None:
    lines = spawning()
    lines.answer(2, "1", 1000, 100, uses("u", "Task", subagent_type="Explore"))
    lines.answer(2, "1", 1000, 100, uses("v", "Task", subagent_type="Plan"))
    for use, name, size in (("t", "abc", 800), ("u", "def", 820), ("v", "xyz", 700)):
        agent(name, 3, (8, size)).save(tmp_path / f"s1/subagents/agent-{name}.jsonl")
        lines.result(9, use, **noted(name))
    lines.answer(12, "2", 1200, 100)
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert [calls[name].spans for name in ("a1.0", "a2.0", "a3.0")] == [
        (Span("scaffold:Explore", 790),),
        (Span("scaffold:Explore", 810),),
        (),
    ]
    assert [edge.call for edge in calls["c1"].after] == ["c0", "a1.0", "a2.0", "a3.0"]


def test_old_files_hold_their_subagents_lines(tmp_path: Path) -> None:
    lines = spawning(prompt="look here")
    above, lines.last = lines.last, None
    lines.user(3, "look here", isSidechain=True)
    lines.answer(5, "x1", 700, 60, uses("xa"), isSidechain=True)
    lines.result(6, "xa", isSidechain=True)
    lines.answer(9, "x2", 860, 60, isSidechain=True)
    lines.last = above
    lines.result(10, "t", toolUseResult={"content": [], "totalTokens": 5})
    lines.answer(12, "2", 1200, 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "a1.0", "a1.1", "c1"]
    assert edges(calls["a1.0"]) == [("c0", 1, "spawn")] and edges(calls["a1.1"]) == [("a1.0", 1, "tool")]
    assert edges(calls["c1"]) == [("c0", 0, "orchestration"), ("a1.1", 1, "orchestration")]
    assert reading.report.inferred["subagents found by the prompt that they were given"] == 1


def test_a_fork_of_the_program_takes_the_conversation_over(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100, uses("a"))
    fork = Lines(mark="f", isSidechain=True, agentId="aprompt_suggestion-1")
    fork.last = lines.last
    fork.user(3.5, "x" * 40)
    fork.answer(5, "f", (10, 1000, 100), 20)
    fork.save(tmp_path / "s1/subagents/agent-aprompt_suggestion-1.jsonl")
    lines.result(9, "a")
    lines.answer(12, "2", 1150, 100)
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert [(call.id, call.agent, call.inherit, edges(call)) for call in calls.values()][1:] == [
        ("a1.0", "prompt_suggestion:1", Inherit("c0"), [("c0", 0.5, "spawn")]),
        ("c1", "main", Inherit("c0"), [("c0", 6, "tool")]),
    ]
    assert fresh(calls["a1.0"]) == [("injected", 10, None)], "the tool had not answered"


def test_a_subagent_in_its_sessions_file_and_in_its_own_is_one(tmp_path: Path) -> None:
    lines = spawning()
    above = lines.last
    sub = agent("abc", 3, (8, 800), (19, 950))
    lines.rows += sub.rows[:2]
    lines.last = above
    lines.result(20, "t", **noted("abc"))
    lines.answer(24, "2", 1200, 100)
    sub.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "a1.0", "a1.1", "c1"]
    assert [edge.call for edge in calls["c1"].after] == ["c0", "a1.1"]
    assert reading.report.merged == {"lines that other files repeat": 2}


def test_a_subagents_subagent(tmp_path: Path) -> None:
    lines = spawning()
    lines.result(30, "t", **noted("abc"))
    lines.answer(33, "2", 1200, 100)
    inner = agent("abc", 3, (8, 800))
    inner.answer(9, "abc.0", 800, 100, uses("n", "Task", subagent_type="Plan"))
    inner.result(20, "n", **noted("def"))
    inner.answer(28, "abc.9", 1000, 100)
    inner.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    agent("def", 10, (19, 600)).save(tmp_path / "s1/subagents/agent-def.jsonl")
    calls, _ = one(lines.save(tmp_path / "s1.jsonl"))
    assert [(call.id, [edge.call for edge in call.after]) for call in calls.values()] == [
        ("c0", []),
        ("a1.0", ["c0"]),
        ("a2.0", ["a1.0"]),
        ("a1.1", ["a1.0", "a2.0"]),
        ("c1", ["c0", "a1.1"]),
    ]


# ------------------------------------------------------------------------------------------------------ compactions


def compacted(tmp_path: Path, *, file: bool, trigger: str | None = "manual") -> tuple[dict[str, Call], Reading]:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100)
    lines.user(10)
    lines.answer(13, "2", 3000, 100)
    if file:
        writer = Lines(mark="k", isSidechain=True, agentId="acompact-1")
        writer.last = lines.last
        writer.user(60, "x" * 400)
        writer.answer(90, "k", (10, 900, 2290), 200)
        writer.save(tmp_path / "s1/subagents/agent-acompact-1.jsonl")
    lines.boundary(91, trigger)
    lines.user(91, "x" * 800, isCompactSummary=True)
    lines.user(100, "x" * 80)
    lines.answer(104, "3", 1500, 100)
    lines.user(110)
    lines.answer(112, "4", 1700, 100)
    return one(lines.save(tmp_path / "s1.jsonl"))


def test_a_compaction_is_a_call_and_the_next_context_keeps_the_scaffold(tmp_path: Path) -> None:
    calls, reading = compacted(tmp_path, file=True)
    assert [(call.id, call.agent, edges(call)) for call in calls.values()][2:] == [
        ("c2", "main", [("c1", 47, "human")]),
        ("c3", "main", [("c2", 10, "human")]),
        ("c4", "main", [("c3", 6, "human")]),
    ]
    assert calls["c2"].inherit == Inherit("c1") and fresh(calls["c2"]) == [("injected", 100, None)]
    assert calls["c3"].inherit == Inherit("c0", 990)
    assert calls["c3"].fresh == (
        Part("injected", 290, "hidden"),
        Part("summary", 200, from_call="c2"),
        Part("user", 20),
    )
    assert calls["c4"].inherit == Inherit("c3")
    assert reading.report.inferred["compactions"] == 1 and reading.report.subagents == 0


def test_a_compaction_the_program_began_waits_for_no_human(tmp_path: Path) -> None:
    calls, _ = compacted(tmp_path, file=True, trigger="auto")
    assert edges(calls["c2"]) == [("c1", 47, "orchestration")]


@pytest.mark.parametrize("trigger", ["auto", None])
def test_a_compaction_without_its_call_is_still_seen(tmp_path: Path, trigger: str | None) -> None:
    calls, reading = compacted(tmp_path, file=False, trigger=trigger)
    assert edges(calls["c2"]) == [("c1", 87, "human")]
    assert calls["c2"].inherit == Inherit("c0", 990)
    assert [(part.kind, part.from_call) for part in calls["c2"].fresh] == [
        ("injected", None),
        ("summary", None),
        ("user", None),
    ]
    assert reading.report.inferred["compactions whose own call is in no file"] == 1


def test_a_compaction_begins_with_what_it_sums_up_though_another_model_reads_it(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 3000, 100)
    writer = Lines(mark="k", isSidechain=True, agentId="acompact-1")
    writer.last = lines.last
    writer.user(60, "x" * 400)
    writer.answer(90, "k", (10, 900, 1990), 200)
    writer.save(tmp_path / "s1/subagents/agent-acompact-1.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert calls["c1"].inherit == Inherit("c0", 2800) and fresh(calls["c1"]) == [("injected", 100, None)]
    assert (
        "the prompt of a compaction, or another fork, begins with the conversation before it"
        in reading.report.assumptions
    )


# --------------------------------------------------------------------------------------------- errors and interrupts


def test_failed_tries_are_counted_and_are_no_calls(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0)
    lines.line(1, "system", subtype="api_error", error={"status": 529}, retryInMs=500.0, retryAttempt=1)
    lines.line(2, "system", subtype="api_error", error={"status": 529}, retryInMs=900.0, retryAttempt=2)
    lines.answer(5, "1", 1000, 100)
    lines.user(10)
    for id, more in (("e1", {"isApiErrorMessage": True}), ("e2", {})):
        lines.answer(12, id, 0, 0, model="<synthetic>", **more)
    lines.user(20)
    lines.answer(22, "2", 1200, 100)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert list(calls) == ["c0", "c1"] and instants(calls["c0"]) == (0, 5)
    assert [part.kind for part in calls["c1"].fresh] == ["user", "user"]
    assert reading.report.dropped == {
        "API errors: tries that failed and were repeated": 2,
        "answers the client made up itself, as after API errors: no call": 2,
    }


def test_an_interrupted_answer_is_aborted_and_one_that_never_began_is_no_call(tmp_path: Path) -> None:
    stop = [{"type": "text", "text": "[Request interrupted by user]"}]
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 1, says(200))
    lines.user(4, stop)
    lines.user(9)
    lines.answer(12, "2", 1200, 100, uses("a"))
    lines.result(13, "a")
    lines.user(14, stop)
    lines.user(20)
    lines.answer(22, "3", 1400, 100)
    lines.user(23, stop)
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert [call.recorded.status for call in calls.values() if call.recorded] == ["aborted", "ok", "aborted"]
    assert calls["c0"].output_tokens == 50, "what had come"
    assert [call.stop_after for call in calls.values()] == [50, None, 100], "the user hung up there"
    assert [edges(call) for call in calls.values()][1:] == [[("c0", 6, "human")], [("c1", 8, "human")]]
    assert reading.report.dropped == {
        "calls that were aborted before they answered: the file tells nothing of them": 1,
        "texts and tool results that no call follows": 1,
    }


# ----------------------------------------------------------------------------------------------------------- files


def test_a_resumed_session_repeats_lines_and_is_one(tmp_path: Path) -> None:
    first = Lines("s1")
    first.user(0)
    first.answer(3, "1", 1000, 100)
    first.user(10)
    second = Lines("s2")
    second.rows = [{**row, "sessionId": "s2"} for row in first.rows]
    second.last = first.last
    first.answer(13, "2", 1200, 100)
    second.rows.append({**first.rows[-1], "uuid": "another", "sessionId": "s2"})  # the same call under another id
    second.last = "another"
    second.user(50)
    second.answer(52, "3", 1400, 100)
    first.save(tmp_path / "s1.jsonl")
    second.save(tmp_path / "s2.jsonl")
    (session,) = reading = open_trace(str(tmp_path))
    check(session)
    assert (session.id, session.origin) == ("s1", "claude-code:s1.jsonl")
    assert [edges(call) for call in session.calls] == [[], [("c0", 7, "human")], [("c1", 37, "human")]]
    assert reading.report.merged == {"lines that other files repeat": 4}


def test_calls_that_another_session_told_are_its_own(tmp_path: Path) -> None:
    """A resumed file that begins behind the beginning of the one before cannot be told as its continuation."""
    first = Lines("s1")
    first.user(0)
    first.answer(3, "1", 1000, 100)
    first.save(tmp_path / "s1.jsonl")
    second = Lines("s2", mark="n")
    second.user(0.5)
    second.answer(3, "1", 1000, 100)
    second.user(50, "x" * 80)
    second.answer(52, "2", 1400, 100)
    second.save(tmp_path / "s2.jsonl")
    reading = open_trace(str(tmp_path))
    one, other = reading
    assert [len(session.calls) for session in (one, other)] == [1, 1]
    assert fresh(other.calls[0]) == [("injected", 1380, "history"), ("user", 20, None)]
    assert reading.report.merged == {"lines that other files repeat": 1}
    second.save(tmp_path / "elsewhere" / "s2.jsonl")
    (tmp_path / "s2.jsonl").unlink()
    assert sorted(len(session.calls) for session in open_trace(str(tmp_path))) == [1, 2], "another project's folder"


def test_a_folder_of_projects(tmp_path: Path) -> None:
    for project in ("-a", "-b"):
        lines = spawning()
        lines.result(20, "t", **noted("abc"))
        lines.answer(24, "2", 1200, 100)
        lines.save(tmp_path / project / f"s{project}.jsonl")
    sub = agent("abc", 3, (8, 800))
    sub.save(tmp_path / "-a" / "s-a" / "subagents" / "agent-abc.jsonl")
    sub.save(tmp_path / "-b" / "agent-abc.jsonl")  # as some versions do
    for row in sub.rows:
        row["sessionId"] = "s-b"
    sub.save(tmp_path / "-b" / "agent-abc.jsonl")
    sub.save(tmp_path / "-b" / "gone" / "subagents" / "agent-xyz.jsonl")
    (tmp_path / "-b" / "only.jsonl").write_text('{"type":"summary","summary":"x","leafUuid":"y"}\n')
    (tmp_path / "-b" / "sessions-index.json").write_text('{"version": 1}')
    reading = open_trace(str(tmp_path))
    sessions = list(reading)
    assert [(s.origin, [call.id for call in s.calls]) for s in sessions] == [
        ("claude-code:s-a.jsonl", ["c0", "a1.0", "c1"]),
        ("claude-code:agent-xyz.jsonl", ["c0"]),
        ("claude-code:s-b.jsonl", ["c0", "a1.0", "c1"]),
    ]
    assert reading.report.files == 6
    assert reading.report.dropped["files without a call"] == 1
    assert len(reading.report.ignored) == 1
    (alone,) = open_trace(str(tmp_path / "-b" / "s-b.jsonl"))
    assert [call.id for call in alone.calls] == ["c0", "a1.0", "c1"], "a file beside it that its results name"


def test_a_subagents_file_alone_is_a_session(tmp_path: Path) -> None:
    path = agent("abc", 3, (8, 800), (20, 1000)).save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(path)
    assert [(call.id, call.agent, edges(call)) for call in calls.values()] == [
        ("c0", "main", []),
        ("c1", "main", [("c0", 11, "tool")]),
    ]
    assert reading.report.files == 1


def test_an_agent_id_is_no_path(tmp_path: Path) -> None:
    lines = spawning()
    lines.result(20, "t", **noted("../other/x"))
    lines.answer(24, "2", 1200, 100)
    agent("abc", 3, (8, 800)).save(tmp_path / "other" / "x.jsonl")
    lines.save(tmp_path / "p" / "s1.jsonl")
    (tmp_path / "p" / "agent-..").mkdir()
    calls, _ = one(tmp_path / "p" / "s1.jsonl")
    assert list(calls) == ["c0", "c1"]


def test_texts_are_kept_only_when_asked_for(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(0, "the question")
    lines.answer(3, "1", 1000, 100, {"type": "thinking", "thinking": "hmm"}, says(3), uses("a", "Bash", x=1))
    lines.result(4, "a", [{"type": "text", "text": "the "}, {"type": "text", "text": "result"}])
    lines.answer(6, "2", 1200, 100)
    path = lines.save(tmp_path / "s1.jsonl")
    calls, _ = one(path)
    assert not any(part.text for call in calls.values() for part in call.fresh)
    assert not any(call.recorded and call.recorded.answer for call in calls.values())
    calls, _ = one(path, text=True)
    assert [part.text for call in calls.values() for part in call.fresh] == [None, "the question", "the result"]
    assert calls["c0"].recorded and calls["c0"].recorded.answer == 'xxx\nBash({"x": 1})'


def test_only_session_files_look_like_them(tmp_path: Path) -> None:
    for format, sample in samples().items():
        folder = save(tmp_path / format, sample(lambda field: f"text of {field}", lambda field: f"name-{field}"))
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.endswith(".meta.json"):
                head = path.read_bytes()[: 1 << 16]
                assert READERS["claude-code"].sniff(head) == (format == "claude-code"), path
    huge = Lines()
    huge.user(0, "x" * 100_000)
    huge.answer(3, "1", 30_000, 100)
    assert sniff(huge.save(tmp_path / "huge.jsonl")) == "claude-code"
    for content in (
        b"{}\n",
        b'{"type":"session","id":"x"}\n',
        b'["parentUuid","sessionId","type"]\n',
        b"\xff",
        b"[" * 9000,
    ):
        assert not READERS["claude-code"].sniff(content)


def test_the_sample(tmp_path: Path) -> None:
    folder = save(tmp_path, files(lambda field: f"text of {field}", lambda field: f"name-{field}"))
    reading = open_trace(str(folder))
    one, old = reading
    check(one)
    check(old)
    assert (one.id, old.id) == (SESSION, OLD)
    assert [call.id for call in one.calls] == [
        "c0", "a1.0", "a1.1", "c1", "a2.0", "a2.1", "c2", "c3", "c4", "c5", "c6", "c7", "c8",
    ]  # fmt: skip
    assert [call.recorded.status for call in one.calls if call.id == "c3" and call.recorded] == ["aborted"]
    assert [part.from_call for call in one.calls for part in call.fresh if part.kind == "summary"] == ["c6"]
    assert [call.id for call in old.calls] == ["c0", "a1.0", "c1"]
    assert (reading.report.subagents, reading.report.async_subagents) == (3, 1)


# ---------------------------------------------------------------------------------------------------------- bad lines


def _set(path: str, value: Any) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        at: Any = row
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            at = at[step]
        if value is _set:
            del at[last]
        else:
            at[last] = value

    return change


BAD = {
    "negative tokens": (_set("message.usage.input_tokens", -1), "message, usage.input_tokens", "`int` >= 0", "-1"),
    "huge tokens": (_set("message.usage.output_tokens", 10**18), "message, usage.output_tokens", "`int` <=", "10000"),
    "tokens as text": (_set("message.usage.cache_read_input_tokens", "x"), "cache_read_input_tokens", "`int", "x"),
    "no usage object": (_set("message.usage", 5), "message, usage", "`object", "5"),
    "no message": (_set("message", _set), "line 2, message", "JSON", ""),
    "message is text": (_set("message", "x"), "line 2, message", "`object`", "x"),
    "a block is text": (_set("message.content.0", "x"), "message, content[0]", "`object`", "x"),
    "a block without type": (_set("message.content.0.type", _set), "content[0].type", "required", "only"),
    "no type": (_set("type", _set), "line 2, type", "required", "only"),
    "type is a number": (_set("type", 3), "line 2, type", "`str`", "3"),
    "no time": (_set("timestamp", _set), "line 2, timestamp", "2026-01-31T12:00:00.000Z", "nothing"),
    "time as a number": (_set("timestamp", 1770000000), "line 2, timestamp", "`datetime", "1770000000"),
    "time without a zone": (_set("timestamp", "2026-02-23T12:00:00"), "line 2, timestamp", "timezone", "2026"),
    "no date": (_set("timestamp", "noon"), "line 2, timestamp", "RFC3339", "noon"),
    "sidechain as text": (_set("isSidechain", "yes"), "line 2, isSidechain", "`bool", "yes"),
}


def _good() -> Lines:
    lines = Lines()
    lines.user(0)
    lines.answer(3, "1", 1000, 100)
    lines.user(9)
    lines.answer(12, "2", 1200, 100)
    return lines


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_one_error_that_says_where_and_can_be_skipped(tmp_path: Path, name: str) -> None:
    change, where, expected, found = BAD[name]
    lines = _good()
    change(lines.rows[1])
    path = lines.save(tmp_path / "s1.jsonl")
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and str(path) in error.where and where in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    calls, reading = one(path, skip_bad=True)
    assert list(calls) == ["c0"] and len(reading.report.skipped) == 1


def test_a_half_written_last_line_is_normal(tmp_path: Path) -> None:
    path = _good().save(tmp_path / "s1.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    calls, reading = one(path)
    assert list(calls) == ["c0"] and reading.report.dropped["half-written last line"] == 1


def test_odd_links_and_times_end_in_a_valid_session(tmp_path: Path) -> None:
    lines = Lines()
    lines.user(50)
    lines.answer(3, "1", 1000, 100, uses("t", "Task", prompt="x" * 40))
    lines.rows[-1]["parentUuid"] = lines.rows[-1]["uuid"]  # its own parent
    lines.result(1, "t", **noted("abc"))
    lines.result(2, "t", **noted("abc"))
    lines.answer(2, "2", 900, 100)
    lines.rows[-1]["parentUuid"] = "m9"  # a line that comes later
    for _ in range(5):
        lines.user(0)
    sub = agent("abc", 0, (59, 800))
    sub.answer(59, "abc.1", 800, 100, uses("u", "Task"))
    sub.result(58, "u", **noted("abc"))  # reports to itself
    sub.answer(40, "abc.2", 800, 100)
    sub.save(tmp_path / "s1/subagents/agent-abc.jsonl")
    calls, reading = one(lines.save(tmp_path / "s1.jsonl"))
    assert {"c0", "c1"} <= calls.keys() and len(calls) == 5
    assert reading.report.dropped["tool results that are told twice"] == 1


def test_a_tree_that_would_take_forever_is_one_error(tmp_path: Path) -> None:
    lines = Lines()
    for _ in range(3000):
        lines.line(0, "progress")
    top = lines.last
    for index in range(3000):
        lines.answer(1, str(index), 1000, 100, parentUuid=top)
    with pytest.raises(TraceError, match="too tangled"):
        list(open_trace([lines.save(tmp_path / "s1.jsonl")]))


def test_a_clock_that_jumps_by_millennia_is_an_error(tmp_path: Path) -> None:
    lines = _good()
    lines.rows[2]["timestamp"] = lines.rows[3]["timestamp"] = "9999-12-31T23:59:59Z"
    path = lines.save(tmp_path / "s1.jsonl")
    with pytest.raises(TraceError, match="a wait is not a duration"):
        list(open_trace([path]))


# ------------------------------------------------------------------------------------------------------ the real files

real = pytest.mark.skipif(not REAL.is_dir(), reason="the Claude Code sessions of ../shared/data are not here")


@real
def test_real_calls_and_tokens() -> None:
    """The big session's own file has 217 calls by (message id, request id), 84 on one model and 133 on the other, with
    242 uncached + 16,553,628 cache-read + 237,121 cache-creation prompt tokens by the last line of each. The subagent's
    3 calls and the compaction's 1 are in files of their own and come on top: 221."""
    reading = open_trace(str(REAL))
    sessions = {str(session.origin).removeprefix("claude-code:"): session for session in reading}
    sizes = {name: len(session.calls) for name, session in sessions.items()}
    big = next(session for name, session in sessions.items() if name.startswith("ae4a77f8"))
    assert sorted(sizes.values()) == [1, 4, 12, 221]
    assert [sizes[f"{name}.jsonl"] for name in ("short", "subagent", "tool_heavy")] == [1, 12, 4]
    for session in sessions.values():
        check(session)
    (compaction,) = [part.from_call for call in big.calls for part in call.fresh if part.kind == "summary"]
    own = [call for call in big.calls if call.agent == "main" and call.id != compaction]
    sub = [call for call in big.calls if call.agent != "main"]
    models = sorted(sum(call.model == model for call in own) for model in {call.model for call in own})
    assert (len(own), len(sub), models) == (217, 3, [84, 133])
    assert {call.agent for call in sub} == {"general-purpose:1"}
    prompts = prompt_tokens(big)
    assert sum(prompts[call.id] for call in own) == 242 + 16_553_628 + 237_121
    assert sum(call.recorded.cached_tokens or 0 for call in own if call.recorded) == 16_553_628
    assert [prompts[call.id] for call in sub] == [13_841, 17_762, 18_893]
    assert compaction is not None and prompts[compaction] == 3 + 17_842 + 121_689
    report = reading.report
    assert (report.files, report.sessions, report.calls, report.subagents) == (6, 4, 238, 1)


@real
def test_real_outputs_are_repaired() -> None:
    """100 of the 217 calls have lines with different counts: the largest of each is taken as it is, and they make the
    rate. Of the other 117 those that are implausible are estimated: 87. The subagent's three calls tell 7 tokens."""
    (big,) = reading = open_trace([next(REAL.glob("ae4a77f8*.jsonl"))])
    own = [call for call in big.calls if call.agent == "main" and call.id != "c138"]
    guessed = [call for call in own if call.recorded and call.recorded.estimated]
    assert (len(guessed), sum(call.output_tokens for call in guessed)) == (87, 15_166)
    assert sum(call.output_tokens for call in own) == 63_897
    assert [call.output_tokens for call in big.calls if call.agent != "main"] == [453, 604, 951]
    assert reading.report.inferred["sessions whose characters per token are those of their own calls"] == 1


@real
def test_real_waits_and_contexts() -> None:
    (big,) = open_trace([next(REAL.glob("ae4a77f8*.jsonl"))])
    calls = {call.id: call for call in big.calls}
    humans = [(call.id, edge.wait_s) for call in big.calls for edge in call.after if edge.gap == "human"]
    assert humans == [("c138", 769.767), ("c139", 193.437)], "/compact, and the prompt behind it"
    assert edges(calls["a1.0"]) == [("c4", 0, "spawn")]
    assert edges(calls["c5"]) == [("c4", 0, "orchestration"), ("a1.2", 0.137, "orchestration")]
    assert ("report", "a1.2") in [(part.kind, part.from_call) for part in calls["c5"].fresh]
    assert calls["c138"].inherit == Inherit("c137", 136_502) and calls["c139"].inherit == Inherit("c0", 25_958)
    whole = [call for call in big.calls if call.inherit is not None and call.inherit.tokens is None]
    assert len(whole) == 217, "all but the roots of the two agents, the compaction and the call behind it"
