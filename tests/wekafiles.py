"""Small WEKA files for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parent.parent.parent / "shared"
REAL = SHARED / "data" / "weka"
TRUTH = SHARED / "checks" / "weka_truth.py"
BLOCK = 4
"""Block size of the hand-made files: small numbers are easy to read."""

Row = dict[str, Any]


def request(t: float, blocks: list[int], out: int = 2, *, extra: int = 0, **fields: Any) -> Row:
    """A request whose prompt is these blocks and `extra` tokens (less than a block); None leaves a field out."""
    row: Row = {
        "t": t,
        "type": "n",
        "model": "m",
        "in": len(blocks) * BLOCK + extra,
        "out": out,
        "hash_ids": blocks,
        "input_types": ["tool_result"],
        "output_types": ["text"],
        "stop": "tool_use",
        "api_time": 1.0,
        "think_time": 2.0,
    }
    row.update(fields)
    return {key: value for key, value in row.items() if value is not None}


def marker(t: float, requests: list[Row], agent: str = "a1", *, seconds: float | None = None, **fields: Any) -> Row:
    """A subagent's marker that lasted `seconds`."""
    duration = None if seconds is None else round(seconds * 1000)
    head = {"t": t, "type": "subagent", "agent_id": agent, "subagent_type": "Explore", "duration_ms": duration}
    return {**head, "status": "completed", "requests": requests, "models": ["m"], **fields}


def bare(row: Row) -> Row:
    """The row as the SemiAnalysis converter writes it: only the fields it knows."""
    dropped = ("input_types", "output_types", "stop")
    return {key: value for key, value in row.items() if key not in dropped}


def document(requests: list[Row], name: str = "trace_1", **fields: Any) -> Row:
    head = {"id": name, "models": ["m"], "block_size": BLOCK, "hash_id_scope": "local", "tool_tokens": 0}
    return {**head, "system_tokens": 0, "requests": requests, "totals": {}, **fields}


def save(path: Path, content: Row) -> Path:
    path.write_text(json.dumps(content))
    return path
