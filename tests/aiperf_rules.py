"""AIPerf's `dag_jsonl` by its documentation: what its loader refuses, and what its requests say. For tests.

Written from the format's rules (docs/benchmark-modes/dag.md and the loader's messages), not from our reader: an
independent judge of what the writer writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]
ISOLATED = "message_array_with_responses"
LIVE = (None, "deltas_without_responses")

_CONVERSATION = {
    "session_id", "turns", "orchestrator", "spawns", "think_time_ms", "think_time_sigma", "think_time_min_ms",
    "think_time_max_ms", "rounds", "context_mode", "pre_session_spawns",
}  # fmt: skip
_TURN = {"messages", "model", "max_tokens", "tools", "extra", "forks", "spawns", "delay"}


def load(path: Path) -> dict[str, Line]:
    """The conversations of a file by name; an AssertionError for what the loader would refuse."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["session_id"]: line for line in lines}
    assert len(found) == len(lines) > 0, "names are unique"
    fork_of: dict[str, str] = {}
    below: dict[str, set[str]] = {name: set() for name in found}
    for name, line in found.items():
        assert set(line) <= _CONVERSATION and isinstance(name, str) and name
        assert line["turns"] and not line.get("orchestrator")
        for index, turn in enumerate(line["turns"]):
            _check_turn(turn)
            last = index + 1 == len(line["turns"])
            for fork in turn.get("forks", []):
                child = fork if isinstance(fork, str) else fork["child"]
                assert last or (isinstance(fork, dict) and fork["background"] is True), "a fork ends its parent"
                assert fork_of.setdefault(child, name) == name, "one parent a fork"
                below[name].add(child)
            spawned = [child for children, _ in groups(turn, index) for child in children]
            assert len(set(spawned)) == len(spawned), "a child is spawned once a turn"
            for spawn in turn.get("spawns", []):
                assert isinstance(spawn, str) or index < spawn["join_at"] < len(line["turns"])
            below[name] |= set(spawned)
        below[name] |= set(line.get("pre_session_spawns", []))
    named = set().union(*below.values())
    assert named <= set(found), "every branch leads somewhere"
    for name, line in found.items():
        early = set(line.get("pre_session_spawns", []))
        assert not early or name not in named, "only roots have early branches"
        assert early.isdisjoint(fork_of)
        if line.get("context_mode") == ISOLATED:
            assert name not in fork_of, "a fork cannot be isolated"
        for index, turn in enumerate(line["turns"]):
            for place, message in enumerate(turn["messages"]):
                if message["role"] == "system":
                    seeds = index == 0 and name not in fork_of
                    assert place == 0 if line.get("context_mode") == ISOLATED else seeds, "system comes first or never"
    _acyclic(below)
    return found


def _check_turn(turn: Line) -> None:
    assert set(turn) <= _TURN and turn["messages"]
    assert all("role" in message for message in turn["messages"])
    assert type(turn["max_tokens"]) is int and turn["max_tokens"] >= 1
    assert turn.get("delay", 0) >= 0


def groups(turn: Line, index: int) -> Iterator[tuple[list[str], int]]:
    """The spawns of a turn and the turns that wait for them."""
    for spawn in turn.get("spawns", []):
        yield ([spawn], index + 1) if isinstance(spawn, str) else (spawn["children"], spawn["join_at"])


def _acyclic(below: dict[str, set[str]]) -> None:
    left = {name: set(children) for name, children in below.items()}
    while left:
        leaves = [name for name, children in left.items() if not children]
        assert leaves, "branches go round"
        for leaf in leaves:
            del left[leaf]
        for children in left.values():
            children.difference_update(leaves)


Message = tuple[str, str]
"""Role and text; a live answer is told by the request it answers."""


class Request:
    """What goes over the wire: messages, and what it waited for, by names of requests."""

    def __init__(self, name: str, messages: list[Message], after: dict[str, float], turn: Line) -> None:
        self.name = name
        self.messages = messages
        self.after = after
        self.output: int = turn["max_tokens"]
        self.model: str = turn.get("model", "")

    def words(self) -> list[str]:
        """One a token; a live answer has tokens of its own."""
        out: list[str] = []
        for role, text in self.messages:
            if role == "live":
                name, count = text.rsplit(" ", 1)
                out += [f"{name} {i}" for i in range(int(count))]
            else:
                out += text.split()
        return out


def replay(found: dict[str, Line]) -> dict[str, list[Request]]:
    """The requests of every session, by its root."""
    children = {
        child
        for line in found.values()
        for child in [
            *line.get("pre_session_spawns", []),
            *(f if isinstance(f, str) else f["child"] for turn in line["turns"] for f in turn.get("forks", [])),
            *(c for i, turn in enumerate(line["turns"]) for group, _ in groups(turn, i) for c in group),
        ]
    }
    return {name: list(_run(found, name, {}, [])) for name in found if name not in children}


def _run(found: dict[str, Line], name: str, after: dict[str, float], history: list[Message]) -> Iterator[Request]:
    line = found[name]
    mode = line.get("context_mode")
    joins: dict[int, list[str]] = {}
    for index, turn in enumerate(line["turns"]):
        messages = [(m["role"], m["content"]) for m in turn["messages"]]
        prompt = messages if mode == ISOLATED else history + messages
        waits = {**after, **dict.fromkeys(joins.get(index, []), 0.0)}
        delay_s = round(turn.get("delay", 0.0) / 1000, 6)
        me = f"{name}[{index}]"
        yield Request(me, prompt, {other: round(wait + delay_s, 6) for other, wait in waits.items()}, turn)
        history = prompt + ([("live", f"{me} {turn['max_tokens']}")] if mode in LIVE else [])
        for fork in turn.get("forks", []):
            yield from _run(found, fork if isinstance(fork, str) else fork["child"], {me: 0.0}, history)
        for group, joined_at in groups(turn, index):
            for child in group:
                yield from _run(found, child, {me: 0.0}, [])
                joins.setdefault(joined_at, []).append(f"{child}[{len(found[child]['turns']) - 1}]")
        if index == 0:
            for child in line.get("pre_session_spawns", []):
                yield from _run(found, child, {}, [])
        after = {me: 0.0}
