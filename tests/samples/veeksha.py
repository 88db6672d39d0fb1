"""Veeksha: a session that branches and joins, rows of two sessions mixed, and one of the rows without contexts."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def row(session: object, node: int, parents: list[int], past: int | None, wait: float, length: int) -> object:
        context = {"node_id": node, "parent_nodes": parents, "history_parent": past, "wait_after_ready": wait}
        return {
            "session_id": session, "node_id": node, "workload": text("workload"), "input_length": length,
            "new_input_length": 500, "output_length": 300, "session_context": context, "note": text("note"),
        }  # fmt: skip

    rows = [
        row(text("session"), 0, [], None, 0.0, 500),
        row(7, 4, [], None, 0.0, 500),
        row(text("session"), 1, [0], 0, 1.5, 1300),
        row(text("session"), 2, [0], None, 0.0, 500),
        row(text("session"), 3, [1, 2], 1, 0.25, 2100),
        row(7, 9, [4], 4, 2.0, 1300),
    ]
    old = [
        {"session_id": 0, "input_length": 40, "new_input_length": 40, "output_length": 5, "turn_idx": 0},
        {"session_id": 0, "input_length": 55, "new_input_length": 10, "output_length": 5, "turn_idx": 1,
         "wait_after_previous_response_s": 3.5, "note": text("note")},
    ]  # fmt: skip
    return {"sessions.jsonl": _lines(rows), "old.jsonl": _lines(old)}


def _lines(rows: list[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
