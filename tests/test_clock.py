"""Virtual time: order, exactness, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloom.clock import NS, RealClock, VirtualClock, VirtualLoop, run_real, run_virtual
from workloom.errors import Deadlock


def test_timers_fire_in_the_order_of_instant_priority_and_sequence() -> None:
    log: list[str] = []

    async def main(clock: VirtualClock) -> None:
        clock.call_at(5, log.append, "late")
        clock.call_at(3, log.append, "first asked", priority=1)
        clock.call_at(3, log.append, "second asked", priority=1)
        clock.call_at(3, log.append, "urgent", priority=0)
        await clock.sleep_until(10)

    run_virtual(main)
    assert log == ["urgent", "first asked", "second asked", "late"]


def test_all_that_a_timer_made_ready_runs_before_the_next_timer() -> None:
    log: list[str] = []

    async def chain(name: str) -> None:
        for i in range(3):
            log.append(f"{name}{i}")
            await asyncio.sleep(0)

    async def main(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        clock.call_at(1, lambda: loop.create_task(chain("a")) and None)
        clock.call_at(1, log.append, "b")
        await clock.sleep_until(2)

    run_virtual(main)
    assert log == ["a0", "a1", "a2", "b"]


@given(st.lists(st.integers(0, 58 * 86_400 * NS), min_size=1, max_size=20))
def test_virtual_time_is_exact_to_the_nanosecond_for_58_days(instants: list[int]) -> None:
    seen: list[int] = []

    async def main(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        for at in instants:
            clock.call_at(at, lambda: seen.append(clock.now()))
            loop.call_at(at / NS, lambda: seen.append(clock.now()))
        await clock.sleep_until(max(instants) + 1)

    run_virtual(main)
    assert seen == sorted(instants * 2)


def test_a_deadlock_names_the_waiting_tasks_sorted() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    async def main(clock: VirtualClock) -> None:
        tasks = [asyncio.create_task(wait(), name=name) for name in ("7/b", "7/a")]
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        await asyncio.gather(*tasks)

    with pytest.raises(Deadlock, match="7/a, 7/b, main"):
        run_virtual(main)


def test_sockets_executors_and_other_threads_are_refused() -> None:
    async def main(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="executors"):
            await loop.run_in_executor(None, print)
        left, right = socket.socketpair()
        with left, right, pytest.raises((RuntimeError, NotImplementedError)):
            await loop.create_connection(asyncio.Protocol, sock=left)
        caught: list[BaseException] = []

        def other() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                caught.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert caught
        fired: list[int] = []
        loop.call_soon_threadsafe(fired.append, 1)
        await clock.sleep_until(1)
        assert fired == [1]

    run_virtual(main)


def test_ctrl_c_interrupts_virtual_time() -> None:
    async def main(clock: VirtualClock) -> None:
        for at in range(1, 1_000_000):
            await clock.sleep_until(at)
            if at == 100:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_virtual(main)


def test_a_cancelled_timer_never_fires_and_does_not_pile_up() -> None:
    async def main(clock: VirtualClock) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for i in range(10_000):
            clock.call_at(10**15 + i, pytest.fail, "fired").cancel()
        await clock.sleep_until(5)
        return len(loop._timers)

    assert run_virtual(main) < 1000


def test_real_sleep_is_never_early() -> None:
    async def main(clock: RealClock) -> list[int]:
        late = []
        for i in range(1, 8):
            at = clock.now() + i * 700_000
            await clock.sleep_until(at)
            late.append(clock.now() - at)
        return late

    assert min(run_real(main)) >= 0


@pytest.mark.parametrize("run", [run_virtual, run_real])
def test_a_fault_in_a_timer_ends_the_run_and_is_raised(run: Callable[..., None]) -> None:
    """Loops only log it: a virtual run would deadlock, a real one hang."""

    async def main(clock: VirtualClock | RealClock) -> None:
        clock.call_at(clock.now() + 1000, lambda: 1 // 0)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ZeroDivisionError):
        run(main)
