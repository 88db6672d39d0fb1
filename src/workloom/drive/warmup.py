"""Before the window: the state of every slot is put into the server's cache, and is not measured.

Each slot prefills what its session's next calls go on from, then sends so many more calls of one token. Slots go side
by side; the calls of one slot go one after the other, so that each finds what the ones before it left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from workloom.clock import to_ns
from workloom.drive.tree import Tree
from workloom.plan import Instance
from workloom.plan.start import open_session

if TYPE_CHECKING:
    from workloom.drive.driver import _Drive


async def warm_up(drive: _Drive, instances: list[Instance]) -> list[Tree | None]:
    """The session of each slot, warmed up; None for a slot whose session failed. Too many such end the run."""
    recipe = drive.plan.recipe
    trees = []
    for instance in instances:
        tree = Tree(drive, instance)
        if recipe.start is not None and instance.start is not None:
            opening = open_session(instance.session, recipe.start, instance.start, recipe.waits.max_s)
            drive.progress.skipped_wait_ns += to_ns(opening.skipped_s / recipe.waits.time_scale)
            tree.open(opening)
        drive.admit(tree)
        trees.append(tree)
    more = recipe.warmup.calls_per_slot
    warming = [asyncio.create_task(_warm(tree, more), name=f"warm-up {tree.instance.k}") for tree in trees]
    limit = drive.clock.call_at(drive.clock.now() + to_ns(recipe.warmup.max_s), _cancel, warming)
    try:
        results = await asyncio.gather(*warming, return_exceptions=True)
    finally:
        limit.cancel()
        _cancel(warming)
        await asyncio.gather(*warming, return_exceptions=True)
    ready: list[Tree | None] = []
    faults: list[str] = []
    for tree, result in zip(trees, results, strict=True):
        if result is True:
            ready.append(tree)
            continue
        if isinstance(result, Exception):
            raise result
        faults.append(tree.fault or f"it took longer than {recipe.warmup.max_s:g} s")
        tree.settle("ok")
        ready.append(None)
    if len(faults) > recipe.warmup.max_failed * len(trees):
        drive.give_up(
            f"the warm-up of {len(faults)} of {len(trees)} slots failed "
            f"(at most {recipe.warmup.max_failed:.0%} may): {faults[0]}"
        )
        await asyncio.get_running_loop().create_future()  # until the run's end cancels this
    return ready


async def _warm(tree: Tree, calls: int) -> bool:
    """Prefill and advance one session; False when a call failed."""
    for call in tree.instance.session.calls:
        if call.id in tree.prefill and not tree.closed and not await tree.warm(call, advance=False):
            return False
    for call in tree.instance.session.calls:
        if calls == 0 or tree.left == 1 or tree.closed:
            break
        if call.id not in tree.before:
            if not await tree.warm(call, advance=True):
                return False
            calls -= 1
    return True


def _cancel(tasks: list[asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
