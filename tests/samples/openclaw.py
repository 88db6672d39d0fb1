"""OpenClaw: a session with tools, an error, a compaction, a branch and a model change; one it spawned; a fork."""

from __future__ import annotations

import json
from typing import Any

from samples import Plant

BEGIN_MS = 1_772_622_000_000
Row = dict[str, Any]


class _Log:
    def __init__(self, text: Plant, name: Plant, id: str, **more: str) -> None:
        self._text, self._name = text, name
        self.rows: list[Row] = [
            {"type": "session", "version": 3, "id": id, "timestamp": _iso(0), "cwd": text("cwd"), **more}
        ]
        self._above: str | None = None

    def entry(self, type: str, at: int, above: str | None = None, **more: Any) -> str:
        id = f"{self._text('entry')} {self.rows[0]['id']} {len(self.rows)}"
        row = {"type": type, "id": id, "parentId": above or self._above, "timestamp": _iso(at), **more}
        self.rows.append(row)
        self._above = id
        return id

    def user(self, at: int, words: str, above: str | None = None) -> str:
        message = {"role": "user", "content": [{"type": "text", "text": words}], "timestamp": BEGIN_MS + at * 1000}
        return self.entry("message", at, above, message=message)

    def call(self, at: int, prompt: int, stop: str = "toolUse") -> str:
        text = self._text
        content: list[Row] = [
            {"type": "thinking", "thinking": text("thinking"), "thinkingSignature": text("signature")},
            {"type": "text", "text": text("answer")},
            {"type": "toolCall", "id": text("call"), "name": self._name("tool"), "arguments": {"x": text("arguments")}},
        ]
        usage = {"input": prompt, "output": 7, "cacheRead": 16, "cacheWrite": 4, "totalTokens": prompt + 27, "cost": {}}
        message = {
            "role": "assistant", "content": content, "api": text("api"), "provider": text("provider"),
            "model": self._name("model"), "usage": usage, "stopReason": stop, "errorMessage": text("error"),
            "timestamp": BEGIN_MS + at * 1000,
        }  # fmt: skip
        return self.entry("message", at + 1, message=message)

    def result(self, at: int, **details: Any) -> None:
        text = self._text
        message = {
            "role": "toolResult", "toolCallId": text("call"), "toolName": self._name("tool"), "isError": False,
            "content": [{"type": "text", "text": text("result")}], "timestamp": BEGIN_MS + at * 1000,
            "details": {"durationMs": 40, "cwd": text("tool cwd"), "aggregated": text("output"), **details},
        }  # fmt: skip
        self.entry("message", at, message=message)

    def bytes(self) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in self.rows).encode()


def _iso(seconds: int) -> str:
    return f"2026-03-04T11:{seconds // 60:02}:{seconds % 60:02}.000Z"


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    key, child_id = text("session key"), text("child id")
    parent = _Log(text, name, text("parent id"))
    parent.entry("model_change", 0, provider=text("provider"), modelId=name("model id"))
    parent.entry("thinking_level_change", 0, thinkingLevel=text("level"))
    parent.entry("custom", 0, customType=text("custom type"), data={"error": text("data")})
    parent.user(1, text("user"))
    first = parent.call(2, 100)
    copied = len(parent.rows)
    parent.result(4, childSessionKey=key, runId=text("run"))
    parent.call(5, 130, stop="error")
    parent.call(7, 130, stop="aborted")
    parent.user(30, f"[Internal task completion event]\nsession_key: {key}\nsession_id: {child_id}\n{text('report')}")
    parent.call(31, 190, stop="stop")
    parent.entry("compaction", 33, summary=text("summary"), firstKeptEntryId=first, tokensBefore=200)
    parent.entry("custom_message", 34, customType=text("custom type"), content=text("injected"), display=True)
    parent.call(35, 120, stop="length")
    parent.entry("session_info", 37, name=text("title"))
    parent.entry("label", 37, targetId=first, label=text("label"))
    bash = {"role": "bashExecution", "command": text("command"), "output": text("bash output")}
    parent.entry("message", 38, message=bash)
    mirror = {"role": "assistant", "model": "delivery-mirror", "content": text("mirrored"), "usage": {}}
    parent.entry("message", 38, message=mirror)
    parent.entry("branch_summary", 40, first, fromId=first, summary=text("branch"))
    parent.user(41, text("other way"))
    parent.call(42, 150, stop="stop")

    child = _Log(text, name, child_id)
    child.user(6, text("task"))
    child.call(7, 90)
    child.result(9)
    child.call(10, 130, stop="stop")

    fork = _Log(text, name, text("fork id"), parentSession="/home/" + text("home") + "/parent.jsonl")
    fork.rows += parent.rows[1:copied]
    fork.user(50, text("forked"), first)
    fork.call(51, 140, stop="stop")
    index = {key: {"sessionId": child_id, "label": text("label"), "spawnedBy": text("parent key")}}
    return {
        "agents/parent.jsonl": parent.bytes(),
        "agents/child.jsonl": child.bytes(),
        "agents/fork.jsonl": fork.bytes(),
        "agents/sessions.json": json.dumps(index).encode(),
    }
