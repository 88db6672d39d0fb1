"""AIPerf's conversation DAG (`dag_jsonl`): a conversation a line, with branches to other lines by name.

    {"session_id": "main", "turns": [{"messages": [...], "max_tokens": 90, "spawns": ["a"]}, {"messages": [...]}]}
    {"session_id": "a", "turns": [{"messages": [...], "max_tokens": 40, "delay": 1500}]}

A conversation that none branches to begins a session with all that is below it. The file tells texts, not sizes: a
plain word is a token, other texts are estimated. What a prompt begins with follows from the conversation's mode:

    context_mode                    a turn's prompt
    deltas_without_responses        the prompt before it, the answer that came, its messages (the default)
    deltas_with_responses           the prompt before it, its messages: answers stand in the file
    message_array_with_responses    its messages

Equal messages behind equal histories are one text: a span, where no prompt inherits them from another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.aiperf_dag.index import Index
from workloom.traces.aiperf_dag.tree import Tree
from workloom.traces.reading import Intake, Report

_TURN = re.compile(rb'"turns"\s*:\s*\[\s*\{.*?"messages"\s*:\s*\[\s*\{', re.DOTALL)


class _Look(Struct):
    session_id: str
    turns: list[dict[str, msgspec.Raw]] = []
    orchestrator: bool = False


_look = msgspec.json.Decoder(_Look)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a file of conversations with messages."""
    line, newline, _ = head.lstrip().partition(b"\n")
    try:
        look = _look.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return not newline and line.startswith(b"{") and b'"session_id"' in line and _TURN.search(line) is not None
    return bool(look.orchestrator or (look.turns and "messages" in look.turns[0]))


def header(path: Path) -> Header:
    """The header of any file of the format: it says nothing of times or blocks."""
    return Header(source="aiperf-dag")


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session for every conversation that none branches to. Memory: an index of the file and a session."""
    for path in paths:
        with ExitStack() as stack:
            index = Index(path, intake, stack)
            _assume(intake.report)
            for name in index.roots():
                try:
                    calls = Tree(index, name, intake).calls()
                except TraceError as error:
                    intake.on_bad(error)
                else:
                    yield Session(name, calls, origin=f"aiperf-dag:{path.name}")


def _assume(report: Report) -> None:
    report.assume("a plain word is a token, other text a token for every four characters; templates add none")
    report.assume("answers are as long as max_tokens")
    report.assume("a turn waits for a tool only if it brings a tool's message; what others wait for is not told")
