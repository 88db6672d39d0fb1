"""Veeksha `timed_synthetic_session`: a call a line, with the calls it waits for and the one whose history it goes on.

A prompt is the history of `history_parent` (its prompt, its answer) and `new_input_length` fresh tokens; what came
from other parents is in those. `wait_after_ready` counts from when all parents are done, so each edge has it. Older
rows without `session_context` are chains in the order of `turn_idx`, or else of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import LONGEST_WAIT_S, Call, Edge, Header, Inherit, Part, PartKind, Session
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import HALF_WRITTEN, Groups, Place, bad_line, half_written
from workloom.traces.order import topological
from workloom.traces.reading import Intake, Report, each

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Node = Annotated[int, Meta(ge=0, le=1 << 53)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_WAIT_S)]


class Context(Struct):
    """Where a call stands in its session."""

    node_id: Node
    parent_nodes: list[Node] | None = None
    history_parent: Node | None = None
    wait_after_ready: Seconds | None = None


class Row(Struct):
    """A call. `turn_idx`, `wait_after_previous_response_s`: of rows without a context."""

    session_id: int | str
    new_input_length: Count
    output_length: Count
    session_context: Context | None = None
    input_length: Count | None = None
    node_id: Node | None = None
    turn_idx: Node | None = None
    wait_after_previous_response_s: Seconds | None = None


class _Look(Struct):
    session_id: int | str


_decoder = msgspec.json.Decoder(Row)
_look = msgspec.json.Decoder(_Look)


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is a Veeksha trace."""
    first = head.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and all(
        re.search(rb'"%s"\s*:' % name, first) for name in (b"session_id", b"new_input_length", b"output_length")
    )


def header(path: Path) -> Header:
    return Header(source="veeksha")


def _read(path: Path, intake: Intake) -> Iterator[Session]:
    """Sessions in the order of their first rows; bad lines go to `on_bad`. Memory: 20 bytes a row, and a session.

    A session with a bad row is left out whole: others may go on from it.
    """

    def session_id(path: Path, number: int, line: bytes) -> int | str | None:
        try:
            return _look.decode(line).session_id
        except DECODER_ERRORS as error:
            if half_written(line, error):
                intake.report.drop(HALF_WRITTEN)
            else:
                intake.on_bad(bad_line(path, number, line, error))
            return None

    for name, lines in Groups([path], intake, session_id):
        rows = [row for place, line in lines if (row := _row(place, line, intake))]
        if len(rows) < len(lines):
            intake.report.drop("sessions with a bad line")
            continue
        try:
            yield Session(str(name), tuple(_calls(_nodes(rows), intake.report)), origin=f"veeksha:{path.name}")
        except TraceError as error:
            intake.on_bad(error)


read = each(_read)


class _Node(NamedTuple):
    """A row, and where it stands in its session."""

    place: Place
    row: Row
    context: Context

    def fault(self, field: str, expected: object, found: object, what: str) -> TraceError:
        where = f"{self.place.path}, line {self.place.line}, {field}"
        return TraceError(what, where=where, expected=expected, found=found)


def _row(place: Place, line: bytes, intake: Intake) -> tuple[Place, Row] | None:
    try:
        return place, _decoder.decode(line)
    except DECODER_ERRORS as error:
        intake.on_bad(bad_line(place.path, place.line, line, error))
        return None


def _nodes(rows: list[tuple[Place, Row]]) -> list[_Node]:
    """The rows with their contexts, which all of them tell or none. Raises TraceError."""
    told = [_Node(place, row, row.session_context) for place, row in rows if row.session_context is not None]
    if not told:
        return _chain(rows)
    if len(told) < len(rows):
        place = next(place for place, row in rows if row.session_context is None)
        what = "some rows of a session tell their place in it, and some do not"
        where, expected = f"{place.path}, line {place.line}, session_context", "a context in every row, or in none"
        raise TraceError(what, where=where, expected=expected, found="none")
    for node in told:
        if node.row.node_id not in (None, node.context.node_id):
            expected = f"{node.context.node_id}, as in session_context"
            raise node.fault("node_id", expected, node.row.node_id, "a row has two node ids")
    return told


