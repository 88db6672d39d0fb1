"""OpenTelemetry: a conversation of two traces with a subagent as OTLP JSON, and older names one span a line."""

from __future__ import annotations

import json

from samples import Plant

Value = dict[str, object]
T0 = 1_760_000_000_000_000_000


def value(plain: object) -> Value:
    """A plain value as OTLP types it."""
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    if isinstance(plain, list):
        return {"arrayValue": {"values": [value(item) for item in plain]}}
    if isinstance(plain, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": value(item)} for key, item in plain.items()]}}
    return {"stringValue": plain}


def span(trace: str, id: str, parent: str, start: float, end: float, attributes: Value, **more: object) -> Value:
    return {
        "traceId": trace, "spanId": id, "parentSpanId": parent, "kind": 3,
        "startTimeUnixNano": str(T0 + round(start * 1e9)), "endTimeUnixNano": str(T0 + round(end * 1e9)),
        "attributes": [{"key": key, "value": value(item)} for key, item in attributes.items()], **more,
    }  # fmt: skip


def document(spans: list[Value], **resource: object) -> Value:
    attributes = [{"key": key, "value": value(item)} for key, item in resource.items()]
    scopes = [{"scope": {"name": "s"}, "spans": spans}]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": scopes}]}


def part(text: str) -> list[Value]:
    return [{"type": "text", "content": text}]


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    first, second, third = (text(f"trace{number}") for number in (1, 2, 3))
    conversation = {"gen_ai.conversation.id": text("conversation.id"), "user.id": text("user.id")}
    tools = [{"type": "function", "name": name("tool"), "description": text("tool.description")}]
    call: Value = {"role": "assistant", "parts": [
        {"type": "reasoning", "content": text("reasoning")},
        {"type": "tool_call", "id": text("call-id"), "name": name("tool"),
         "arguments": {"a": text("arguments")}}]}  # fmt: skip
    result: Value = {"role": "tool", "parts": [
        {"type": "tool_call_response", "id": text("call-id"), "result": text("result")}]}  # fmt: skip
    user: Value = {"role": "user", "parts": part(text("user"))}
    answer: Value = {"role": "assistant", "parts": part(text("answer")), "finish_reason": "stop"}
    again: Value = {"role": "user", "parts": [*part(text("again")), {"type": "blob", "content": text("blob")}]}

    def chat(messages: list[Value], out: Value, tokens: int, output: int, **more: object) -> Value:
        return {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": text("provider"),
            "gen_ai.request.model": name("model"), "gen_ai.response.id": text("response.id"),
            "gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": output,
            "gen_ai.usage.cache_read.input_tokens": tokens // 2, "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.system_instructions": json.dumps(part(text("system"))), "gen_ai.tool.definitions": tools,
            "gen_ai.input.messages": json.dumps(messages), "gen_ai.output.messages": json.dumps([out]),
            "server.address": text("server.address"), **conversation, **more,
        }  # fmt: skip

    def tool(kind: str, **more: object) -> Value:
        return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name(kind),
                "gen_ai.tool.call.id": text("call-id"), "gen_ai.tool.call.arguments": text("tool.arguments"),
                "gen_ai.tool.call.result": text("tool.result"), **more}  # fmt: skip

    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name("agent"), "gen_ai.agent.id": text("id")}
    sub = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name("subagent")}
    one = [user]
    two = [*one, call, result]
    three = [*two, answer, again]
    spans = [
        span(first, "a0", "", 0.0, 20.0, agent, name=text("span.name"), status={"message": text("status")}),
        span(first, "a1", "a0", 0.5, 2.0, chat(one, call, 120, 30)),
        span(first, "a2", "a0", 2.0, 6.0, tool("tool")),
        span(first, "b0", "a2", 2.5, 5.5, sub),
        span(first, "b1", "b0", 2.5, 3.5, chat([{"role": "user", "parts": part(text("task"))}], call, 90, 20)),
        span(first, "b2", "b0", 3.5, 5.0, chat(one, answer, 0, 0, **{"error.type": text("error.type")})),
        span(first, "a3", "a0", 6.0, 7.0, {"gen_ai.operation.name": "embeddings", "note": text("embeddings")}),
        span(first, "a4", "a0", 7.0, 9.0, chat(two, answer, 170, 25), events=[
            {"name": text("event"), "attributes": [{"key": text("event.key"), "value": value(text("event.value"))}]}]),
        span(second, "c0", "", 30.0, 40.0, agent),
        span(second, "c1", "c0", 30.5, 33.0, chat(three, answer, 230, 12)),
    ]  # fmt: skip
    old = [
        {"name": text("name"), "context": {"trace_id": third, "span_id": "0x01"}, "parent_id": None,
         "start_time": "2025-10-09T10:00:00.000000Z", "end_time": "2025-10-09T10:00:09.500000Z",
         "attributes": {"traceloop.span.kind": "workflow", "traceloop.workflow.name": name("workflow"),
                        "traceloop.entity.input": text("entity.input")}},
        {"name": "openai.chat", "context": {"trace_id": third, "span_id": "0x02"}, "parent_id": "0x01",
         "start_time": "2025-10-09T10:00:01.000000Z", "end_time": "2025-10-09T10:00:02.000000Z",
         "status": {"status_code": "ERROR", "description": text("description")},
         "attributes": {"llm.request.type": "chat", "gen_ai.request.model": name("old-model"),
                        "gen_ai.system": text("gen_ai.system"), "gen_ai.usage.prompt_tokens": 40,
                        "gen_ai.usage.completion_tokens": 0, "gen_ai.prompt.0.role": "user",
                        "gen_ai.prompt.0.content": text("prompt.0.content")}},
        {"name": "LLM", "context": {"trace_id": third, "span_id": "0x03"}, "parent_id": "0x01",
         "start_time": "2025-10-09T10:00:03.000000Z", "end_time": "2025-10-09T10:00:05.000000Z",
         "attributes": {"openinference.span.kind": "LLM", "llm.model_name": name("old-model"),
                        "llm.token_count.prompt": 40, "llm.token_count.completion": 8,
                        "llm.input_messages.0.message.role": "user",
                        "llm.input_messages.0.message.content": text("prompt.0.content"),
                        "llm.output_messages.0.message.role": "assistant",
                        "llm.output_messages.0.message.content": text("completion")}},
    ]  # fmt: skip
    return {
        "spans.json": json.dumps(document(spans, **{"host.name": text("host.name")}), indent=2).encode(),
        "old.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in old),
    }
