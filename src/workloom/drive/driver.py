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

from workloom.clock import Clock, Timer, to_ns
from workloom.drive.backend import Backend, Request
from workloom.errors import BackendError, WorkloomError
from workloom.plan import Closed, Instance, Plan
from workloom.prefix import PrefixTree
from workloom.prompt import TRACE_TEXTS, Prompt, Prompts
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, children, prompt_tokens


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
    calls_live_max: int = 0
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
        """What an infinite cache of the one served model would hold."""
        self.trees: dict[int, _Tree] = {}
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
        tree = _Tree(self, instance, due_ns)
        self.trees[instance.k] = tree
        self.progress.sessions_live += 1
        tree.start()
        await tree.ended
        self._judge(tree)

    def _judge(self, tree: _Tree) -> None:
        """A run that would go on by its clock alone must not spin on a target that refuses everything at once."""
        self.hopeless = 0 if tree.ok or not tree.failed else self.hopeless + 1
        if self.hopeless >= HOPELESS_SESSIONS and self.plan.sessions is None:
            raise Hopeless(
                f"the last {self.hopeless} sessions failed without one answer",
                found=tree.fault,
                hint="is the server well, and do the calls fit into its context?",
            )

    def forget(self, prompts: Prompts) -> None:
        """A session is over and its own texts never come again: what the infinite cache knows of them can go."""
        for prompt in prompts.made.values():
            key = prompt.key
            private = next((i for i, text in enumerate(key.ids) if text < TRACE_TEXTS), None)
            if private is None:
                continue
            begins = key.ends[private - 1] if private else 0
            if prompt.base is None or begins >= prompt.base_tokens:  # else it hangs on its base's
                self.known.forget(key, private)


