"""Hand-made pi sessions and dag documents: rows by short words, times in seconds from 2026-03-04 11:00 UTC."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from workloom.session import Session, ready

Row = dict[str, Any]

REAL = Path("../shared/data/openclaw")
BEGIN = datetime(2026, 3, 4, 11, tzinfo=UTC)


def iso(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def millis(seconds: float) -> int:
    return round((BEGIN.timestamp() + seconds) * 1000)


def words(tokens: int) -> list[Row]:
    """Content of so many tokens, four characters each."""
    return [{"type": "text", "text": "abc " * tokens}]


class Log:
    """A session file that is written line by line; an entry follows the last one unless `parent` says otherwise."""

    def __init__(self, name: str = "s1", **more: Any) -> None:
        self.rows: list[Row] = [{"type": "session", "version": 3, "id": name, "timestamp": iso(0), "cwd": "/x", **more}]
        self.last: str | None = None

    def entry(self, type: str, at: float, parent: str | None = "", **more: Any) -> str:
        name = f"{len(self.rows):08x}"
        above = self.last if parent == "" else parent
        self.rows.append({"type": type, "id": name, "parentId": above, "timestamp": iso(at), **more})
        self.last = name
        return name

    def message(self, role: str, at: float, parent: str | None = "", *, sent: float | None = None, **more: Any) -> str:
        stamp = millis(at if sent is None else sent)
        return self.entry("message", at, parent, message={"role": role, "timestamp": stamp, **more})

    def user(self, at: float, tokens: int = 10, parent: str | None = "", **more: Any) -> str:
        return self.message("user", at, parent, **{"content": words(tokens), **more})

    def call(
        self,
        sent: float,
        done: float,
        prompt: int,
        output: int = 10,
        parent: str | None = "",
        *,
        cached: int = 0,
        stop: str = "toolUse",
        **more: Any,
    ) -> str:
        """An answer with thinking and a tool call in it, unless `content` says otherwise."""
        usage = {"input": prompt - cached, "output": output, "cacheRead": cached, "cacheWrite": 0, "cost": {"total": 1}}
        content = [
            {"type": "thinking", "thinking": "hm"},
            {"type": "toolCall", "id": "x", "name": "ls", "arguments": {}},
        ]
        said = {"content": content, "model": "m1", "provider": "p", "usage": usage, "stopReason": stop, **more}
        return self.message("assistant", done, parent, sent=sent, **said)

    def result(self, at: float, tokens: int = 5, *, tool: str = "exec", parent: str | None = "", **more: Any) -> str:
        said = {"toolCallId": "x", "toolName": tool, "content": words(tokens), "isError": False, **more}
        return self.message("toolResult", at, parent, **said)

    def spawn(self, at: float, key: str) -> str:
        details = {"status": "accepted", "childSessionKey": key, "runId": "r"}
        return self.result(at, tool="sessions_spawn", details=details)

    def news(self, at: float, key: str, name: str = "unknown", parent: str | None = "") -> str:
        """The message that a spawned session is done; 40 tokens and a few."""
        text = (
            f"[Internal task completion event]\nsource: subagent\nsession_key: {key}\nsession_id: {name}\n" + "z" * 80
        )
        return self.message("user", at, parent, content=[{"type": "text", "text": text}])

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


def node(
    name: str,
    sent: float,
    done: float,
    prompt: int,
    output: int = 10,
    *,
    cached: int = 0,
    session: str = "A",
    **more: Any,
) -> Row:
    """A node of a dag.json; `new`: tokens by where they come from."""
    new = more.pop("new", {})
    counts = ("from_tool_results", "from_user_input", "from_previous_assistant", "from_injected", "other")
    return {
        "id": f"{session}:{name}",
        "session_id": session,
        "session_key": f"agent:{session}",
        "timestamp_dispatched": iso(sent),
        "timestamp_responded": iso(done),
        "inference_ms": round((done - sent) * 1000),
        "model": "m1",
        "trigger": "tool_result",
        "stop_reason": "toolUse",
        "usage": {"input": prompt - cached, "output": output, "cache_read": cached, "cache_write": 0},
        "new_tokens": {name: new.get(name, 0) for name in counts} | {"total": sum(new.values())},
        "wait_after_ready_ms": 1,
        **more,
    }


def link(source: str, to: str, type: str = "sequential") -> Row:
    return {"from": source, "to": to, "type": type, "is_history_parent": type == "sequential"}


def graph(nodes: list[Row], links: list[Row], **more: Any) -> Row:
    listed = {row["session_id"]: {"session_key": row["session_key"], "num_nodes": 1} for row in nodes}
    return {"stats": {"num_sessions": len(listed)}, "sessions": listed, "nodes": nodes, "edges": links, **more}


def on_time(session: Session) -> None:
    """Every call is due when it was recorded to start."""
    done = {call.id: call.recorded.end_s or 0.0 for call in session.calls if call.recorded}
    for call in session.calls:
        assert call.recorded is not None and call.recorded.start_s is not None
        assert ready(call, done) == pytest.approx(call.recorded.start_s, abs=2e-6), call.id
