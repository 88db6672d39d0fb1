"""AIPerf's conversation DAG: a parent with a spawned, a forked and an early branch, an orchestrator, all modes."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    sid = text("session_id")

    def message(role: str, field: str, **more: object) -> dict[str, object]:
        return {"role": role, "content": text(field), **more}

    def turn(*messages: dict[str, object], **more: object) -> dict[str, object]:
        return {"messages": list(messages), "model": name("model"), "max_tokens": 20, **more}

    system = message("system", "system")
    call = {"id": text("tool_call_id"), "type": "function", "function": {"name": "x", "arguments": text("arguments")}}
    defined = {"type": "function", "function": {"name": text("tool name"), "description": text("tools")}}
    picture = {"type": "image_url", "image_url": {"url": text("url")}}
    lines = [
        {
            "session_id": sid, "pre_session_spawns": [f"{sid}/early"],
            "turns": [
                turn(system, message("user", "user", name=text("user name")),
                     tools=[defined],
                     spawns=[{"children": [f"{sid}/a"], "join_at": 2}]),
                turn(message("tool", "result", name=name("tool"), tool_call_id=text("tool_call_id")), delay=1500,
                     forks=[{"child": f"{sid}/b", "background": True}], extra={"user": text("extra")}),
                turn({"role": "user", "content": [{"type": "text", "text": text("part")}, picture]}, delay=250.5),
            ],
        },
        {"session_id": f"{sid}/a", "context_mode": "deltas_with_responses", "turns": [
            turn(system, message("developer", "developer")),
            turn({"role": "assistant", "content": None, "tool_calls": [call]}, message("tool", "second result"))]},
        {"session_id": f"{sid}/b", "turns": [{"messages": [message("user", "fork")]}]},
        {"session_id": f"{sid}/early", "context_mode": "message_array_with_responses", "turns": [
            turn(message("user", "first")), turn(message("user", "first"), message("user", "second"))]},
        {"session_id": f"{sid}!", "orchestrator": True, "think_time_ms": 10, "think_time_sigma": 0.5,
         "rounds": [{"spawns": [f"{sid}!/c"]}, {"spawns": [f"{sid}!/d"], "think_time_ms": 20}]},
        {"session_id": f"{sid}!/c", "turns": [turn(system)]},
        {"session_id": f"{sid}!/d", "turns": [turn(system, message("user", "other user"))]},
    ]  # fmt: skip
    return {"dag.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}
