"""Mooncake rows as published, with fields no reader uses, and AIPerf's with a session id."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def row(start: int, tokens: int, out: int, ids: list[int]) -> dict[str, object]:
        extra = {"extra": {"user": text("user"), "note": [text("note")]}, "model": text("model")}
        return {"timestamp": start, "input_length": tokens, "output_length": out, "hash_ids": ids, **extra}

    requests = [
        row(0, 1100, 40, [0, 1, 2]),
        row(0, 1000, 900, [0, 3]),
        row(9000, 1300, 30, [0, 1, 4]),
        row(12_000, 1300, 31, [0, 1, 4]),
        row(30_000, 2100, 9, [0, 3, 5, 6, 7]),
        row(30_000, 2100, 8, [0, 3, 5, 8, 9]),
        {"timestamp": 31_000, "input_length": 30, "output_length": 0},
    ]
    turns = [
        {"session_id": text("session"), "timestamp": 100, "input_length": 700, "output_length": 20, "hash_ids": [0, 1]},
        {"session_id": text("other session"), "input_length": 600, "output_length": 5, "hash_ids": [0, 2]},
        {"session_id": text("session"), "delay": 1500.5, "input_length": 90, "output_length": 3, "hash_ids": [7]},
    ]
    return {
        "requests.jsonl": b"".join(json.dumps(each).encode() + b"\n" for each in requests),
        "turns.jsonl": b"".join(json.dumps(each).encode() + b"\n" for each in turns),
    }
