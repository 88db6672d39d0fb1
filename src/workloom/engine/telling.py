"""What an engine's listener is told, and when: see :mod:`workloom.engine.events`."""

from __future__ import annotations

from typing import Literal

from workloom.engine.batch import Batch
from workloom.engine.events import Admitted, Ended, Evicted, Listener, Preempted, Queued, Ran, Received
from workloom.engine.sequence import Sequence
from workloom.engine.timeline import Leap


class Teller:
    """Puts what the engine does into events."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def queued(self, sequence: Sequence) -> None:
        """It left the front end."""
        self._listener(Queued(sequence.queued_ps, sequence.call, sequence.prompt_tokens, sequence.output_tokens))

    def formed(
        self,
        batch: Batch,
        start_ps: int,
        begun: list[Sequence],
        received: list[tuple[Sequence, int]],
        evicted: int,
    ) -> None:
        """What was decided for the step that begins; `begun`: admitted to load from tiers first."""
        for sequence in batch.preempted:
            saved = sequence.saved
            self._listener(Preempted(start_ps, sequence.call, 0 if saved is None else saved.computed))
        admitted = [sequence for sequence, _ in batch.prefills[len(batch.prefills) - batch.admitted :]]
        given: list[tuple[int, Admitted | Received]] = [
            (each.order, Admitted(start_ps, each.call, each.computed, each.fetched)) for each in admitted
        ]
        given += [(each.order, Received(start_ps, each.call, held)) for each, held in received]
        for _, event in sorted(given, key=lambda one: one[0]):
            self._listener(event)
        for sequence in begun:
            self._listener(Admitted(start_ps, sequence.call, sequence.computed, sequence.fetched))
        self.evicted(start_ps, evicted)

    def evicted(self, at_ps: int, blocks: int) -> None:
        """So many blocks that could be found were taken."""
        if blocks:
            self._listener(Evicted(at_ps, blocks))

    def ran(self, leap: Leap, first_step: int) -> None:
        """All steps of a leap are over."""
        batch = leap.batch
        prefills = tuple((sequence.call, chunk, sequence.computed) for sequence, chunk in batch.prefills)
        self._listener(
            Ran(
                start_ps=leap.start_ps,
                first_step=first_step,
                steps=leap.steps,
                first_ps=leap.first_ps,
                slope_ps=leap.slope_ps,
                decodes=batch.decodes,
                context_tokens=batch.context_tokens,
                prefills=prefills,
                admitted=batch.admitted,
                launch_ps=leap.launch_ps,
                tokens=batch.tokens,
                joined=batch.joined,
                paused=batch.paused,
            )
        )

    def ended(self, sequence: Sequence, status: Literal["done", "cancelled"], at_ps: int) -> None:
        """Its blocks are free."""
        self._listener(Ended(at_ps, sequence.call, status, sequence.generated))
