"""Codex: a rollout with a compaction, an aborted turn and an error, and that of a subagent it waited for."""

from __future__ import annotations

import json

from samples import Plant

PARENT = "019c8a4c-ed82-79a1-aa28-000000000001"
CHILD = "019c8a4d-0000-79a1-aa28-000000000002"
TURN = "019c8a4d-0330-71a2-b22b-000000000003"


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def line(seconds: float, line_type: str, /, **payload: object) -> dict[str, object]:
        stamp = f"2026-02-23T11:{int(seconds) // 60:02d}:{seconds % 60:06.3f}Z"
        return {"timestamp": stamp, "type": line_type, "payload": payload, "note": text("note")}

    def item(seconds: float, type: str, **payload: object) -> dict[str, object]:
        return line(seconds, "response_item", type=type, id=text("item id"), **payload)

    def event(seconds: float, type: str, **payload: object) -> dict[str, object]:
        return line(seconds, "event_msg", type=type, **payload)

    def said(seconds: float, role: str) -> dict[str, object]:
        return item(seconds, "message", role=role, content=[{"type": "input_text", "text": text(f"{role} message")}])

    def count(seconds: float, total: int, *last: int) -> dict[str, object]:
        names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
        usage = {"total_token_usage": {"input_tokens": total, "output_tokens": total}}
        info = {**usage, "last_token_usage": dict(zip(names, last, strict=True))}
        return event(seconds, "token_count", info=info, rate_limits={"plan_type": text("plan")})

    def meta(id: str, source: object) -> dict[str, object]:
        fields = {"cwd": text("cwd"), "originator": text("originator"), "git": {"branch": text("branch")}}
        base = {"text": text("base instructions")}
        return line(0, "session_meta", id=id, source=source, base_instructions=base, **fields)

    def called(seconds: float, type: str, call: str, **more: object) -> dict[str, object]:
        return item(seconds, type, name=name("tool"), call_id=text(call), **more)

    context = {"turn_id": TURN, "cwd": text("cwd"), "model": name("model"), "summary": text("summary")}
    parent = [
        meta(PARENT, text("source")),
        said(0.1, "developer"),
        event(1, "task_started", turn_id=TURN),
        said(1.1, "user"),
        event(1.1, "user_message", message=text("user_message")),
        line(1.2, "turn_context", **context),
        event(2, "token_count", info=None),
        item(
            3, "reasoning", summary=[{"type": "summary_text", "text": text("reasoning")}], encrypted_content=text("enc")
        ),
        item(4, "message", role="assistant", content=[{"type": "output_text", "text": text("answer")}]),
        called(4.5, "function_call", "call 1", arguments=json.dumps({"cmd": text("arguments")})),
        called(4.6, "custom_tool_call", "call 2", input=text("input")),
        count(5, 1, 1000, 128, 60, 20),
        item(6, "function_call_output", call_id=text("call 1"), output=text("output")),
        item(7, "custom_tool_call_output", call_id=text("call 2"), output=[{"type": "text", "text": text("output 2")}]),
        line(7.1, "turn_context", **context),
        item(8, "function_call", name="spawn_agent", call_id=text("call 3"), arguments=text("spawn arguments")),
        count(8.1, 2, 1200, 1024, 30, 0),
        count(8.2, 2, 1200, 1024, 30, 0),
        item(8.3, "function_call_output", call_id=text("call 3"), output=text("agent id")),
        item(9, "function_call", name="wait_agent", call_id=text("call 4"), arguments=text("wait arguments")),
        count(9.1, 3, 1260, 1152, 10, 0),
        item(30, "function_call_output", call_id=text("call 4"), output=text("agent status")),
        item(33, "message", role="assistant", content=[{"type": "output_text", "text": text("answer 2")}]),
        count(33.1, 4, 1400, 1152, 10, 0),
        event(33.2, "task_complete", last_agent_message=text("last_agent_message")),
        count(50, 5, 1450, 1408, 90, 0),
        line(50.1, "compacted", message=text("compacted"), replacement_history=[]),
        event(50.2, "context_compacted"),
        said(60, "user"),
        event(60, "user_message", message=text("user_message 2")),
        item(63, "message", role="assistant", content=[{"type": "output_text", "text": text("answer 3")}]),
        count(63.1, 6, 700, 640, 10, 0),
        said(70, "user"),
        event(70, "user_message", message=text("user_message 3")),
        event(71, "error", message=text("error")),
        item(72, "local_shell_call", call_id=text("call 5"), action={"command": [text("command")]}),
        event(73, "turn_aborted", reason=text("reason")),
    ]
    spawn = {
        "parent_thread_id": PARENT,
        "depth": 1,
        "agent_role": name("agent_role"),
        "agent_nickname": text("nickname"),
    }
    child = [
        meta(CHILD, {"subagent": {"thread_spawn": spawn}}),
        event(8.4, "task_started", turn_id=TURN),
        said(8.5, "user"),
        line(8.5, "turn_context", **context),
        item(12, "web_search_call", status=text("status"), action={"query": text("query")}),
        item(14, "message", role="assistant", content=[{"type": "output_text", "text": text("report")}]),
        count(14.1, 1, 900, 0, 40, 5),
    ]
    folder = "sessions/2026/02/23"
    return {
        f"{folder}/rollout-{PARENT}.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in parent),
        f"{folder}/rollout-{CHILD}.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in child),
    }
