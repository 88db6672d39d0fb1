"""Langfuse: a session of two traces with a tool and a subagent as a page of the API, and rows of blob storage."""

from __future__ import annotations

import json

from samples import Plant

Row = dict[str, object]


def at(seconds: float) -> str:
    return f"2025-10-09T10:00:{seconds:06.3f}Z"


def observation(
    id: str, type: str, trace: str, parent: str | None, start: float, end: float | None, **more: object
) -> Row:
    return {
        "id": id, "traceId": trace, "parentObservationId": parent, "type": type, "startTime": at(start),
        "endTime": None if end is None else at(end), "level": "DEFAULT", **more,
    }  # fmt: skip


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    one, two, three = text("trace1"), text("trace2"), text("trace3")
    context: Row = {"sessionId": text("session"), "userId": text("user"), "traceName": name("workflow"),
                    "statusMessage": text("statusMessage"), "metadata": {"m": text("metadata")},
                    "environment": text("environment"), "projectId": text("project")}  # fmt: skip
    system: Row = {"role": "system", "content": text("system")}
    user: Row = {"role": "user", "content": text("input")}
    call: Row = {"role": "assistant", "content": None, "tool_calls": [
        {"id": text("call-id"), "type": "function",
         "function": {"name": name("tool"), "arguments": text("args")}}]}  # fmt: skip
    result: Row = {"role": "tool", "tool_call_id": text("call-id"), "content": text("result")}
    answer: Row = {"role": "assistant", "content": text("output")}

    def generation(key: str, trace: str, parent: str | None, start: float, end: float | None, tokens: int, output: int,
                   messages: object, out: object, **more: object) -> Row:  # fmt: skip
        return observation(
            text(key), "GENERATION", trace, parent, start, end, name=text("generation.name"), model=name("model"),
            completionStartTime=at(start + 0.25), input=messages, output=out, modelParameters={"p": text("param")},
            usageDetails={"input": tokens - 10, "input_cached_tokens": 10, "output": output - 2,
                          "output_reasoning_tokens": 2, "total": tokens + output}, **context, **more)  # fmt: skip

    def prompt(*messages: Row) -> Row:
        return {"messages": messages, "tools": [text("tools")]}

    page = [
        observation(text("a0"), "AGENT", one, None, 0.0, 20.0, name=name("agent"), input=text("agent"), **context),
        generation("g0", one, text("a0"), 0.5, 2.0, 60, 20, prompt(system, user), call),
        observation(text("t0"), "TOOL", one, text("a0"), 2.0, 4.0, name=name("tool"), output=text("tool"), **context),
        observation(text("b0"), "AGENT", one, text("t0"), 2.2, 3.8, name=name("subagent"), **context),
        generation("g1", one, text("b0"), 2.2, 3.5, 30, 8, [{"role": "user", "content": text("task")}], answer),
        generation("g2", one, text("a0"), 4.5, 6.0, 95, 10, json.dumps(prompt(system, user, call, result)), answer),
        generation("g3", two, None, 30.0, None, 150, 5, [system, user], answer, level="ERROR"),
        observation(text("e0"), "EMBEDDING", two, None, 31.0, 32.0, **context),
    ]  # fmt: skip
    blob = [
        {"id": text("s0"), "trace_id": three, "parent_observation_id": None, "type": "SPAN", "name": text("span"),
         "start_time": "2025-10-09 10:00:00.000000", "end_time": "2025-10-09 10:00:09.000000"},
        {"id": text("g4"), "trace_id": three, "parent_observation_id": text("s0"), "type": "GENERATION",
         "start_time": "2025-10-09 10:00:01.000000", "end_time": "2025-10-09 10:00:02.500000",
         "provided_model_name": name("model"), "usage_details": {"input": 50, "output": 6, "total": 56},
         "input": text("plain input"), "output": text("plain output"), "user_id": text("user")},
    ]  # fmt: skip
    return {
        "page.json": json.dumps({"data": page, "meta": {"cursor": text("cursor")}}).encode(),
        "blob.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in blob),
    }
