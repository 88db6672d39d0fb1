"""From a session to the prompts of one instance of it: which texts, how much of each, inherited from where.

Every text of an instance has a number: ``(instance + 1) << 24 | ordinal`` for fresh parts, answers and
session-scope spans, one above ``TRACE_TEXTS`` for a trace-scope span. Equal numbers are equal text, in the
simulator's cache and on the wire; nothing else is shared. Which numbers an instance uses is its isolation.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from workloom import seeds
from workloom.errors import UsageError
from workloom.prefix import Cursor, Key, PrefixTree, common
from workloom.session import Call, PartKind, Session, Span

ORDINAL_BITS = 24
TRACE_TEXTS = 1 << 62
"""Text numbers at or above this are shared by instances."""


_DROPPED = 1 << 61
"""Tells the text of an answer without its reasoning from the answer as it was generated."""
_ORDINALS = (1 << ORDINAL_BITS) - 1
_SESSION_TEXTS = 1 << 64
"""Above TRACE_TEXTS and below this are trace-scope spans, above it the texts of a session whatever its instance."""
_EMPTY = Key()


Isolation = Literal["after", "before", "none", "play"]
"""What an instance of a session shares with others, besides what its calls share among themselves:

after    its trace-scope spans; all else is its own
before   nothing: its trace-scope spans are its own too
none     everything with other instances of its session, trace-scope spans with all
play     its scaffold with other instances of its session, and nothing with other sessions (AgentX v1)
"""


class Piece(NamedTuple):
    """The first `tokens` tokens of a text, and what kind of text it is.

    A part of kind definition that is named system is of kind span, and a span whose name begins with tool is a
    definition. `source`: the prompt whose answer it repeats. `said`: what the trace says it said.
    """

    text: int
    tokens: int
    kind: PartKind | Literal["span"]
    source: Prompt | None = None
    said: str | None = None


class Prompt:
    """One call's prompt, the place for its answer, and a slot where a backend may keep how it rendered it.

    `base` is the ancestor's prompt it continues (None for none): its first `base_tokens` tokens, counted through the
    ancestor's answer. `pieces` follow. The driver sets `answer_text` from the backend's
    outcome (or from the trace; None: words of our own stand for it) and `answer_tokens` likewise (None until it came);
    `answer_text_tokens` says how many of those the text is worth, where an agent drops the others (its reasoning) from
    its history: prompts that go on from here hold those alone. A backend sets `counted_tokens` to what the server
    counted the prompt as.
    """

    __slots__ = (
        "_key",
        "answer_number",
        "answer_text",
        "answer_text_tokens",
        "answer_tokens",
        "base",
        "base_tokens",
        "counted_tokens",
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
        kept = lead = 0
        if base is not None:
            kept = max(0, min(base_tokens, base.tokens))
            lead = min(base.lead_tokens, kept)
            if base_tokens > kept:
                tail.insert(0, (base.kept_number, base_tokens - kept))
        self.tail = tail
        """What is new behind the base's prompt, as (text, tokens): the rest of the base's answer, then the pieces."""
        self.lead_pieces = 0
        if lead == kept:
            for text, tokens in tail:
                if text < TRACE_TEXTS:
                    break
                self.lead_pieces += 1
                lead += tokens
        self.lead_tokens: int = lead
        """Of the trace-scope spans that it begins with, its lead: all that another session can share."""
        for _, tokens in tail:
            kept += tokens
        self.tokens: int = kept
        self._key: Key | None = None
        self.answer_number: int = answer_number
        self.answer_tokens: int | None = None
        self.answer_text: str | None = None
        self.answer_text_tokens: int | None = None
        self.counted_tokens: int | None = None
        self.rendered: object = None

    @property
    def key(self) -> Key:
        """The whole sequence: made when it is first asked for, which on the wire is hardly ever."""
        if self._key is None:
            line = [self]
            while (base := line[-1].base) is not None and base._key is None:
                line.append(base)
            for prompt in reversed(line):
                before = _EMPTY if prompt.base is None or prompt.base._key is None else prompt.base._key
                prompt._key = before.cut(prompt.base_tokens).then(prompt.tail)
        assert self._key is not None
        return self._key

    @property
    def kept_number(self) -> int:
        """The text that a history holds of the answer: another than the one generated when its reasoning is dropped."""
        return self.answer_number if self.answer_text_tokens is None else self.answer_number ^ _DROPPED

    @property
    def kept_tokens(self) -> int:
        """How much of the answer a history holds."""
        return (self.answer_tokens if self.answer_text_tokens is None else self.answer_text_tokens) or 0

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

    def add_whole(self, prompt: Prompt, tokens: int) -> int:
        """Add the first `tokens` of a prompt whose base was not added; return how many were there before."""
        if not tokens:
            return 0
        key, pieces, begin = prompt.key, [], 0
        for text, end in zip(key.ids, key.ends, strict=True):
            pieces.append((text, min(end, tokens) - begin))
            begin = end
            if end >= tokens:
                break
        self._ends[prompt], held = self._start.then(pieces)
        return held

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
    """The prompts of one instance of a session, made as its calls become due.

    `share_scaffold` makes one text for all sessions of what their prompts begin with: session-scope spans and
    definitions before any other part. Two sessions share the shorter length, agent kind by agent kind; what the calls
    of one session share stays as it is.
    """

    def __init__(
        self, session: Session, instance: int, isolation: Isolation = "after", share_scaffold: bool = False
    ) -> None:
        if share_scaffold and isolation == "before":
            raise UsageError("a scaffold cannot be shared by all and be every session's own", where="--isolation")
        common = _session_space(session) if isolation in ("none", "play") else 0
        self._space = common if isolation == "none" else (instance + 1) << ORDINAL_BITS
        self._isolation = isolation
        self._next = 0
        self._spans: dict[tuple[str, str], int] = {}
        self._parts: dict[str, int] = {}
        for call in session.calls:
            self._parts[call.id] = self._next
            self._next += len(call.fresh) + 1
        found = scaffolds(session) if isolation == "play" or share_scaffold else {}
        shared: set[tuple[str, str]] = set()
        if isolation == "play":
            shared = {(s.scope, s.name) for call in session.calls if found[call.id].pieces for s in call.spans}
        for call in session.calls:  # after the parts, and in the session's order: numbers do not depend on timing
            for span in call.spans:
                name = (span.scope, span.name)
                if name not in self._spans:
                    space = common if name in shared else self._space
                    self._spans[name] = self._number(span, space)
        self._plays = common if isolation == "play" else self._space
        self._scaffolds = found
        self._merged: dict[str, tuple[tuple[int, int], ...]] = {}
        if share_scaffold:
            self._merge(session)
        self.made: dict[str, Prompt] = {}

    def _number(self, span: Span, space: int) -> int:
        if span.scope == "trace" and self._isolation in ("after", "none"):
            return trace_text(span.name)
        self._next += 1
        return space | (self._next - 1)

    def make(self, call: Call) -> Prompt:
        """The prompt of a call whose ancestors are answered."""
        base, base_tokens, whole = None, 0, False
        if call.inherit is not None:
            base = self.made[call.inherit.call]
            available = base.tokens + base.kept_tokens
            whole = call.inherit.tokens is None
            base_tokens = available if call.inherit.tokens is None else min(call.inherit.tokens, available)
        number = self._space | (self._parts[call.id] + len(call.fresh))
        prompt = Prompt(base, base_tokens, whole, tuple(self._pieces(call)), number)
        self.made[call.id] = prompt
        return prompt

    def _pieces(self, call: Call) -> list[Piece]:
        """What a call's prompt has behind what it inherits."""
        pieces = []
        for span in call.spans:
            kind: PartKind | Literal["span"] = "definition" if span.name.startswith("tool") else "span"
            pieces.append(Piece(self._spans[span.scope, span.name], span.tokens, kind))
        scaffold = self._scaffolds[call.id].pieces if self._scaffolds else 0
        number = self._space | self._parts[call.id]
        for part in call.fresh:
            kind, source = part.kind, None
            if kind == "definition" and part.name == "system":
                kind = "span"
            elif part.from_call is not None and kind in ("answer", "report"):
                source = self.made.get(part.from_call)
            own = number if len(pieces) >= scaffold else number & _ORDINALS | self._plays
            pieces.append(Piece(own, part.tokens, kind, source, part.text))
            number += 1
        merged = self._merged.get(call.id)
        if merged is not None:
            kind = pieces[0].kind
            pieces[:scaffold] = [Piece(text, tokens, kind) for text, tokens in merged]
        return pieces

    def _merge(self, session: Session) -> None:
        """One text for what each kind of agent begins with: the first to go a way owns it, as far as it goes.

        r0 [system, 20][tools, 330] -> [main, 350]       a subagent  [system, 20][tools of its own, 60]
                                                                  -> [main, 20][Explore, 60]
        """
        known: list[tuple[Key, Key]] = []
        by_id: dict[str, tuple[Key, Key]] = {}
        names: dict[str, int] = {}
        for call in session.calls:
            told, kept = _EMPTY, _EMPTY
            if call.inherit is not None:
                of, begins = by_id[call.inherit.call]
                tokens = self._scaffolds[call.id].tokens if call.inherit.tokens is None else call.inherit.tokens
                told, kept = of.cut(tokens), begins.cut(tokens)
            count = self._scaffolds[call.id].pieces
            if count:
                own = [(piece.text, piece.tokens) for piece in self._pieces(call)[:count]]
                told, kept, self._merged[call.id] = _merged(told, kept, own, known, call.agent, names)
                known.append((told, kept))
            by_id[call.id] = told, kept


