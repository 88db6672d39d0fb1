"""TraceLab: a Claude Code session with a subagent, which is a session of its own, and a Codex session, interleaved."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def stamp(seconds: float) -> str:
        return f"2026-06-01T05:{int(seconds) // 60:02d}:{seconds % 60:06.3f}Z"

    def event(seconds: float, kind: str, **more: object) -> dict[str, object]:
        return {"event_type": kind, "timestamp": stamp(seconds), "source": text("source"), **more}

    def tool(call: str, tool_name: str, start: float, end: float) -> dict[str, object]:
        latency = round((end - start) * 1000)
        return {
            "tool_index": 0, "tool_name": tool_name, "tool_call_id": text(call), "emitted_at": stamp(start),
            "result_at": stamp(end), "input": {"command": text("input")}, "tool_wall_latency_ms": latency,
        }  # fmt: skip

    def row(
        session: str, index: int, sizes: tuple[int, int, int], events: list[object], *tools: object
    ) -> dict[str, object]:
        total, prefix, output = sizes
        return {
            "provider": "codex" if "codex" in session else "claude", "project": text("project"),
            "session_id": text(session), "session_file": text("session_file"), "round_index": index,
            "round_id": text(f"{session} {index}"), "model": name("model"), "input_tokens_total": total,
            "prefix_tokens": prefix, "newly_append_tokens": total - prefix, "output_tokens": output,
            "reasoning_output_tokens": 5 if "codex" in session else None, "timing_events": events, "tools": list(tools),
            "home": text("home"), "user": text("user"), "cwd": text("cwd"), "store": text("store"),
            "trace_key": text(f"key {session} {index}"),
        }  # fmt: skip

    asked = {"tool_call_id": text("call 1"), "tool_name": "Agent"}
    bash = {"tool_call_id": text("call 2"), "tool_name": name("tool")}
    rows = [
        row("claude 1", 0, (3000, 0, 50), [event(0, "user_message", content_chars=400), event(4, "tool_call", **asked)],
            tool("call 1", "Agent", 4, 40)),
        row("codex 1", 0, (2000, 128, 40), [event(5, "user_message", content_chars=40), event(9, "reasoning")]),
        row("claude sub", 0, (900, 0, 20), [event(5, "user_message", content_chars=80), event(8, "tool_call", **bash)],
            tool("call 2", name("tool"), 8, 11)),
        row("claude sub", 1, (1000, 896, 30), [event(11, "tool_result", result_chars=80, **bash), event(38, "text")]),
        row("claude 1", 1, (3200, 3000, 10), [event(40, "tool_result", result_chars=80, **asked), event(45, "text")]),
        row("codex 1", 1, (2060, 1920, 9), [event(60, "user_message", content_chars=80), event(66, "text"),
                                            event(66.1, "usage_report")]),
    ]  # fmt: skip
    return {"coding_trace.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in rows)}
