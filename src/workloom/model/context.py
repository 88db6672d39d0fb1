"""How contexts grow over a session, and how much of one call's prompt the next one keeps."""

from __future__ import annotations

from array import array

from msgspec import Struct

from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts

POSITIONS = tuple(i / 10 for i in range(11))
"""Places in a session: 0 is its first call, 1 its last."""


class Point(Struct, frozen=True):
    """Prompt tokens of the main context at one place, over the sessions that have it."""

    at: float
    sessions: int
    p10: float | None
    p50: float | None
    p90: float | None


class Overlap(Struct, frozen=True):
    """What a prompt inherits from the call whose context it goes on from, and how much of that call's prompt it keeps.

    That call is the one it inherits from, else the previous call of its agent: then the overlap is 0, but for spans
    that both begin with. A share of 0 is a context begun anew.
    """

    calls: int
    """Calls with such a call before them."""
    inherited: Distribution
    """Inherited tokens / prompt tokens."""
    kept: Distribution
    """Tokens of the other's prompt kept / its prompt tokens; the rest was edited, compacted or reset."""
    kept_all: float | None
    """Share of the calls that keep all of it."""
    kept_none: float | None
    """Share of the calls that keep nothing of it."""


class Context(Struct, frozen=True):
    """The main context is that of the agent of the session's first call. Prompts of 0 tokens are left out: these are
    calls of which the trace does not tell the prompt.

    By call number the sessions are fewer and fewer, and those left are the long ones; by position they are the same.
    """

    by_number: tuple[Point, ...]
    """At calls 1, 2, 3, 5, 8, 13, ... of the main context."""
    by_position: tuple[Point, ...]
    """At POSITIONS, over sessions with two calls or more of the main context."""
    main_calls: Distribution
    """Calls of the main context per session."""
    overlap: Overlap


class ContextSection:
    """Tells how contexts grow; memory: two numbers a call and some thirty a session."""

    def __init__(self) -> None:
        self._numbered: dict[int, array[int]] = {}
        self._placed = [array("q") for _ in POSITIONS]
        self._main_calls = array("q")
        self._inherited, self._kept = array("d"), array("d")

    def add(self, facts: SessionFacts) -> None:
        agent = facts.calls[0].call.agent
        main = [c.prompt_tokens for c in facts.calls if c.call.agent == agent and c.prompt_tokens]
        self._main_calls.append(len(main))
        for number in fibonacci(len(main)):
            self._numbered.setdefault(number, array("q")).append(main[number - 1])
        if len(main) > 1:
            for position, values in zip(POSITIONS, self._placed, strict=True):
                values.append(main[round(position * (len(main) - 1))])
        for c in facts.calls:
            before_tokens = 0 if c.before is None else facts.calls[c.before].prompt_tokens
            if before_tokens and c.prompt_tokens:
                self._inherited.append(c.inherited_tokens / c.prompt_tokens)
                self._kept.append(min(c.inherited_tokens, before_tokens) / before_tokens)

    def result(self) -> Context:
        return Context(
            by_number=tuple(_point(number, values) for number, values in sorted(self._numbered.items())),
            by_position=tuple(map(_point, POSITIONS, self._placed)) if self._placed[0] else (),
            main_calls=distribution(self._main_calls),
            overlap=Overlap(
                calls=len(self._kept),
                inherited=distribution(self._inherited),
                kept=distribution(self._kept),
                kept_all=_share(self._kept, 1.0),
                kept_none=_share(self._kept, 0.0),
            ),
        )


def fibonacci(most: int) -> list[int]:
    """1, 2, 3, 5, 8, 13, ... up to `most`."""
    numbers = []
    here, after = 1, 2
    while here <= most:
        numbers.append(here)
        here, after = after, here + after
    return numbers


def _point(at: float, values: array[int]) -> Point:
    sample = distribution(values)
    return Point(at, sample.n, sample.p10, sample.p50, sample.p90)


def _share(values: array[float], value: float) -> float | None:
    return sum(v == value for v in values) / len(values) if values else None
