"""OpenTelemetry spans: dependencies from time and parents, prefixes from messages, old and new names.

No real export was at hand: rows are made from the semantic conventions (0.66b2) and the exporters' documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from samples.otel import T0, document, span

from workloom.errors import TraceError
from workloom.prefix import common
from workloom.prompt import planned
from workloom.session import Call, Inherit, Session, prompt_tokens, ready, validate
from workloom.traces import Reading, open_trace, sniff

Attributes = dict[str, object]
Load = Callable[..., dict[str, Call]]


def chat(tokens: int | None = 100, output: int | None = 10, **more: object) -> Attributes:
    usage: Attributes = {"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": output}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        **{key: value for key, value in usage.items() if value is not None},
        **{f"gen_ai.{key.replace('__', '.')}": value for key, value in more.items()},
    }


def agent(name: str = "a") -> Attributes:
    return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}


def tool(name: str, **more: object) -> Attributes:
    found = {f"gen_ai.tool.call.{key}": value for key, value in more.items()}
    return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, **found}


def said(*messages: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages])


def opened(path: Path, *spans: dict[str, object], **options: bool) -> Reading:
    path.write_text(json.dumps(document(list(spans))))
    return open_trace([path], **options)


def check(session: Session) -> None:
    """Valid, and every call with an edge is due when it was recorded to begin."""
    validate(session)
    ends = {
        call.id: call.recorded.end_s if call.recorded.end_s is not None else call.recorded.start_s or 0.0
        for call in session.calls
        if call.recorded
    }
    for call in session.calls:
        assert call.recorded is not None
        due = ready(call, ends)
        assert not call.after or due == pytest.approx(call.recorded.start_s, abs=2e-6)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """The calls by id of the only session of a few spans of one trace."""

    def load(*spans: tuple[object, ...]) -> dict[str, Call]:
        made = [span("ab" * 16, *row) for row in spans]  # type: ignore[arg-type]
        (session,) = opened(tmp_path / "t.json", *made)
        check(session)
        return {call.id: call for call in session.calls}

    return load


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def parts(call: Call) -> list[tuple[str, int, str | None, float | None]]:
    return [(part.kind, part.tokens, part.name, part.seconds) for part in call.fresh]


# ---------------------------------------------------------------------------------------------- time and parents


def test_calls_of_an_agent_are_a_chain_and_tools_between_them_are_parts(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 20, agent()),
        ("a1", "a0", 1, 3, chat(100, 10)),
        ("a2", "a0", 3, 7, tool("bash", result="x" * 40)),
        ("a3", "a0", 3, 4, tool("read", result="x" * 120)),
        ("a4", "a0", 8, 9, chat(150, 5)),
        ("a5", "a0", 9.5, 10, chat(155, 5)),
    )
    assert [call.agent for call in calls.values()] == ["main"] * 3
    assert edges(calls["c1"]) == [("c0", 5.0, "tool")]
    assert calls["c1"].inherit == Inherit("c0")
    assert parts(calls["c1"]) == [("tool", 30, "read", 1.0), ("tool", 10, "bash", 4.0)], "40 tokens, 3 to 1"
    assert edges(calls["c2"]) == [("c1", 0.5, "orchestration")]
    assert calls["c2"].inherit == Inherit("c1")
    assert calls["c2"].fresh == ()


def test_overlapping_calls_are_parallel_and_joined(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 20, agent()),
        ("a1", "a0", 0, 2, chat()),
        ("a2", "a0", 3, 9, chat()),
        ("a3", "a0", 4, 7, chat()),
        ("a4", "a0", 10, 11, chat()),
    )
    assert edges(calls["c1"]) == [("c0", 1.0, "orchestration")]
    assert edges(calls["c2"]) == [("c0", 2.0, "orchestration")]
    assert sorted(edges(calls["c3"])) == [("c1", 1.0, "orchestration"), ("c2", 1.0, "orchestration")]


def test_an_agent_below_a_tool_is_spawned_and_joined(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 20, agent("lead")),
        ("a1", "a0", 0, 2, chat(100, 10)),
        ("a2", "a0", 2, 8, tool("task")),
        ("b0", "a2", 2, 7, agent("scout")),
        ("b1", "b0", 2.5, 4, chat(50, 6)),
        ("b2", "b0", 5, 7, chat(60, 20)),
        ("a3", "a0", 9, 10, chat(140, 5)),
    )
    assert [call.agent for call in calls.values()] == ["main", "scout:1", "scout:1", "main"]
    assert edges(calls["c1"]) == [("c0", 0.5, "spawn")]
    assert calls["c1"].inherit is None, "a subagent begins with a context of its own"
    assert edges(calls["c2"]) == [("c1", 1.0, "orchestration")]
    assert edges(calls["c3"]) == [("c0", 1.0, "tool"), ("c2", 2.0, "tool")], "1 s behind the end of the tool"
    assert calls["c3"].inherit == Inherit("c0")
    assert [(part.kind, part.tokens, part.from_call) for part in calls["c3"].fresh] == [("report", 30, "c2")]


def test_an_agent_nobody_waits_for_is_not_joined(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 20, agent("lead")),
        ("a1", "a0", 0, 2, chat()),
        ("b0", "a0", 2, 9, agent("scout")),
        ("b1", "b0", 3, 9, chat()),
        ("a2", "a0", 4, 5, chat()),
        ("a3", "a0", 6, 7, chat()),
    )
    assert edges(calls["c2"]) == [("c0", 2.0, "orchestration")]
    assert edges(calls["c3"]) == [("c2", 1.0, "orchestration")]


def test_parallel_agents_under_one_tool_batch(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 30, agent("lead")),
        ("a1", "a0", 0, 1, chat()),
        ("t1", "a0", 1, 6, tool("task")),
        ("t2", "a0", 1, 9, tool("task")),
        ("b0", "t1", 1, 6, agent("scout")),
        ("b1", "b0", 1, 6, chat()),
        ("d0", "t2", 1, 9, agent("scout")),
        ("d1", "d0", 1, 9, chat()),
        ("a2", "a0", 10, 11, chat(200)),
    )
    assert [call.agent for call in calls.values()] == ["main", "scout:1", "scout:2", "main"]
    assert edges(calls["c3"]) == [("c0", 1.0, "tool"), ("c1", 1.0, "tool"), ("c2", 1.0, "tool")]


def test_a_tool_that_calls_the_model_is_a_scope(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 20, agent("lead")),
        ("a1", "a0", 0, 1, chat()),
        ("t1", "a0", 1, 6, tool("summarise")),
        ("b1", "t1", 2, 5, chat()),
        ("a2", "a0", 7, 8, chat(200)),
    )
    assert calls["c1"].agent == "summarise:1"
    assert edges(calls["c1"]) == [("c0", 1.0, "spawn")]
    assert [edge[0] for edge in edges(calls["c2"])] == ["c0", "c1"]


def test_traces_of_a_conversation_are_turns_of_one_session(tmp_path: Path) -> None:
    one, two = "ab" * 16, "cd" * 16
    spans = [
        span(two, "c0", "", 100, 110, agent()),
        span(two, "c1", "c0", 101, 102, chat(130, 5, conversation__id="talk")),
        span(one, "a0", "", 0, 20, agent()),
        span(one, "a1", "a0", 1, 3, chat(100, 10, conversation__id="talk")),
        span(one, "a2", "a0", 4, 5, chat(115, 5)),
    ]
    reading = opened(tmp_path / "t.json", *spans)
    (session,) = reading
    check(session)
    assert (session.id, session.start_s) == ("talk", T0 / 1e9 + 1)
    calls = session.calls
    assert [call.agent for call in calls] == ["main"] * 3
    assert edges(calls[2]) == [("c1", 96.0, "human")]
    assert calls[2].inherit == Inherit("c1")
    assert parts(calls[2]) == [("user", 10, None, None)]
    assert reading.header.common_clock


def test_without_agent_spans_a_trace_is_a_chain(load: Load) -> None:
    calls = load(("a1", "", 0, 1, chat(100)), ("a2", "", 2, 3, chat(50)), ("a3", "", 2.5, 4, chat(60)))
    assert edges(calls["c1"]) == [("c0", 1.0, "orchestration")]
    assert edges(calls["c2"]) == [("c0", 1.5, "orchestration")]
    assert calls["c1"].inherit is None, "shorter, and nothing was read from a cache"


def test_one_call_seen_by_two_tracers_is_one_call(tmp_path: Path) -> None:
    rows = [("f0", "", 0, 5, chat(100, 10)), ("f1", "f0", 1, 4, chat(100, 10)), ("g0", "", 6, 9, chat(110, 10)),
            ("g1", "g0", 7, 8, chat(None, None)), ("f1", "f0", 1, 4, chat(100, 10))]  # fmt: skip
    reading = opened(tmp_path / "t.json", *(span("ab" * 16, *row) for row in rows))
    (session,) = reading
    assert [(call.recorded.start_s, call.recorded.end_s) for call in session.calls if call.recorded] == [
        (0.0, 3.0), (5.0, 8.0)]  # fmt: skip
    assert reading.report.merged == {
        "spans that came twice": 1,
        "spans around a model call that is a span of its own": 2,
    }


def test_embeddings_and_traces_without_calls_are_counted(tmp_path: Path) -> None:
    spans = [
        span("ab" * 16, "a1", "", 0, 1, chat()),
        span("ab" * 16, "a2", "", 0, 1, {"gen_ai.operation.name": "embeddings"}),
        span("cd" * 16, "a1", "", 0, 1, {"http.method": "GET"}),
    ]
    reading = opened(tmp_path / "t.json", *spans)
    assert len(list(reading)) == 1
    assert reading.report.dropped == {
        "embedding spans, which are no calls of a generating model": 1,
        "traces in which no model is called": 1,
    }


def test_circles_and_lost_parents_are_cut(tmp_path: Path) -> None:
    rows = [
        ("a0", "a1", 0, 9, agent()),
        ("a1", "a0", 1, 2, chat()),
        ("a2", "ee", 3, 4, chat()),
        ("a3", "a3", 5, 6, chat()),
    ]
    reading = opened(tmp_path / "t.json", *(span("ab" * 16, *row) for row in rows))
    (session,) = reading
    check(session)
    assert len(session.calls) == 3
    assert reading.report.inferred["circles of spans, cut open"] == 2
    assert reading.report.inferred["spans whose parent is not in the trace, taken as roots"] == 1


def test_failed_calls_and_their_size(load: Load) -> None:
    calls = load(
        ("a0", "", 0, 9, agent()),
        ("a1", "a0", 0, 1, {**chat(None, None), "error.type": "timeout"}),
        ("a2", "a0", 2, 3, chat(80, 5)),
    )
    assert [call.recorded and call.recorded.status for call in calls.values()] == ["error", "ok"]
    assert calls["c0"].recorded and calls["c0"].recorded.estimated == ("prompt_tokens", "output_tokens")
    assert calls["c0"].fresh_tokens == 80, "as large as the next"
    assert calls["c1"].inherit == Inherit("c0")


# ---------------------------------------------------------------------------------------------------- tokens, times


def test_counts_without_the_cached_tokens_are_made_whole(load: Load) -> None:
    cached = "usage__cache_read__input_tokens"
    calls = load(
        ("a1", "", 0, 1, chat(10, 5, **{cached: 500, "usage__cache_creation__input_tokens": 40})),
        ("a2", "", 2, 3, chat(600, 5, **{cached: 550})),
    )
    assert [call.fresh_tokens for call in calls.values()] == [550, 1150 - 555], "one of them shows it, so for both"
    assert calls["c0"].recorded and calls["c0"].recorded.cached_tokens == 500


def test_counts_with_the_cached_tokens_stay(load: Load) -> None:
    calls = load(("a1", "", 0, 1, chat(600, 5, usage__cache_read__input_tokens=500, usage__reasoning__output_tokens=3)))
    assert calls["c0"].fresh_tokens == 600
    assert calls["c0"].reasoning_tokens == 3


def test_first_chunks_and_streaming(load: Load) -> None:
    calls = load(("a1", "", 0, 1, chat(request__stream=True, response__time_to_first_chunk=0.25)),
                 ("a2", "", 2, 3, chat(request__stream=False)))  # fmt: skip
    stamps = [call.recorded for call in calls.values()]
    assert [(s.first_s, s.streaming) for s in stamps if s] == [(0.25, True), (None, False)]


LINES: list[dict[str, object]] = [
    {"context": {"trace_id": "0xab", "span_id": "0x01"}, "parent_id": None, "start_time": "2025-10-09T10:00:00.5Z",
     "end_time": "2025-10-09T10:00:01.500000+00:00"},
    {"traceId": "ab", "spanId": "01", "startTimeUnixNano": "1760004000500000000",
     "endTimeUnixNano": 1760004001500000000},
    {"traceId": "ab", "id": "01", "parentSpanContext": None, "timestamp": 1760004000500000, "duration": 1000000},
    {"trace_id": "ab", "span_id": "01", "start_time": 1760004000.5, "end_time": 1760004001.5},
    {"traceId": "ab", "spanId": "01", "startTime": [1760004000, 500000000], "endTime": [1760004001, 500000000]},
    {"traceId": "ab", "spanId": "01", "startTime": 1760004000500, "endTime": 1760004001500},
]  # fmt: skip


@pytest.mark.parametrize("row", LINES)
@pytest.mark.parametrize("indent", [None, 2])
def test_spans_of_many_exporters(tmp_path: Path, row: dict[str, object], indent: int | None) -> None:
    old = {"gen_ai.system": "x", "gen_ai.request.model": "m", "llm.request.type": "chat",
           "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 3}  # fmt: skip
    (tmp_path / "t.jsonl").write_text(json.dumps({**row, "name": "openai.chat", "attributes": old}, indent=indent))
    assert sniff(tmp_path / "t.jsonl") == "otel"
    (session,) = open_trace([tmp_path / "t.jsonl"])
    assert (session.id, session.start_s) == ("ab", 1760004000.5)
    (call,) = session.calls
    assert (call.model, prompt_tokens(session), call.output_tokens) == ("m", {"c0": 12}, 3)
    assert call.recorded and (call.recorded.start_s, call.recorded.end_s) == (0.0, 1.0)


def test_openinference_and_openllmetry_messages(tmp_path: Path) -> None:
    def row(id: int, attributes: Attributes) -> str:
        return json.dumps({"traceId": "ab", "spanId": f"{id:02}", "start_time": 1760004000.0 + id, "name": "x",
                           "end_time": 1760004000.5 + id, "attributes": attributes})  # fmt: skip

    tools = "llm.input_messages.1.message.tool_calls.0.tool_call"
    rows = [
        row(1, {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 20,
                "llm.token_count.completion": 4, "llm.input_messages.0.message.role": "user",
                "llm.input_messages.0.message.content": "x" * 40, "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.tool_calls.0.tool_call.id": "k",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "bash"}),
        row(3, {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 34,
                "llm.token_count.completion": 4, "llm.input_messages.0.message.role": "user",
                "llm.input_messages.0.message.content": "x" * 40, "llm.input_messages.1.message.role": "assistant",
                f"{tools}.id": "k", f"{tools}.function.name": "bash",
                "llm.input_messages.2.message.role": "tool", "llm.input_messages.2.message.tool_call_id": "k",
                "llm.input_messages.2.message.content": "y" * 40}),
        row(5, {"llm.request.type": "chat", "gen_ai.usage.prompt_tokens": 30, "gen_ai.usage.completion_tokens": 1,
                "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "z" * 40, "gen_ai.request.model": "m"}),
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    (session,) = open_trace([tmp_path / "t.jsonl"])
    _, second, third = session.calls
    assert second.inherit == Inherit("c0")
    assert parts(second) == [("tool", 10, "bash", None)]
    assert edges(second) == [("c0", 1.5, "tool")]
    assert third.inherit is None


# ------------------------------------------------------------------------------------------------------- messages


def test_messages_say_what_is_inherited(load: Load) -> None:
    first = ("user", "u" * 80)
    history = [first, ("assistant", "fine"), ("user", "v" * 40)]
    edited = [first, ("assistant", "rewritten"), ("user", "v" * 40)]
    calls = load(
        ("a1", "", 0, 1, chat(50, 5, input__messages=said(first), output__messages=said(("assistant", "fine")))),
        ("a2", "", 9, 10, chat(70, 5, input__messages=said(*history))),
        ("a3", "", 19, 20, chat(90, 5, input__messages=said(*edited))),
        ("a4", "", 29, 30, chat(90, 5, input__messages=said(("user", "w" * 160)))),
    )
    assert calls["c1"].inherit == Inherit("c0")
    assert edges(calls["c1"]) == [("c0", 8.0, "human")]
    assert parts(calls["c1"]) == [("user", 15, None, None)]
    assert calls["c2"].inherit == Inherit("c1", 50), "the answer is not what was answered"
    assert [part[0] for part in parts(calls["c2"])] == ["answer", "user"]
    assert calls["c3"].inherit is None, "long enough, but it says nothing of what was said"


def test_scaffolds_are_spans_of_the_trace_equal_in_all_sessions(tmp_path: Path) -> None:
    system = json.dumps([{"type": "text", "content": "s" * 400}])
    tools = [{"name": "bash", "description": "d" * 100}]
    spans = [
        span(f"{number:032x}", "01", "", number, number + 1,
             chat(tokens, 5, system_instructions=system, tool__definitions=tools, input__messages=said(("user", text))))
        for number, tokens, text in ((1, 400, "a" * 100), (2, 300, "b" * 100), (3, 90, "c" * 100))
    ]  # fmt: skip
    one, two, small = (session.calls[0] for session in opened(tmp_path / "t.json", *spans))
    assert one.spans == two.spans
    assert [(found.scope, found.tokens) for found in one.spans] == [("trace", 34), ("trace", 100)]
    assert all("s" * 8 not in found.name and len(found.name) == 24 for found in one.spans)
    assert one.fresh_tokens == 400 - 134
    assert small.span_tokens < 90, "at most what the prompt has, by the share of characters"
    assert [found.name for found in small.spans] == [found.name for found in one.spans]


def test_a_subagent_shares_the_scaffold_it_has_in_common(load: Load) -> None:
    tools = [{"name": "bash", "description": "d" * 100}]
    mine = json.dumps([{"type": "text", "content": "m" * 100}])
    other = json.dumps([{"type": "text", "content": "n" * 100}])
    calls = load(
        ("a0", "", 0, 9, agent("lead")),
        ("a1", "a0", 0, 1, chat(200, 5, tool__definitions=tools, system_instructions=mine,
                                input__messages=said(("user", "u" * 40)))),
        ("b0", "a0", 1, 8, agent("scout")),
        ("b1", "b0", 2, 3, chat(150, 5, tool__definitions=tools, system_instructions=other,
                                input__messages=said(("user", "t" * 40)))),
    )  # fmt: skip
    assert calls["c1"].inherit == Inherit("c0", 34)
    assert [(found.tokens, found.scope) for found in calls["c1"].spans] == [(25, "trace")]


def test_strangers_with_one_beginning_share_it_as_a_span(tmp_path: Path) -> None:
    long = ("user", "d" * 400)
    spans = [
        span("ab" * 16, "01", "", 0, 5, chat(200, 5, input__messages=said(long, ("user", "a" * 40)))),
        span("ab" * 16, "02", "", 0.5, 5, chat(210, 5, input__messages=said(long, ("user", "b" * 40)))),
    ]
    (session,) = opened(tmp_path / "t.json", *spans)
    (_, one), (_, two) = planned(session)
    assert [call.spans[0].tokens for call in session.calls] == [100, 100]
    assert common(one.key, two.key) == 100
    assert [call.span_tokens + call.fresh_tokens for call in session.calls] == [200, 210]


def test_an_answer_without_its_reasoning_is_fresh(load: Load) -> None:
    first = ("user", "u" * 80)
    calls = load(
        ("a1", "", 0, 1, chat(50, 40, usage__reasoning__output_tokens=30, input__messages=said(first),
                              output__messages=said(("assistant", "fine")))),
        ("a2", "", 9, 10, chat(70, 5, input__messages=said(first, ("assistant", "fine"), ("user", "v" * 40)))),
    )  # fmt: skip
    assert calls["c1"].inherit == Inherit("c0", 50)
    assert [(part.kind, part.from_call) for part in calls["c1"].fresh] == [("answer", "c0"), ("user", None)]
    assert calls["c1"].fresh_tokens == 20


def test_results_take_names_and_seconds_from_their_tool_spans(load: Load) -> None:
    call = {"role": "assistant", "parts": [{"type": "tool_call", "id": key, "name": "bash"} for key in ("k1", "k2")]}
    user = {"role": "user", "parts": [{"type": "text", "content": "u" * 40}]}
    results = [{"role": "tool", "parts": [{"type": "tool_call_response", "id": key, "result": "r" * size}]}
               for key, size in (("k1", 40), ("k2", 80))]  # fmt: skip
    calls = load(
        ("a0", "", 0, 9, agent()),
        ("a1", "a0", 0, 1, chat(30, 5, input__messages=json.dumps([user]), output__messages=json.dumps([call]))),
        ("t2", "a0", 1, 3, tool("bash", id="k2")),
        ("t1", "a0", 1, 2, tool("bash", id="k1")),
        ("a2", "a0", 4, 5, chat(65, 5, input__messages=json.dumps([user, call, *results]))),
    )
    assert parts(calls["c1"]) == [("tool", 10, "bash", 1.0), ("tool", 20, "bash", 2.0)]
    assert edges(calls["c1"]) == [("c0", 3.0, "tool")]


def test_messages_in_events(tmp_path: Path) -> None:
    def events(*said: tuple[str, str]) -> list[dict[str, object]]:
        return [{"name": f"gen_ai.{role}.message", "attributes": [{"key": "content", "value": {"stringValue": text}}]}
                for role, text in said]  # fmt: skip

    first = [("system", "s" * 40), ("user", "u" * 40)]
    spans = [
        span("ab" * 16, "01", "", 0, 1, chat(40, 5), events=events(*first)),
        span("ab" * 16, "02", "", 2, 3, chat(60, 5), events=events(*first, ("assistant", "a"), ("user", "v" * 40))),
    ]
    (session,) = opened(tmp_path / "t.json", *spans)
    assert session.calls[1].inherit == Inherit("c0")
    assert [found.scope for found in session.calls[0].spans] == ["trace"]


def test_texts_are_kept_when_asked(tmp_path: Path) -> None:
    rows = span("ab" * 16, "01", "", 0, 1, chat(2, 5, input__messages=said(("user", "hello")),
                                                output__messages=said(("assistant", "hi"))))  # fmt: skip
    (kept,) = opened(tmp_path / "t.json", rows, text=True)
    assert [part.text for part in kept.calls[0].fresh] == ["hello"]
    assert kept.calls[0].recorded and kept.calls[0].recorded.answer == "hi"
    (bare,) = opened(tmp_path / "t.json", rows)
    assert b"hello" not in repr(bare).encode()


# ---------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"gen_ai.usage.input_tokens": -1}, "attributes.gen_ai.usage.input_tokens"),
        ({"gen_ai.usage.output_tokens": 10**18}, "attributes.gen_ai.usage.output_tokens"),
        ({"gen_ai.usage.input_tokens": "many"}, "attributes.gen_ai.usage.input_tokens"),
        ({"gen_ai.usage.input_tokens": [1]}, "attributes.gen_ai.usage.input_tokens"),
        ({"gen_ai.response.time_to_first_chunk": -0.5}, "attributes.gen_ai.response.time_to_first_chunk"),
    ],
)
def test_bad_attributes_are_named(tmp_path: Path, change: Attributes, where: str) -> None:
    spans = [span("ab" * 16, "01", "", 0, 1, {**chat(), **change}), span("ab" * 16, "02", "", 0, 1, chat())]
    with pytest.raises(TraceError) as raised:
        list(opened(tmp_path / "t.json", *spans))
    assert raised.value.where and raised.value.where.endswith(where)
    assert "line 1" in raised.value.where
    reading = opened(tmp_path / "t.json", *spans, skip_bad=True)
    (session,) = reading
    assert (len(session.calls), len(reading.report.skipped)) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [{"startTimeUnixNano": "soon"}, {"startTimeUnixNano": None}, {"startTimeUnixNano": 1e308}, {"traceId": ""},
     {"traceId": 7}, {"endTimeUnixNano": "9999-12-31T23:59:59Z"}, {"attributes": 3}, {"attributes": [{"value": 1}]},
     {"startTimeUnixNano": [1, 2, 3]}, {"startTimeUnixNano": "-5"}],
)  # fmt: skip
def test_bad_spans_are_one_fault_each(tmp_path: Path, change: Attributes) -> None:
    spans = [{**span("ab" * 16, "01", "", 0, 1, chat()), **change}, span("ab" * 16, "02", "", 0, 1, chat())]
    reading = opened(tmp_path / "t.json", *spans, skip_bad=True)
    assert [len(session.calls) for session in reading] == [1]
    assert len(reading.report.skipped) == 1
    with pytest.raises(TraceError):
        list(opened(tmp_path / "t.json", *spans))


def test_random_trees_are_valid_sessions(tmp_path: Path) -> None:
    kinds = [chat(), chat(), chat(), tool("t"), agent("x"), agent("y"), {}]
    for seed in range(150):
        random = Random(seed)
        rows = []
        for number in range(random.randrange(1, 25)):
            start = random.randrange(12) / random.choice((1, 4))
            attributes = dict(random.choice(kinds))
            if attributes.get("gen_ai.operation.name") == "chat":
                attributes["gen_ai.usage.input_tokens"] = random.randrange(0, 300)
                if random.random() < 0.5:
                    text = [("user", random.choice("ab") * 40) for _ in range(random.randrange(1, 5))]
                    attributes["gen_ai.input.messages"] = said(("system", "s" * 40), *text)
                if random.random() < 0.3:
                    attributes["gen_ai.conversation.id"] = "talk"
            parent = f"{random.randrange(1, 25):02}" if random.random() < 0.8 else ""
            trace = random.choice(("ab" * 16, "cd" * 16))
            rows.append(
                span(trace, f"{number + 1:02}", parent, start, start + random.choice((0, 1, 3, -1)), attributes)
            )
        for session in opened(tmp_path / "t.json", *rows):
            check(session)


def test_wide_fans_keep_few_edges(tmp_path: Path) -> None:
    rows = [("a0", "", 0, 20, agent())]
    rows += [(f"b{i}", "a0", 1 + i / 1000, 4, chat()) for i in range(200)]
    rows += [(f"c{i}", "a0", 5, 6, chat()) for i in range(200)]
    (session,) = opened(tmp_path / "t.json", *(span("ab" * 16, *row) for row in rows))  # type: ignore[arg-type]
    check(session)
    assert max(len(call.after) for call in session.calls) == 64


# ------------------------------------------------------------------------------------------- what exports look like


def prefixes(session: Session) -> dict[tuple[str, str], int]:
    """Tokens that each two prompts share."""
    keys = [(call.id, prompt.key) for call, prompt in planned(session)]
    return {(a, b): common(x, y) for i, (b, y) in enumerate(keys) for a, x in keys[:i]}


@pytest.mark.parametrize("recorded", [True, False])
def test_two_wordings_of_one_answer_are_not_shared(tmp_path: Path, recorded: bool) -> None:
    """An edit, or another attempt that was not recorded: what comes before is all that is shared."""
    call = {"type": "tool_call", "id": "k", "name": "t", "arguments": {}}

    def history(words: str, then: str) -> str:
        answer = {"role": "assistant", "parts": [{"type": "text", "content": words}, *([call] if recorded else [])]}
        return json.dumps([*json.loads(said(("user", "u" * 400))), answer, *json.loads(said(("user", then * 400)))])

    first = chat(100, 50, input__messages=said(("user", "u" * 400)))
    if recorded:
        parts = [{"type": "text", "content": "A" * 200}, call]
        first["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "parts": parts}])
    (session,) = opened(
        tmp_path / "t.json",
        span("ab" * 16, "01", "", 0, 1, first),
        span("ab" * 16, "02", "", 2, 3, chat(250, 50, input__messages=history("A" * 200, "x"))),
        span("ab" * 16, "03", "", 4, 5, chat(250, 50, input__messages=history("B" * 200, "y"))),
    )
    check(session)
    assert prefixes(session) == {("c0", "c1"): 100, ("c0", "c2"): 100, ("c1", "c2"): 100}
    assert session.calls[1].inherit == Inherit("c0")


def test_a_scaffold_of_long_words_is_shared_whole(tmp_path: Path) -> None:
    """Text of more than 4 characters a token: tools and system prompt still have one size in all prompts."""
    scaffold = {
        "tool__definitions": json.dumps([{"name": "t", "description": "d" * 8_000}]),
        "system_instructions": json.dumps([{"type": "text", "content": "s" * 20_000}]),
    }
    (session,) = opened(
        tmp_path / "t.json",
        span("ab" * 16, "01", "", 0, 3, chat(6_500, 5, input__messages=said(("user", "q" * 400)), **scaffold)),
        span("ab" * 16, "02", "", 0, 3, chat(6_850, 5, input__messages=said(("user", "w" * 2_000)), **scaffold)),
    )
    check(session)
    assert 6_350 < prefixes(session)["c0", "c1"] < 6_410, "28,000 of 28,400 characters of 6,500 tokens"


def test_a_message_that_two_strangers_share_has_one_size_in_both(tmp_path: Path) -> None:
    texts = [("user", "q" * 4_000), ("user", "b" * 1_000), ("user", "c" * 1_000)]
    (session,) = opened(
        tmp_path / "t.json",
        *(
            span("ab" * 16, f"0{n}", "", 0, 3, chat(900 + 250 * (n - 1), 5, input__messages=said(*texts[:n])))
            for n in (1, 2, 3)
        ),
    )
    check(session)
    assert prefixes(session) == {("c0", "c1"): 900, ("c0", "c2"): 900, ("c1", "c2"): 1_150}, "all of the shorter"


def test_what_collectors_and_tempo_write(tmp_path: Path) -> None:
    spans = [span("ab" * 16, f"0{n}", "", n, n + 1, chat()) for n in range(3)]
    lines = [{"resourceLogs": [{"scopeLogs": []}]}, document(spans[:2]), {"resourceMetrics": []}, document(spans[2:])]
    batches = {"batches": document(spans)["resourceSpans"]}
    shapes = {
        "mixed.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        "pretty.json": "\n".join(json.dumps(document([one]), indent=4) for one in spans),
        "tempo.json": json.dumps(batches),
        "trace.json": json.dumps({"trace": document(spans)}),
    }
    for name, content in shapes.items():
        (tmp_path / name).write_text(content)
        assert sniff(tmp_path / name) == "otel"
        (session,) = open_trace([tmp_path / name])
        assert len(session.calls) == 3, name
    (tmp_path / "logs.jsonl").write_text(json.dumps(lines[0]))
    assert sniff(tmp_path / "logs.jsonl") is None


def test_a_duration_of_javascript_is_no_fault(tmp_path: Path) -> None:
    row = {"traceId": "ab" * 16, "spanId": "01", "startTime": [1_760_000_000, 5], "endTime": [1_760_000_001, 5],
           "duration": [1, 0], "attributes": chat()}  # fmt: skip
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    (session,) = open_trace([tmp_path / "t.jsonl"])
    assert session.calls[0].recorded is not None and session.calls[0].recorded.end_s == 1.0
