"""Claude Code: a session with subagents, a compaction, errors and a resumed copy; one of an old version beside it."""

from __future__ import annotations

import json
from typing import Any

from samples import Plant

SESSION = "3f0c1d9e-0000-4000-8000-000000000001"
RESUMED = "3f0c1d9e-0000-4000-8000-000000000002"
OLD = "3f0c1d9e-0000-4000-8000-000000000003"
Row = dict[str, Any]


class _Lines:
    """Lines of a file, each following the one before; every field that says something is planted."""

    def __init__(self, text: Plant, name: Plant, mark: str, session: str) -> None:
        self.rows: list[Row] = []
        self._text = text
        self._name = name
        self._mark = mark
        self._session = session
        self._last: str | None = None

    def line(self, seconds: float, type: str, **more: Any) -> None:
        text, uuid = self._text, self._text(f"uuid {self._mark}{len(self.rows)}")
        common = {name: text(name) for name in ("cwd", "gitBranch", "slug", "version", "userType", "entrypoint")}
        stamp = f"2026-02-23T11:{int(seconds) // 60:02d}:{seconds % 60:06.3f}Z"
        ids = {"uuid": uuid, "parentUuid": self._last, "sessionId": self._session}
        self.rows.append({"type": type, "isSidechain": False, **ids, **common, "timestamp": stamp, **more})
        self._last = uuid

    def note(self, type: str, **more: Any) -> None:
        """A line outside the conversation."""
        self.rows.append({"type": type, **more})

    def user(self, seconds: float, content: Any, **more: Any) -> None:
        self.line(seconds, "user", message={"role": "user", "content": content}, **more)

    def result(self, seconds: float, use: str, content: Any, **more: Any) -> None:
        block = {"type": "tool_result", "tool_use_id": self._text(use), "content": content, "is_error": False}
        self.user(seconds, [block], sourceToolAssistantUUID=self._text("source"), **more)

    def answer(self, seconds: float, id: str, usage: tuple[int, int, int, int], *blocks: Row, **more: Any) -> None:
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
        tokens = {**dict(zip(names, usage, strict=True)), "service_tier": self._text("tier")}
        for block in blocks:
            message = {"id": self._text(id), "type": "message", "role": "assistant", "model": self._name("model")}
            message |= {"content": [block], "stop_reason": None, "usage": tokens}
            self.line(seconds, "assistant", requestId=self._text(f"request {id}"), **{"message": message, **more})

    def says(self, what: str) -> Row:
        return {"type": "text", "text": self._text(what)}

    def thinks(self, what: str) -> Row:
        return {"type": "thinking", "thinking": self._text(what), "signature": self._text(f"signature of {what}")}

    def uses(self, id: str, tool: str | None = None, **arguments: Any) -> Row:
        arguments = arguments or {"command": self._text("command"), "description": self._text("description")}
        return {"type": "tool_use", "id": self._text(id), "name": tool or self._name("tool"), "input": arguments}

    def task(self, id: str, tool: str, prompt: str) -> Row:
        said = {"description": self._text("task"), "prompt": self._text(prompt), "subagent_type": self._name("agent")}
        return self.uses(id, tool, **said)

    def data(self) -> bytes:
        return b"".join(json.dumps(row).encode() + b"\n" for row in self.rows)


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    main = _main(text, name)
    resumed = _Lines(text, name, "r", RESUMED)
    resumed.rows = [{**row, "sessionId": RESUMED} if "sessionId" in row else row for row in main.rows]
    resumed._last = main._last
    resumed.user(600, text("resumed prompt"))
    resumed.answer(604, "message 9", (5, 1660, 60, 30), resumed.says("answer 9"))
    folder = "-home-someone-project"
    return {
        f"{folder}/{SESSION}.jsonl": main.data(),
        f"{folder}/{SESSION}/subagents/agent-a1b2c3.jsonl": _agent(text, name, "a1b2c3", "prompt 1", 6),
        f"{folder}/{SESSION}/subagents/agent-ad4e5f.jsonl": _agent(text, name, "ad4e5f", "prompt 2", 24.1),
        f"{folder}/{SESSION}/subagents/agent-acompact-0f1e2d.jsonl": _compaction(text, name, main),
        f"{folder}/{SESSION}/subagents/agent-a1b2c3.meta.json": json.dumps({"description": text("meta")}).encode(),
        f"{folder}/{RESUMED}.jsonl": resumed.data(),
        f"{folder}/{OLD}.jsonl": _old(text, name),
    }