def _chain(rows: list[tuple[Place, Row]]) -> list[_Node]:
    """Rows without contexts: each goes on from the one before."""
    if all(row.turn_idx is not None for _, row in rows):
        rows = sorted(rows, key=lambda at: at[1].turn_idx or 0)
    nodes = []
    for turn, (place, row) in enumerate(rows):
        before = None if turn == 0 else turn - 1
        parents = [] if before is None else [before]
        nodes.append(_Node(place, row, Context(turn, parents, before, row.wait_after_previous_response_s)))
    return nodes


def _calls(nodes: list[_Node], report: Report) -> Iterator[Call]:
    """The calls of a session, parents first. Raises TraceError."""
    at = _index(nodes)
    parents = [_parents(node, at) for node in nodes]
    order = topological(parents)
    if len(order) < len(nodes):
        first = nodes[min(set(range(len(nodes))) - set(order))]
        what = "calls wait for each other in a circle"
        raise first.fault("session_context.parent_nodes", "no call that waits for itself", first.context.node_id, what)
    report.infer("sessions whose rows were put in order: parents first", order != sorted(order))
    names: dict[int, str] = {}
    wholes: dict[int, int] = {}
    for index in order:
        node = nodes[index]
        row, past = node.row, node.context.history_parent
        history = 0 if past is None else wholes[past]
        prompt = history + row.new_input_length
        if row.input_length not in (None, prompt):
            what = "input_length is not the history and the new input"
            expected = f"{prompt} (history {history} + new_input_length {row.new_input_length})"
            raise node.fault("input_length", expected, row.input_length, what)
        wholes[node.context.node_id] = prompt + row.output_length
        names[node.context.node_id] = f"c{len(names)}"
        yield _call(node, names, report)


def _index(nodes: list[_Node]) -> dict[int, int]:
    at: dict[int, int] = {}
    for index, node in enumerate(nodes):
        if at.setdefault(node.context.node_id, index) != index:
            expected, found = "ids unique in the session", node.context.node_id
            raise node.fault("session_context.node_id", expected, found, "two calls of a session have one id")
    return at


def _parents(node: _Node, at: dict[int, int]) -> list[int]:
    parents, past = node.context.parent_nodes or [], node.context.history_parent
    field = "session_context.parent_nodes"
    unknown = next((parent for parent in parents if parent not in at), None)
    if unknown is not None:
        raise node.fault(field, "node ids of the session", unknown, "a parent is no call of the session")
    if len(set(parents)) < len(parents):
        raise node.fault(field, "each parent once", str(parents)[:80], "a parent is named twice")
    if past is not None and past not in parents:
        expected = f"null or one of {str(parents)[:80]}"
        what = "the call whose history goes on is no parent"
        raise node.fault("session_context.history_parent", expected, past, what)
    return [at[parent] for parent in parents]


def _call(node: _Node, names: dict[int, str], report: Report) -> Call:
    """`names`: of this call and its parents, by node id."""
    row, context = node.row, node.context
    parents, past = context.parent_nodes or [], context.history_parent
    wait_s = context.wait_after_ready or 0.0
    if not parents:
        report.drop("waits before the first calls of a session", wait_s > 0)
    elif wait_s:
        report.assume("waits are for tools (the format does not tell)")
    kind: PartKind = "tool" if parents else "user"
    return Call(
        names[context.node_id],
        row.output_length,
        after=tuple(Edge(names[parent], wait_s, "tool" if wait_s else "none") for parent in parents),
        inherit=None if past is None else Inherit(names[past]),
        fresh=(Part(kind, row.new_input_length),) if row.new_input_length else (),
    )
