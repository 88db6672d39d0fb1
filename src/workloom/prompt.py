"""From a session to the prompts of one instance of it: which texts, how much of each, inherited from where.

Every text of an instance has a number: ``(instance + 1) << 24 | ordinal`` for fresh parts, answers and
session-scope spans, one above ``TRACE_TEXTS`` for a trace-scope span. Equal numbers are equal text, in the
simulator's cache and on the wire; nothing else is shared.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from workloom import seeds
from workloom.prefix import Cursor, Key, PrefixTree
from workloom.session import Call, PartKind, Session, Span

ORDINAL_BITS = 24
TRACE_TEXTS = 1 << 62
"""Text numbers at or above this belong to trace-scope spans."""


_EMPTY = Key()


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
        "lead_pieces",
        "lead_tokens",
        "pieces",
        "rendered",
        "tail",
        "tokens",
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
        tail = [(piece.text, piece.tokens) for piece in pieces if piece.tokens > 0]
        key, lead = _EMPTY, 0
        if base is not None:
            key = base.key.cut(base_tokens)
            lead = min(base.lead_tokens, key.tokens)
            if base_tokens > key.tokens:
                tail.insert(0, (base.answer_number, base_tokens - key.tokens))
        self.tail = tail
        """What is new behind the base's prompt, as (text, tokens): the rest of the base's answer, then the pieces."""
        self.lead_pieces = 0
        if lead == key.tokens:
            for text, tokens in tail:
                if text < TRACE_TEXTS:
                    break
                self.lead_pieces += 1
                lead += tokens
        self.lead_tokens: int = lead
        """Of the trace-scope spans that it begins with, its lead: all that another session can share."""
        self.key: Key = key.then(tail)
        self.tokens: int = self.key.tokens
        self.answer_number: int = answer_number
        self.answer_tokens: int | None = None
        self.answer_text: str | None = None
        self.rendered: object = None

    def key_with_answer(self) -> Key:
        """The sequence of the prompt and the answer that came."""
        return self.key.plus(self.answer_number, self.answer_tokens or 0)


class Cursors:
    """The prompts of one session in a prefix tree: each goes on from where its base ends, and so costs its own pieces.

    Bases come first, each added the same way.
    """

    def __init__(self, tree: PrefixTree) -> None:
        self._start = tree.start
        self._ends: dict[Prompt, Cursor] = {}

    def add(self, prompt: Prompt) -> int:
        """Add a prompt; return how many of its tokens were there before."""
        return self._add(prompt, prompt.base_tokens, prompt.tail)

    def add_lead(self, prompt: Prompt) -> int:
        """Add its lead alone; return how many of that one's tokens were there before."""
        if not prompt.lead_tokens:
            return 0
        return self._add(prompt, min(prompt.base_tokens, prompt.lead_tokens), prompt.tail[: prompt.lead_pieces])

    def add_answer(self, prompt: Prompt) -> None:
        """Add the answer that came to a prompt that was added."""
        if prompt.answer_tokens:
            self._ends[prompt].then([(prompt.answer_number, prompt.answer_tokens)])

    def _add(self, prompt: Prompt, kept_tokens: int, tail: list[tuple[int, int]]) -> int:
        base = self._start
        if kept_tokens and prompt.base is not None:
            base = self._ends[prompt.base].cut(kept_tokens)
        self._ends[prompt], held = base.then(tail)
        return held


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
