"""The driver: the only place that starts calls. Plan x backend -> records, on real or virtual time alike.

    plan -> slot or arrival -> session tree -> call due -> backend -> record -> calls that waited for it

A session tree holds its slot until all of it has drained. A call is due at the latest of (done + wait) over its edges;
it is started then, by an absolute timer, and how late it really left is a column of its record. A call that fails ends
everything that depends on it: those are rows too, `cancelled`, with the cause.

    0        warm-up          pause  window opens              window ends       drained
    |-- prefills, one token --|------|---- load as asked ---------|-- load goes on --|
                                           calls due in here: waited for till here ^
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, Protocol

from msgspec import Struct

from workloom.clock import Clock, to_ns
from workloom.drive.backend import Backend, begin_of
from workloom.drive.breaker import Breaker
from workloom.drive.deadlines import Deadlines
from workloom.drive.idle import Idle
from workloom.drive.tree import Flight, Tree
from workloom.drive.warmup import warm_up
from workloom.plan import Closed, Instance, Plan
from workloom.prefix import PrefixTree
from workloom.records import CallRecord, SessionRecord


class Sink(Protocol):
    """Where records go; :class:`workloom.store.RunWriter` is one."""

    def call(self, record: CallRecord) -> None: ...

    def session(self, record: SessionRecord) -> None: ...


History = Literal["live", "recorded", "text"]
"""What a prompt repeats of earlier answers. live: what came. recorded: words of our own, as many as were recorded.
text: the recorded words, where the trace kept them."""


class Options(Struct, frozen=True):
    """How calls are treated while a run goes on."""

    timeout_s: float | None = 1800.0
    """Total time of a call; None: for ever."""
    drain_s: float = 120.0
    """How long after the window calls that were due in it may take; what is then in flight is censored."""
    history: History = "live"
    max_failed: float = 1.0
    """The run ends early when of the last 100 calls this share or more failed."""
    after_error: Literal["cancel", "advance"] = "cancel"
    """What follows a call that failed. cancel: nothing that waits for it is sent. advance: the session goes on as if an
    answer of the planned length had come, unless the call was longer than the context."""


class Progress(Struct):
    """Counts of a run under way, for whoever wants to watch."""

    phase: Literal["warm-up", "pause", "run", "draining"] = "run"
    sessions_live: int = 0
    sessions_done: int = 0
    calls_live: int = 0
    calls_done: int = 0
    calls_failed: int = 0
    output_tokens: int = 0
    skipped_wait_ns: int = 0
    """Recorded waiting that the cap on each wait left out."""
    skipped_tree_ns: int = 0
    """Seconds that idle sessions were moved up."""
    skipped_system_ns: int = 0
    """Seconds that everything was moved up while nothing was in flight."""


Reason = Literal["sessions", "duration", "calls", "closed", "interrupted", "hopeless"]
"""closed: by whoever held its :class:`Control`, because it knew enough."""


class End(Struct, frozen=True):
    """How a run ended."""

    window_start_ns: int
    window_end_ns: int
    """The end of the duration; of a finite run when its load was no longer as asked; where no slot was ever used
    again the last instant of all."""
    loaded_until_ns: int
    """Until when the load was as asked: then a free slot found nothing left."""
    sessions: int
    reason: Reason
    fault: str | None = None
    """Of a hopeless run: why it was ended."""


class Control:
    """A hand on a run that goes: `drain` lets calls in flight end and starts no more, `stop` ends it now.

    `close` ends its window early, as if that had been the end of its duration.
    """

    def __init__(self) -> None:
        self._drive: _Drive | None = None
        self._wanted: Literal["drain", "stop"] | None = None
        """What was asked for before there was a run to ask it of."""

    def drain(self) -> None:
        if self._drive is None:
            self._wanted = self._wanted or "drain"
        else:
            self._drive.interrupt()

    def stop(self) -> None:
        if self._drive is None:
            self._wanted = "stop"
        else:
            self._drive.interrupt()
            self._drive.halt()

    def close(self, at_ns: int) -> None:
        """End the window at that instant of the run, or now if it has gone by."""
        if self._drive is not None:
            self._drive.close_window(at_ns)

    @property
    def window_start_ns(self) -> int | None:
        """When the window opened, or opens; None: nobody knows yet."""
        return self._drive.start_ns if self._drive is not None and self._drive.is_open else None

    def _hold(self, drive: _Drive) -> None:
        self._drive = drive
        if self._wanted is not None:
            asyncio.get_running_loop().call_soon(self.drain if self._wanted == "drain" else self.stop)


class Share(Struct, frozen=True):
    """The part of a plan that one of several workers runs: instances and slots that are `worker` modulo `workers`.

    `gate`, called when its warm-up is done, gives the instant at which the windows of all of them open.
    """

    worker: int = 0
    workers: int = 1
    gate: Callable[[], Awaitable[int]] | None = None


async def drive(
    plan: Plan,
    backend: Backend,
    clock: Clock,
    sink: Sink,
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    control: Control | None = None,
    share: Share | None = None,
    served: Callable[[str, str, int], str] | None = None,
    opened: Callable[[int, int | None], None] | None = None,
) -> End:
    """Run a plan to its end. When the task is cancelled, calls in flight become `censored` rows before it ends.

    `served` names the cache that a call of (agent, model, instance) meets (a model on a server): ideal hits are kept by
    it.
    `opened` is told when the window opens, and when it ends: at once of a run with a duration, else when it does.
    """
    run = _Drive(plan, backend, clock, sink, options or Options(), progress or Progress(), share, served)
    if opened is not None:
        run.on_opened = opened
    if control is not None:
        control._hold(run)
    return await run.run()


class _Drive:
    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        clock: Clock,
        sink: Sink,
        options: Options,
        progress: Progress,
        share: Share | None = None,
        served: Callable[[str, str, int], str] | None = None,
    ) -> None:
        self.plan, self.clock, self.sink = plan, clock, sink
        self.begin = begin_of(backend)
        self.options, self.progress, self.share = options, progress, share or Share()
        self.served = served
        self.on_opened: Callable[[int, int | None], None] = lambda start_ns, end_ns: None
        self.waits = plan.recipe.waits
        timeout_ns = None if options.timeout_s is None else to_ns(options.timeout_s)
        self.deadlines: Deadlines[Flight] = Deadlines(clock, timeout_ns, Flight.time_out)
        limits = plan.recipe.limits
        self.duration_ns = None if limits.duration_s is None else to_ns(limits.duration_s)
        self.start_ns = 0
        """When the window opens; calls before belong to the warm-up."""
        self.end_ns: int | None = None
        self.calls_left = limits.calls
        if limits.calls is not None:
            self.calls_left = len(range(self.share.worker, limits.calls, self.share.workers))
        self.leads: dict[str, PrefixTree] = {}
        """What an infinite cache of each model on each server would hold that sessions share: the leads of prompts."""
        self.trees: dict[int, Tree] = {}
        self.idle = Idle(self)
        self.breaker = Breaker(options.max_failed, clock.virtual)
        self.due_in_window = 0
        self.closing = False
        """No call is started any more."""
        self.stopping = self.interrupted = self.is_open = False
        self.recycled = False
        """True once a slot was used again, or a session arrived by itself: then the load has an end."""
        self.loaded_until: int | None = None
        self.reason: Reason = "sessions"
        self.fault: str | None = None
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.all_landed: asyncio.Future[None] | None = None
        """Resolves when nothing is in flight any more, once the run is over."""
        self.feeding = 0
        """Slots, arrivals and sessions of open loops that go on."""
        self.arrivals: asyncio.Task[None] | None = None

    async def run(self) -> End:
        try:
            opening = asyncio.create_task(self._open(), name="warm-up")
            opening.add_done_callback(self._opened)
            await self.stopped
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await self._stop()
        now = self.clock.now()
        if not self.is_open:  # it ended in its warm-up: nothing was measured
            return End(now, now, now, self.progress.sessions_done, self.reason, self.fault)
        loaded = self.loaded_until if self.loaded_until is not None else now
        if self.end_ns is not None and loaded >= self.end_ns:
            end = self.end_ns
        elif self.duration_ns is not None or self.recycled or self.reason in ("interrupted", "hopeless"):
            end = loaded + 1  # half-open: what was due at that very instant is in
        else:
            end = now + 1
        end = max(end, self.start_ns)
        # Ctrl-C counts in the drain too: the window is whole by then, but whoever makes several runs has to stop
        reason: Reason = "interrupted" if self.interrupted and self.reason != "hopeless" else self.reason
        return End(self.start_ns, end, min(loaded, end), self.progress.sessions_done, reason, self.fault)

    async def _open(self) -> None:
        """Warm up, then offer the load."""
        load, warmup = self.plan.recipe.load, self.plan.recipe.warmup
        instances = self.plan.instances(self.share.worker, self.share.workers)
        first: list[Tree | None] = []
        if isinstance(load, Closed):
            first = [None] * self.plan.slots(self.share.worker, self.share.workers)
            if self.plan.recipe.warms_up:
                self.progress.phase = "warm-up"
                first = list(await warm_up(self, [next(instances) for _ in first]))
                if self.interrupted:
                    self.halt()
                    return
                self.progress.phase = "pause"
        begin = self.clock.now() + to_ns(warmup.pause_s)
        if self.share.gate is not None:
            begin = await self.share.gate()
        if begin > self.clock.now():
            await self.clock.sleep_until(begin)
        if not self.interrupted:
            self.progress.phase = "run"
        self.start_ns = begin + to_ns(warmup.settle_s)
        if self.duration_ns is not None:
            self.end_ns = self.start_ns + self.duration_ns
            self.clock.call_at(self.end_ns, self._window_over)
        self.is_open = True
        self.on_opened(self.start_ns, self.end_ns)
        self.feeding = len(first) if isinstance(load, Closed) else 1
        for tree in first:
            _Slot(self, instances, begin).run(tree)
        if not isinstance(load, Closed):
            self.arrivals = asyncio.create_task(self._arrivals(instances, begin), name="arrivals")
            self.arrivals.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        """All slots have begun, or all sessions have arrived."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.fail(fault)
        elif task is self.arrivals:
            self.fed()
        elif not self.feeding:
            self.halt()

    def fed(self) -> None:
        """A slot, the arrivals or a session of an open loop has ended; when none is left the run is over."""
        self.feeding -= 1
        if not self.feeding:
            self.halt()

    async def _stop(self) -> None:
        """End what still goes on: waiting calls are not started any more, calls in flight are censored."""
        self.closing = True
        if self.arrivals is not None:
            self.arrivals.cancel()
            await asyncio.gather(self.arrivals, return_exceptions=True)
        self._close_all()
        for tree in list(self.trees.values()):
            tree.cancel()
        if any(tree.flights for tree in self.trees.values()):
            self.all_landed = asyncio.get_running_loop().create_future()
            await self.all_landed
        self.deadlines.close()
        for tree in list(self.trees.values()):
            tree.settle("censored")

    def landed(self) -> None:
        """A call is not in flight any more."""
        waiting = self.all_landed
        if waiting is not None and not waiting.done() and not any(tree.flights for tree in self.trees.values()):
            waiting.set_result(None)

    # -- when it ends

    def close_window(self, at_ns: int) -> None:
        """The window ends at that instant, if the load is as asked until then."""
        if not self.is_open or self.loaded_until is not None:
            return
        at_ns = max(at_ns, self.clock.now() + 1, self.start_ns + 1)  # half-open: what is due now is in
        if self.end_ns is None or at_ns < self.end_ns:
            self.end_ns = at_ns
            self.on_opened(self.start_ns, at_ns)
            self.clock.call_at(at_ns, self._window_over, "closed")

    def _window_over(self, reason: Reason = "duration") -> None:
        """The duration is over: load goes on until the calls that were due in it have ended, or the drain has."""
        if self.stopping:
            return
        assert self.end_ns is not None
        self.loaded(self.end_ns, reason)
        self.stopping = True
        self.progress.phase = "draining"
        self.clock.call_at(self.end_ns + to_ns(self.options.drain_s), self.halt)
        self.maybe_halt()

    def maybe_halt(self) -> None:
        if self.stopping and self.due_in_window == 0 and not self._late():
            self.halt()

    def _late(self) -> bool:
        """A call that is due in the window has not left yet: its timer comes a moment late."""
        assert self.end_ns is not None
        return any(due_ns < self.end_ns for tree in self.trees.values() if (due_ns := tree.next_due_ns) is not None)

    def interrupt(self) -> None:
        """Start no more calls; those in flight may end within the drain. Sessions in between are censored."""
        if self.interrupted:
            return
        now = self.clock.now()
        self.interrupted = True
        self.loaded(now, "interrupted")
        self.progress.phase = "draining"
        self.clock.call_at(now + to_ns(self.options.drain_s), self.halt)
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._no_more_calls)
        if not self.feeding and not self.progress.calls_live:  # in the pause behind a warm-up
            self.halt()

    def halt(self) -> None:
        """The run is over."""
        if not self.stopped.done():
            self.stopped.set_result(None)

    def fail(self, fault: BaseException) -> None:
        """A fault of our own, not of a server: the run ends with it."""
        if not self.stopped.done():
            self.stopped.set_exception(fault)

    def give_up(self, why: str) -> None:
        """The run is hopeless: it ends now, with what it has."""
        if not self.stopped.done():
            self.loaded(self.clock.now())
            self.reason, self.fault = "hopeless", why
            self.halt()

    def loaded(self, until_ns: int, reason: Reason = "sessions") -> None:
        """From now on the load is no longer as asked; the first time counts."""
        if self.loaded_until is None:
            self.loaded_until, self.reason = until_ns, reason
            if self.end_ns is None and self.is_open:
                self.on_opened(self.start_ns, until_ns)

    def in_window(self, due_ns: int) -> bool:
        return self.start_ns <= due_ns and (self.end_ns is None or due_ns < self.end_ns)

    def may_start(self) -> bool:
        """May another call start? Counts it against the limit on calls."""
        if self.closing or self.stopped.done():
            return False
        if self.calls_left is not None:
            if self.calls_left == 0:
                return False
            self.calls_left -= 1
            if self.calls_left == 0:
                self.loaded(self.clock.now(), "calls")
                self.recycled = True
                self.closing = True
                asyncio.get_running_loop().call_soon(self._no_more_calls)
        return True

    def _no_more_calls(self) -> None:
        if self.arrivals is not None:
            self.arrivals.cancel()
        self._close_all()

    def _close_all(self) -> None:
        for tree in list(self.trees.values()):
            tree.close()

    # -- sessions

    async def _arrivals(self, instances: Iterator[Instance], begin_ns: int) -> None:
        every = self.plan.due()
        for i, due in enumerate(every):
            if i % self.share.workers != self.share.worker:
                continue
            instance = next(instances, None)
            if instance is None:
                break
            at = begin_ns + due
            await self.clock.sleep_until(at)
            self.feeding += 1
            self.start(Tree(self, instance, self.fed), at)
            self.recycled = True
        self.loaded(self.clock.now())

    def start(self, tree: Tree, due_ns: int) -> None:
        """A session begins."""
        self.admit(tree)
        tree.begin(due_ns)
        self.idle.arrived()

    def admit(self, tree: Tree) -> None:
        """A session is alive from now on."""
        if tree.instance.k not in self.trees:
            self.trees[tree.instance.k] = tree
            self.progress.sessions_live += 1

    def ended(self, record: CallRecord) -> None:
        """A call came to an end of its own; a target that answers nothing ends the run."""
        why = self.breaker.trips(record)
        if why is not None:
            self.give_up(why)


class _Slot:
    """One session tree after the other; the first may be one that was warmed up."""

    def __init__(self, drive: _Drive, instances: Iterator[Instance], begin_ns: int) -> None:
        self._drive = drive
        self._instances = instances
        self._begin_ns = begin_ns
        self._used = False

    def run(self, tree: Tree | None = None) -> None:
        """Begin the next session, where there is one."""
        drive = self._drive
        if drive.stopped.done():
            return
        try:
            if not drive.closing:
                instance = next(self._instances, None) if tree is None else tree.instance
                if instance is not None:
                    self._start(tree or Tree(drive, instance))
                    return
        except Exception as fault:
            drive.fail(fault)
            return
        drive.idle.arrived()
        drive.loaded(drive.clock.now())
        drive.fed()

    def _start(self, tree: Tree) -> None:
        drive = self._drive
        tree.on_end = self.run
        drive.recycled = drive.recycled or self._used
        drive.start(tree, drive.clock.now() if self._used else self._begin_ns)
        self._used = True
