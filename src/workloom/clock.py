"""Time: the only module that asks the operating system for it.

A :class:`Clock` belongs to one run. ``RealClock`` reads the finest monotonic clock and sleeps on a real event
loop; ``VirtualClock`` belongs to a :class:`VirtualLoop`, on which time jumps from timer to timer, so that the same
driver is a load generator on the one and a discrete-event simulation on the other. All instants are integer
nanoseconds since the start of the run.

:data:`host` is the wall clock, for progress bars, file syncing and manifests only.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from workloom.errors import Deadlock

T = TypeVar("T")
NS = 1_000_000_000
"""Nanoseconds in a second."""


def to_ns(seconds: float) -> int:
    """Seconds to the nearest nanosecond."""
    return round(seconds * NS)


def to_s(ns: int) -> float:
    """Nanoseconds to seconds."""
    return ns / NS


class Timer(Protocol):
    """Something scheduled that can be called off."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The time of one run."""

    virtual: bool

    def now(self) -> int:
        """Nanoseconds since the start of the run."""
        ...

    def call_at(self, at_ns: int, callback: Callable[..., None], *args: object) -> Timer:
        """Call back at an absolute instant (at once when it has passed); never early."""
        ...

    async def sleep_until(self, at_ns: int) -> None:
        """Return at an absolute instant, never early."""
        ...


