"""WEKA (kv-cache-tester) traces: one JSON file a session, prompts as hashes of their full blocks.

Two dialects share the shape. A subagent stands in its parent's list as a marker with requests of its own:

    dialect         marker t                     requests inside             end of the subagent
    kv-cache-tester its completion (its launch   t from 0, whole seconds     t (async: not known)
                    when async_launched)
    SemiAnalysis    start of its first request   t as in the parent's list   t + duration

The second also says less (no input types, stops, scaffold), counts think times from whatever call came before, and may
hash a last block that is not full. :mod:`workloom.traces.weka.calls` makes edges and waits of either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import content
from workloom.traces.reading import Intake, Report
from workloom.traces.weka.calls import calls
from workloom.traces.weka.rows import Document, check, dialect_of, fault, ids


class _Look(Struct):
    block_size: Annotated[int, Meta(ge=1)]


_decoder = msgspec.json.Decoder(Document, dec_hook=ids)
_look = msgspec.json.Decoder(_Look)


def sniff(head: bytes) -> bool:
    """Whether a file that begins like this is a WEKA trace."""
    return head.lstrip().startswith(b"{") and (
        re.search(rb'"(block_size|hash_id_scope)"\s*:', head) is not None
        or (re.search(rb'"requests"\s*:\s*\[', head) is not None and b'"hash_ids"' in head)
    )


def header(path: Path) -> Header:
    """The header of a trace that begins with this file."""
    data = content(path)
    try:
        block = _look.decode(data).block_size
    except DECODER_ERRORS as error:
        raise malformed(path, data, error) from None
    return Header(source="weka", block_tokens=block)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session of each file; a bad file is one TraceError to `on_bad`. Memory: a file at a time."""
    for path in paths:
        try:
            session = _session(path, intake.header, intake.report)
        except TraceError as error:
            intake.on_bad(error)
        else:
            yield session


def _session(path: Path, header: Header, report: Report) -> Session:
    data = content(path)
    try:
        document = _decoder.decode(data)
    except DECODER_ERRORS as error:
        raise malformed(path, data, error) from None
    del data
    if document.block_size != header.block_tokens:
        what = "two block sizes in one trace"
        raise fault(path, "block_size", header.block_tokens, document.block_size, what)
    dialect = dialect_of(path, document)
    check(path, document, dialect, report)
    made = calls(document, dialect, report)
    if document.hash_id_scope != "local":
        report.assume("hash ids of scope other than local were compared inside a file only")
    return Session(document.id, made, origin=f"weka:{path.name}")


def malformed(path: Path, data: bytes, error: Exception) -> TraceError:
    """The error for a file that could not be decoded."""
    if not data.strip():
        return TraceError("the file is empty", where=str(path), expected="a WEKA trace as JSON", found="no content")
    return misfit(str(path), data, error, what="the file is not JSON")
