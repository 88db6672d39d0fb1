"""What answers calls: an engine or a cluster of them. Passive: it never waits, whoever uses it moves time on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from workloom.engine.hints import NO_HINTS, Hints
from workloom.prefix import Key

if TYPE_CHECKING:
    from workloom.engine.engine import Finished, Gauges, Steps


class Serving(Protocol):
    """Instants are nanoseconds and never go back."""

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        """Hand in a call; raises Refused if it can never be served."""
        ...

    def cancel(self, at_ns: int, call: str) -> None:
        """The client is gone."""
        ...

    def advance(self, to_ns: int) -> list[Finished]:
        """Let time pass; what finished by then, in order."""
        ...

    def next_ns(self) -> int | None:
        """When something may finish next; None while it is empty."""
        ...

    def next_step_ns(self, after_ns: int) -> int | None:
        """When the next tokens come after an instant."""
        ...

    def generated(self, call: str, at_ns: int) -> int:
        """How many tokens of its answer a call has."""
        ...

    def answer_so_far(self, call: str, at_ns: int) -> list[Steps]:
        """When those were made."""
        ...

    def reset_prefix_cache(self, at_ns: int) -> bool:
        """Forget what no call holds; False when calls still hold blocks."""
        ...

    def gauges(self) -> dict[str, Gauges]:
        """The state of every replica, by its name."""
        ...
