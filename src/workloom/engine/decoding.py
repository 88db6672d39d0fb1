"""Calls that decode, all by one token a step: what k steps of them need and bring, without a look at each."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort

from workloom.engine.sequence import Sequence


class Decoding:
    """`ticks` counts the steps that moved them on; a call has `ticks` + its `lag` tokens computed."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.ticks = 0
        self.calls: dict[str, Sequence] = {}
        """In the order in which they began."""
        self._lags = 0
        self._places: list[int] = []
        """Lags modulo the block size, rising: where in their last block calls stand, but for the ticks."""
        self._finishing: list[tuple[int, int, Sequence]] = []
        """A heap of (tick, order of admission, call); some are gone by now."""
        self._pauses: list[tuple[int, int]] = []
        """Ranges of steps in which they stood still."""

    def add(self, sequence: Sequence, since: int) -> None:
        """From now on a call decodes; its first token in this spell is that of step `since`."""
        sequence.lag = sequence.computed - self.ticks
        sequence.since = since
        sequence.finish_tick = self.ticks + sequence.output_tokens - sequence.generated
        self.calls[sequence.call] = sequence
        self._lags += sequence.lag
        insort(self._places, sequence.lag % self.block_tokens)
        heapq.heappush(self._finishing, (sequence.finish_tick, sequence.order, sequence))

    def remove(self, sequence: Sequence, step: int) -> None:
        """A call stops before step `step`: settle its counts."""
        sequence.computed = self.computed(sequence)
        sequence.generated = sequence.computed - sequence.prompt_tokens + 1
        sequence.spells = self.spells(sequence, step)
        del self.calls[sequence.call]
        self._lags -= sequence.lag
        del self._places[bisect_left(self._places, sequence.lag % self.block_tokens)]

    def computed(self, sequence: Sequence) -> int:
        """Tokens of a call that were computed by the last step that ended."""
        return self.ticks + sequence.lag if sequence.call in self.calls else sequence.computed

    @property
    def context_tokens(self) -> int:
        """Of the next step, in all."""
        return self._lags + len(self.calls) * (self.ticks + 1)

    # -- blocks

    def begins(self, sequence: Sequence) -> bool:
        """Whether the next step of a call begins a block."""
        return (self.ticks + sequence.lag) % self.block_tokens == 0

    def beginning(self) -> list[Sequence]:
        """The calls whose next step begins a block: what they have computed ends at a boundary."""
        if not self.next_blocks():
            return []
        return [sequence for sequence in self.calls.values() if self.begins(sequence)]

    def next_blocks(self) -> int:
        """Blocks that the next step begins."""
        places = self._places
        place = -self.ticks % self.block_tokens
        at = bisect_left(places, place)
        return bisect_right(places, place, at) - at if at < len(places) and places[at] == place else 0

    def later_blocks(self, steps: int) -> int:
        """Blocks that so many more steps begin, behind those of the next step."""
        places, size = self._places, self.block_tokens
        whole, rest = divmod(steps - 1, size)
        begun = whole * len(places)
        if rest:  # those begin one more that are within `rest` tokens of a boundary then
            first = (-rest - self.ticks) % size
            end = first + rest
            begun += bisect_left(places, end) - bisect_left(places, first)
            if end > size:
                begun += bisect_left(places, end - size)
        return begun

    def to_boundary(self) -> int:
        """Steps until the next call comes to a boundary; 1 if one begins a block now."""
        places, size = self._places, self.block_tokens
        if not places:
            return 1 << 60
        at = bisect_right(places, -self.ticks % size)  # the last that is not beyond one now is the nearest to it
        return (-(places[at - 1] + self.ticks)) % size or 1

    # -- ends

    def next_finish(self) -> int | None:
        """The tick by which the next call is complete."""
        while self._finishing:
            tick, order, sequence = self._finishing[0]
            if sequence.state == "running" and sequence.order == order:
                return tick
            heapq.heappop(self._finishing)
        return None

    def complete(self) -> list[Sequence]:
        """The calls that are complete now, in order of admission; each is told of once."""
        ended: list[Sequence] = []
        if not self._finishing or self._finishing[0][0] > self.ticks:
            return ended
        while (finish := self.next_finish()) is not None and finish <= self.ticks:
            ended.append(heapq.heappop(self._finishing)[2])
        ended.sort(key=by_order)
        return ended

    # -- which steps made tokens

    def pause(self, first: int, end: int) -> None:
        """In steps first..end-1 all stood still."""
        if self._pauses and self._pauses[-1][1] == first:
            first = self._pauses.pop()[0]
        self._pauses.append((first, end))

    def forget(self, before: int) -> None:
        """Nobody asks for steps before one any more."""
        del self._pauses[: bisect_right(self._pauses, before, key=_end)]

    def spells(self, sequence: Sequence, step: int) -> list[tuple[int, int]]:
        """Ranges of the steps before `step` that made a call's tokens."""
        spells = list(sequence.spells)
        if sequence.call in self.calls:
            first = sequence.since
            at = bisect_right(self._pauses, first, key=_end) if self._pauses else 0
            for begin, end in self._pauses[at:]:
                begin = max(begin, sequence.since + 1)  # the step that ended its prefill made its first token
                if begin > first:
                    spells.append((first, begin))
                first = end
            if step > first:
                spells.append((first, step))
        return spells


def by_order(sequence: Sequence) -> int:
    """In order of admission."""
    return sequence.order


def _end(pause: tuple[int, int]) -> int:
    return pause[1]
