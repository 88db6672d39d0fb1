"""LiteLLM: standard logging payloads (StandardLoggingPayload), one a line or in a list.

There is no link from a call to the one before it: time and messages say what belongs together. See
:mod:`workloom.traces.litellm.threads`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.litellm.threads import thread
from workloom.traces.reading import Intake, Report
from workloom.traces.telemetry.calls import session
from workloom.traces.telemetry.gather import Gathered, Ids, decoded, gather
from workloom.traces.telemetry.messages import Messages
from workloom.traces.telemetry.observed import Count, Node, instant, settle

Time = str | int | float

_object = re.compile(rb"\s*\[?\s*\{")
_needed = tuple(
    re.compile(rb'(?<!\\)"' + name + rb'"\s*:')
    for name in (rb"call_type", rb"startTime", rb"endTime", rb"(prompt_tokens|model_map_information|response_cost)")
)
_GENERATES = re.compile(r"completion|responses|messages|generate_content|^$|pass_through")


class _Details(Struct):
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(Struct):
    """The usage of a response, by the names of OpenAI and of Anthropic."""

    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class _Metadata(Struct):
    usage_object: _Usage | None = None


class _Parameters(Struct):
    tools: Raw = Raw()
    functions: Raw = Raw()
    system: Raw = Raw()
    instructions: Raw = Raw()


class _Payload(Struct):
    startTime: Time
    endTime: Time | None = None
    completionStartTime: Time | None = None
    id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    call_type: str | None = None
    status: str | None = None
    stream: bool | None = None
    cache_hit: bool | str | None = None
    model: str | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    metadata: _Metadata | None = None
    end_user: str | None = None
    messages: Raw = Raw()
    response: Raw = Raw()
    model_parameters: _Parameters | None = None


class _Ids(Struct):
    id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None


_payload = msgspec.json.Decoder(_Payload)
_ids = msgspec.json.Decoder(_Ids)


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this holds logging payloads."""
    return _object.match(head) is not None and all(pattern.search(head) for pattern in _needed)


def header(path: Path) -> Header:
    return Header(source="litellm", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of all files. Memory: the numbers of the largest session, and an index of the payloads."""
    for gathered in gather(paths, intake, lambda head: (), _named):
        made = _session(gathered, intake)
        if made is not None:
            yield made


def _named(data: bytes) -> Ids:
    """A session, or a trace (a request with its retries), or a call alone."""
    row = _ids.decode(data)
    name = row.session_id or row.trace_id or row.id
    if not name:
        raise msgspec.ValidationError("Expected an id - at `$.trace_id`")
    return Ids(name)


def _session(gathered: Gathered, intake: Intake) -> Session | None:
    report, messages = intake.report, Messages(keep_text=intake.text)
    nodes: list[Node] = []
    origin = ""
    for _, place, row in decoded(gathered.rows, _payload.decode, intake):
        origin = origin or f"litellm:{place.path.name}"
        try:
            node = _node(row, messages, f"{place.path}, line {place.line}", report)
        except TraceError as error:
            intake.on_bad(error)
            continue
        if node is not None:
            nodes.append(node)
    calls = settle(nodes, report)
    if not calls:
        report.drop("sessions without a call that generates")
        return None
    report.assume("a session is what has one session_id, or else one trace_id")
    return session(gathered.id, thread(calls, report), calls, origin, report, text=intake.text)


def _node(row: _Payload, messages: Messages, place: str, report: Report) -> Node | None:
    """The call of a payload; None if no model generated anything."""
    if not _GENERATES.search(row.call_type or ""):
        report.drop("payloads of other kinds than generating calls (embeddings, images, speech, ranking)")
        return None
    if row.cache_hit is True or str(row.cache_hit).lower() == "true":
        report.drop("answers from LiteLLM's own cache, for which no model ran")
        return None
    start_ns = instant(row.startTime, place, "startTime")
    end_ns = None if row.endTime is None else instant(row.endTime, place, "endTime")
    first = row.completionStartTime
    first_ns = instant(first, place, "completionStartTime") if row.stream and first is not None else None
    usage = (row.metadata and row.metadata.usage_object) or _Usage()
    given, made = usage.prompt_tokens_details or usage.input_tokens_details, usage.completion_tokens_details
    thought = made or usage.output_tokens_details
    cached = given.cached_tokens if given and given.cached_tokens is not None else usage.cache_read_input_tokens
    parameters = row.model_parameters or _Parameters()
    try:
        prompt = messages.prompt(
            row.messages,
            system=parameters.system or parameters.instructions,
            tools=parameters.tools or parameters.functions,
        )
        answer = messages.answer(row.response) if row.response else None
    except DECODER_ERRORS as error:
        what, expected = "messages are nested too deeply", "messages of an API"
        raise TraceError(what, where=f"{place}, messages", expected=expected, found=str(error)) from None
    return Node(
        trace=0,
        id=row.id or place,
        parent=None,
        kind="call",
        start_ns=start_ns,
        end_ns=end_ns,
        first_ns=first_ns,
        model=row.model or "",
        prompt=row.prompt_tokens,
        cached=cached,
        created=usage.cache_creation_input_tokens or 0,
        output=row.completion_tokens,
        reasoning=(thought.reasoning_tokens or 0) if thought else 0,
        status="error" if row.status == "failure" else "ok",
        streaming=row.stream,
        messages=prompt,
        answer=answer,
        user=row.end_user or None,
    )
