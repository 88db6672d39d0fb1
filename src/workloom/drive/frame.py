"""How the pieces of a prompt become one JSON body: what stands between them, by API.

A body is a head (model, options), then the prompt's fragments with the frame's glue between them, then what closes
the prompt, then the tail:

    head  glue(None, system) text  glue(system, user) text  glue(user, assistant) text ...  close(last)  tail

Glue depends on what stands before and on the number of the fragment alone, so the bytes of a call are a prefix of the
bytes of the next one.
"""

from __future__ import annotations

from typing import Literal, Protocol

Role = Literal["definition", "system", "user", "assistant", "tool"]
"""definition: the tools array, at the head of a prompt. tool: what a tool answered."""


class Frame(Protocol):
    """One API's way of writing a prompt."""

    words: bytes
    """Between two fragments of one message, and between the words of a text (a comma for token ids)."""

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        """What stands between a fragment of `before` (None at the start) and fragment number `at`, of `role`."""
        ...

    def close(self, last: Role | None) -> bytes:
        """What closes the prompt behind a fragment of `last`; None for a prompt without any."""
        ...


class ChatFrame:
    """OpenAI chat completions: ``"messages":[{"role":..., "content":"..."}]``."""

    words = b" "

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        if before == role:
            return b" "
        start = b'"messages":[' if before is None else b'"},'
        return start + b'{"role":"%s","content":"' % role.encode()

    def close(self, last: Role | None) -> bytes:
        return b'"}]' if last is not None else b'"messages":[{"role":"user","content":""}]'


class CompletionsFrame:
    """OpenAI completions: one text, ``"prompt":"..."``."""

    words = b" "

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        return b'"prompt":"' if before is None else b" "

    def close(self, last: Role | None) -> bytes:
        return b'"' if last is not None else b'"prompt":""'
