"""What leaves an engine: calls that are over, told when their last token has been delivered."""

from __future__ import annotations

import heapq
from typing import Literal, NamedTuple

from workloom.engine.profile import FrontEnd
from workloom.engine.timeline import Steps

PS = 1000
"""Picoseconds in a nanosecond."""


class Finished(NamedTuple):
    """What became of a call. `tokens` are the instants its answer's tokens were delivered at.

    It stood in the front end until `queued_ns`, then waited until `admitted_ns` (None: it never ran).
    """

    call: str
    status: Literal["done", "cancelled"]
    done_ns: int
    """When the stream ended."""
    output_tokens: int
    cached_tokens: int
    preemptions: int
    tokens: list[Steps]
    queued_ns: int
    admitted_ns: int | None
    replica: str = ""
    """Who of a cluster answered it."""


def delivered(tokens: list[Steps], first_token_ps: int, end_ps: int | None = None) -> list[Steps]:
    """Tokens as they are delivered: the first so much later, not after the second nor after the end of the answer."""
    if not first_token_ps or not tokens:
        return tokens
    first = tokens[0]
    at = first.end_ps + first_token_ps
    if end_ps is not None:
        at = min(at, end_ps)
    rest = [first.part(1, first.length - 1), *tokens[1:]] if first.length > 1 else tokens[1:]
    if rest:
        at = min(at, rest[0].end_ps)
    return [Steps(first.first_step, at, 0, 0, 1), *rest]


class Outbox:
    """Calls that are over for the engine, in the order in which they are told."""

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self._heap: list[tuple[int, int, Finished]] = []
        self._count = 0
        self._calls: dict[str, Finished] = {}

    def done(self, tokens: list[Steps]) -> tuple[int, list[Steps]]:
        """When a complete answer ends, and its tokens as delivered."""
        tokens = delivered(tokens, self._front_end.first_token_ps)
        return tokens[-1].last_ps + self._front_end.end_ps, tokens

    def cancelled(self, tokens: list[Steps], at_ps: int) -> tuple[int, list[Steps]]:
        """The same of an answer that was cancelled and ends at an instant, but not before its last token came."""
        if tokens:
            at_ps = max(at_ps, tokens[-1].last_ps)
        return at_ps, delivered(tokens, self._front_end.first_token_ps, at_ps)

    def put(self, done_ps: int, finished: Finished) -> None:
        self._count += 1
        heapq.heappush(self._heap, (done_ps, self._count, finished))
        self._calls[finished.call] = finished

    def take(self, to_ps: int) -> list[Finished]:
        """Those that ended by an instant."""
        out = []
        while self._heap and self._heap[0][0] <= to_ps:
            finished = heapq.heappop(self._heap)[2]
            del self._calls[finished.call]
            out.append(finished)
        return out

    def get(self, call: str) -> Finished | None:
        """A call that is over and was not told."""
        return self._calls.get(call)

    @property
    def next_ps(self) -> int | None:
        """When the next one ends."""
        return self._heap[0][0] if self._heap else None