async def _sleep_until(clock: Clock, at_ns: int) -> None:
    done = asyncio.get_running_loop().create_future()
    timer = clock.call_at(at_ns, _resolve, done)
    try:
        await done
    finally:
        timer.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Host:
    """The machine's own clocks: not the time of a run."""

    def monotonic(self) -> float:
        """Seconds on the host's monotonic clock."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970 on the host's wall clock."""
        return time.time()

    def stamp(self) -> str:
        """The wall clock as ISO 8601 in UTC, to the second."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def cpu(self) -> float:
        """CPU seconds (user and system) this process has used."""
        return time.process_time()


host = Host()


def raw_ns() -> int:
    """The counter under every :class:`RealClock`: on Linux one for all processes of a machine."""
    return time.perf_counter_ns()


class RealClock:
    """Run time on a real event loop, from the finest monotonic clock (a loop's own time() may be rounded)."""

    virtual = False

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._start = time.perf_counter_ns()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that its timers run on."""
        return self._loop

    @property
    def raw(self) -> Callable[[], int]:
        """The underlying counter, for hot paths; subtract :attr:`origin` to get run time."""
        return time.perf_counter_ns

    @property
    def origin(self) -> int:
        """What the underlying counter showed when the run began."""
        return self._start

    def now(self) -> int:
        return time.perf_counter_ns() - self._start

    def restart(self, origin_ns: int | None = None) -> None:
        """Make now the start of the run, or when the counter shows that: what came before is not part of it."""
        self._start = time.perf_counter_ns() if origin_ns is None else origin_ns

    def call_at(self, at_ns: int, callback: Callable[..., None], *args: object) -> Timer:
        return _RealTimer(self, at_ns, callback, args)

    async def sleep_until(self, at_ns: int) -> None:
        await _sleep_until(self, at_ns)


WATCH_NS = 1_500_000
"""Loops keep timers to about a millisecond: from this long before the instant the clock is looked at in every turn."""


class _RealTimer:
    """A timer good to some tens of microseconds.

    It sleeps until shortly before its instant, then looks at the clock once a turn of the loop: sockets are still
    served meanwhile. That costs up to 1.5 ms of CPU a timer, which timers at about the same instant share.
    """

    __slots__ = ("_args", "_at_ns", "_callback", "_clock", "_handle")

    def __init__(self, clock: RealClock, at_ns: int, callback: Callable[..., None], args: tuple[object, ...]) -> None:
        self._clock, self._at_ns, self._callback, self._args = clock, at_ns, callback, args
        wait_ns = at_ns - clock.now()
        loop = clock._loop
        self._handle: asyncio.Handle = (
            loop.call_soon(self._watch)
            if wait_ns <= WATCH_NS
            else loop.call_later((wait_ns - WATCH_NS) / NS, self._watch)
        )

    def _watch(self) -> None:
        if self._clock.now() >= self._at_ns:
            self._callback(*self._args)
        else:
            self._handle = self._clock._loop.call_soon(self._watch)

    def cancel(self) -> None:
        self._handle.cancel()


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time jumps to the next timer once nothing is ready.

    Timers fire in the total order (ns, priority, sequence), one at a time: everything a timer makes ready runs
    before the next timer does. Sockets, executors and other threads do not exist here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now_ns = 0
        self._timers: list[tuple[int, int, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._cancelled = 0
        self._thread = threading.get_ident()

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds since the loop was made."""
        return self._now_ns

    def time(self) -> float:
        return self._now_ns / NS

    def call_at_ns(
        self, at_ns: int, callback: Callable[..., object], *args: object, priority: int = 0
    ) -> asyncio.TimerHandle:
        """Schedule at an exact nanosecond; of equal instants the lower priority number runs first."""
        handle = asyncio.TimerHandle(at_ns / NS, callback, args, self)
        self._sequence += 1
        heapq.heappush(self._timers, (max(at_ns, self._now_ns), priority, self._sequence, handle))
        setattr(handle, "_scheduled", True)  # noqa: B010 (asyncio's own mark: its cancel() then tells the loop)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(to_ns(when), callback, *args)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(self._now_ns + to_ns(delay), callback, *args)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            raise RuntimeError("virtual time has no other threads: call_soon_threadsafe came from one")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        raise RuntimeError("virtual time has no executors: do the work inline")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1
        if self._cancelled > 100 and 2 * self._cancelled > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[3].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        while not ready:
            if not self._timers:
                raise self._deadlock()
            at_ns, _, _, handle = heapq.heappop(self._timers)
            setattr(handle, "_scheduled", False)  # noqa: B010
            if handle.cancelled():
                self._cancelled = max(0, self._cancelled - 1)
                continue
            self._now_ns = at_ns
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _deadlock(self) -> Deadlock:
        waiting = sorted(task.get_name() for task in asyncio.all_tasks(self) if not task.done())
        return Deadlock(
            "virtual time cannot go on: nothing is scheduled and tasks still wait",
            where=f"at {self._now_ns} ns",
            found=f"waiting tasks: {', '.join(waiting) or 'none'}",
        )

    def _process_events(self, event_list: object) -> None:
        raise RuntimeError("virtual time has no sockets")

    def _write_to_self(self) -> None:
        """Nothing to wake: the loop never sleeps (a signal handler's call_soon_threadsafe lands here)."""

    def _make_socket_transport(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("virtual time has no sockets")

    def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)  # type: ignore[attr-defined]


class VirtualClock:
    """Run time on a :class:`VirtualLoop`."""

    virtual = True

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return self._loop._now_ns

    def call_at(self, at_ns: int, callback: Callable[..., None], *args: object, priority: int = 0) -> Timer:
        return self._loop.call_at_ns(at_ns, callback, *args, priority=priority)

    async def sleep_until(self, at_ns: int) -> None:
        await _sleep_until(self, at_ns)


def run_virtual(main: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(clock)`` to its end in virtual time. A fault in a timer's callback ends it, and is raised."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(_guarded(main(VirtualClock(loop))))


def run_real(main: Callable[[RealClock], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(clock)`` on uvloop (or the standard loop), in the same way."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop

    async def start() -> T:
        return await _guarded(main(RealClock()))

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(start())


async def _guarded(main: Coroutine[Any, Any, T]) -> T:
    """Loops log what goes wrong in a callback and go on, so that main waits for ever; here main ends with it."""
    faults: list[BaseException] = []
    task = asyncio.current_task()
    assert task is not None

    def on_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if fault is None or "never retrieved" in context.get("message", ""):
            loop.default_exception_handler(context)
            return
        faults.append(fault)
        task.cancel()

    asyncio.get_running_loop().set_exception_handler(on_fault)
    try:
        return await main
    except asyncio.CancelledError:
        if faults:
            raise faults[0] from None
        raise
