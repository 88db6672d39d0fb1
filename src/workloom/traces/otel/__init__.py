"""OpenTelemetry spans of generative AI: OTLP JSON (a document, or one a line) and span-per-line JSON of the SDKs.

A session is a conversation if spans name one (its traces are turns), else a trace. See
:mod:`workloom.traces.otel.rows` for names, and in :mod:`workloom.traces.telemetry` `spantree` for dependencies, `calls`
for prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.otel.rows import Reader, ids, row_decoder
from workloom.traces.reading import Intake
from workloom.traces.telemetry.calls import session
from workloom.traces.telemetry.gather import Gathered, decoded, gather
from workloom.traces.telemetry.messages import Messages
from workloom.traces.telemetry.observed import Node, settle
from workloom.traces.telemetry.spantree import observe

_document = re.compile(
    rb'\s*\[?\s*\{\s*("trace"\s*:\s*\{\s*)?"(resourceSpans|resourceLogs|resourceMetrics|batches)"\s*:'
)
"""A collector may write logs and metrics to the same file; Tempo says `batches`, or wraps a document in `trace`."""
_within = re.compile(rb'(?<!\\)"(resourceSpans|batches)"\s*:')
_object = re.compile(rb"\s*\[?\s*\{")
_trace_id = re.compile(rb'(?<!\\)"(traceId|trace_id)"\s*:')
_span_id = re.compile(rb'(?<!\\)"(spanId|span_id|parent_id|parentId|parentSpanId|parentSpanContext)"\s*:')
_start = re.compile(rb'(?<!\\)"(startTimeUnixNano|start_time_unix_nano|start_time|startTime|timestamp)"\s*:')
_attributes = re.compile(rb'(?<!\\)"attributes"\s*:')
_names = re.compile(rb'"(gen_ai|llm|openinference|traceloop|ai)\.')

CLOCKS = "instants of spans come from the clocks of the programs that wrote them, taken to agree"


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this holds spans."""
    if _document.match(head):
        return _within.search(head) is not None
    needed = (_trace_id, _span_id, _start, _attributes, _names)
    return _object.match(head) is not None and all(pattern.search(head) for pattern in needed)


def header(path: Path) -> Header:
    return Header(source="otel", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of all files. Memory: the numbers of the largest session, and an index of the spans."""
    for gathered in gather(paths, intake, _keys, ids):
        made = _session(gathered, intake)
        if made is not None:
            yield made


def _keys(head: bytes) -> tuple[str, ...]:
    document = _document.match(head)
    if document is None:
        return ()
    outer = ("trace",) if document[1] else ()
    return (*outer, "batches" if document[2] == b"batches" else "resourceSpans", "scopeSpans", "spans")


def _session(gathered: Gathered, intake: Intake) -> Session | None:
    report = intake.report
    reader = Reader(Messages(keep_text=intake.text), report, intake.text)
    nodes: list[Node] = []
    origin = ""
    for trace, place, row in decoded(gathered.rows, row_decoder.decode, intake):
        origin = origin or f"otel:{place.path.name}"
        try:
            nodes.append(reader.node(trace, row, f"{place.path}, line {place.line}"))
        except TraceError as error:
            intake.on_bad(error)
    settle(nodes, report)
    seen = observe(nodes, report)
    if not seen:
        report.drop("traces in which no model is called")
        return None
    report.assume(CLOCKS)
    return session(gathered.id, seen, nodes, origin, report, text=intake.text)