class Scaffold(NamedTuple):
    """Of one call: how many tokens its prompt begins with are scaffold, and how many of its own pieces those end in."""

    tokens: int
    pieces: int


def scaffolds(session: Session) -> dict[str, Scaffold]:
    """The scaffold of every call: spans and definitions with nothing else before them, inherited or its own."""
    found: dict[str, Scaffold] = {}
    for call in session.calls:
        tokens = 0
        if call.inherit is not None:
            tokens, inherited = found[call.inherit.call].tokens, call.inherit.tokens
            if inherited is None or inherited > tokens:
                found[call.id] = Scaffold(tokens, 0)
                continue
            tokens = inherited
        pieces = len(call.spans)
        tokens += call.span_tokens
        for part in call.fresh:
            if part.kind != "definition":
                break
            pieces += 1
            tokens += part.tokens
        found[call.id] = Scaffold(tokens, pieces)
    return found


def _merged(
    told: Key, kept: Key, own: list[tuple[int, int]], known: list[tuple[Key, Key]], agent: str, names: dict[str, int]
) -> tuple[Key, Key, tuple[tuple[int, int], ...]]:
    """A scaffold `told` by its session, goes on from what is `kept` of it: both whole, and the pieces that are new."""
    begin, whole = kept, told.then(own)
    for other, other_kept in known:
        shared = common(whole, other)
        if shared > kept.tokens:
            longer = other_kept.cut(shared)
            if longer.ids[: len(begin.ids)] == begin.ids and longer.ends[: len(begin.ends)] == begin.ends:
                kept = longer
    if kept.tokens in (0, *whole.ends):
        for text, tokens in whole.pieces(kept.tokens):
            if not TRACE_TEXTS <= text < _SESSION_TEXTS:
                break
            kept = kept.plus(text, tokens)  # shared by all as it is
    rest = whole.tokens - kept.tokens
    if rest > 0:
        label = agent.partition(":")[0]
        names[label] = nth = names.get(label, 0) + 1
        kept = kept.plus(TRACE_TEXTS | seeds.number(0, "scaffold", label, nth) >> 3, rest)
    return whole, kept, tuple(kept.pieces(begin.tokens))


def _session_space(session: Session) -> int:
    """Text numbers that belong to a session, whatever the instance."""
    return (_SESSION_TEXTS | seeds.number(0, "session", session.id)) << ORDINAL_BITS


def trace_text(name: str) -> int:
    """The number of the trace-scope text called `name`."""
    return TRACE_TEXTS | seeds.number(0, "span", name) >> 3


def planned(
    session: Session, instance: int = 0, isolation: Isolation = "after", share_scaffold: bool = False
) -> list[tuple[Call, Prompt]]:
    """Every call of a session with its prompt, as if each answer came exactly as planned."""
    prompts = Prompts(session, instance, isolation, share_scaffold)
    out = []
    for call in session.calls:
        prompt = prompts.make(call)
        prompt.answer_tokens = call.answer_tokens
        out.append((call, prompt))
    return out
