"""The simulated backend: an engine that lives on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workloom.clock import Timer, VirtualClock
from workloom.drive.backend import Request
from workloom.engine.engine import PS, Engine, Finished, Steps
from workloom.errors import BackendError, Refused
from workloom.records import ChunkRun, Outcome

AFTER_EVERYTHING = 1
"""The engine looks at an instant only when all that happens in it has happened."""


def chunk_run(steps: Steps) -> ChunkRun:
    """Tokens of consecutive steps as the records keep them."""
    return ChunkRun(-(-steps.end_ps // PS), steps.gap_ps / PS, steps.slope_ps / PS, steps.length, 1)


_NEVER_REPEATED = 1 << 61
"""Makes the number of an answer one that no prompt has."""


class SimulatedBackend:
    """Answers calls from an engine. Nothing here waits but for the engine's own events."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self.engine = engine
        self._clock = clock
        self._waiting: dict[str, asyncio.Future[Finished]] = {}
        self._timer: Timer | None = None
        self._looking = False

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        """One call, as :class:`workloom.drive.backend.Backend` says."""
        clock, prompt = self._clock, request.prompt
        sent = clock.now()
        wanted = request.output_tokens
        if request.stop_after is not None:
            wanted = min(wanted, request.stop_after)
        try:
            answer = prompt.answer_number if request.repeated else prompt.answer_number | _NEVER_REPEATED
            self.engine.submit(sent, request.name, prompt.key, answer, wanted)
        except Refused as refused:
            raise BackendError("context_overflow", str(refused), hint=refused.hint) from refused
        done = self._waiting[request.name] = asyncio.get_running_loop().create_future()
        self._look_later()
        try:
            finished = await done
        except asyncio.CancelledError:
            self._hang_up(request.name, done, on_chunk)
            raise
        for steps in finished.tokens:
            on_chunk(chunk_run(steps))
        return Outcome(
            done_ns=finished.done_ns,
            sent_ns=sent,
            prompt_tokens=prompt.tokens,
            output_tokens=finished.output_tokens,
            cached_tokens=finished.cached_tokens,
            finish="hangup" if wanted < request.output_tokens else "length",
        )

    def _hang_up(self, name: str, done: asyncio.Future[Finished], on_chunk: Callable[[ChunkRun], None]) -> None:
        """The call was cancelled, perhaps at the very instant it finished: what came until then counts."""
        now = self._clock.now()
        came = self.engine.answer_so_far(name, now) if done.cancelled() else done.result().tokens
        for steps in came:
            on_chunk(chunk_run(steps))
        if self._waiting.pop(name, None) is not None:
            self.engine.cancel(now, name)
            self._look_later()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._clock.call_at(self._clock.now(), self._look, priority=AFTER_EVERYTHING)

    def _look(self) -> None:
        """Find out when the engine has news."""
        self._looking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.engine.next_ns()
        if at is not None:
            self._timer = self._clock.call_at(max(at, self._clock.now()), self._pump, priority=AFTER_EVERYTHING)

    def _pump(self) -> None:
        self._timer = None
        for finished in self.engine.advance(self._clock.now()):
            waiting = self._waiting.pop(finished.call, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(finished)
        self._look_later()