class _Tree:
    """One live session: which calls wait for what, which are in flight, and what became of the others."""

    def __init__(self, drive: _Drive, instance: Instance, due_ns: int) -> None:
        self.drive, self.instance, self.due_ns = drive, instance, due_ns
        session = instance.session
        self.start_ns = drive.clock.now()
        self.prompts = Prompts(session, instance.k)
        self.children = children(session)
        self.missing = {call.id: len(call.after) for call in session.calls}
        self.due: dict[str, int] = {}
        self.ordinals = {call.id: i for i, call in enumerate(session.calls)}
        self.left = len(session.calls)
        self.ok = 0
        self.failed = False
        self.fault: str | None = None
        """What the first call that failed said."""
        self.censored = False
        self.closed = False
        self.planned = prompt_tokens(session)
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.timers: dict[str, Timer] = {}
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        for call in self.instance.session.calls:
            if not call.after:
                self._at(call, self.due_ns)
        self._maybe_end()

    def _at(self, call: Call, due_ns: int) -> None:
        """The call is due at an instant."""
        if self.closed:
            self.censored = True
        elif due_ns <= self.drive.clock.now():
            self._launch(call, due_ns)
        else:
            self.timers[call.id] = self.drive.clock.call_at(due_ns, self._launch, call, due_ns)

    def _launch(self, call: Call, due_ns: int) -> None:
        self.timers.pop(call.id, None)
        if not self.drive.may_start():
            self.censored = True
            self.close()
            return
        drive = self.drive
        drive.due_in_window += drive.in_window(due_ns)
        name = f"{self.instance.k}/{call.id}"
        task = asyncio.create_task(self._call(call, due_ns, name), name=name)
        self.tasks[task] = None
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.drive.fail(fault)
        self._maybe_end()

    def _maybe_end(self) -> None:
        if not self.tasks and (self.left == 0 or (self.censored and not self.timers)):
            self.settle("ok")

    async def _call(self, call: Call, due_ns: int, name: str) -> None:
        drive, clock = self.drive, self.drive.clock
        prompt = self.prompts.make(call)
        record = CallRecord(
            instance=self.instance.k,
            session=self.instance.session.id,
            call=call.id,
            agent=call.agent,
            model=call.model,
            status="ok",
            due_ns=due_ns,
            ordinal=self.ordinals[call.id],
            planned_prompt_tokens=self.planned[call.id],
            planned_output_tokens=call.answer_tokens,
            sent_prompt_tokens=prompt.tokens,
            ideal_cached_tokens=drive.known.add(prompt.key),
        )
        request = Request(
            name=name,
            instance=self.instance.k,
            session_key=f"{self.instance.session.id}.{self.instance.k}",
            agent=call.agent,
            model=call.model,
            prompt=prompt,
            output_tokens=call.output_tokens,
            stop_after=call.stop_after,
        )
        progress = drive.progress
        progress.calls_live += 1
        progress.calls_live_max = max(progress.calls_live_max, progress.calls_live)
        started_ns = clock.now()
        deadline = _Deadline(clock, drive.timeout_ns)
        try:
            outcome = await drive.backend.call(request, record.chunks.append)
        except BackendError as fault:
            record.status, record.error_kind, record.error = "error", fault.kind, str(fault)
            record.sent_ns = fault.sent_ns
        except asyncio.CancelledError:
            record.status = "timeout" if deadline.passed else "censored"
            record.sent_ns = started_ns
            if not deadline.passed:
                self.censored = True
        else:
            record.sent_ns = outcome.sent_ns
            record.done_ns = outcome.done_ns
            record.prompt_tokens, record.cached_tokens = outcome.prompt_tokens, outcome.cached_tokens
            record.output_tokens, record.finish = outcome.output_tokens, outcome.finish
            record.connection_reused, record.resent = outcome.connection_reused, outcome.resent
            prompt.answer_text = outcome.answer
        finally:
            deadline.cancel()
            progress.calls_live -= 1
            drive.due_in_window -= drive.in_window(due_ns)
        self._settled(call, prompt, record)
        drive._maybe_halt()

    def _settled(self, call: Call, prompt: Prompt, record: CallRecord) -> None:
        """A call that was started has ended: write its row, release or cancel what waited for it."""
        drive, progress = self.drive, self.drive.progress
        chunks = record.chunks
        if chunks:
            record.first_ns = chunks[0].first_ns
            record.last_ns = chunks[-1].last_ns
        if record.done_ns is None:
            record.done_ns = drive.clock.now()
        elif record.last_ns is not None:
            record.last_ns = min(record.last_ns, record.done_ns)
        if record.output_tokens is None and chunks:
            record.output_tokens = sum(run.count * run.tokens_each for run in chunks)
        drive.sink.call(record)
        self.left -= 1
        if record.status == "ok":
            prompt.answer_tokens = record.output_tokens or 0
            drive.known.add(prompt.key_with_answer())
            self.ok += 1
            progress.calls_done += 1
            progress.output_tokens += prompt.answer_tokens
            self._release(call, record.done_ns)
        else:
            progress.calls_failed += record.status != "censored"
            if record.status != "censored":
                self.failed = True
                self.fault = self.fault or record.error or record.status
            self._cancel_dependants(call, record)

    def _release(self, call: Call, done_ns: int) -> None:
        waits, progress = self.drive.waits, self.drive.progress
        for child in self.children[call.id]:
            for edge in child.after:
                if edge.call == call.id:
                    wait = waits.wait_ns(edge.wait_s)
                    progress.skipped_wait_ns += max(0, to_ns(edge.wait_s / waits.time_scale) - wait)
                    self.due[child.id] = max(self.due.get(child.id, 0), done_ns + wait)
                    self.missing[child.id] -= 1
            if self.missing[child.id] == 0:
                self.missing[child.id] = -1
                self._at(child, self.due[child.id])

    def _cancel_dependants(self, call: Call, record: CallRecord) -> None:
        """Everything below a failed call will never run; a censored one leaves no rows below it."""
        below = [call]
        while below:
            for child in self.children[below.pop().id]:
                if self.missing[child.id] < 0:
                    continue
                self.missing[child.id] = -1
                self.left -= 1
                below.append(child)
                if record.status != "censored":
                    self.drive.sink.call(self._never_sent(child, call.id, record))

    def _never_sent(self, call: Call, cause: str, record: CallRecord) -> CallRecord:
        assert record.done_ns is not None
        return CallRecord(
            instance=self.instance.k,
            session=self.instance.session.id,
            call=call.id,
            agent=call.agent,
            model=call.model,
            status="cancelled",
            due_ns=record.done_ns,
            ordinal=self.ordinals[call.id],
            planned_prompt_tokens=self.planned[call.id],
            planned_output_tokens=call.answer_tokens,
            error_kind=record.error_kind or record.status,
            cause=cause,
        )

    def close(self) -> None:
        """Start nothing more."""
        self.closed = True
        if self.left > len(self.tasks):
            self.censored = True
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        self._maybe_end()

    def settle(self, status: Literal["ok", "censored"]) -> None:
        """The tree has drained, or the run is over: one session row."""
        drive = self.drive
        if drive.trees.pop(self.instance.k, None) is None:
            return
        session = self.instance.session
        final: Literal["ok", "failed", "censored"] = "censored" if self.censored else status
        drive.sink.session(
            SessionRecord(
                instance=self.instance.k,
                session=session.id,
                status="failed" if self.failed else final,
                due_ns=self.due_ns,
                start_ns=self.start_ns,
                end_ns=drive.clock.now(),
                calls=len(session.calls),
                calls_ok=self.ok,
                user=session.user,
            )
        )
        drive.progress.sessions_live -= 1
        drive.progress.sessions_done += 1
        drive.forget(self.prompts)
        if not self.ended.done():
            self.ended.set_result(None)


class _Deadline:
    """Cancels the task that made it when the total time of a call is over."""

    def __init__(self, clock: Clock, timeout_ns: int | None) -> None:
        self.passed = False
        self._task = asyncio.current_task()
        self._timer = None if timeout_ns is None else clock.call_at(clock.now() + timeout_ns, self._pass)

    def _pass(self) -> None:
        assert self._task is not None
        self.passed = True
        self._task.cancel()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
