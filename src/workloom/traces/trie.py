"""TRIE (Applied Compute): a session a line, a chain of turns with a tool between them, nothing but sizes.

    {"num_turns": 1, "input_prompt_length": 9000, "assistant_response_length": [120], "tool_call_output_length": [500],
     "tool_call_latency": [0.8], "final_assistant_response_length": 900}

is two calls: 9,000 tokens in and 120 out; 0.8 s later 9,620 in and 900 out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import LONGEST_WAIT_S, Call, Edge, Header, Inherit, Part, PartKind, Session, prompt_tokens
from workloom.traces.lines import rows
from workloom.traces.reading import Intake, Report
from workloom.traces.sizes import histories

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_WAIT_S)]


class Row(Struct, gc=False):
    """A session; the lists have an entry for each of its turns, which are calls that a tool follows."""

    num_turns: Annotated[int, Meta(ge=0)]
    input_prompt_length: Count
    assistant_response_length: list[Count]
    tool_call_output_length: list[Count]
    tool_call_latency: list[Seconds]
    final_assistant_response_length: Count


_decoder = msgspec.json.Decoder(Row)
_LISTS = ("assistant_response_length", "tool_call_output_length", "tool_call_latency")


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is a TRIE trace."""
    return head.lstrip().startswith(b"{") and (
        re.search(rb'"(assistant_response_length|tool_call_output_length|tool_call_latency)"\s*:\s*\[', head)
        is not None
    )


def header(path: Path) -> Header:
    return Header(source="trie")


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session of each line; a bad line is one TraceError to `on_bad`. Memory: a session at a time."""
    intake.report.assume("no session shares any text with another (the format says nothing of it)")
    made = 0
    for path in paths:
        for number, row in rows(path, _decoder, intake):
            try:
                _check(f"{path}, line {number}", row)
            except TraceError as error:
                intake.on_bad(error)
            else:
                yield Session(f"t{made}", tuple(_calls(row)), origin=f"trie:{path.name}")
                made += 1


def _check(place: str, row: Row) -> None:
    for name in _LISTS:
        found = len(getattr(row, name))
        if found != row.num_turns:
            what, expected = "a list does not have an entry for every turn", f"{row.num_turns} entries (num_turns)"
            raise TraceError(what, where=f"{place}, {name}", expected=expected, found=f"{found} entries")


def _calls(row: Row) -> Iterator[Call]:
    outputs = [*row.assistant_response_length, row.final_assistant_response_length]
    yield Call("c0", outputs[0], fresh=_fresh("user", row.input_prompt_length))
    tools = zip(row.tool_call_output_length, row.tool_call_latency, strict=True)
    for turn, (tokens, latency_s) in enumerate(tools):
        before = f"c{turn}"
        yield Call(
            f"c{turn + 1}",
            outputs[turn + 1],
            after=(Edge(before, latency_s, "tool"),),
            inherit=Inherit(before),
            fresh=(Part("tool", tokens, seconds=latency_s),) if tokens else (),
        )


def _fresh(kind: PartKind, tokens: int) -> tuple[Part, ...]:
    return (Part(kind, tokens),) if tokens else ()


# ---------------------------------------------------------------------------------------------------------- writing


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write the sessions that are chains of growing prompts; the places of the others are returned."""
    report.assume("sessions are told by their place in the file: ids are not written")
    out = []
    with path.open("wb") as file:
        for place, session in enumerate(sessions):
            row = _row(session, report)
            if row is None:
                out.append(place)
            else:
                file.write(msgspec.json.encode(row) + b"\n")
    return out


def _row(session: Session, report: Report) -> Row | None:
    """The session, or None if TRIE cannot hold it."""
    calls = session.calls
    prompts = prompt_tokens(session)
    wholes = {call.id: prompts[call.id] + call.answer_tokens for call in calls}
    changed = []
    for before, call, repeats in zip((None, *calls), calls, histories(session, further=False), strict=False):
        if {edge.call for edge in call.after} != (set() if before is None else {before.id}):
            report.drop("sessions that branch or join: TRIE holds chains only")
            return None
        if before is not None and repeats.call != before.id:
            report.drop(
                "sessions in which a prompt is not all of the one before, its answer and more: TRIE has no resets"
            )
            return None
        changed.append(repeats.changed)
    for sentence in changed:
        if sentence is not None:
            report.infer(sentence)
    return Row(
        num_turns=len(calls) - 1,
        input_prompt_length=prompts[calls[0].id],
        assistant_response_length=[call.answer_tokens for call in calls[:-1]],
        tool_call_output_length=[prompts[call.id] - wholes[before.id] for before, call in pairwise(calls)],
        tool_call_latency=[max(edge.wait_s for edge in call.after) for call in calls[1:]],
        final_assistant_response_length=calls[-1].answer_tokens,
    )
