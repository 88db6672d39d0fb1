"""One agent's calls in order, and what each prompt repeats of those before it.

Agents with hidden reasoning send it along while they work on one request of the user, and leave it out of every
prompt after the user's next message. Such a prompt is that of the first call that reasoned, and then once more all
that was visible since:

    within a request   P1 | R1 A1 T1 | R2 A2 T2 | ...        each prompt begins with the one before and its answer
    the next request   P1 |    A1 T1 |    A2 T2 | ... U      shared up to P1; the rest is the same words, computed anew

What a provider read from its cache decides: more than P1 tokens of it show that the reasoning was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from workloom.session import Inherit, Part
from workloom.traces.turns import Turn, apportion, continued

TOOLS = "tools"
"""The name of the part of a first prompt that a trace does not show."""


class Context(NamedTuple):
    """What a prompt is made of: what it inherits, then fresh parts."""

    inherit: Inherit | None
    fresh: tuple[Part, ...]
    reset: bool = False
    """Whether it is shorter than what came before, for no reason the trace tells."""
    dropped: int = 0
    """Reasoning tokens of earlier calls that it leaves out."""


class _Step(NamedTuple):
    turn: Turn
    inputs: tuple[Part, ...]
    """What came into its prompt beside inherited text and answers."""
    estimated: bool = False
    """Whether the sizes are guesses."""

    @property
    def answer(self) -> tuple[Part, ...]:
        """What it said, without its reasoning, as fresh text."""
        visible = self.turn.output - self.turn.reasoning
        return (Part("answer", visible, from_call=self.turn.id),) if visible else ()


class Thread:
    """The calls of one agent so far. `hidden`: is reasoning left out after the user's next message?"""

    def __init__(self, *, hidden: bool = False, parent: Turn | None = None) -> None:
        """`parent`: the call whose context the first prompt continues, for a fork."""
        self._hidden = hidden
        self._scaffold = 0
        self._steps: list[_Step] = [] if parent is None else [_Step(parent, ())]
        """The calls whose reasoning may still be in the context, the last one always."""

    @property
    def whole(self) -> int:
        """Tokens of the last call's prompt and answer."""
        return self._steps[-1].turn.prompt + self._steps[-1].turn.output if self._steps else 0

    def follow(
        self,
        turn: Turn,
        cached: int | None,
        inputs: Sequence[Part],
        *,
        asked: bool = False,
        compacted: bool = False,
        spans: int = 0,
        estimated: bool = False,
    ) -> Context:
        """The context of the next call; `inputs`: what came in since, with estimated sizes.

        `asked`: a message of the user is among them. `compacted`: the history was replaced by a summary. `spans`:
        tokens that a first prompt begins with as spans. `estimated`: the sizes of `turn` are guesses.
        """
        if not self._steps:
            context, mine = self._first(turn, inputs, spans)
        elif compacted:
            context, mine = self._summarised(turn, cached, inputs)
        else:
            found = self._without_reasoning(turn, cached, inputs) if asked and self._hidden else None
            context, mine = found or self._continued(turn, cached, inputs)
        if compacted or context.reset or context.dropped:
            self._steps.clear()
        elif not self._hidden:
            del self._steps[:-1]
        self._steps.append(_Step(turn, mine, estimated))
        return context

    def _first(self, turn: Turn, inputs: Sequence[Part], spans: int) -> tuple[Context, tuple[Part, ...]]:
        """What the inputs do not explain is the scaffold the trace does not show."""
        unseen = turn.prompt - spans - sum(part.tokens for part in inputs)
        if unseen < 0:
            fresh = apportion(turn.prompt - spans, inputs)
        else:
            fresh = tuple(part for part in inputs if part.tokens)
            if unseen:
                fresh = (Part("definition", unseen, TOOLS), *fresh)
        self._scaffold = spans + max(0, unseen)
        return Context(None, fresh), fresh

    def _summarised(self, turn: Turn, cached: int | None, inputs: Sequence[Part]) -> tuple[Context, tuple[Part, ...]]:
        last = self._steps[-1].turn
        kept = min(max(cached or 0, self._scaffold), turn.prompt, last.prompt)
        mine = apportion(turn.prompt - kept, inputs, "summary")
        return Context(Inherit(last.id, kept) if kept else None, mine), mine

    def _without_reasoning(
        self, turn: Turn, cached: int | None, inputs: Sequence[Part]
    ) -> tuple[Context, tuple[Part, ...]] | None:
        """The prompt after the user's message, if reasoning was left out of it."""
        at = next((index for index, step in enumerate(self._steps) if step.turn.reasoning), None)
        if at is None:
            return None
        first = self._steps[at].turn
        if turn.prompt < first.prompt or (cached or 0) > first.prompt:
            return None
        again: list[Part] = []
        for index, step in enumerate(self._steps[at:]):
            if index:
                again += [replace(part, seconds=None) for part in step.inputs]
            again += step.answer
        total = turn.prompt - first.prompt
        told = min(total, sum(part.tokens for part in inputs))
        new = max(told, total - sum(part.tokens for part in again))
        if new < total:
            again = list(apportion(total - new, again))
        else:
            again = []
        mine = apportion(new, inputs)
        dropped = sum(step.turn.reasoning for step in self._steps[at:])
        return Context(Inherit(first.id, first.prompt), (*again, *mine), False, dropped), (*again, *mine)

    def _continued(self, turn: Turn, cached: int | None, inputs: Sequence[Part]) -> tuple[Context, tuple[Part, ...]]:
        """It goes on from the last call, or from an earlier one if the guessed sizes since cannot be."""
        again: list[Part] = []
        for step in reversed(self._steps):
            kept = continued(step.turn, turn.prompt, cached)
            if kept.reset or (kept.inherit and kept.inherit.tokens is not None):
                kept = continued(step.turn, turn.prompt, cached, drops_reasoning=True)
            if not (kept.reset and step.estimated):
                break
            again[:0] = [*step.inputs, *step.answer]
        rest = turn.prompt - kept.tokens - sum(part.tokens for part in kept.answer)
        mine = apportion(rest, [*again, *inputs])
        return Context(kept.inherit, (*kept.answer, *mine), kept.reset), mine
