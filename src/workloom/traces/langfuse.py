"""Langfuse: observations as the API and the exports give them, one a line, in a list, in pages or in trace documents.

Names come in camel case (API, UI) and in snake case (blob storage). The observations of a session are a tree, as spans
are: see :mod:`workloom.traces.telemetry.spantree`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Raw, Struct, defstruct
from msgspec.structs import fields

from workloom.errors import TraceError
from workloom.session import MOST_TOKENS, Header, Session
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.reading import Intake, Report
from workloom.traces.telemetry.calls import session
from workloom.traces.telemetry.gather import Gathered, Ids, decoded, gather
from workloom.traces.telemetry.messages import Messages
from workloom.traces.telemetry.observed import Count, Kind, Node, instant, settle
from workloom.traces.telemetry.spantree import observe

KINDS: dict[str, Kind] = {"GENERATION": "call", "TOOL": "tool", "AGENT": "agent"}
_TYPES = rb"GENERATION|SPAN|EVENT|AGENT|TOOL|CHAIN|RETRIEVER|EVALUATOR|EMBEDDING|GUARDRAIL"
_object = re.compile(rb"\s*\[?\s*\{")
_needed = tuple(
    re.compile(rb'(?<!\\)"' + rest)
    for rest in (rb'(traceId|trace_id)"\s*:', rb'(startTime|start_time)"\s*:', rb'type"\s*:\s*"(' + _TYPES + rb')"')
)
_page = re.compile(rb'\s*\{\s*"(data|meta)"\s*:')
_trace = re.compile(rb'(?<!\\)"observations"\s*:\s*\[\s*\{')


class _Usage(Struct):
    """Usage by the older names."""

    input: Count | None = None
    output: Count | None = None


class _Row(Struct):
    """An observation. The names are those of blob storage; the API's are the same in camel case."""

    id: str
    start_time: str
    trace_id: str | None = None
    type: str = "SPAN"
    parent_observation_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    trace_name: str | None = None
    name: str | None = None
    end_time: str | None = None
    completion_start_time: str | None = None
    time_to_first_token: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    level: str | None = None
    provided_model_name: str | None = None
    model: str | None = None
    usage_details: dict[str, object] | None = None
    usage: _Usage | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    input: Raw = Raw()
    output: Raw = Raw()


class _Ids(Struct):
    traceId: str | None = None
    trace_id: str | None = None
    sessionId: str | None = None
    session_id: str | None = None


_required = [(f.name, f.type) for f in fields(_Row) if f.required]
_optional = [(f.name, f.type, f.default) for f in fields(_Row) if not f.required]
_CamelRow = cast(type[_Row], defstruct("_CamelRow", [*_required, *_optional], rename="camel"))
"""The same fields by the API's names."""

_snake_row = msgspec.json.Decoder(_Row)
_camel_row = msgspec.json.Decoder(_CamelRow)
_ids = msgspec.json.Decoder(_Ids)


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this holds observations."""
    return _object.match(head) is not None and all(pattern.search(head) for pattern in _needed)


def header(path: Path) -> Header:
    return Header(source="langfuse", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of all files. Memory: the numbers of the largest session, and an index of the observations."""

    def keys(head: bytes) -> tuple[str, ...]:
        found = _keys(head)
        if found == ("observations",):
            intake.report.assume(
                "a trace document is a session of its own: its own session, user and name are not read"
            )
        return found

    for gathered in gather(paths, intake, keys, _named):
        made = _session(gathered, intake)
        if made is not None:
            yield made


def _keys(head: bytes) -> tuple[str, ...]:
    if _page.match(head):
        return ("data",)
    trace, row = _trace.search(head), _needed[0].search(head)
    if trace is None or (row is not None and row.start() < trace.start()):
        return ()  # an observation names its trace first: what it holds may be called observations too
    return ("observations",)


def _named(data: bytes) -> Ids:
    row = _ids.decode(data)
    trace = row.traceId or row.trace_id
    if not trace:
        raise msgspec.ValidationError("Expected a trace id - at `$.traceId`")
    return Ids(trace, row.sessionId or row.session_id or None)


def _decode(data: bytes) -> _Row:
    return (_camel_row if b'"startTime"' in data else _snake_row).decode(data)


