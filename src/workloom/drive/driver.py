"""The driver: the only place that starts calls. Plan x backend -> records, on real or virtual time alike.

    plan -> slot or arrival -> session tree -> call due -> backend.call -> record -> calls that waited for it

A session tree holds its slot until all of it has drained. A call is due at the latest of (done + wait) over its edges;
it is started then, by an absolute timer, and how late it really left is a column of its record. A call that fails ends
everything that depends on it: those are rows too, `cancelled`, with the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, Literal, Protocol

from msgspec import Struct

from workloom.clock import Clock, to_ns
from workloom.drive.backend import Backend
from workloom.drive.tree import Tree
from workloom.errors import WorkloomError
from workloom.plan import Closed, Instance, Plan
from workloom.prefix import PrefixTree
from workloom.records import CallRecord, SessionRecord


class Sink(Protocol):
    """Where records go; :class:`workloom.store.RunWriter` is one."""

    def call(self, record: CallRecord) -> None: ...

    def session(self, record: SessionRecord) -> None: ...


class Options(Struct, frozen=True):
    """How calls are treated while a run goes on."""

    timeout_s: float | None = 1800.0
    """Total time of a call; None: for ever."""
    drain_s: float = 120.0
    """How long after the window calls that were due in it may take; what is then in flight is censored."""


class Progress(Struct):
    """Counts of a run under way, for whoever wants to watch."""

    sessions_live: int = 0
    sessions_done: int = 0
    calls_live: int = 0
    calls_done: int = 0
    calls_failed: int = 0
    output_tokens: int = 0
    skipped_wait_ns: int = 0
    """Recorded waiting that the cap on waits left out."""


class End(Struct, frozen=True):
    """How a run ended."""

    window_end_ns: int
    """The end of the duration; of a run without one the last instant of all."""
    loaded_until_ns: int
    """Until when the load was as asked: then a free slot found nothing left."""
    sessions: int
    reason: Literal["sessions", "duration", "calls"]


async def drive(
    plan: Plan,
    backend: Backend,
    clock: Clock,
    sink: Sink,
    options: Options | None = None,
    progress: Progress | None = None,
) -> End:
    """Run a plan to its end. When the task is cancelled, calls in flight become `censored` rows before it ends."""
    return await _Drive(plan, backend, clock, sink, options or Options(), progress or Progress()).run()


HOPELESS_SESSIONS = 100


class Hopeless(WorkloomError):
    """A target that answers nothing: an endless run against it would only write failures."""


class _Drive:
    def __init__(
        self, plan: Plan, backend: Backend, clock: Clock, sink: Sink, options: Options, progress: Progress
    ) -> None:
        self.plan, self.backend, self.clock, self.sink = plan, backend, clock, sink
        self.options, self.progress = options, progress
        self.waits = plan.recipe.waits
        self.timeout_ns = None if options.timeout_s is None else to_ns(options.timeout_s)
        limits = plan.recipe.limits
        self.end_ns = None if limits.duration_s is None else to_ns(limits.duration_s)
        self.calls_left = limits.calls
        self.known = PrefixTree()
        """What an infinite cache of the one served model would hold that sessions can share: the leads of prompts."""
        self.trees: dict[int, Tree] = {}
        self.due_in_window = 0
        self.over = False
        self.stopping = False
        self.loaded_until: int | None = None
        self.reason: Literal["sessions", "duration", "calls"] = "sessions"
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.feeding: dict[asyncio.Task[None], None] = {}
        """Slots, arrivals and sessions of open loops, in the order they began."""
        self.arrivals: asyncio.Task[None] | None = None
        self.hopeless = 0
        """Sessions in a row that failed without one answer."""

    async def run(self) -> End:
        load = self.plan.recipe.load
        instances = self.plan.instances()
        if self.end_ns is not None:
            self.clock.call_at(self.end_ns, self._window_over)
        if isinstance(load, Closed):
            size = load.concurrency if self.plan.sessions is None else min(load.concurrency, self.plan.sessions)
            for i in range(size):
                self._spawn(self._slot(instances), f"slot {i}")
        else:
            self.arrivals = self._spawn(self._arrivals(instances), "arrivals")
        try:
            await self.stopped
        finally:
            await self._stop()
        now = self.clock.now()
        # The window is half-open: of a run without a duration, what was due at the last instant still counts.
        end = self.end_ns if self.end_ns is not None and self.stopping else now + 1
        loaded = self.loaded_until if self.loaded_until is not None else now
        return End(end, min(loaded, end), self.progress.sessions_done, self.reason)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A slot, the arrivals, or a session of an open loop; when none is left the run is over."""
        task = asyncio.create_task(work, name=name)
        self.feeding[task] = None
        task.add_done_callback(self._fed)
        return task

    def _fed(self, task: asyncio.Task[None]) -> None:
        del self.feeding[task]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.fail(fault)
        elif not self.feeding:
            self._halt()

    async def _stop(self) -> None:
        """End what still goes on: waiting calls are not started any more, calls in flight are censored."""
        self.over = True
        tasks = [task for tree in self.trees.values() for task in tree.tasks]
        self._close_all()
        tasks += self.feeding
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tree in list(self.trees.values()):
            tree.settle("censored")

    # -- when it ends

    def _window_over(self) -> None:
        """The duration is over: load goes on until the calls that were due in it have ended, or the drain has."""
        assert self.end_ns is not None
        if self.loaded_until is None:
            self.reason, self.loaded_until = "duration", self.end_ns
        self.stopping = True
        self.clock.call_at(self.end_ns + to_ns(self.options.drain_s), self._halt)
        self._maybe_halt()

    def _maybe_halt(self) -> None:
        if self.stopping and self.due_in_window == 0:
            self._halt()

    def _halt(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)

    def fail(self, fault: BaseException) -> None:
        """A fault of our own, not of a server: the run ends with it."""
        if not self.stopped.done():
            self.stopped.set_exception(fault)

    def in_window(self, due_ns: int) -> bool:
        return self.end_ns is None or due_ns < self.end_ns

    def may_start(self) -> bool:
        """May another call start? Counts it against the limit on calls."""
        if self.over:
            return False
        if self.calls_left is not None:
            if self.calls_left == 0:
                return False
            self.calls_left -= 1
            if self.calls_left == 0:
                if self.loaded_until is None:
                    self.reason, self.loaded_until = "calls", self.clock.now()
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

    async def _slot(self, instances: Iterator[Instance]) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not self.over and self.calls_left != 0:
            instance = next(instances, None)
            if instance is None:
                break
            task.set_name(str(instance.k))
            await self._session(instance, self.clock.now())
        if self.loaded_until is None:
            self.loaded_until = self.clock.now()

    async def _arrivals(self, instances: Iterator[Instance]) -> None:
        due = self.plan.due()
        for instance in instances:
            at = next(due)
            await self.clock.sleep_until(at)
            self._spawn(self._session(instance, at), str(instance.k))
        if self.loaded_until is None:
            self.loaded_until = self.clock.now()

    async def _session(self, instance: Instance, due_ns: int) -> None:
        tree = Tree(self, instance, due_ns)
        self.trees[instance.k] = tree
        self.progress.sessions_live += 1
        tree.start()
        await tree.ended
        self._judge(tree)

    def _judge(self, tree: Tree) -> None:
        """A run that would go on by its clock alone must not spin on a target that refuses everything at once."""
        self.hopeless = 0 if tree.ok or not tree.failed else self.hopeless + 1
        if self.hopeless >= HOPELESS_SESSIONS and self.plan.sessions is None:
            raise Hopeless(
                f"the last {self.hopeless} sessions failed without one answer",
                found=tree.fault,
                hint="is the server well, and do the calls fit into its context?",
            )
