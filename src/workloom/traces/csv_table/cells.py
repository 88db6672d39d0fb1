"""The cells of the flat call table: how strings, edges, inheritance, spans and parts are written in one cell each.

Short forms are for people; whatever does not fit one is JSON, so that every value survives:

    after       c1:tool:1.5 c2:spawn:0.0      call:gap:seconds         or [{"call":"c 1", ...}]
    inherit     c1   or   c1:4096             call[:tokens]            or {"call":"c 1", ...}
    spans       tools:900:trace system:40     name:tokens[:scope]      or [{"name":"a b", ...}]
    fresh       user:20 tool:490:read:1.5     kind:tokens[:name[:s]]   or [{"kind":"tool", ...}]
    estimated   output_tokens                 words                    or ["two words"]
    a string    Explore:1                     as it is                 or "= \"quoted\""

A string is quoted if it begins with anything but a letter, digit or _: no spreadsheet takes it for a formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, get_args

import msgspec

from workloom.session import LONGEST_WAIT_S, Edge, Gap, Inherit, Part, PartKind, Scope, Span
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.tables import LARGEST_COUNT

T = TypeVar("T")

_PLAIN = re.compile(r'\w[^\x00-\x1f\x7f"]*')
_WORD = re.compile(r"\w[\w.@#/+-]*")
_encode = msgspec.json.Encoder().encode


class Unreadable(ValueError):
    """A cell that says nothing of its kind; the message is what was expected."""


# ---------------------------------------------------------------------------------------------------------- writing


def text(value: str | None) -> str:
    if value is None:
        return ""
    return value if _PLAIN.fullmatch(value) else _json(value)


def after(edges: tuple[Edge, ...]) -> str:
    if not all(map(_word, (edge.call for edge in edges))):
        return _json(edges)
    return " ".join(f"{edge.call}:{edge.gap}:{edge.wait_s!r}" for edge in edges)


def inherit(value: Inherit | None) -> str:
    if value is None:
        return ""
    if not _word(value.call):
        return _json(value)
    return value.call if value.tokens is None else f"{value.call}:{value.tokens}"


def spans(values: tuple[Span, ...]) -> str:
    if not all(map(_word, (span.name for span in values))):
        return _json(values)
    return " ".join(f"{s.name}:{s.tokens}" + (":trace" if s.scope == "trace" else "") for s in values)


def fresh(parts: tuple[Part, ...]) -> str:
    for part in parts:
        if part.from_call is not None or part.text is not None or not (part.name is None or _word(part.name)):
            return _json(parts)
    return " ".join(map(_part, parts))


def _part(part: Part) -> str:
    short = f"{part.kind}:{part.tokens}"
    if part.seconds is not None:
        return f"{short}:{part.name or ''}:{part.seconds!r}"
    return short if part.name is None else f"{short}:{part.name}"


def words(values: tuple[str, ...]) -> str:
    return " ".join(values) if all(map(_word, values)) else _json(values)


def _word(value: str) -> bool:
    return _WORD.fullmatch(value) is not None


def _json(value: object) -> str:
    return _encode(value).decode()


# ---------------------------------------------------------------------------------------------------------- reading
#
# Each takes a cell that is not empty and raises Unreadable.


def read_text(cell: str) -> str:
    return _typed(_TEXT, cell, "a string as JSON, since it begins with a quote") if cell.startswith('"') else cell


def read_after(cell: str) -> tuple[Edge, ...]:
    expected = "edges as call[:gap[:seconds]], gap being " + " | ".join(_GAPS)
    edges = _typed(_EDGES, cell, "edges as JSON") if cell.startswith("[") else _each(cell, _read_edge, expected)
    if not all(0 <= edge.wait_s <= LONGEST_WAIT_S for edge in edges):
        raise Unreadable(f"waits of 0 to {LONGEST_WAIT_S:g} s")
    return edges


def read_inherit(cell: str) -> Inherit:
    if cell.startswith("{"):
        found = _typed(_INHERIT, cell, "a call and tokens as JSON")
    else:
        call, colon, tokens = cell.partition(":")
        if not call or not (tokens.isdecimal() if colon else True):
            raise Unreadable("call or call:tokens")
        found = Inherit(call, int(tokens) if colon else None)
    _counts(() if found.tokens is None else (found.tokens,))
    return found


def read_spans(cell: str) -> tuple[Span, ...]:
    expected = "spans as name:tokens[:scope], scope being " + " | ".join(_SCOPES)
    spans = _typed(_SPANS, cell, "spans as JSON") if cell.startswith("[") else _each(cell, _read_span, expected)
    _counts(span.tokens for span in spans)
    return spans


def read_fresh(cell: str) -> tuple[Part, ...]:
    expected = "parts as kind:tokens[:name[:seconds]], kind being " + " | ".join(_KINDS)
    parts = _typed(_PARTS, cell, "parts as JSON") if cell.startswith("[") else _each(cell, _read_part, expected)
    _counts(part.tokens for part in parts)
    if not all(part.seconds is None or 0 <= part.seconds <= LONGEST_WAIT_S for part in parts):
        raise Unreadable(f"parts that took 0 to {LONGEST_WAIT_S:g} s")
    return parts


def read_words(cell: str) -> tuple[str, ...]:
    return _typed(_WORDS, cell, "strings as JSON") if cell.startswith("[") else tuple(cell.split(" "))


_TEXT = msgspec.json.Decoder(str)
_EDGES = msgspec.json.Decoder(tuple[Edge, ...])
_INHERIT = msgspec.json.Decoder(Inherit)
_SPANS = msgspec.json.Decoder(tuple[Span, ...])
_PARTS = msgspec.json.Decoder(tuple[Part, ...])
_WORDS = msgspec.json.Decoder(tuple[str, ...])
_GAPS: dict[str, Gap] = {gap: gap for gap in get_args(Gap)}
_SCOPES: dict[str, Scope] = {scope: scope for scope in get_args(Scope)}
_KINDS: dict[str, PartKind] = {kind: kind for kind in get_args(PartKind)}


def _typed(decoder: msgspec.json.Decoder[T], cell: str, expected: str) -> T:
    try:
        return decoder.decode(cell)
    except (*DECODER_ERRORS, UnicodeEncodeError) as error:
        raise Unreadable(f"{expected} ({error})") from None


def _each(cell: str, read: Callable[[Sequence[str]], T], expected: str) -> tuple[T, ...]:
    """What the words of a cell say."""
    try:
        return tuple(read(word.split(":")) for word in cell.split())
    except (ValueError, KeyError, IndexError):
        raise Unreadable(expected) from None


def _read_edge(word: Sequence[str]) -> Edge:
    call, gap, wait_s = (*word, *("none", "0")[len(word) - 1 :])
    return Edge(call, float(wait_s), _GAPS[gap])


def _read_span(word: Sequence[str]) -> Span:
    name, tokens, scope = (*word, "session") if len(word) == 2 else word
    return Span(name, int(tokens), _SCOPES[scope])


def _read_part(word: Sequence[str]) -> Part:
    kind, tokens, name, seconds = (*word, *("", "")[len(word) - 2 :])
    return Part(_KINDS[kind], int(tokens), name or None, float(seconds) if seconds else None)


def _counts(values: Iterable[int]) -> None:
    if not all(0 <= value <= LARGEST_COUNT for value in values):
        raise Unreadable(f"counts of 0 to {LARGEST_COUNT}")
