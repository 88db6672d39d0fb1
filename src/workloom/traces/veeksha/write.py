"""Sessions as Veeksha `timed_synthetic_session` rows; see :mod:`workloom.traces.veeksha`.

Every session fits, bent where it must be: a prompt goes on from all of a call or is new, and a call has one wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.session import Call, Header, Session, prompt_tokens
from workloom.traces.reading import Report
from workloom.traces.sizes import histories


class _Context(Struct):
    node_id: int
    parent_nodes: list[int]
    history_parent: int | None
    wait_after_ready: float


class _Row(Struct):
    session_id: int
    node_id: int
    input_length: int
    new_input_length: int
    output_length: int
    session_context: _Context


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write all sessions; none is left out."""
    report.assume("sessions and calls are numbered: their ids are not written")
    with path.open("wb") as file:
        for place, session in enumerate(sessions):
            for row in _rows(place, session, report):
                file.write(msgspec.json.encode(row) + b"\n")
    return []


def _rows(place: int, session: Session, report: Report) -> Iterator[_Row]:
    prompts = prompt_tokens(session)
    wholes = {call.id: prompts[call.id] + call.answer_tokens for call in session.calls}
    nodes = {call.id: node for node, call in enumerate(session.calls)}
    ends_s = {call.id: call.recorded.end_s for call in session.calls if call.recorded is not None}
    for node, (call, (past, changed)) in enumerate(zip(session.calls, histories(session, further=True), strict=True)):
        prompt = prompts[call.id]
        if changed is not None:
            report.infer(changed)
        parents = list(dict.fromkeys(nodes[edge.call] for edge in call.after))
        if past is not None and nodes[past] not in parents:
            # That one is done before they are, so the call is due when it was.
            report.infer("calls that go on from an earlier call than those they wait for: they wait for it too")
            parents.append(nodes[past])
        yield _Row(
            session_id=place,
            node_id=node,
            input_length=prompt,
            new_input_length=prompt - (0 if past is None else wholes[past]),
            output_length=call.answer_tokens,
            session_context=_Context(
                node, parents, None if past is None else nodes[past], _wait_s(call, ends_s, report)
            ),
        )


def _wait_s(call: Call, ends_s: Mapping[str, float | None], report: Report) -> float:
    """One wait from when all is done that the call waits for.

    Where the waits differ it is what makes the call due when it was due by the recorded ends, or else the longest.
    """
    waits = [edge.wait_s for edge in call.after]
    if len(set(waits)) < 2:
        return max(waits, default=0.0)
    report.infer("calls that wait for several others, and longer for some: one wait after the last of them")
    ends = [ends_s.get(edge.call) for edge in call.after]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return max(waits)
    return round(max(end + wait for end, wait in zip(known, waits, strict=True)) - max(known), 6)
