"""The tokens of a simulated answer as the chunks a client sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import log1p
from typing import TYPE_CHECKING

from workloom.engine.engine import PS, Steps
from workloom.records import ChunkRun

if TYPE_CHECKING:
    from numpy.random import Generator


def chunk_run(steps: Steps, first: int = 0, count: int | None = None, tokens: int = 1) -> ChunkRun:
    """Chunks of one token each (or one of `tokens`), at the ends of `count` steps from number `first` of these."""
    count = steps.length - first if count is None else count
    gap = steps.gap_ps + first * steps.slope_ps
    return ChunkRun(-(-steps.at(first) // PS), gap / PS, steps.slope_ps / PS, count, tokens)


def chunks(answer: Iterable[Steps], merged: tuple[float, ...], rng: Generator) -> Iterator[ChunkRun]:
    """An answer's chunks, where a share of them carries 2, 3, ... tokens (`FrontEnd.merged_chunks`).

    Such a chunk comes with the last of its tokens. Which ones do is drawn; the cost is per merged chunk, not per token.
    """
    share = sum(merged)
    if not share:
        for s in answer:  # the usual case, and the hot one
            yield ChunkRun(-(-s.end_ps // PS), s.gap_ps / PS, s.slope_ps / PS, s.length, 1)
        return
    left, tokens = _next(merged, share, rng)
    for steps in answer:
        at = 0
        while at < steps.length:
            if left:
                single = min(left, steps.length - at)
                yield chunk_run(steps, at, single)
                at, left = at + single, left - single
            elif steps.length - at < tokens:  # the rest of these steps, held back for nothing: comes as it is
                yield chunk_run(steps, at)
                at = steps.length
            else:
                yield chunk_run(steps, at + tokens - 1, 1, tokens)
                at += tokens
                left, tokens = _next(merged, share, rng)


def _next(merged: tuple[float, ...], share: float, rng: Generator) -> tuple[int, int]:
    """How many chunks of one token come before the next merged one, and of how many tokens that is."""
    singles, tokens = _geometric(share, rng), 2
    draw = rng.random() * share
    for each in merged[:-1]:
        if draw < each:
            break
        draw, tokens = draw - each, tokens + 1
    return singles, tokens


def _geometric(share: float, rng: Generator) -> int:
    """Failures before the first success."""
    return int(min(log1p(-rng.random()) / log1p(-share), 1e18))
