"""TRIE: sessions of two turns and of none; the format has no text, so fields it does not know are planted."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def row(tools: list[tuple[int, int, float]], **more: object) -> bytes:
        outputs, results, latencies = zip(*tools, strict=True) if tools else ((), (), ())
        document = {
            "num_turns": len(tools), "input_prompt_length": 9000, "assistant_response_length": outputs,
            "tool_call_output_length": results, "tool_call_latency": latencies, "final_assistant_response_length": 900,
            **more,
        }  # fmt: skip
        return json.dumps(document).encode() + b"\n"

    first = row([(120, 500, 0.8), (30, 0, 17.6)], task=text("task"))
    return {"office_work.jsonl": first + row([], notes=[text("notes"), {"deep": text("deep")}])}
