"""Agents whose calls are no chain: where all lives have one DAG, it is that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workloom.model.fit.lives import Life
from workloom.model.fit.margins import Margins
from workloom.model.workload.spec import Turn, TurnGap

LEAST_CALLS = 3


def is_chain(life: Life) -> bool:
    """Whether every call waits for the one before it, and for no other call of its agent."""
    return all(step.parents in ((), (step.number - 1,)) for step in life.steps)


def common(lives: Sequence[Life]) -> tuple[tuple[int, ...], ...]:
    """For every call the calls it waits for, if that is the same in all lives and no chain; () otherwise.

    A DAG has no subagents, and every call goes on from one that it waits for.
    """
    first = lives[0]
    shape = [step.parents for step in first.steps]
    if first.calls < LEAST_CALLS or is_chain(first) or not all(shape):
        return ()
    for life in lives:
        if life.spawned or [step.parents for step in life.steps] != shape:
            return ()
        if any(step.origin not in step.parents or step.from_origin_tokens < 0 for step in life.steps):
            return ()
    return ((), *shape)


def history_of(life: Life) -> dict[int, int]:
    """Calls that go on from another than the last of those that they wait for."""
    return {step.number: step.origin for step in life.steps if step.origin != step.parents[-1]}


def turn(place: str, lives: Sequence[Life], margins: Margins) -> dict[TurnGap, Turn]:
    """What the calls of a DAG are like, of whichever kind most gaps are."""
    steps = [step for life in lives for step in life.steps]
    ((gap, _), *_) = Counter(step.gap for step in steps).most_common(1)
    here = f"{place}.{gap}"
    return {
        gap: Turn(
            fresh=margins.fit(f"{here}.fresh", [step.from_origin_tokens for step in steps]),
            output=margins.fit(f"{here}.output", [step.output_tokens for step in steps]),
            wait=margins.fit(f"{here}.wait", [step.wait_s for step in steps]),
        )
    }
