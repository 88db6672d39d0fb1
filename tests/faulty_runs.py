"""Whole live runs against a faulty server, and a look at what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from workloom import clock
from workloom.clock import RealClock
from workloom.drive.driver import Control, End, Options, Progress, drive
from workloom.drive.http import HttpBackend
from workloom.drive.targets import HttpOptions
from workloom.execute import Live, execute
from workloom.plan import Plan
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Edge, Inherit, Part, Session
from workloom.store import Run, open_run


def chain(name: str, calls: int, *, output: int = 4, tokens: int = 8, wait_s: float = 0.0) -> Session:
    """Calls 0, 1, 2, ... each going on from the one before."""
    first = Call("0", output, fresh=(Part("user", tokens),))
    rest = [
        Call(
            str(i),
            output,
            after=(Edge(str(i - 1), wait_s, "tool"),),
            inherit=Inherit(str(i - 1)),
            fresh=(Part("tool", tokens),),
        )
        for i in range(1, calls)
    ]
    return Session(name, (first, *rest))


def target(url: str, *, scrape: bool = False, **http: Any) -> Live:
    """A server to run against; `http` are fields of HttpOptions."""
    return Live(http=HttpOptions(urls=(url,), model="m", salt=1, **http), salt=1, scrape=scrape)


def live_run(plan: Plan, live: Live, path: Path, *, timeout_s: float = 20.0, drain_s: float = 5.0) -> Run:
    """Carry a plan out on a server through the whole of the product, and open what it left."""
    execute(
        plan,
        live,
        path,
        options=Options(timeout_s=timeout_s, drain_s=drain_s),
        progress=Progress(),
        argv=["workloom", "run"],
        summarize=lambda run: b"{}\n",
    )
    return open_run(path)


class Kept:
    """A sink that is two lists."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.sessions: list[SessionRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)


def driven(
    plan: Plan,
    live: Live,
    *,
    timeout_s: float = 20.0,
    control: Callable[[RealClock], Control] | None = None,
    sink: Kept | None = None,
) -> tuple[Kept, End]:
    """The rows as the driver hands them on, without a store. `control` arms a hand on the run."""
    kept = sink or Kept()

    async def main(time: RealClock) -> End:
        backend = HttpBackend(live.http, clock=time, style=live.style())
        hand = None if control is None else control(time)
        try:
            return await drive(plan, backend, time, kept, Options(timeout_s=timeout_s), control=hand)
        finally:
            backend.close()

    return kept, clock.run_real(main)


def rows_of(run: Run) -> dict[str, CallRecord]:
    """Rows by instance/call."""
    return {f"{row.instance}/{row.call}": row for row in run.calls()}


@contextmanager
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever runs on real loops in here leaves no task, no thread, no socket or file, and no warning."""
    real = clock.run_real

    def watched(main: Callable[[RealClock], Coroutine[Any, Any, Any]]) -> Any:
        async def inner(time: RealClock) -> Any:
            async with asyncio.timeout(20):
                result = await main(time)
            await asyncio.sleep(0)  # tasks that were cancelled may end
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left over: {sorted(task.get_name() for task in left)}"
            return result

        return real(inner)

    real(_nothing)  # the first loop of a process opens a pipe for good
    monkeypatch.setattr(clock, "run_real", watched)
    gc.collect()  # what others left is not ours
    before, threads = _sockets(), threading.active_count()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: unraised.append(unraisable.exc_value)
        unraised: list[BaseException | None] = []
        try:
            yield
            gc.collect()
        finally:
            sys.unraisablehook = hook
    said = [str(each.message) for each in heard if issubclass(each.category, (ResourceWarning, RuntimeWarning))]
    assert not said, f"warnings: {said}"
    assert not unraised, f"raised where nobody hears it: {unraised}"
    left = sorted(_sockets() - before)
    assert not left, f"left open: {left}"
    assert threading.active_count() == threads, f"threads are left over: {threading.enumerate()}"


async def _nothing(time: RealClock) -> None:
    pass


def _sockets() -> set[str]:
    """What this process has open: sockets and pipes have a number of their own behind their name."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the one that listed them
            continue
    return found
