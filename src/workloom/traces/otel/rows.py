"""Spans of OpenTelemetry as they are written, and as nodes: OTLP JSON or one flat object, old and new attribute names.

The names come from the semantic conventions of generative AI, and from the tracers before and beside them: OpenLLMetry
(`llm.*`, `traceloop.*`, `gen_ai.prompt.0.content`), OpenInference (`openinference.span.kind`, `llm.token_count.*`) and
the AI SDK (`ai.*`).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.otel.values import Attributes, attributes, unflattened
from workloom.traces.reading import Report
from workloom.traces.telemetry.gather import Ids
from workloom.traces.telemetry.message import Message
from workloom.traces.telemetry.messages import Messages
from workloom.traces.telemetry.observed import Kind, Node, instant

Time = str | int | float | list[int] | None

OPERATIONS: dict[str, Kind] = {
    "chat": "call", "generate_content": "call", "text_completion": "call", "completion": "call", "responses": "call",
    "embeddings": "other", "retrieval": "other", "create_agent": "other", "invoke_workflow": "other",
    "invoke_agent": "agent", "execute_tool": "tool",
}  # fmt: skip
KINDS: dict[str, Kind] = {
    "llm": "call", "tool": "tool", "agent": "agent", "chain": "other", "workflow": "other", "task": "other",
    "embedding": "other", "retriever": "other", "reranker": "other", "guardrail": "other", "evaluator": "other",
}  # fmt: skip
REQUESTS: dict[str, Kind] = {"chat": "call", "completion": "call", "embedding": "other", "rerank": "other"}

SESSION = ("gen_ai.conversation.id", "session.id", "langfuse.session.id",
           "traceloop.association.properties.session_id")  # fmt: skip
MODEL = ("gen_ai.request.model", "gen_ai.response.model", "llm.request.model", "llm.model_name",
         "llm.request.model_name", "llm.response.model", "ai.model.id")  # fmt: skip
PROMPT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens",
          "llm.token_count.prompt", "ai.usage.promptTokens")  # fmt: skip
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens",
          "llm.token_count.completion", "ai.usage.completionTokens")  # fmt: skip
CACHED = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
          "llm.usage.cache_read_input_tokens", "llm.token_count.prompt_details.cache_read")  # fmt: skip
CREATED = ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens",
           "llm.usage.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write")  # fmt: skip
REASONING = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens", "llm.usage.reasoning_tokens",
             "llm.token_count.completion_details.reasoning")  # fmt: skip
STREAM = ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming")
FIRST_S = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
AGENT = ("gen_ai.agent.name", "agent.name", "traceloop.entity.name")
TOOL = ("gen_ai.tool.name", "tool.name", "ai.toolCall.name", "traceloop.entity.name")
TOOL_ID = ("gen_ai.tool.call.id", "tool_call.id", "ai.toolCall.id")
RESULT = ("gen_ai.tool.call.result", "ai.toolCall.result", "traceloop.entity.output", "output.value")
USER = ("user.id", "enduser.id", "gen_ai.user", "llm.user", "langfuse.user.id")
WORKFLOW = ("gen_ai.workflow.name", "traceloop.workflow.name")
INPUT = ("gen_ai.input.messages", "ai.prompt.messages", "gen_ai.prompt")
ANSWER = ("gen_ai.output.messages", "gen_ai.completion", "ai.response.text")
SYSTEM = ("gen_ai.system_instructions",)
TOOLS = ("gen_ai.tool.definitions", "ai.prompt.tools")
FLAT_INPUT = ("gen_ai.prompt.", "llm.input_messages.")
FLAT_ANSWER = ("gen_ai.completion.", "llm.output_messages.")
FLAT_TOOLS = ("llm.request.functions.", "llm.tools.")


class Context(Struct):
    """The ids of a span, by the names of several exporters."""

    traceId: str | None = None
    trace_id: str | None = None
    spanId: str | None = None
    span_id: str | None = None


class Row(Context):
    """A span, by the names of several exporters: OTLP, and the JSON of the SDKs of Python and JavaScript."""

    id: str | None = None
    name: str = ""
    context: Context | None = None
    parentSpanId: str | None = None
    parent_span_id: str | None = None
    parent_id: str | None = None
    parentId: str | None = None
    parentSpanContext: Context | None = None
    startTimeUnixNano: Time = None
    start_time_unix_nano: Time = None
    start_time: Time = None
    startTime: Time = None
    timestamp: Time = None
    duration: Annotated[float, Meta(ge=0, le=1e15)] | list[int] | str | None = None
    endTimeUnixNano: Time = None
    end_time_unix_nano: Time = None
    end_time: Time = None
    endTime: Time = None
    attributes: Raw = Raw()
    status: Raw = Raw()
    events: Raw = Raw()


class _IdRow(Context):
    context: Context | None = None
    attributes: Raw = Raw()


class _Status(Struct):
    code: int | str | None = None
    status_code: int | str | None = None


class _Event(Struct):
    name: str = ""
    attributes: Raw = Raw()


row_decoder = msgspec.json.Decoder(Row)
_ids = msgspec.json.Decoder(_IdRow)
_status = msgspec.json.Decoder(_Status | str | int | None)
_events = msgspec.json.Decoder(list[_Event] | None)


def ids(data: bytes) -> Ids:
    """The trace of a span, and the conversation if it names one. Raises what decoding raises."""
    row = _ids.decode(data)
    trace = _trace(row, row.context)
    if trace is None:
        raise msgspec.ValidationError("Expected a trace id - at `$.traceId`")
    if any(name.encode() in data for name in SESSION):
        return Ids(trace, attributes(row.attributes).text(*SESSION))
    return Ids(trace)


def _trace(row: Context, context: Context | None) -> str | None:
    inner = context or Context()
    return _hex(row.traceId or row.trace_id or inner.traceId or inner.trace_id)


def _hex(found: str | None) -> str | None:
    """An id without the signs that some exporters put before it; none if it is empty or all zeros."""
    plain = (found or "").lower().removeprefix("0x")
    return plain if plain.strip("0") else None


class Reader(NamedTuple):
    """Makes nodes of the rows of one session."""

    messages: Messages
    report: Report
    keep_text: bool

    def node(self, trace: int, row: Row, place: str) -> Node:
        """The node of a span. Raises a TraceError."""
        try:
            return self._node(trace, row, place)
        except DECODER_ERRORS as error:
            expected = "attributes as OTLP or the SDKs write them"
            what = "a span has attributes of another shape"
            raise TraceError(what, where=f"{place}, attributes", expected=expected, found=str(error)) from None

    def _node(self, trace: int, row: Row, place: str) -> Node:
        said = attributes(row.attributes, place)
        start = _first(row.startTimeUnixNano, row.start_time_unix_nano, row.start_time, row.startTime, row.timestamp)
        end = _first(row.endTimeUnixNano, row.end_time_unix_nano, row.end_time, row.endTime)
        start_ns = _ns(start, place, "start time")
        if start_ns is None:
            expected = "startTimeUnixNano, start_time or startTime"
            raise TraceError("a span has no start", where=place, expected=expected, found="nothing")
        inner, above = row.context or Context(), row.parentSpanContext or Context()
        span = _hex(row.spanId or row.span_id or inner.spanId or inner.span_id or row.id)
        parent = row.parentSpanId or row.parent_span_id or row.parent_id or row.parentId
        end_ns = _ns(end, place, "end time")
        if end_ns is None and isinstance(row.duration, float | int) and row.timestamp is not None:
            end_ns = start_ns + round(row.duration * 1_000)  # JavaScript's console exporter counts us
        node = Node(
            trace=trace,
            id=span or f"without id, {place}",
            parent=_hex(parent or above.spanId or above.span_id),
            kind=_kind(said, self.report),
            start_ns=start_ns,
            end_ns=end_ns,
            user=said.text(*USER),
            workflow=said.text(*WORKFLOW),
        )
        if node.kind == "call":
            self._call(node, row, said)
        elif node.kind == "tool":
            node.name = said.text(*TOOL) or row.name.removeprefix("execute_tool ") or None
            node.tool_id = said.text(*TOOL_ID)
            result = said.content(*RESULT)
            node.chars = None if result is None else len(result)
            node.text = result if self.keep_text else None
        elif node.kind == "agent":
            node.name = said.text(*AGENT)
        return node

    def _call(self, node: Node, row: Row, said: Attributes) -> None:
        node.model = said.text(*MODEL) or ""
        node.prompt, node.output = said.count(*PROMPT), said.count(*OUTPUT)
        node.cached, node.created = said.count(*CACHED), said.count(*CREATED) or 0
        node.reasoning = said.count(*REASONING) or 0
        first_s = said.seconds(*FIRST_S)
        if first_s is not None:
            node.first_ns = node.start_ns + round(first_s * 1e9)
        streams = said.flag(*STREAM)
        node.streaming = True if streams is None and first_s is not None else streams
        if said.text("error.type") or _failed(row.status):
            node.status = "error"
        node.messages, node.answer = self._content(row, said)

    def _content(self, row: Row, said: Attributes) -> tuple[tuple[Message, ...], Message | None]:
        """The prompt and the answer, from attributes or else from events."""
        system, tools = said.json(*SYSTEM), said.json(*TOOLS) or unflattened(said, FLAT_TOOLS)
        prompt = said.json(*INPUT) or unflattened(said, FLAT_INPUT)
        answer = said.json(*ANSWER) or unflattened(said, FLAT_ANSWER)
        if prompt is None and row.events and b"gen_ai." in bytes(row.events):
            prompt, system, tools, answer = self._events(row, system, tools, answer)
        messages = self.messages.prompt(prompt or b"", system=system or b"", tools=tools or b"")
        return messages, self.messages.answer(answer) if answer else None

    def _events(
        self, row: Row, system: bytes | None, tools: bytes | None, answer: bytes | None
    ) -> tuple[bytes | None, bytes | None, bytes | None, bytes | None]:
        """What older conventions put into events: one a message, or one with all of them."""
        prompt: bytes | None = None
        spoken: list[object] = []
        for event in _events.decode(row.events) or ():
            said = attributes(event.attributes)
            prompt = prompt or said.json(*INPUT)
            system, tools, answer = (
                system or said.json(*SYSTEM),
                tools or said.json(*TOOLS),
                answer or said.json(*ANSWER),
            )
            parts = event.name.split(".")
            if event.name == "gen_ai.choice":
                answer = answer or said.json("message", "content")
            elif len(parts) == 3 and parts[2] == "message":
                message = said.plain()
                spoken.append({**message, "role": parts[1], "content": message.get("content")})
        if prompt is None and spoken:
            prompt = msgspec.json.encode(spoken)
        return prompt, system, tools, answer


def _kind(said: Attributes, report: Report) -> Kind:
    operation = (said.text("gen_ai.operation.name") or "").lower()
    kind = (said.text("openinference.span.kind", "traceloop.span.kind") or "").lower()
    request = (said.text("llm.request.type") or "").lower()
    if "embed" in f"{operation}{kind}{request}":
        report.drop("embedding spans, which are no calls of a generating model")
        return "other"
    found = OPERATIONS.get(operation) or KINDS.get(kind) or REQUESTS.get(request)
    if found is not None:
        return found
    if said.has("ai.toolCall.name"):
        return "tool"
    if said.has(*PROMPT, *OUTPUT) or (not operation and said.has("gen_ai.request.model", "gen_ai.response.model")):
        report.infer("spans without an operation name we know, taken as model calls for their model or token counts")
        return "call"
    return "other"


def _failed(status: Raw) -> bool:
    try:
        found = _status.decode(status) if status else None
    except DECODER_ERRORS:
        return False
    if isinstance(found, _Status):
        found = found.code if found.code is not None else found.status_code
    return str(found).upper().rpartition("_")[2] in ("2", "ERROR")


def _first(*times: Time) -> Time:
    return next((time for time in times if time is not None), None)


def _ns(time: Time, place: str, name: str) -> int | None:
    """ns from 1970; JavaScript's [seconds, ns] too. 0 and nothing are no time."""
    if isinstance(time, list):
        if len(time) != 2:
            raise TraceError("a time is no instant", where=f"{place}, {name}", expected="[s, ns]", found=len(time))
        time = time[0] * 1_000_000_000 + time[1]
    return instant(time, place, name) if time not in (None, "", "0", 0) else None
