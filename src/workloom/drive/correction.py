"""Prompts that are met by the server's own counts, turn by turn.

A chat template puts tokens around every message, an answer is tokenised anew when it comes back, and a server whose
tokenizer splits our words counts more than one for each. What a turn costs beyond its words is learned while a run goes
on, by what it adds: the roles of its new messages, first prompts apart. It is a running median, so one odd turn does
not move it. With that and with what the server counted the base as, a prompt's own fresh parts are made shorter or
longer so that the server will count what was planned:

    expected = counted(base) + cost(turn) + (1 + rate) * words          and words change until expected = planned
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from workloom.drive.frame import Role
from workloom.drive.trail import Rendered, Trail, kept
from workloom.prompt import TRACE_TEXTS, Piece, Prompt

WINDOW = 64
"""Turns that are remembered of each kind."""
LEAST_RATE = 0.05
"""Extra tokens a word below which words are taken as one token each; no word of ours is less."""
LEAST_SPREAD = 4.0
"""Tokens that must lie between turns by their words alone (standard deviation): less may be chance."""
MOST_RATE = 7.0
"""Our longest words have 10 letters, or 12."""

Kind = tuple[str, ...]
"""The roles of the messages that a turn begins, with `first` in front for a prompt that continues none."""


class _Seen:
    """The last turns of one kind: (words, extra tokens) each, with their sums, in whole numbers: exact as they go."""

    __slots__ = ("extra", "extra_extra", "median", "turns", "words", "words_extra", "words_words")

    def __init__(self) -> None:
        self.turns: deque[tuple[int, int]] = deque()
        self.words = self.extra = self.words_words = self.extra_extra = self.words_extra = 0
        self.median = 0.0

    def add(self, words: int, extra: int) -> None:
        gone_words, gone_extra = self.turns.popleft() if len(self.turns) == WINDOW else (0, 0)
        self.turns.append((words, extra))
        self.words += words - gone_words
        self.extra += extra - gone_extra
        self.words_words += words * words - gone_words * gone_words
        self.extra_extra += extra * extra - gone_extra * gone_extra
        self.words_extra += words * extra - gone_words * gone_extra


class Costs:
    """The costs of one run against one API."""

    def __init__(self) -> None:
        self._seen: dict[Kind, _Seen] = {}
        self._rate = 0.0
        self._next = 1

    @property
    def rate(self) -> float:
        """Tokens that a word of ours counts beyond one."""
        return self._rate

    def learn(self, kind: Kind, words: int, extra: int) -> None:
        """A turn of that kind, with so many words of ours, was counted as so many tokens more than we did."""
        seen = self._seen.get(kind)
        if seen is None:
            seen = self._seen[kind] = _Seen()
            self._next = 1
        seen.add(words, extra)
        self._next -= 1
        if self._next <= 0:  # every time at first, then every so often: a look at all medians costs some 10 us
            self._rate = rate = _rate(self._seen.values())
            for each in self._seen.values():
                each.median = _median([e - rate * w for w, e in each.turns])
            self._next = len(seen.turns) // 4

    def expect(self, kind: Kind) -> float:
        """Tokens that a turn of that kind adds beyond its words at `rate`; by other kinds where it is new."""
        known = self._seen.get(kind)
        if known is not None:
            return known.median
        first = kind[:1] == ("first",)
        alike = [seen.median / len(k) for k, seen in self._seen.items() if k and (k[:1] == ("first",)) is first]
        return _median(alike) * len(kind) if alike else 0.0


def _rate(kinds: Iterable[_Seen]) -> float:
    """The slope of extra tokens over words within kinds, 0 unless it says most of what there is to say."""
    turns_seen = 0
    words = extra = both = 0.0
    for seen in kinds:
        count = len(seen.turns)
        turns_seen += count
        words += (count * seen.words_words - seen.words * seen.words) / count
        extra += (count * seen.extra_extra - seen.extra * seen.extra) / count
        both += (count * seen.words_extra - seen.words * seen.extra) / count
    if not words or not extra:
        return 0.0
    slope, said = both / words, both * both / words
    clear = said > 0.75 * extra and said > LEAST_SPREAD**2 * turns_seen
    return min(slope, MOST_RATE) if slope > LEAST_RATE and clear else 0.0


def _median(values: list[float]) -> float:
    """The middle one, the mean of two."""
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


class Turn(Struct, eq=False, gc=False):
    """What a prompt adds to another, and in how many tokens each of its pieces is to be said."""

    origin: Prompt | None
    """The latest prompt that it holds as a whole and goes on from."""
    kind: Kind
    expected: float
    """What the server will count all of the prompt as."""
    tokens: list[int]


class Correction:
    """The lengths of one renderer's prompts. `recorded`: pieces that the trace tells the text of stay as they are."""

    def __init__(self, by: object, recorded: bool) -> None:
        self._by = by
        self._recorded = recorded
        self.costs = Costs()

    def turn(
        self, prompt: Prompt, trail: Trail, tokens: int, words: int, pieces: Sequence[Piece], roles: list[Role]
    ) -> Turn:
        """How long the pieces of a prompt are to be. `trail`, `tokens` and `words` are what it inherits."""
        origin, limit = prompt.base, prompt.base_tokens
        while origin is not None and origin.tokens > limit:
            limit = min(limit, origin.base_tokens)
            origin = origin.base
        before = None if origin is None else kept(origin, self._by)
        kind = _begun(before, trail, roles)
        if origin is not None and before is not None:
            counted = believed(origin, before)
            self.learn(before, counted)
            tokens, words = tokens - before.tokens, words - before.words
            expected = before.expected if counted is None else float(counted)
        else:
            expected = 0.0
        rate = self.costs.rate
        planned = [piece.tokens for piece in pieces]
        expected += self.costs.expect(kind) + tokens + rate * words + (1 + rate) * sum(planned)
        by = round((prompt.tokens - expected) / (1 + rate))
        if not by:
            return Turn(origin, kind, expected, planned)
        changed = self._change(pieces, planned, by)
        return Turn(origin, kind, expected + (1 + rate) * (sum(changed) - sum(planned)), changed)

    def learn(self, rendered: Rendered, counted: int | None) -> None:
        """What the turn of a prompt cost beyond its words, once the server has counted it."""
        if rendered.learned or counted is None:
            return
        rendered.learned = True
        words, extra = rendered.words, counted - rendered.tokens
        origin = rendered.origin
        if origin is not None:
            before = kept(origin, self._by)
            counted_before = None if before is None else believed(origin, before)
            if before is None or counted_before is None:
                return
            words, extra = words - before.words, extra - (counted_before - before.tokens)
        self.costs.learn(rendered.kind, words, extra)

    def _change(self, pieces: Sequence[Piece], planned: Sequence[int], by: int) -> list[int]:
        """So many tokens more or fewer in all, the last piece first; none is lost.

        Scaffolds stay, and so does every text that another instance may have sent.
        """
        out = list(planned)
        for i in range(len(pieces) - 1, -1, -1):
            if not by:
                break
            piece = pieces[i]
            if piece.text >= TRACE_TEXTS or piece.kind in ("span", "definition") or (self._recorded and piece.said):
                continue
            change = max(by, 1 - out[i])
            out[i] += change
            by -= change
        return out


def _begun(before: Rendered | None, trail: Trail, roles: list[Role]) -> Kind:
    """The roles of the messages that a trail and further pieces begin behind what was there before."""
    if before is None and not trail.roles and len(roles) == 1:
        return "first", roles[0]
    begun: list[str] = ["first"] if before is None else []
    last = None if before is None else before.last_role
    for role in (*trail.roles[0 if before is None else before.count :], *roles):
        if role != last or role == "definition":  # each definition is a tool of its own
            begun.append(role)
        last = role
    return tuple(begun)


def believed(prompt: Prompt, rendered: Rendered) -> int | None:
    """What the server counted; None where it did not, or counted something else (what was not cached, say)."""
    counted = prompt.counted_tokens
    if counted is None or not rendered.tokens / 2 <= counted <= 8 * rendered.tokens + 4096:
        return None
    return counted
