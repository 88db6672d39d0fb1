"""Bailian rows: two sessions, one a tree, with a retry, an edit, shared blocks and fields no reader uses."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def row(chat: int, parent: int, time_s: float, tokens: int, out: int, ids: list[int]) -> dict[str, object]:
        kind = {"type": name("type"), "turn": 1 if parent < 0 else 2, "note": text("note")}
        chats = {"chat_id": chat, "parent_chat_id": parent, "timestamp": time_s}
        return {**chats, "input_length": tokens, "output_length": out, **kind, "hash_ids": ids}

    rows = [
        row(55, -1, 0.25, 40, 20, [1089, 1090, 17]),
        row(56, -1, 1.5, 48, 9, [1089, 1090, 18]),
        row(159, 55, 61.114, 90, 13, [1089, 1090, 6326, 6327, 6328, 6329]),
        row(160, 55, 65.5, 90, 14, [1089, 1090, 6326, 6327, 6328, 6329]),
        row(161, 160, 70.0, 130, 0, [1089, 1090, 6326, 6327, 6328, 7000, 7001, 7002, 7003]),
        row(162, 56, 80.0, 16, 3, [1089]),
    ]
    return {"trace.jsonl": b"".join(json.dumps(each).encode() + b"\n" for each in rows)}
