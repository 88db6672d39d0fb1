"""When the tokens of steps come: runs of equal steps, taken in one leap and remembered until nobody can ask for them.

step             k          k+1 (prefill)       k+2
            |--------|====launch====|-tail-|--------|
tokens of k          ^ here, or, scheduling ahead,
                                    ^ here: the launch holds them back; those of k+1 come at its end
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import isqrt

from msgspec import Struct
from msgspec.structs import replace

from workloom.engine.batch import Batch


class Steps(Struct, frozen=True, gc=False):
    """`length` consecutive steps: the first ends at `end_ps`, the i-th after it takes gap + (i-1)*slope (i from 1)."""

    first_step: int
    end_ps: int
    gap_ps: int
    slope_ps: int
    length: int

    def at(self, i: int) -> int:
        """When step i of these ends, in picoseconds."""
        return self.end_ps + i * self.gap_ps + self.slope_ps * (i * (i - 1) // 2)

    @property
    def last_ps(self) -> int:
        """When the last of them ends."""
        return self.at(self.length - 1)

    def by(self, at_ps: int) -> int:
        """How many of them have ended at an instant."""
        if at_ps < self.end_ps:
            return 0
        return min(self.length, 1 + _elapsed(at_ps - self.end_ps, self.gap_ps, self.slope_ps, self.length))

    def part(self, skip: int, length: int) -> Steps:
        """`length` of them, without the first `skip`."""
        if not skip:
            return self if length == self.length else replace(self, length=length)
        gap = self.gap_ps + skip * self.slope_ps
        return Steps(self.first_step + skip, self.at(skip), gap, self.slope_ps, length)


def until(tokens: list[Steps], at_ps: int) -> list[Steps]:
    """Of tokens in order of time, those that came by an instant."""
    out = tokens
    while out and out[-1].last_ps > at_ps:
        came = out[-1].by(at_ps)
        out = [*out[:-1], out[-1].part(0, came)] if came else out[:-1]
    return out


def _elapsed(span_ps: int, first_ps: int, slope_ps: int, most: int) -> int:
    """How many steps fit into a span, if step i (from 0) takes first + i*slope; at most `most`."""
    if not slope_ps:
        return min(most, span_ps // first_ps) if first_ps else most
    twice = 2 * first_ps - slope_ps  # slope * n^2 + twice * n <= 2 * span
    return min(most, (isqrt(twice * twice + 8 * slope_ps * span_ps) - twice) // (2 * slope_ps))


class Leap(Struct):
    """Equal steps under way: step i (from 0) takes first + i*slope."""

    batch: Batch
    start_ps: int
    launch_ps: int
    """How long the CPU launches each of them; 0: decode-only."""
    first_ps: int
    slope_ps: int
    steps: int
    end_ps: int = 0
    """When the last of them ends."""

    def __post_init__(self) -> None:
        self.end_ps = self.end(self.steps)

    def end(self, steps: int) -> int:
        """When so many of the steps are over."""
        return self.start_ps + steps * self.first_ps + self.slope_ps * (steps * (steps - 1) // 2)

    def ended_by(self, at_ps: int) -> int:
        """How many steps have ended at an instant."""
        if at_ps < self.start_ps:
            return 0
        return _elapsed(at_ps - self.start_ps, self.first_ps, self.slope_ps, self.steps)

    @property
    def decision_ps(self) -> int:
        """When it is decided, scheduling ahead, who of the newly arrived may be in the step after the last."""
        return self.end(self.steps - 1) + self.launch_ps

    def cut(self, at_ps: int) -> Leap:
        """End at the first boundary at or after an instant."""
        return self.shorter(self.ended_by(at_ps - 1) + 1)

    def cut_behind(self, at_ps: int) -> Leap:
        """End at the first boundary after an instant."""
        if at_ps >= self.end_ps:
            return self
        return self.shorter(self.ended_by(at_ps) + 1)

    def cut_ahead(self, at_ps: int) -> Leap:
        """End before the first step that is decided after an instant."""
        if at_ps < self.start_ps + self.launch_ps:
            return self.shorter(1)
        return self.shorter(self.ended_by(at_ps - self.launch_ps) + 2)

    def shorter(self, steps: int) -> Leap:
        """Not more than so many steps."""
        if steps >= self.steps:
            return self
        return Leap(self.batch, self.start_ps, self.launch_ps, self.first_ps, self.slope_ps, steps)

    def tokens(self, first_step: int, held_ps: int, last_held_ps: int) -> list[Steps]:
        """When the tokens of its steps come: each so long after its end, the last perhaps longer."""
        if self.batch.tokens > 1:
            return [Steps(first_step, self.end_ps + last_held_ps, 0, 0, self.batch.tokens)]
        gap = self.first_ps + self.slope_ps
        steps = Steps(first_step, self.start_ps + self.first_ps + held_ps, gap, self.slope_ps, self.steps)
        if last_held_ps == held_ps:
            return [steps]
        last = Steps(first_step + self.steps - 1, self.end_ps + last_held_ps, gap, self.slope_ps, 1)
        return [steps.part(0, self.steps - 1), last] if self.steps > 1 else [last]


class StepLog:
    """When the tokens of past steps came. The latest may be yet to come."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """How many runs of steps are kept before those nobody can ask for are dropped."""
        self._runs: list[Steps] = []
        self._firsts: list[int] = []
        """The first step of each run."""

    def add(self, tokens: list[Steps]) -> None:
        for steps in tokens:
            self._runs.append(steps)
            self._firsts.append(steps.first_step)

    @property
    def full(self) -> bool:
        return len(self._runs) > self.limit

    @property
    def last(self) -> Steps | None:
        return self._runs[-1] if self._runs else None

    def pending(self, first: int, end: int, at_ps: int) -> int:
        """Of steps first..end-1, how many have tokens that are, at an instant, yet to come. Only the last ones can."""
        last = self._runs[-1]
        return max(0, end - max(first, last.first_step + last.by(at_ps)))

    def slice(self, first: int, end: int) -> list[Steps]:
        """Steps first..end-1."""
        at = bisect_right(self._firsts, first) - 1
        out = self._runs[max(0, at) : bisect_left(self._firsts, end)]
        if out:  # all but the outermost are whole
            last = out[-1]
            if last.first_step + last.length > end:
                out[-1] = last.part(0, end - last.first_step)
            skip = first - out[0].first_step
            if skip > 0:
                out[0] = out[0].part(skip, out[0].length - skip)
        return out

    def forget(self, before: int) -> None:
        """Nobody will ask for steps before this one."""
        keep = max(0, bisect_right(self._firsts, before) - 1)
        del self._runs[:keep], self._firsts[:keep]
