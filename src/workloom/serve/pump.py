"""The engine, or a cluster of them, on a real clock.

    arrival -> stamp -> submit        sleep to the next boundary -> advance -> tokens to streams, ends to futures

One timer drives it, and tokens leave within some tens of microseconds of their step's end (see `RealClock.call_at`).
That costs about a millisecond of CPU per step in which a stream has something to say; without streams the pump wakes
only when a call ends.

Stamps rise strictly and lie after every instant the engine was told of, so what the engine did is a function of the
stamps alone and can be replayed from them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from workloom.clock import RealClock, Timer
from workloom.engine.engine import Finished
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.serving import Serving
from workloom.prefix import Key


class Listener(Protocol):
    """Whoever wants the tokens of a call as they come; must not wait."""

    def tokens(self, total: int) -> None:
        """The answer now has `total` tokens."""
        ...

    def end(self, finished: Finished) -> None:
        """The call is over; all its tokens have been told."""
        ...


class Call:
    """A call in the engine. `done` tells how it ended."""

    __slots__ = (
        "answer",
        "arrival_ns",
        "cancelled_ns",
        "done",
        "hints",
        "listener",
        "name",
        "output_tokens",
        "prompt",
        "told",
        "written_ns",
    )

    def __init__(
        self, name: str, arrival_ns: int, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        self.name, self.arrival_ns, self.prompt = name, arrival_ns, prompt
        self.answer, self.output_tokens, self.hints = answer, output_tokens, hints
        self.cancelled_ns: int | None = None
        self.listener: Listener | None = None
        self.told = 0
        self.written_ns: list[int] = []
        """When each token was handed to the listener."""
        self.done: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()


class Ledger(Protocol):
    """Whoever keeps the books of calls that are over."""

    def __call__(self, call: Call, finished: Finished) -> None: ...


class Pump:
    """Pumps what serves. All methods are called from its loop."""

    def __init__(self, engine: Serving, clock: RealClock) -> None:
        self.engine = engine
        self.clock = clock
        self.calls: dict[str, Call] = {}
        self.ledgers: list[Ledger] = []
        self._streams: dict[str, Call] = {}
        self._loop = asyncio.get_running_loop()
        self._latest = 0
        """The last instant the engine was told of, or a stamp was given for."""
        self._due: int | None = None
        """When there will be news."""
        self._wake: Timer | None = None
        self._looking = False

    def stamp(self) -> int:
        """An instant for what came in just now; what was due before it is handed out first."""
        now = self.clock.now()
        if self._due is not None and self._due <= now:
            self._look()
            now = self.clock.now()
        self._latest = max(now, self._latest + 1)
        return self._latest

    def submit(
        self, name: str, at_ns: int, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> Call:
        """Hand a call that arrived at a stamp to the engine; raises Refused. Stamps are used in the order given."""
        self.engine.submit(at_ns, name, prompt, answer, output_tokens, hints)
        call = self.calls[name] = Call(name, at_ns, prompt, answer, output_tokens, hints)
        self._look_soon()
        return call

    def listen(self, call: Call, listener: Listener) -> None:
        """Tell somebody of the tokens of a call, those that came already included."""
        call.listener = listener
        if call.done.done():
            self._tell_end(call, call.done.result())
        else:
            self._streams[call.name] = call
            self._look_soon()

    def cancel(self, call: Call) -> None:
        """The client of a call is gone: nobody is told of it any more, and the engine drops it."""
        self._streams.pop(call.name, None)
        call.listener = None
        if call.name in self.calls and call.cancelled_ns is None:
            call.cancelled_ns = self.stamp()
            self.engine.cancel(call.cancelled_ns, call.name)
            self._look_soon()

    def reset_prefix_cache(self) -> bool:
        """Forget what no call holds; False when calls still hold some."""
        emptied = self.engine.reset_prefix_cache(self.stamp())
        self._look_soon()
        return emptied

    def close(self) -> None:
        """Cancel what is left and let the engine come to rest."""
        for call in list(self.calls.values()):
            self.cancel(call)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._looking = True  # no more looking
        while self.calls:
            at = self.engine.next_ns()
            assert at is not None, "calls that are not over keep the engine busy"
            self._hand_out(self.engine.advance(at))

    # -- looking: advance, hand out, sleep

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look_now)

    def _look_now(self) -> None:
        if self._looking:
            self._looking = False
            self._look()

    def _look(self) -> None:
        """Hand out what is due and sleep until there is more."""
        try:
            self._turn()
        except Exception as fault:
            self._break(fault)
            raise

    def _turn(self) -> None:
        now = max(self.clock.now(), self._latest)
        self._latest = now
        engine = self.engine
        self._hand_out(engine.advance(now))
        at = engine.next_step_ns(now) if self._streams else engine.next_ns()
        if self._streams:
            self._tell_tokens(now)
        self._sleep(at)

    def _hand_out(self, finished: list[Finished]) -> None:
        for end in finished:
            call = self.calls.pop(end.call)
            self._streams.pop(end.call, None)
            if not call.done.done():  # cancelled with the handler that waited for it
                call.done.set_result(end)
            if call.listener is not None:
                self._tell_end(call, end)
            for ledger in self.ledgers:
                ledger(call, end)

    def _tell_tokens(self, now_ns: int) -> None:
        generated = self.engine.generated
        for name, call in list(self._streams.items()):
            total = generated(name, now_ns)
            if total > call.told and call.listener is not None:
                self._tell(call, call.listener, total)

    def _tell_end(self, call: Call, finished: Finished) -> None:
        assert call.listener is not None
        if finished.output_tokens > call.told:
            self._tell(call, call.listener, finished.output_tokens)
        call.listener.end(finished)

    def _tell(self, call: Call, listener: Listener, total: int) -> None:
        call.written_ns += [self.clock.now()] * (total - call.told)
        call.told = total
        listener.tokens(total)

    def _sleep(self, at_ns: int | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._due = at_ns
        self._wake = None if at_ns is None else self.clock.call_at(at_ns, self._look)

    def _break(self, fault: Exception) -> None:
        """The engine broke, which is a fault of ours: whoever waits for it is told."""
        for call in self.calls.values():
            if not call.done.done():
                call.done.set_exception(fault)
        self.calls.clear()
        self._streams.clear()
