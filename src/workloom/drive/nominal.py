"""The nominal backend: every call takes as long as the trace says, whatever the load. It gives a plan's call order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from workloom.clock import VirtualClock, run_virtual, to_ns
from workloom.drive.backend import Request
from workloom.drive.driver import End, Options, drive
from workloom.model.facts import Pace
from workloom.model.paths import Access
from workloom.plan import Plan
from workloom.records import CallRecord, ChunkRun, Outcome, SessionRecord


class Observer(Protocol):
    """Who is told of the calls in the order they are sent; :class:`workloom.model.paths.Paths` is one."""

    def add(self, access: Access) -> None: ...

    def forget(self, instance: int) -> None:
        """The instance is over."""
        ...


class NominalBackend:
    """Answers each call after its nominal time: its recorded duration, else by a pace.

    By the pace the prefill is of all tokens that the prompt does not inherit: its spans and its fresh parts.
    """

    def __init__(self, clock: VirtualClock, observer: Observer, pace: Pace | None = None) -> None:
        self._clock = clock
        self._observer = observer
        self._pace = pace or Pace()
        self._sent = 0
        """Calls so far; a prompt's own number is kept with it."""

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        """One call, as :class:`workloom.drive.backend.Backend` says."""
        prompt, sent = request.prompt, self._clock.now()
        tokens = request.output_tokens
        if request.stop_after is not None:
            tokens = min(tokens, request.stop_after)
        computed = prompt.tokens - prompt.base_tokens
        seconds = request.recorded_s
        if seconds is None:
            seconds = self._pace.call_s(computed, tokens)
        done = sent + to_ns(seconds)
        _, _, call = request.name.partition("/")
        base = None if prompt.base is None else prompt.base.rendered
        self._observer.add(
            Access(
                instance=request.instance,
                call=call,
                agent=request.agent,
                model=request.model,
                prompt=prompt.key,
                answer=prompt.answer_number,
                answer_tokens=tokens,
                sent_ns=sent,
                done_ns=done,
                base=base if isinstance(base, int) else None,
                base_tokens=prompt.base_tokens,
            )
        )
        prompt.rendered, self._sent = self._sent, self._sent + 1
        await self._clock.sleep_until(done)
        first = min(done, sent + to_ns(self._pace.first_s(computed)))
        on_chunk(ChunkRun(first, (done - first) / max(1, tokens - 1), 0.0, tokens, 1))
        return Outcome(
            done_ns=done,
            sent_ns=sent,
            prompt_tokens=prompt.tokens,
            output_tokens=tokens,
            finish="hangup" if tokens < request.output_tokens else "length",
        )


class _Sessions:
    """A sink that keeps nothing, and says when a session is over."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def call(self, record: CallRecord) -> None:
        pass

    def session(self, record: SessionRecord) -> None:
        self._observer.forget(record.instance)


def watch(plan: Plan, observer: Observer, pace: Pace | None = None) -> End:
    """Drive a plan at nominal times and show its calls to an observer, as they are sent.

    Every call that is sent counts, and counts as if it ended as planned, also when the plan's duration is over first.
    """

    async def main(clock: VirtualClock) -> End:
        backend, options = NominalBackend(clock, observer, pace), Options(timeout_s=None)
        return await drive(plan, backend, clock, _Sessions(observer), options)

    return run_virtual(main)


class _Kept:
    def __init__(self) -> None:
        self.accesses: list[Access] = []

    def add(self, access: Access) -> None:
        self.accesses.append(access)

    def forget(self, instance: int) -> None:
        pass


def call_order(plan: Plan, pace: Pace | None = None) -> list[Access]:
    """The call order of a plan: all its calls as they are sent when each takes its nominal time."""
    kept = _Kept()
    watch(plan, kept, pace)
    return kept.accesses
