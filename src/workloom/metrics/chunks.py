"""What streams delivered and when, straight from chunk runs: vectorised over runs, never token by token in Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workloom.clock import NS
from workloom.metrics.frame import Bools, Chunks, Ints, Window, per_call
from workloom.metrics.stats import Floats

_PIECE = 2_000_000
"""Gaps expanded at once (one run more)."""


def gaps_s(chunks: Chunks, keep: Bools | None = None) -> Iterator[Floats]:
    """TBC: the gaps between the chunks of each call (`keep` of them), in pieces of bounded size and no order.

    Inside a run gap i is gap + i*slope; between runs it is from the last chunk of the one to the first of the next.
    Chunks that one read brought stand at one instant: their gaps are 0, and count.
    """
    return (gaps for gaps, _ in gaps_by_call_s(chunks, keep))


def gaps_by_call_s(chunks: Chunks, keep: Bools | None = None) -> Iterator[tuple[Floats, Ints]]:
    """The gaps as :func:`gaps_s` says, and beside each which call it belongs to."""
    mine = np.ones(len(chunks.call), dtype=np.bool_) if keep is None else keep[chunks.call]
    follows = np.flatnonzero(mine[:-1] & (chunks.call[1:] == chunks.call[:-1]))
    if len(follows):
        between_ns = chunks.first_ns[follows + 1] - chunks.at(chunks.count[follows] - 1, follows)
        yield between_ns / NS, chunks.call[follows]
    inner = np.flatnonzero(mine & (chunks.count > 1))
    upto = np.cumsum(chunks.count[inner] - 1)
    begin = 0
    while begin < len(inner):
        before = int(upto[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(upto, before + _PIECE, side="right")))
        yield _expanded(chunks, inner[begin:end])
        begin = end


def _expanded(chunks: Chunks, runs: Ints) -> tuple[Floats, Ints]:
    """Every gap inside the runs, and whose it is."""
    counts = chunks.count[runs] - 1
    i = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    gaps_ns: Floats = np.repeat(chunks.gap_ns[runs], counts) + i * np.repeat(chunks.slope_ns[runs], counts)
    return gaps_ns / NS, np.repeat(chunks.call[runs], counts)


def delivered_tokens(chunks: Chunks, window: Window) -> Floats:
    """Output tokens of each call whose chunks came in the window; a run that reaches over an edge counts in part."""
    inside = _reached(chunks, window.end_ns - 1) - _reached(chunks, window.start_ns - 1)
    return per_call(chunks.call, inside * chunks.tokens_each, chunks.calls)


def _reached(chunks: Chunks, until_ns: int) -> Ints:
    """Chunks of each run that had come by an instant; those whose runs reach over it are found by bisection."""
    low = np.where(chunks.at(chunks.count - 1) <= until_ns, chunks.count, 0)
    runs = np.flatnonzero((low == 0) & (chunks.first_ns <= until_ns))
    high = chunks.count.copy()
    while len(runs):
        middle = (low[runs] + high[runs]) // 2
        came = chunks.at(middle, runs) <= until_ns
        low[runs[came]] = middle[came] + 1
        high[runs[~came]] = middle[~came]
        runs = runs[low[runs] < high[runs]]
    return low
