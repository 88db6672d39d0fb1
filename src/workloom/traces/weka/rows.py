"""The rows of a WEKA file, which dialect they speak, and whether they can be true. See :mod:`workloom.traces.weka`."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from workloom.errors import TraceError
from workloom.traces.reading import Report

if TYPE_CHECKING:
    Ids = array[int]
else:
    Ids = array
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Seconds = Annotated[float, Meta(ge=0)]
Dialect = Literal["kv-cache-tester", "semianalysis"]


class Request(Struct, gc=False):
    """One inference request; `t`, `api_time`, `think_time`, `ttft` are seconds."""

    t: Seconds
    model: str
    out: Count
    hash_ids: Ids
    """4 or 8 bytes an id: a list would take 36, six times the file."""
    tokens: Count = field(name="in")
    input_types: list[str] | None = None
    stop: str | None = None
    api_time: Seconds | None = None
    think_time: Seconds | None = None
    ttft: Seconds | None = None


class Plain(Request, tag_field="type", tag="n"):
    """A request whose answer came at once."""


class Streaming(Request, tag_field="type", tag="s"):
    """A request whose answer was streamed."""


class Subagent(Struct, tag_field="type", tag="subagent"):
    """A subagent's marker in its parent's list."""

    t: Seconds
    agent_id: str
    requests: list[Plain | Streaming]
    subagent_type: str = "subagent"
    duration_ms: Seconds | None = None
    status: str | None = None
    tool_tokens: Count = 0
    system_tokens: Count = 0


class Document(Struct):
    """A file."""

    id: str
    block_size: Annotated[int, Meta(ge=1, le=1 << 20)]
    requests: list[Plain | Streaming | Subagent]
    hash_id_scope: str = "local"
    tool_tokens: Count = 0
    system_tokens: Count = 0
    totals: Raw = Raw()


def ids(kind: type, found: object) -> Ids:
    """Hash ids as the decoder found them, packed. Raises ValueError."""
    if not isinstance(found, list):
        raise ValueError(f"Expected `array`, got `{type(found).__name__}`")
    try:
        return array("I", found)
    except OverflowError:
        pass
    except TypeError as error:
        raise ValueError(f"Expected an array of ids, got {error}") from None
    try:
        return array("Q", found)
    except OverflowError:
        raise ValueError("Expected ids from 0 to 2^64 - 1") from None


def dialect_of(path: Path, document: Document) -> Dialect:
    """Which of the two dialects a file speaks, from its subagents or else from the fields it has."""
    said: dict[Dialect, int] = {}
    for index, entry in enumerate(document.requests):
        if not isinstance(entry, Subagent) or not entry.requests or entry.t == 0.0:
            continue
        first = entry.requests[0].t
        if first == 0.0:
            said.setdefault("kv-cache-tester", index)
        elif abs(first - entry.t) < 1e-3:
            said.setdefault("semianalysis", index)
        else:
            expected = f"0 (kv-cache-tester) or the marker's {entry.t} (SemiAnalysis)"
            raise fault(path, f"requests[{index}].requests[0].t", expected, first, "a subagent starts at no known time")
    if len(said) > 1:
        index = max(said.values())
        found = document.requests[index]
        what = "a file speaks two dialects"
        raise fault(path, f"requests[{index}]", "inner t all relative or all absolute", f"t = {found.t}", what)
    if said:
        return next(iter(said))
    plain = [entry for entry in document.requests if not isinstance(entry, Subagent)]
    rich = bytes(document.totals) not in (b"", b"null") or any(request.input_types is not None for request in plain)
    return "kv-cache-tester" if rich or not plain else "semianalysis"


def check(path: Path, document: Document, dialect: Dialect, report: Report) -> None:
    """Every prompt has a hash for each of its full blocks."""
    size = document.block_size
    partial = count = 0
    for index, entry in enumerate(document.requests):
        inside = isinstance(entry, Subagent)
        requests = entry.requests if isinstance(entry, Subagent) else [entry]
        for inner, request in enumerate(requests):
            count += 1
            blocks, full = len(request.hash_ids), request.tokens // size
            if blocks == full:
                continue
            if dialect == "semianalysis" and blocks == full + 1 and request.tokens % size:
                request.hash_ids.pop()
                partial += 1
                continue
            field = f"requests[{index}]" + (f".requests[{inner}]" if inside else "")
            if blocks > full:
                what, expected = "a prompt is shorter than its hashed blocks", f"at least {size * blocks}"
                raise fault(path, f"{field}.in", f"{expected} ({blocks} blocks of {size})", request.tokens, what)
            what = "a prompt has fewer hashes than full blocks"
            raise fault(path, f"{field}.hash_ids", f"{full} ids (in = {request.tokens})", f"{blocks} ids", what)
    if not count:
        raise fault(path, "requests", "at least one request", "none", "a session has no calls")
    report.drop("hash of a last block that is not full", partial)


def fault(path: Path, field: str, expected: object, found: object, what: str) -> TraceError:
    return TraceError(what, where=f"{path}, {field}", expected=expected, found=found)
