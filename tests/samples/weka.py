"""WEKA: a parent with a subagent, in the kv-cache-tester dialect."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def request(t: float, blocks: int, **more: object) -> dict[str, object]:
        return {
            "t": t, "type": "s", "model": name("model"),
            "in": 4 * blocks + 1, "out": 3,
            "hash_ids": list(range(blocks)),
            "input_types": ["tool_result"], "output_types": [text("output_types")], "stop": text("stop"),
            "api_time": 1.0, "think_time": 1.0, "ttft": 0.5, "note": text("note"), **more,
        }  # fmt: skip

    document = {
        "id": text("id"), "models": [text("models")], "block_size": 4, "hash_id_scope": "local", "tool_tokens": 4,
        "system_tokens": 4, "totals": {"subagent_count": 1, "note": text("totals")},
        "requests": [
            request(0.0, 3, input_types=["text"]),
            {"type": "subagent", "t": 9.0, "agent_id": text("agent_id"), "subagent_type": name("subagent_type"),
             "duration_ms": 6000, "status": text("status"), "models": [text("models")],
             "requests": [request(0.0, 2), request(3.0, 4)]},
            request(12.0, 5),
        ],
    }  # fmt: skip
    return {"trace_1.json": json.dumps(document).encode()}
