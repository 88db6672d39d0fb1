"""What stands between the driver and backends: one timer for all time-outs, slices of work, calls without tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from workloom.clock import NS, VirtualClock, run_virtual
from workloom.drive.backend import Request, begin_of
from workloom.drive.deadlines import Deadlines
from workloom.drive.turns import SLICE_NS, Turns
from workloom.errors import BackendError
from workloom.prompt import Prompt
from workloom.records import ChunkRun, Outcome


def test_time_outs_come_when_they_are_due_and_to_what_has_not_ended() -> None:
    over: list[tuple[str, int]] = []

    async def main(clock: VirtualClock) -> None:
        deadlines: Deadlines[str] = Deadlines(clock, 10 * NS, lambda what: over.append((what, clock.now() // NS)))
        for name in "abcd":
            deadlines.begin(name, clock.now())
            await clock.sleep_until(clock.now() + 2 * NS)
        deadlines.end("a")
        deadlines.end("c")
        await clock.sleep_until(12 * NS)  # a's time, then b's
        deadlines.begin("e", clock.now())
        await clock.sleep_until(30 * NS)
        deadlines.begin("f", clock.now())
        deadlines.close()
        await clock.sleep_until(50 * NS)

    run_virtual(main)
    assert over == [("b", 12), ("d", 16), ("e", 22)]


def test_without_a_time_out_nothing_is_ever_over() -> None:
    async def main(clock: VirtualClock) -> None:
        deadlines: Deadlines[str] = Deadlines(clock, None, lambda what: pytest.fail(what))
        deadlines.begin("a", clock.now())
        await clock.sleep_until(NS)
        deadlines.end("a")

    run_virtual(main)


def turns_of(work_ns: int, count: int, at: Callable[[Turns, int], None] = lambda turns, i: None) -> list[list[int]]:
    """What was done in each turn of a loop, where each piece of work takes so long."""
    done: list[list[int]] = []

    async def main() -> None:
        now = [0]
        turns = Turns(asyncio.get_running_loop(), lambda: now[0])

        def work(i: int) -> None:
            done[-1].append(i)
            now[0] += work_ns
            at(turns, i)

        for i in range(count):
            turns.add(work, i)
        assert not any(done), "never from within add"
        for _ in range(2 * count + 2):
            done.append([])
            await asyncio.sleep(0)

    asyncio.run(main())
    return [each for each in done if each]


def test_work_is_done_in_order_and_others_have_their_turn_between_slices() -> None:
    assert turns_of(SLICE_NS // 10, 5) == [[0, 1, 2, 3, 4]]
    assert turns_of(SLICE_NS, 3) == [[0, 1], [2]]
    assert turns_of(2 * SLICE_NS, 3) == [[0], [1], [2]]


def test_a_fault_in_one_piece_of_work_keeps_none_of_the_others() -> None:
    def fail(turns: Turns, i: int) -> None:
        if i == 1:
            raise RuntimeError("of its own")

    assert [i for turn in turns_of(1, 4, fail) for i in turn] == [0, 1, 2, 3]


class Answering:
    """A backend without `begin`: it answers, refuses or never ends."""

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        await asyncio.sleep(0)
        if request.name == "refused":
            raise BackendError("connect", "nobody there")
        if request.name == "endless":
            await asyncio.get_running_loop().create_future()
        return Outcome(2, 1)


def test_a_backend_without_begin_has_a_task_for_each_call() -> None:
    async def main() -> list[Outcome | BaseException]:
        ends: list[Outcome | BaseException] = []
        begin = begin_of(Answering())
        for name in ("answered", "refused", "endless"):
            prompt = Prompt(None, 0, False, (), 1)
            under_way = begin(Request(name, 0, "s", "main", "", prompt, 1), lambda run: None, ends.append)
        await asyncio.sleep(0.01)
        under_way.cancel()
        await asyncio.sleep(0.01)
        return ends

    answered, refused, endless = asyncio.run(main())
    assert answered == Outcome(2, 1)
    assert isinstance(refused, BackendError) and isinstance(endless, asyncio.CancelledError)
