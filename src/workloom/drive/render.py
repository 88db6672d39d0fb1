"""From prompts to the bytes of a request: fragments that are made once and never copied.

Every piece of a prompt's key is one fragment: the glue before it (an open message goes on with a space, or ends and a
new one begins) and its words, ready to stand in a JSON string. A prompt that continues another appends its own
fragments to the same list and remembers how many are its own, so a call costs its fresh text and a list of pointers:

    fragments   {"role":"system","content":"a b | "},{"role":"user","content":"c d | "},{"role":"assistant",... | ...
    turn 1      <------------------- count = 2 ------------------------------------->
    turn 2      <------------------- count = 4: turn 1, its answer, the next message ------------------------------->

The words of all messages, in order, are exactly the prompt's tokens, unless they are corrected by what the server
counts. Then a prompt's own fresh parts, the last first, are made shorter or longer by as much as its base was counted
too long or too short and as its new messages are known to cost; what it inherits, and what instances share, stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from workloom.drive.correction import Correction, believed
from workloom.drive.frame import Frame, Role, TextFrame
from workloom.drive.styles import Recorded, Style
from workloom.drive.text import CODE
from workloom.drive.trail import Rendered, Trail, kept
from workloom.errors import UsageError
from workloom.prompt import TRACE_TEXTS, Piece, Prompt

__all__ = ["Rendered", "Renderer"]


class Renderer:
    """Renders the prompts of one run for one API.

    `correct`: meet the planned count by the server's. `tools`: definitions at the head of a prompt become the tools
    array, and what tools say messages of their own; otherwise they are the system's and the user's.
    """

    def __init__(self, style: Style, frame: Frame, *, correct: bool = False, tools: bool = False) -> None:
        if style.join != frame.words:
            raise UsageError(
                "this style of text and this API do not go together",
                where="--text",
                hint="token ids are for the completions endpoint with prompts of ids, all other styles are for texts",
            )
        self._style = style
        self._frame = frame
        self._tools = tools
        self._said = isinstance(style, Recorded)
        self._plain = isinstance(frame, TextFrame)
        self._ids = frame.words != b" "
        """Nobody knows the ids of a text: answers are ids of our own too."""
        self.correction = Correction(self, self._said) if correct else None
        self._glues: dict[tuple[Role | None, Role], bytes] = {}
        """Those that are the same at any place."""

    def render(self, prompt: Prompt) -> Rendered:
        """The prompt's fragments; kept on the prompt for those that continue it."""
        if prompt.base is None and prompt.rendered is None:
            first = prompt.rendered = self._render(prompt)
            return first
        line = []
        rendered = kept(prompt, self)
        while rendered is None:
            line.append(prompt)
            if prompt.base is None:
                break
            prompt = prompt.base
            rendered = kept(prompt, self)
        for each in reversed(line):
            made = self._render(each)
            others = each.rendered
            made.other = others if isinstance(others, Rendered) else None
            rendered = each.rendered = made
        assert rendered is not None
        return rendered

    def counted(self, prompt: Prompt, tokens: int) -> None:
        """The server counted a prompt that was rendered as so many tokens."""
        prompt.counted_tokens = tokens
        rendered = kept(prompt, self)
        if self.correction is not None and rendered is not None:
            self.correction.learn(rendered, believed(prompt, rendered))

    def _render(self, prompt: Prompt) -> Rendered:
        trail, size, tokens, words = self._begin(prompt)
        pieces: Sequence[Piece] = prompt.pieces
        for piece in pieces:
            if piece.tokens <= 0:
                pieces = [piece for piece in pieces if piece.tokens > 0]
                break
        before = last = trail.last_role
        roles: list[Role] = []
        for piece in pieces:
            last = self._role(piece, last)
            roles.append(last)
        turn = None
        if self.correction is not None:
            turn = self.correction.turn(prompt, trail, tokens, words, pieces, roles)
        wanted = turn.tokens if turn is not None else [piece.tokens for piece in pieces]
        private_at, at = self._private_at(prompt), prompt.base_tokens
        for piece, role, count in zip(pieces, roles, wanted, strict=True):
            if piece.source is None and piece.said is None:
                text, own = self._style.text(piece.text, count), count
            else:
                text, own = self._text(piece, count, private_at is not None)
            if private_at is None and piece.text < TRACE_TEXTS:
                private_at = at
            at += piece.tokens
            fragment = (self._glues.get((before, role)) or self._glue(trail, role)) + text
            trail.add(fragment, role, count, own)
            size += len(fragment)
            tokens += count
            words += own
            before = role
        count = len(trail.fragments)
        if turn is None:
            return Rendered(self, trail, count, size, tokens, words, float(tokens), private_at=private_at)
        expected, origin, kind = turn.expected, turn.origin, turn.kind
        return Rendered(self, trail, count, size, tokens, words, expected, origin, kind, private_at=private_at)

    # -- what a prompt inherits

    def _private_at(self, prompt: Prompt) -> int | None:
        """Where the inherited part has words of this session alone. The text of an answer, live or recorded, may be
        that of another session too; our own words that stand for one are not."""
        base = prompt.base
        before = None if base is None else kept(base, self)
        if base is None or before is None:
            return None
        if before.private_at is not None and before.private_at < prompt.base_tokens:
            return before.private_at
        said = base.answer_text is not None and not base.answer_text.isspace() and base.answer_text != ""
        return None if said or prompt.base_tokens <= base.tokens else base.tokens

    def _begin(self, prompt: Prompt) -> tuple[Trail, int, int, int]:
        """A trail that ends where the inherited part does, its bytes, its tokens and our words among them."""
        base = prompt.base
        if base is None or prompt.base_tokens <= 0:
            return Trail(), 0, 0, 0
        before = kept(base, self)
        assert before is not None
        over = prompt.base_tokens - base.tokens
        if over < 0:
            return self._cut(base, before, prompt.base_tokens)
        trail = before.trail
        if len(trail.fragments) > before.count:  # another prompt went on from the same place
            trail = Trail(trail, before.count)
        if over == 0:
            return trail, before.size, before.tokens, before.words
        text, tokens, words = self._answer(base, over)
        size = before.size + self._append(trail, "assistant", text, tokens, words)
        return trail, size, before.tokens + tokens, before.words + words

    def _cut(self, base: Prompt, whole: Rendered, tokens: int) -> tuple[Trail, int, int, int]:
        """The first `tokens` tokens of a prompt, by the plan."""
        ends, trail = base.key.ends, whole.trail
        last = bisect_left(ends, tokens)
        even = ends[last] == tokens
        count = last + 1 if even else last
        cut = Trail(trail, count)
        size = sum(map(len, cut.fragments))
        if not even:
            before = ends[last - 1] if last else 0
            role, wanted = trail.roles[last], tokens - before
            sent, own = trail.tokens[last], trail.words[last]
            if own == sent:
                wanted = own = min(wanted, sent)
                text = self._style.text(base.key.ids[last], wanted)
            else:
                glue = self._glue(cut, role)
                said = msgspec.json.decode(b'"' + trail.fragments[last][len(glue) :] + b'"').split()
                own = round(own * wanted / (ends[last] - before))
                text = _json(_share(said, wanted, ends[last] - before))
            size += self._append(cut, role, text, wanted, own)
        return cut, size, sum(cut.tokens), sum(cut.words)

    # -- texts

    def _answer(self, base: Prompt, tokens: int) -> tuple[bytes, int, int]:
        """The first `tokens` tokens of the answer to a prompt, how many they are, and our words among them.

        Words of our own where its text is not known.
        """
        text = base.answer_text
        if self._ids or not text or text.isspace():
            return self._style.text(base.kept_number, tokens), tokens, tokens
        worth = base.kept_tokens or tokens
        if tokens < worth:
            text = _share(text.split(), tokens, worth)
        return _json(text.strip() if self._plain else text), min(tokens, worth), 0

    def _text(self, piece: Piece, tokens: int, private: bool) -> tuple[bytes, int]:
        """A piece in so many tokens, and how many of them are words of our own.

        What an answer or the trace says comes first, words of our own fill it up. Where nothing `private` stands
        before it, it opens with its code: else the same words in another instance would be found in a cache.
        """
        source, said = piece.source, piece.said if self._said else None
        if source is not None and source.answer_text and not source.answer_text.isspace():
            said, worth = source.answer_text, source.kept_tokens or tokens
        else:
            worth = piece.tokens
        if not said or self._ids or said.isspace():
            return self._style.text(piece.text, tokens), tokens
        opening = 0 if private else CODE if tokens > 2 * CODE else 1
        repeated = min(worth, tokens - opening)
        if repeated < worth:
            said = _share(said.split(), repeated, worth) if repeated > 0 else ""
        own = self._style.text(piece.text, tokens - repeated).split(b" ")
        ours = [b" ".join(own[:opening]), _json(said.strip()), b" ".join(own[opening:])]
        return b" ".join(text for text in ours if text), tokens - repeated

    def _role(self, piece: Piece, last: Role | None) -> Role:
        """Whose message a piece belongs to: scaffolds open the prompt as the system's, answers are the assistant's."""
        kind = piece.kind
        if kind == "answer":
            return "assistant"
        if kind == "tool" and self._tools:
            return "tool"
        if kind == "definition" and self._tools and last in (None, "definition"):
            return "definition"
        if kind in ("span", "definition") and last in (None, "definition", "system"):
            return "system"
        return "user"

    def _append(self, trail: Trail, role: Role, text: bytes, tokens: int, words: int) -> int:
        """Add a fragment; return its bytes."""
        fragment = self._glue(trail, role) + text
        trail.add(fragment, role, tokens, words)
        return len(fragment)

    def _glue(self, trail: Trail, role: Role) -> bytes:
        """What stands between the end of a trail and a fragment of that role."""
        before = trail.last_role
        glue = self._frame.glue(before, role, len(trail.roles))
        if role not in ("definition", "tool"):
            self._glues[before, role] = glue
        return glue


def _share(words: list[str], wanted: int, of: int) -> str:
    """The beginning of a text of `of` tokens that is worth `wanted` of them, by its words: one at least."""
    return " ".join(words[: max(1, round(len(words) * wanted / of))])


def _json(text: str) -> bytes:
    """As the inside of a JSON string."""
    try:
        return msgspec.json.encode(text)[1:-1]
    except UnicodeEncodeError:  # half of a surrogate pair
        return msgspec.json.encode(text.encode("utf-8", "replace").decode())[1:-1]
