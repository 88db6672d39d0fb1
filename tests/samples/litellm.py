"""LiteLLM: a session with tools and a subagent, a failed call with its retry, an answer from the cache."""

from __future__ import annotations

import json

from samples import Plant

Row = dict[str, object]
T0 = 1_760_000_000.0


def payload(id: str, start: float, end: float, **more: object) -> Row:
    return {
        "id": id, "call_type": "acompletion", "stream": True, "status": "success", "custom_llm_provider": "openai",
        "startTime": T0 + start, "endTime": T0 + end, "completionStartTime": T0 + start + 0.25,
        "response_time": end - start, "cache_hit": False, **more,
    }  # fmt: skip


def asks(tool: str, *ids: str) -> Row:
    """An answer that calls tools."""
    calls = [{"id": id, "type": "function", "function": {"name": tool, "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def response(message: Row) -> Row:
    return {"id": "r", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    session, other = text("session"), text("other")
    system: Row = {"role": "system", "content": text("system")}
    user: Row = {"role": "user", "content": [{"type": "text", "text": text("user")}]}
    call, call_id = asks(name("tool"), text("call-id")), text("call-id")
    result: Row = {"role": "tool", "tool_call_id": call_id, "content": text("result")}
    answer: Row = {"role": "assistant", "content": text("answer")}

    def row(
        key: str, start: float, end: float, messages: list[Row], out: Row, tokens: int, output: int, **more: object
    ) -> Row:
        return payload(
            text(key), start, end, trace_id=session, session_id=session, model=name("model"), model_id=text("model_id"),
            api_base=text("api_base"), end_user=text("end_user"), request_tags=[text("tag")],
            prompt_tokens=tokens, completion_tokens=output, messages=messages, response=response(out),
            requester_ip_address=text("ip"), model_parameters={"tools": [{"name": name("tool"), "d": text("tools")}]},
            metadata={"user_api_key_alias": text("alias"), "usage_object": {
                "prompt_tokens": tokens, "prompt_tokens_details": {"cached_tokens": tokens // 2},
                "completion_tokens_details": {"reasoning_tokens": 2}}}, **more)  # fmt: skip

    rows = [
        row("c0", 0.0, 2.0, [system, user], call, 60, 20),
        row("s0", 3.0, 4.0, [{"role": "user", "content": text("task")}], answer, 40, 9),
        row("c1", 5.0, 7.0, [system, user, call, result], answer, 95, 11),
        row("c2", 40.0, 41.0, [system, user, call, result, answer, {"role": "user", "content": text("more")}], answer,
            0, 0, status="failure", error_str=text("error_str"), error_information={"error_message": text("error")}),
        row("c3", 42.0, 43.0, [system, user, call, result, answer, {"role": "user", "content": text("more")}], answer,
            120, 10),
        row("c4", 44.0, 44.1, [system, user], answer, 60, 10, cache_hit=True, cache_key=text("cache_key")),
        payload(text("e0"), 1.0, 2.0, call_type="aembedding", trace_id=other, messages=text("embedded")),
        payload(text("o0"), 1.0, 2.0, trace_id=other, model=name("model"), prompt_tokens=30, completion_tokens=4,
                messages=[system, {"role": "user", "content": text("other.user")}], response=text("response")),
    ]  # fmt: skip
    return {
        "payloads.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows[:4]),
        "payloads.json": json.dumps(rows[4:], indent=1).encode(),
    }
