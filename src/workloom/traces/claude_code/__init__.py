"""Claude Code's session files: `~/.claude/projects/<project>/<session>.jsonl`, its agents beside or below.

    <session>.jsonl                            the session; in old versions its subagents' lines too
    <session>/subagents/agent-<id>.jsonl       a subagent; agent-acompact-<id>.jsonl: the summary before a compaction
    agent-<id>.jsonl                           a subagent, in some versions

A session that was resumed may have several files, each beginning with the lines of the one before: they are one
session here, and its files are told by their first message.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.claude_code.agents import COMPACT
from workloom.traces.claude_code.calls import session
from workloom.traces.claude_code.log import Log
from workloom.traces.claude_code.nodes import Agent
from workloom.traces.claude_code.rows import Row
from workloom.traces.claude_code.rows import read as rows
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import BOM, Damaged, lines
from workloom.traces.reading import Intake

_AGENT = re.compile(r"agent-(?:a([a-z_]+)-)?[\w-]+\.jsonl(\.gz|\.zst)?")
_SPECIAL = (COMPACT, "prompt_suggestion", "side_question", "session_memory")
"""What the program runs agents for beside what the model asked, by the beginning of their id."""
_ID = re.compile(r"[\w-]{1,128}")
_LONE = {"file-history-snapshot": "messageId", "summary": "leafUuid"}
"""Types of lines without a parent that a file may begin with, and a field that each has."""
_BEGINNING = 100
"""How many lines of a file are looked at to find its first message."""


class _Look(Struct, rename="camel"):
    type: str = ""
    uuid: str | None = None
    session_id: str | None = None


_look = msgspec.json.Decoder(_Look)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a session file of Claude Code."""
    lone = False
    for line in head.splitlines(keepends=True):
        try:
            fields = _fields.decode(line)
        except DECODER_ERRORS:
            if line.endswith((b"\n", b"\r")) or not line.startswith(b"{"):
                return lone
            keys = (b"parentUuid", b"sessionId", b"type")
            return lone or all(re.search(rb'[{,]\s*"' + key + rb'"\s*:', line) for key in keys)
        if {"type", "sessionId", "parentUuid", "uuid"} <= fields.keys():
            return True
        try:
            kind = msgspec.json.decode(fields.get("type", msgspec.Raw(b"null")), type=str)
        except DECODER_ERRORS:
            return False
        lone |= _LONE.get(kind, "type ") in fields
    return lone


def header(path: Path) -> Header:
    """Sessions of all files are on one clock, that of the world."""
    return Header(source="claude-code", common_clock=True)


class _Files(NamedTuple):
    """What belongs to one session: its files, and those of agents that were named beside them."""

    sessions: list[Path]
    agents: list[Path]


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of files, those of a resumed one as one. Memory: the numbers of a session, 100 bytes a call."""
    seen: dict[Path, set[int]] = {}
    named = {path.resolve() for path in paths}
    for files in _grouped(paths):
        yield from _session(files, seen.setdefault(files.sessions[0].parent, set()), named, intake)


def _grouped(paths: Sequence[Path]) -> list[_Files]:
    """Files by session. A subagent's file goes with its session if that is among the paths, else it is one itself."""
    stems = {(path.resolve().parent, _stem(path)): path for path in paths}
    owner: dict[Path, Path] = {}
    for path in paths:
        session = stems.get(_session_of(path.resolve())) if _AGENT.fullmatch(path.name) else None
        if session is not None and _AGENT.fullmatch(session.name) is None:
            owner[path] = session
    groups: dict[tuple[Path, str], _Files] = {}
    belongs: dict[Path, _Files] = {}
    for path in paths:
        if path not in owner:
            key = (path.parent, _beginning(path).uuid or path.name)
            belongs[path] = groups.setdefault(key, _Files([], []))
            belongs[path].sessions.append(path)
    for path, session in owner.items():
        if session in belongs:
            belongs[session].agents.append(path)
    return list(groups.values())


def _stem(path: Path) -> str:
    return path.name.split(".jsonl")[0]


def _session_of(path: Path) -> tuple[Path, str]:
    """The folder and the name of the session that an agent's file belongs to."""
    for above in path.parents:
        if above.name == "subagents":
            return above.parent.parent, above.parent.name
    return path.parent, _beginning(path).session_id or ""


def _beginning(path: Path) -> _Look:
    """The first message of a file, as far as it can be read: what is wrong with it is said when it is read."""
    with contextlib.suppress(Damaged, TraceError), contextlib.closing(lines(path)) as every:
        for _, line in zip(range(_BEGINNING), every, strict=False):
            with contextlib.suppress(*DECODER_ERRORS):
                look = _look.decode(line.removeprefix(BOM))
                if look.type in ("user", "assistant") and look.uuid is not None:
                    return look
    return _Look()


def _session(files: _Files, seen: set[int], named: set[Path], intake: Intake) -> Iterator[Session]:
    """The session of some files, if they tell of a call."""
    log = Log(intake.report, seen, intake.text)
    names: list[str] = []
    for path in files.sessions:
        _take(log, _named(rows(path, intake), names), None, intake)
    read = set[Path]()
    found = list(files.agents)
    for path in files.sessions:
        below = path.parent / _stem(path) / "subagents"
        found += sorted(below.rglob("agent-*.jsonl*"))
    for path in sorted(dict.fromkeys(found), key=lambda path: (_special(path) is not None, path)):
        _agent(path, log, read, named, intake)
    for wanted in log.unread():
        for path in files.sessions:
            beside = path.parent / f"agent-{wanted}.jsonl"
            if _ID.fullmatch(wanted) and beside.is_file():
                _agent(beside, log, read, named, intake)
    log.finish()
    first = files.sessions[0]
    made = session(log, names[0] if names else _stem(first), f"claude-code:{first.name}", intake)
    if made is None:
        intake.report.drop("files without a call", len(files.sessions))
    else:
        yield made


def _agent(path: Path, log: Log, read: set[Path], named: set[Path], intake: Intake) -> None:
    """Take in the file of an agent, once."""
    place = path.resolve()
    if place in read or _AGENT.fullmatch(path.name) is None:
        return
    read.add(place)
    intake.report.files += place not in named
    _take(log, rows(path, intake), Agent(_stem(path).removeprefix("agent-"), _special(path)), intake)


def _take(log: Log, every: Iterator[Row], agent: Agent | None, intake: Intake) -> None:
    """Read a file; one that cannot be opened is one error."""
    try:
        log.read(every, agent)
    except TraceError as error:
        intake.on_bad(error)


def _special(path: Path) -> str | None:
    match = _AGENT.fullmatch(path.name)
    return match[1] if match is not None and match[1] in _SPECIAL else None


def _named(every: Iterator[Row], names: list[str]) -> Iterator[Row]:
    """The rows, and the first session id among them into `names`."""
    for row in every:
        if not names and row.line.session_id:
            names.append(row.line.session_id)
        yield row