def _session(gathered: Gathered, intake: Intake) -> Session | None:
    report, messages = intake.report, Messages(keep_text=intake.text)
    nodes: list[Node] = []
    origin = ""
    for trace, place, row in decoded(gathered.rows, _decode, intake):
        origin = origin or f"langfuse:{place.path.name}"
        try:
            nodes.append(_node(trace, row, messages, f"{place.path}, line {place.line}", intake))
        except TraceError as error:
            intake.on_bad(error)
    settle(nodes, report)
    seen = observe(nodes, report)
    if not seen:
        report.drop("traces without a generation")
        return None
    return session(gathered.id, seen, nodes, origin, report, text=intake.text)


def _node(trace: int, row: _Row, messages: Messages, place: str, intake: Intake) -> Node:
    """The node of an observation. Raises a TraceError."""
    kind = row.type.upper()
    if kind == "EMBEDDING":
        intake.report.drop("embeddings, which are no calls of a generating model")
    node = Node(
        trace=trace,
        id=row.id,
        parent=row.parent_observation_id or None,
        kind=KINDS.get(kind, "other"),
        start_ns=instant(row.start_time, place, "startTime"),
        end_ns=instant(row.end_time, place, "endTime") if row.end_time else None,
        name=row.name if kind in ("TOOL", "AGENT") else None,
        user=row.user_id or None,
        workflow=row.trace_name or None,
        status="error" if row.level == "ERROR" else "ok",
    )
    try:
        if node.kind == "call":
            _generation(node, row, messages, place, intake.report)
        elif node.kind == "tool" and row.output:
            result = messages.text(row.output)
            node.chars = None if result is None else len(result)
            node.text = result if intake.text else None
    except DECODER_ERRORS as error:
        what, expected = "messages are nested too deeply", "messages of an API"
        raise TraceError(what, where=f"{place}, input", expected=expected, found=str(error)) from None
    return node


def _generation(node: Node, row: _Row, messages: Messages, place: str, report: Report) -> None:
    node.model = row.provided_model_name or row.model or ""
    usage = {key: _amount(key, value, place) for key, value in (row.usage_details or {}).items() if value is not None}
    if usage:
        node.prompt, node.cached, node.output, node.reasoning = _counts(usage, report)
    else:
        old = row.usage or _Usage()
        node.prompt = old.input if old.input is not None else row.prompt_tokens
        node.output = old.output if old.output is not None else row.completion_tokens
    if row.completion_start_time:
        node.first_ns = instant(row.completion_start_time, place, "completionStartTime")
    elif row.time_to_first_token is not None:
        node.first_ns = node.start_ns + round(row.time_to_first_token * 1e9)
    node.streaming = True if node.first_ns is not None else None
    node.messages = messages.prompt(row.input) if row.input else ()
    node.answer = messages.answer(row.output) if row.output else None


def _amount(key: str, value: object, place: str) -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
        return round(value)
    what, where = "a count of usage is no count", f"{place}, usageDetails.{key}"
    raise TraceError(what, where=where, expected="0 or more, at most a trillion", found=f"{value!r:.80}")


def _counts(usage: dict[str, int], report: Report) -> tuple[int | None, int | None, int | None, int]:
    """Prompt, cached, output and reasoning tokens. Whether `input` holds `input_...` too is what the total tells."""
    given, made, total = usage.get("input"), usage.get("output"), usage.get("total")
    details = {key: value for key, value in usage.items() if key not in ("input", "output", "total")}
    ins = sum(value for key, value in details.items() if "input" in key)
    outs = sum(value for key, value in details.items() if "output" in key and "input" not in key)
    cached = [value for key, value in details.items() if "input" in key and ("cache_read" in key or "cached" in key)]
    reasoning = sum(value for key, value in details.items() if "output" in key and "reasoning" in key)
    if ins or outs:
        report.assume(
            "the kinds of usage of a generation add up, unless its total says that input or output holds them"
        )
    whole_in, whole_out = (given or 0) + ins, (made or 0) + outs
    for a, b in ((whole_in, whole_out), (given or 0, whole_out), (whole_in, made or 0), (given or 0, made or 0)):
        if total is not None and a + b == total:
            whole_in, whole_out = a, b
            break
    prompt = None if given is None and not ins else whole_in
    return prompt, sum(cached) if cached else None, None if made is None and not outs else whole_out, reasoning