def _main(text: Plant, name: Plant) -> _Lines:
    to = _Lines(text, name, "m", SESSION)
    to.note("summary", summary=text("summary"), leafUuid=text("leaf"))
    to.note("file-history-snapshot", messageId=text("message id"), snapshot={"trackedFileBackups": {text("file"): {}}})
    to.note("permission-mode", permissionMode=text("mode"), sessionId=SESSION)
    to.user(0, text("prompt"))
    to.line(0.1, "attachment", attachment={"type": "skill_listing", "content": text("skills")})
    to.answer(3, "message 1", (3, 1000, 500, 9), to.thinks("thought"), to.says("answer 1"))
    to.answer(5, "message 1", (3, 1000, 500, 300), to.uses("use 1"), to.task("use 2", "Task", "prompt 1"))
    to.line(5.1, "progress", data={"type": "hook_progress", "command": text("hook")}, toolUseID=text("use 1"))
    to.result(5.5, "use 1", text("output"), toolUseResult={"stdout": text("stdout"), "stderr": text("stderr")})
    noted = {"agentId": "a1b2c3", "status": "completed", "prompt": text("prompt 1"), "content": [text("noted")]}
    to.result(20, "use 2", [{"type": "text", "text": text("report")}], toolUseResult=noted)
    to.answer(24, "message 2", (3, 1500, 700, 40), to.task("use 3", "Agent", "prompt 2"))
    launched = {"agentId": "ad4e5f", "isAsync": True, "status": "async_launched", "outputFile": text("output file")}
    to.result(24.1, "use 3", text("launched"), toolUseResult=launched)
    to.answer(26, "message 3", (3, 2200, 80, 60), to.says("answer 3"))
    to.note("queue-operation", operation="enqueue", content=text("queued"), sessionId=SESSION)
    to.user(40, f"<task-notification>\n<task-id>ad4e5f</task-id>\n<summary>{text('notified')}</summary>")
    to.line(
        41, "system", subtype="api_error", error={"message": text("error")}, retryInMs=500.0, content=text("failed")
    )
    to.answer(46, "message 4", (3, 2280, 120, 5), to.says("answer 4"))
    to.user(47, [{"type": "text", "text": "[Request interrupted by user]"}])
    to.user(60, [to.says("prompt 5"), {"type": "image", "source": {"type": "base64", "data": text("image")}}])
    synthetic = {"id": text("made up"), "model": "<synthetic>", "content": [to.says("API error")]}
    to.line(61, "assistant", isApiErrorMessage=True, error=text("error"), message=synthetic)
    queued = {"type": "queued_command", "prompt": text("queued prompt"), "commandMode": "prompt"}
    to.line(62, "attachment", attachment=queued)
    to.user(63, text("prompt 6"), isMeta=True)
    to.answer(66, "message 5", (3, 2400, 1700, 50), to.says("answer 5"), to.uses("use 4", "AskUserQuestion"))
    to.result(90, "use 4", text("chosen"), toolUseResult={"answers": {text("question"): text("chosen")}})
    to.answer(92, "message 6", (3, 4100, 120, 50), to.says("answer 6"))
    to.line(92.5, "system", subtype="stop_hook_summary", hookInfos=[{"command": text("stop hook")}])
    metadata = {"trigger": "manual", "preTokens": 4200}
    above = to._last
    to.line(130, "system", subtype="compact_boundary", content=text("compacted"), compactMetadata=metadata)
    to.rows[-1] |= {"parentUuid": None, "logicalParentUuid": above}
    to.user(130, text("context summary"), isCompactSummary=True)
    to.user(140, text("prompt 7"))
    to.answer(144, "message 8", (3, 1500, 160, 30), to.says("answer 8"))
    to.note("last-prompt", lastPrompt=text("last prompt"), sessionId=SESSION)
    return to


def _agent(text: Plant, name: Plant, id: str, prompt: str, start: float) -> bytes:
    to = _Lines(text, name, id, SESSION)
    more = {"agentId": id, "isSidechain": True}
    to.user(start, text(prompt), **more)
    to.answer(start + 3, f"{id} 1", (3, 0, 800, 70), to.uses(f"{id} use"), **more)
    to.result(start + 4, f"{id} use", text("inner output"), **more)
    to.answer(start + 9, f"{id} 2", (3, 800, 200, 90), to.says("inner answer"), **more)
    return to.data()


def _compaction(text: Plant, name: Plant, main: _Lines) -> bytes:
    to = _Lines(text, name, "k", SESSION)
    to._last = next(row["logicalParentUuid"] for row in main.rows if "logicalParentUuid" in row)
    more = {"agentId": "acompact-0f1e2d", "isSidechain": True}
    to.user(100, text("summarise"), **more)
    to.answer(129, "message 7", (3, 4200, 130, 120), to.says("written summary"), **more)
    return to.data()


def _old(text: Plant, name: Plant) -> bytes:
    """Subagents inside the file of their session."""
    to = _Lines(text, name, "o", OLD)
    to.user(0, text("old prompt"))
    to.answer(3, "old 1", (3, 0, 900, 40), to.task("old use", "Task", "old task"))
    above = to._last
    to._last = None
    to.user(3.1, text("old task"), isSidechain=True)
    to.answer(9, "old 2", (3, 0, 500, 80), to.says("old report"), isSidechain=True)
    to._last = above
    to.result(9.2, "old use", text("old report"), toolUseResult=text("old result"))
    to.answer(12, "old 3", (3, 900, 130, 30), to.says("old answer"))
    return to.data()
