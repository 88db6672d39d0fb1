"""A rendered prompt: fragments of bytes that a line of prompts shares."""

from __future__ import annotations

from msgspec import Struct

from workloom.drive.frame import Role
from workloom.prompt import Prompt


class Trail:
    """The fragments of a line of prompts, oldest first; of each its role, its tokens, and how many are our words."""

    __slots__ = ("fragments", "roles", "tokens", "words")

    def __init__(self, of: Trail | None = None, count: int = 0) -> None:
        self.fragments: list[bytes] = []
        self.roles: list[Role] = []
        self.tokens: list[int] = []
        self.words: list[int] = []
        if of is not None:
            self.fragments += of.fragments[:count]
            self.roles += of.roles[:count]
            self.tokens += of.tokens[:count]
            self.words += of.words[:count]

    @property
    def last_role(self) -> Role | None:
        """Whose message is still open; None for a trail of nothing."""
        return self.roles[-1] if self.roles else None

    def add(self, fragment: bytes, role: Role, tokens: int, words: int) -> None:
        self.fragments.append(fragment)
        self.roles.append(role)
        self.tokens.append(tokens)
        self.words.append(words)


class Rendered(Struct, eq=False):
    """One prompt: the first `count` fragments of a trail.

    `by` is the renderer. `size`: bytes in all. `tokens`: what was sent by our own count, a word of ours as one and
    answers as the server counted them. `words`: those that are words of ours.
    """

    by: object
    trail: Trail
    count: int
    size: int
    tokens: int
    words: int
    expected: float
    """What the server will count, by what is known of it."""
    origin: Prompt | None = None
    """The prompt that it holds as a whole and goes on from."""
    kind: tuple[str, ...] = ()
    """The roles of the messages it begins; see :mod:`workloom.drive.correction`."""
    other: Rendered | None = None
    """What another renderer made of the same prompt."""
    learned: bool = False
    private_at: int | None = None
    """Where, in tokens of the plan, words stand that no other session has; None: nowhere yet."""

    @property
    def fragments(self) -> list[bytes]:
        return self.trail.fragments[: self.count]

    @property
    def last_role(self) -> Role | None:
        """Whose message is still open; None for a prompt of nothing."""
        return self.trail.roles[self.count - 1] if self.count else None


def kept(prompt: Prompt, by: object) -> Rendered | None:
    """What a renderer made of a prompt, None where it has not yet."""
    rendered = prompt.rendered
    while isinstance(rendered, Rendered):
        if rendered.by is by:
            return rendered
        rendered = rendered.other
    return None
