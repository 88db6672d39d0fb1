"""What a server's chat template makes of the prompts of a simulated run.

    planned                [system][user 1][answer 1][tool]
    answers rewritten      [head][system][user 1] [turn][answer 1 as rewritten][tool] [tail]
    answers repeated       [head][system][user 1] [tail][answer 1][rest of the turn][tool] [tail]

The head and the turns are text that all prompts share; the tail opens the answer. Where answers are rewritten a turn
stands in the next prompt where the tail stood in this one, so what two prompts of a chain share ends before the tail.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from workloom.engine.profile import Template
from workloom.prefix import Key
from workloom.prompt import Prompt

_HEAD, _TURN, _TAIL = -1, -2, -3
"""Numbers of the template's own texts."""
_NEVER_REPEATED = 1 << 61
"""Makes the number of an answer one that no prompt has."""


class _Served(NamedTuple):
    template: Template
    open: Key
    """The prompt as served, without the tail."""
    turns: tuple[int, ...]
    """Where, in tokens of the planned prompt, each turn stands."""


class ServedKeys:
    """Keys of prompts as a server with this template sees them."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._head = template.call_tokens - template.tail_tokens
        self._plain = not (template.call_tokens or template.turn_tokens)

    def of(self, prompt: Prompt, repeated: bool = True) -> tuple[Key, int]:
        """The prompt's key, and the number of its answer; `repeated` as in :class:`workloom.drive.backend.Request`."""
        answer = prompt.answer_number
        if not repeated or self._template.answers == "rewritten":
            answer |= _NEVER_REPEATED
        if self._plain:
            return prompt.key, answer
        return self._served(prompt).open.plus(_TAIL, self._template.tail_tokens), answer

    def _served(self, prompt: Prompt) -> _Served:
        line: list[Prompt] = []
        at: Prompt | None = prompt
        while at is not None and self._known(at) is None:
            line.append(at)
            at = at.base
        for each in reversed(line):
            each.rendered = self._make(each)
        served = self._known(prompt)
        assert served is not None
        return served

    def _known(self, prompt: Prompt) -> _Served | None:
        served = prompt.rendered
        return served if isinstance(served, _Served) and served.template is self._template else None

    def _make(self, prompt: Prompt) -> _Served:
        template = self._template
        if prompt.base is None or not prompt.base_tokens:
            return _Served(template, Key().plus(_HEAD, self._head).then(prompt.tail), ())
        base = self._known(prompt.base)
        assert base is not None
        kept = min(prompt.base_tokens, prompt.base.tokens)
        turns = base.turns[: bisect_left(base.turns, kept)]
        before = base.open.cut(self._head + self._beyond(len(turns)) + kept)
        turn = self._beyond(len(turns) + 1) - self._beyond(len(turns))
        tail = prompt.tail
        if template.answers == "repeated" and prompt.base_tokens > kept:
            opening = min(template.tail_tokens, turn)
            before, turn, tail = before.plus(_TAIL, opening).then(tail[:1]), turn - opening, tail[1:]
        return _Served(template, before.plus(_TURN, turn).then(tail), (*turns, kept))

    def _beyond(self, turns: int) -> int:
        """Tokens of so many turns."""
        return round(self._template.turn_tokens * turns)
