"""A live run by several processes: each has its share of slots and instances, one start time, a journal of its own.

    parent                                worker w of W (forked once the plan is made: they share its memory)
            <-- ready ---------------
            --- go: the run's zero ->     warm-up of its slots
            <-- warm ----------------
            --- open: the window ---->    load as asked
            <-- progress ------------
            --- close, drain, stop -->
            <-- ended: End, cost ----     its journal is closed before

Worker w owns instances k = w modulo W and the slots of that kind, so a run that is limited by sessions makes the same
calls whatever W is. Idle caps of the whole system, the breaker and the ideal cache of what sessions share act in each
worker by itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from workloom import clock
from workloom.clock import NS, RealClock, to_ns
from workloom.drive.cost import WorkerCost
from workloom.drive.driver import Control, End, Options, Progress, Share
from workloom.errors import UsageError, WorkloomError
from workloom.execute.live import interrupted, quiet_s, work
from workloom.execute.secrets import known
from workloom.execute.target import Live
from workloom.plan import Closed, Plan
from workloom.store.writer import Log

if TYPE_CHECKING:
    from workloom.execute.referee import Referee

LEAD_NS = NS // 20
"""From the word to go until the run's zero: time for it to reach every worker."""
TELL_NS = NS // 4
"""Between two reports of progress."""


class WorkerFault(WorkloomError):
    """A worker process failed, or vanished."""


def check(plan: Plan, workers: int) -> None:
    """Raise UsageError where so many workers cannot share the plan."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UsageError("this system cannot fork processes", where="--workers", hint="use one worker")
    load = plan.recipe.load
    slots = plan.slots() if isinstance(load, Closed) else plan.sessions
    slots = min((n for n in (slots, plan.recipe.limits.calls) if n is not None), default=None)
    if slots is not None and slots < workers:
        raise UsageError(
            "there are more workers than sessions (or calls) to share",
            where="--workers",
            expected=f"at most {slots}",
            found=workers,
        )


class Workers:
    """The worker processes of a run: `run` lets them carry out its plan, and gives what they ended with, as one.

    `mark` asks the servers for their figures, `began` is told the run's zero by the raw counter.
    """

    def __init__(
        self,
        plan: Plan,
        target: Live,
        path: Path,
        options: Options,
        progress: Progress,
        mark: Callable[[], None] | None,
        began: Callable[[int], None],
        referee: Referee | None = None,
    ) -> None:
        self.referee = referee
        self.window_start_ns: int | None = None
        self.plan, self.progress, self.mark, self.began = plan, progress, mark, began
        context = multiprocessing.get_context("fork")
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for worker in range(target.workers):
            ours, theirs = context.Pipe()
            others = [*self.pipes, ours]
            process = context.Process(
                target=_main,
                args=(plan, target, path, options, worker, theirs, others),
                name=f"workloom worker {worker}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.origin_ns = 0
        self.waiting = {"ready": len(self.pipes), "warm": len(self.pipes)}
        self.ends: dict[int, tuple[End, WorkerCost]] = {}
        self.told: dict[int, Progress] = {}
        self.fault: str | None = None
        self.pressed = 0

    def run(self) -> tuple[End, list[WorkerCost]]:
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            live = dict(zip(self.pipes, range(len(self.pipes)), strict=True))
            while live:
                referee = [self.referee.fileno()] if self.referee is not None and not self.referee.over else []
                for pipe in wait([*live, *referee]):
                    if not isinstance(pipe, Connection):
                        self._judged()
                        continue
                    try:
                        self._hear(live[pipe], *pipe.recv())
                    except (EOFError, OSError):
                        self._gone(live.pop(pipe))
            for process in self.processes:
                process.join()
        finally:
            signal.signal(signal.SIGINT, before)
            for pipe in self.pipes:
                pipe.close()  # a worker whose parent is gone ends by itself
        if self.fault is not None:
            raise WorkerFault(self.fault, hint="what the other workers recorded is kept")
        ends = [self.ends[worker] for worker in sorted(self.ends)]
        return merged([end for end, _ in ends], isinstance(self.plan.recipe.load, Closed)), [cost for _, cost in ends]

    def _hear(self, worker: int, kind: str, what: Any) -> None:
        if kind in self.waiting:
            self.waiting[kind] -= 1
            if self.waiting[kind]:
                return
            now = clock.raw_ns()
            if kind == "ready":
                self.origin_ns = now + LEAD_NS
                self.began(self.origin_ns)
                self._tell("go", self.origin_ns)
            else:
                if self.mark is not None:
                    self.mark()
                start = now - self.origin_ns + LEAD_NS + to_ns(quiet_s(self.plan, self.mark is not None))
                self._tell("open", start)
                self.window_start_ns = start + to_ns(self.plan.recipe.warmup.settle_s)
        elif kind == "edge" and self.mark is not None:
            self.mark()
        elif kind == "progress":
            self.told[worker] = what
            self._sum()
            if self.referee is not None:
                now_ns = clock.raw_ns() - self.origin_ns
                self.referee.ended(self.progress.sessions_done, self.window_start_ns, now_ns)
        elif kind == "ended":
            self.ends[worker] = what
            if what[0].fault is not None:
                self._tell("stop", None)
        elif kind == "fault":
            self.fault = self.fault or what
            self._tell("stop", None)

    def _judged(self) -> None:
        """The referee has looked: perhaps the window is to end, at one instant in all workers."""
        if self.referee is not None and self.referee.poll() is not None:
            self._tell("close", clock.raw_ns() - self.origin_ns + LEAD_NS)

    def _gone(self, worker: int) -> None:
        """A worker has closed its pipe: it should have said how it ended."""
        if worker not in self.ends and self.fault is None:
            self.processes[worker].join()
            self.fault = f"worker {worker} ended with code {self.processes[worker].exitcode}"
            self._tell("stop", None)

    def _tell(self, kind: str, what: Any) -> None:
        for pipe in self.pipes:
            try:
                pipe.send((kind, what))
            except OSError:  # it has gone: `_gone` hears of that
                continue

    def _sum(self) -> None:
        for field in structs.fields(Progress):
            values = [getattr(told, field.name) for told in self.told.values()]
            total = values[0] if isinstance(values[0], str) else sum(values)
            setattr(self.progress, field.name, total)

    def _interrupt(self, number: int, frame: object) -> None:
        self.pressed += 1
        if self.pressed == 1:
            os.write(sys.stderr.fileno(), f"\n{interrupted(self.progress)}\n".encode())
        self._tell("drain" if self.pressed == 1 else "stop", None)


def merged(ends: list[End], slots: bool) -> End:
    """The ends of all workers as that of one run.

    With `slots` the load was as asked while every worker's was; arrivals are as asked until the last of them all.
    """
    which = min if slots else max
    closed = [end.window_end_ns for end in ends if end.window_end_ns <= end.loaded_until_ns + 1]
    reasons = [end.reason for end in ends]
    reason = next((name for name in ("hopeless", "interrupted") if name in reasons), reasons[0])
    return End(
        window_start_ns=max(end.window_start_ns for end in ends),
        window_end_ns=which(closed) if closed else max(end.window_end_ns for end in ends),
        loaded_until_ns=which(end.loaded_until_ns for end in ends),
        sessions=sum(end.sessions for end in ends),
        reason=reason,
        fault=next((end.fault for end in ends if end.fault is not None), None),
    )


# -- in the worker


def _main(
    plan: Plan, target: Live, path: Path, options: Options, worker: int, pipe: Connection, others: list[Connection]
) -> None:
    """One worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what an interrupt means
    for other in others:
        other.close()
    log = Log.of_worker(path, worker, known(target.http))
    try:
        result = clock.run_real(lambda time: _Worker(plan, target, path, options, worker, pipe, log, time).run())
        log.end()
        pipe.send(("ended", result))
    except WorkloomError as fault:
        pipe.send(("fault", str(fault)))
    except BaseException as fault:
        pipe.send(("fault", f"worker {worker}: {type(fault).__name__}: {fault}"))
        raise
    finally:
        pipe.close()


