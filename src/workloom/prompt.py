"""From a session to the prompts of one instance of it: which texts, how much of each, inherited from where.

Every text of an instance has a number: ``(instance + 1) << 24 | ordinal`` for fresh parts, answers and
session-scope spans, one above ``TRACE_TEXTS`` for a trace-scope span. Equal numbers are equal text, in the
simulator's cache and on the wire; nothing else is shared.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from workloom import seeds
from workloom.prefix import Key
from workloom.session import Call, PartKind, Session, Span

ORDINAL_BITS = 24
TRACE_TEXTS = 1 << 62
"""Text numbers at or above this belong to trace-scope spans."""


class Piece(NamedTuple):
    """The first `tokens` tokens of a text, and what kind of text it is."""

    text: int
    tokens: int
    kind: PartKind | Literal["span"]


class Prompt:
    """One call's prompt, the place for its answer, and a slot where a backend may keep how it rendered it.

    `base` is the ancestor's prompt it continues (None for none): its first `base_tokens` tokens, counted through the
    ancestor's answer. `pieces` follow. `key` is the whole sequence. `answer_text` is set by the driver from the
    backend's outcome, `answer_tokens` likewise (None until it came).
    """

    __slots__ = (
        "answer_number",
        "answer_text",
        "answer_tokens",
        "base",
        "base_tokens",
        "key",
        "pieces",
        "rendered",
        "whole_base",
    )

    def __init__(
        self, base: Prompt | None, base_tokens: int, whole_base: bool, pieces: tuple[Piece, ...], answer_number: int
    ) -> None:
        self.base = base
        self.base_tokens = base_tokens
        self.whole_base = whole_base
        """True when all of the base and its answer is inherited, whatever its length."""
        self.pieces = pieces
        key = base.key_with_answer().cut(base_tokens) if base is not None else Key()
        ids, ends, total = list(key.ids), list(key.ends), key.tokens
        for piece in pieces:
            if piece.tokens > 0:
                total += piece.tokens
                ids.append(piece.text)
                ends.append(total)
        self.key = Key(tuple(ids), tuple(ends))
        self.answer_number = answer_number
        self.answer_tokens: int | None = None
        self.answer_text: str | None = None
        self.rendered: object = None

    @property
    def tokens(self) -> int:
        return self.key.tokens

    def key_with_answer(self) -> Key:
        """The sequence of the prompt and the answer that came."""
        return self.key.plus(self.answer_number, self.answer_tokens or 0)


class Prompts:
    """The prompts of one instance of a session, made as its calls become due."""

    def __init__(self, session: Session, instance: int) -> None:
        self._space = (instance + 1) << ORDINAL_BITS
        self._next = 0
        self._spans: dict[tuple[str, str], int] = {}
        self._parts: dict[str, int] = {}
        for call in session.calls:
            self._parts[call.id] = self._next
            self._next += len(call.fresh) + 1
        for call in session.calls:  # after the parts, and in the session's order: numbers do not depend on timing
            for span in call.spans:
                if (span.scope, span.name) not in self._spans:
                    self._spans[span.scope, span.name] = self._number(span)
        self.made: dict[str, Prompt] = {}

    def _number(self, span: Span) -> int:
        if span.scope == "trace":
            return trace_text(span.name)
        self._next += 1
        return self._space | (self._next - 1)

    def make(self, call: Call) -> Prompt:
        """The prompt of a call whose ancestors are answered."""
        pieces = [Piece(self._spans[span.scope, span.name], span.tokens, "span") for span in call.spans]
        ordinal = self._parts[call.id]
        pieces += [Piece(self._space | (ordinal + i), part.tokens, part.kind) for i, part in enumerate(call.fresh)]
        base, base_tokens, whole = None, 0, False
        if call.inherit is not None:
            base = self.made[call.inherit.call]
            available = base.tokens + (base.answer_tokens or 0)
            whole = call.inherit.tokens is None
            base_tokens = available if call.inherit.tokens is None else min(call.inherit.tokens, available)
        prompt = Prompt(base, base_tokens, whole, tuple(pieces), self._space | (ordinal + len(call.fresh)))
        self.made[call.id] = prompt
        return prompt


def trace_text(name: str) -> int:
    """The number of the trace-scope text called `name`."""
    return TRACE_TEXTS | seeds.number(0, "span", name) >> 3


def planned(session: Session, instance: int = 0) -> list[tuple[Call, Prompt]]:
    """Every call of a session with its prompt, as if each answer came exactly as planned."""
    prompts = Prompts(session, instance)
    out = []
    for call in session.calls:
        prompt = prompts.make(call)
        prompt.answer_tokens = call.answer_tokens
        out.append((call, prompt))
    return out
