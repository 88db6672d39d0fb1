"""The dag.json published with OpenClaw transcripts: a session that spawns another and receives its result."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    parent, child = text("session id 1"), text("session id 2")

    def node(entry: int, session: str, at: int, prompt: int, trigger: str, **more: object) -> dict[str, object]:
        return {
            "id": f"{session}:{text('entry')} {entry}", "session_id": session, "session_key": text("session key"),
            "entry_id": text("entry id"), "timestamp_dispatched": f"2026-03-04T11:00:{at:02}.000Z",
            "timestamp_responded": f"2026-03-04T11:00:{at + 2:02}.500Z", "inference_ms": 2500, "model": name("model"),
            "provider": text("provider"), "trigger": trigger, "stop_reason": "toolUse",
            "usage": {"input": prompt - 16, "output": 9, "cache_read": 16, "cache_write": 0, "total_tokens": prompt},
            "new_tokens": {"from_tool_results": 6, "from_user_input": 3, "from_previous_assistant": 4,
                           "from_injected": 5, "other": 1, "total": 19},
            "spawns_subagent": text("spawns"), "receives_subagent_result": text("receives"),
            "wait_after_ready_ms": 12, **more,
        }  # fmt: skip

    def edge(source: dict[str, object], to: dict[str, object], type: str) -> dict[str, object]:
        return {"from": source["id"], "to": to["id"], "type": type, "is_history_parent": type == "sequential"}

    first = node(1, parent, 0, 80, "user")
    second = node(2, parent, 4, 100, "tool_result")
    spawned = node(3, child, 5, 60, "user")
    last = node(4, child, 9, 90, "tool_result", stop_reason="stop")
    third = node(5, parent, 14, 130, "subagent_result", stop_reason="aborted")
    fourth = node(6, parent, 20, 110, "user", stop_reason="error")
    listed = {"session_key": text("session key"), "label": text("label"), "file": text("file"), "num_nodes": 4}
    document = {
        "stats": {"num_sessions": 2, "num_nodes": 6, "note": text("note")},
        "sessions": {parent: listed, child: {**listed, "spawned_by": text("spawned by")}, text("empty"): listed},
        "nodes": [first, second, spawned, last, third, fourth],
        "edges": [
            edge(first, second, "sequential"), edge(first, spawned, "subagent_spawn"),
            edge(spawned, last, "sequential"),
            edge(second, third, "sequential"), edge(last, third, "subagent_result"), edge(third, fourth, "sequential"),
        ],
    }  # fmt: skip
    return {"dag.json": json.dumps(document).encode()}
