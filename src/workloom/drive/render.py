"""From prompts to the bytes of a request: fragments that are made once and never copied.

Every piece of a prompt's key is one fragment: the glue before it (an open message goes on with a space, or ends and a
new one begins) and its words, ready to stand in a JSON string. A prompt that continues another appends its own
fragments to the same list and remembers how many are its own, so a call costs its fresh text and a list of pointers:

    fragments   {"role":"system","content":"a b | "},{"role":"user","content":"c d | "},{"role":"assistant",... | ...
    turn 1      <------------------- count = 2 ------------------------------------->
    turn 2      <------------------- count = 4: turn 1, its answer, the next message ------------------------------->

The words of all messages, in order, are exactly the prompt's tokens.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from workloom.drive.text import Texts
from workloom.prompt import Piece, Prompt

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


class Trail:
    """The fragments of a line of prompts, oldest first, and the role each belongs to."""

    __slots__ = ("fragments", "roles")

    def __init__(self, fragments: list[bytes], roles: list[str]) -> None:
        self.fragments = fragments
        self.roles = roles


class Rendered:
    """One prompt: the first `count` fragments of a trail, `size` bytes in all."""

    __slots__ = ("chat", "count", "size", "trail")

    def __init__(self, trail: Trail, count: int, size: int, chat: bool) -> None:
        self.trail = trail
        self.count = count
        self.size = size
        self.chat = chat

    @property
    def fragments(self) -> list[bytes]:
        return self.trail.fragments[: self.count]


class Renderer:
    """Renders the prompts of one run, as chat messages or as one text."""

    def __init__(self, texts: Texts, chat: bool) -> None:
        self._texts = texts
        self._chat = chat
        self._glues = {
            role: b'"},{"role":"%s","content":"' % role.encode() if chat else b" " for role in (SYSTEM, USER, ASSISTANT)
        }

    def render(self, prompt: Prompt) -> Rendered:
        """The prompt's fragments; kept on the prompt for those that continue it."""
        line = []
        while not self._done(prompt):
            line.append(prompt)
            if prompt.base is None:
                break
            prompt = prompt.base
        rendered = prompt.rendered
        for each in reversed(line):
            rendered = each.rendered = self._render(each)
        assert isinstance(rendered, Rendered)
        return rendered

    def _done(self, prompt: Prompt) -> bool:
        kept = prompt.rendered
        return isinstance(kept, Rendered) and kept.chat is self._chat

    def _render(self, prompt: Prompt) -> Rendered:
        trail, count, size = self._begin(prompt)
        if len(trail.fragments) > count:  # another prompt went on from the same place
            trail = Trail(trail.fragments[:count], trail.roles[:count])
        for piece in prompt.pieces:
            if piece.tokens > 0:
                size += self._append(trail, _role(piece, trail.roles), self._texts.text(piece.text, piece.tokens))
        assert len(trail.fragments) == len(prompt.key.ids)
        return Rendered(trail, len(trail.fragments), size, self._chat)

    def _begin(self, prompt: Prompt) -> tuple[Trail, int, int]:
        """What the prompt inherits: a trail, how many of its fragments, and their bytes."""
        base = prompt.base
        if base is None or prompt.base_tokens <= 0:
            return Trail([], []), 0, 0
        kept = base.rendered
        assert isinstance(kept, Rendered)
        over = prompt.base_tokens - base.tokens
        if over < 0:
            return self._cut(base, kept, prompt.base_tokens)
        if over == 0:
            return kept.trail, kept.count, kept.size
        trail = kept.trail
        if len(trail.fragments) > kept.count:
            trail = Trail(trail.fragments[: kept.count], trail.roles[: kept.count])
        size = kept.size + self._append(trail, ASSISTANT, self._answer(base, over))
        return trail, len(trail.fragments), size

    def _cut(self, base: Prompt, kept: Rendered, tokens: int) -> tuple[Trail, int, int]:
        """The first `tokens` tokens of a prompt."""
        ends, trail = base.key.ends, kept.trail
        last = bisect_left(ends, tokens)
        whole = ends[last] == tokens
        count = last + 1 if whole else last
        cut = Trail(trail.fragments[:count], trail.roles[:count])
        size = sum(map(len, cut.fragments))
        if not whole:
            before = ends[last - 1] if last else 0
            role, wanted = trail.roles[last], tokens - before
            if role == ASSISTANT:
                glue = self._glue(cut, role)
                words = msgspec.json.decode(b'"' + trail.fragments[last][len(glue) :] + b'"').split()
                text = _json(_share(words, wanted, ends[last] - before))
            else:
                text = self._texts.text(base.key.ids[last], wanted)
            size += self._append(cut, role, text)
        return cut, len(cut.fragments), size

    def _answer(self, base: Prompt, tokens: int) -> bytes:
        """The first `tokens` tokens of the answer to a prompt; words of our own where its text is not known."""
        text = base.answer_text
        if not text or text.isspace():
            return self._texts.text(base.answer_number, tokens)
        answered = base.answer_tokens or tokens
        if tokens < answered:
            text = _share(text.split(), tokens, answered)
        return _json(text if self._chat else text.strip())

    def _append(self, trail: Trail, role: str, text: bytes) -> int:
        """Add a fragment; return its bytes."""
        fragment = self._glue(trail, role) + text
        trail.fragments.append(fragment)
        trail.roles.append(role)
        return len(fragment)

    def _glue(self, trail: Trail, role: str) -> bytes:
        """What stands between the end of a trail and a fragment of that role."""
        if not trail.roles:
            return self._glues[role][3:] if self._chat else b""
        return b" " if trail.roles[-1] == role else self._glues[role]


def _role(piece: Piece, roles: list[str]) -> str:
    """Whose message a piece belongs to: scaffolds open the prompt as the system's, answers are the assistant's."""
    if piece.kind == "answer":
        return ASSISTANT
    if piece.kind in ("span", "definition") and (not roles or roles[-1] == SYSTEM):
        return SYSTEM
    return USER


def _share(words: list[str], wanted: int, of: int) -> str:
    """The beginning of a text of `of` tokens that is worth `wanted` of them, by its words."""
    return " ".join(words[: round(len(words) * wanted / of)])


def _json(text: str) -> bytes:
    """As the inside of a JSON string."""
    try:
        return msgspec.json.encode(text)[1:-1]
    except UnicodeEncodeError:  # half of a surrogate pair
        return msgspec.json.encode(text.encode("utf-8", "replace").decode())[1:-1]