class _Worker:
    def __init__(
        self,
        plan: Plan,
        target: Live,
        path: Path,
        options: Options,
        worker: int,
        pipe: Connection,
        log: Log,
        time: RealClock,
    ) -> None:
        self.plan, self.target, self.path, self.options = plan, target, path, options
        self.worker, self.pipe, self.log, self.time = worker, pipe, log, time
        self.control, self.progress = Control(), Progress()
        self.gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[End, WorkerCost]:
        self.pipe.send(("ready", None))
        origin_ns = 0
        while not origin_ns:
            kind, what = self.pipe.recv()
            if kind == "go":
                origin_ns = what
            elif kind == "drain":
                self.control.drain()
            else:
                self.control.stop()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.pipe.fileno(), self._hear)
        self._report()
        try:
            share = Share(self.worker, self.target.workers, self._warm)
            return await work(
                self.plan,
                self.target,
                self.path,
                self.time,
                self.log,
                self.options,
                self.progress,
                self.control,
                share,
                ready=lambda: origin_ns,
                ended=lambda: self.pipe.send(("edge", None)),
            )
        finally:
            loop.remove_reader(self.pipe.fileno())
            self.pipe.send(("progress", self.progress))

    async def _warm(self) -> int:
        self.pipe.send(("warm", None))
        return await self.gate

    def _report(self) -> None:
        self.pipe.send(("progress", self.progress))
        self.time.call_at(self.time.now() + TELL_NS, self._report)

    def _hear(self) -> None:
        try:
            kind, what = self.pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            self.control.stop()
            asyncio.get_running_loop().remove_reader(self.pipe.fileno())
            return
        if kind == "open":
            self.gate.set_result(what)
        elif kind == "close":
            self.control.close(what)
        elif kind == "drain":
            self.control.drain()
        elif kind == "stop":
            self.control.stop()
