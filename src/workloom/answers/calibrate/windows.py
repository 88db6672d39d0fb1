"""Quiet windows: stretches in which the same calls decode and nobody prefills. Their gaps are decode steps, bare."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.answers.calibrate.observed import Floats, Ints, Observed

SETTLED_S = 0.03
"""So long after a first or last token the steps are still others' business."""
SHORTEST_S, LONGEST_S, FEWEST_GAPS = 0.05, 0.25, 4
"""Windows shorter than that are left out, longer ones are cut; so many gaps make a median."""


class Windows(NamedTuple):
    """`gap_s`: the median gap of a window; `batch`, `context_tokens`: calls that decoded, and their contexts in all."""

    low_s: Floats
    high_s: Floats
    batch: Ints
    context_tokens: Floats
    gap_s: Floats
    gaps: Ints


def quiet_windows(observed: Observed, tokens: Floats) -> Windows:
    """All of them. `tokens`: prompts as the server counts them.

    A client that lags reads several chunks at once: the smallest median among the calls of a window is the server's.
    """
    first, last, start = observed.first_s, observed.last_s, observed.start_s
    edges = _cut(np.unique(np.concatenate((start, first + SETTLED_S, last, last + SETTLED_S))))
    begun = np.sort(start)
    settled = np.sort(first + SETTLED_S)
    ended, over = np.sort(last), np.sort(last + SETTLED_S)
    rows = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        middle = (low + high) / 2
        prefilling = np.searchsorted(begun, middle) - np.searchsorted(settled, middle)
        leaving = np.searchsorted(ended, middle) - np.searchsorted(over, middle)
        if high - low < SHORTEST_S or prefilling or leaving:
            continue
        active = np.flatnonzero((first <= low) & (last >= high))
        found = [gaps for call in active if len(gaps := _gaps(observed.chunks[call], low, high)) >= FEWEST_GAPS]
        if not found:
            continue
        least = min(found, key=lambda gaps: float(np.median(gaps)))
        if np.median(least) <= 0:
            continue  # one read brought several chunks
        context = sum(
            tokens[call] + observed.output_tokens[call] * _share(observed.chunks[call], middle) for call in active
        )
        rows.append((low, high, len(active), context, float(np.median(least)), len(least)))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    low_s, high_s, batch, contexts, gap_s, gaps = columns
    return Windows(low_s, high_s, batch.astype(np.int64), contexts, gap_s, gaps.astype(np.int64))


def _cut(edges: Floats) -> Floats:
    """Edges with more between them, none farther apart than a window may be long."""
    pieces = np.maximum(1, np.ceil(np.diff(edges) / LONGEST_S).astype(np.int64))
    stretches = zip(edges[:-1].tolist(), edges[1:].tolist(), pieces.tolist(), strict=True)
    inner = [np.linspace(low, high, count, endpoint=False) for low, high, count in stretches]
    return np.concatenate([*inner, edges[-1:]])


def _gaps(chunks: Floats, low: float, high: float) -> Floats:
    inside: Floats = np.diff(chunks[np.searchsorted(chunks, low) : np.searchsorted(chunks, high, side="right")])
    return inside


def _share(chunks: Floats, at_s: float) -> float:
    return float(np.searchsorted(chunks, at_s) / len(chunks))


def merged_chunks(observed: Observed, windows: Windows, most: int = 4) -> tuple[float, ...]:
    """Shares of chunks that carry 2, 3, ... `most` tokens, by gaps that are as many steps long; the last is not 0.

    What the gaps say is scaled to what the token counts say, where a run counts tokens and chunks.
    """
    counts = np.zeros(most + 1)
    first, last = observed.first_s, observed.last_s
    for low, high, step in zip(windows.low_s.tolist(), windows.high_s.tolist(), windows.gap_s.tolist(), strict=True):
        for call in np.flatnonzero((first <= low) & (last >= high)).tolist():
            steps = np.rint(_gaps(observed.chunks[call], low, high) / step).astype(np.int64)
            counts += np.bincount(np.clip(steps, 0, most + 1), minlength=most + 2)[: most + 1]
    total = counts[1:].sum()
    chunks = sum(len(mine) for mine in observed.chunks)
    missing = float(observed.output_tokens.sum() - chunks)
    if total == 0 or missing <= 0:
        return ()
    shares = counts[2:] / total
    extra = float((shares * np.arange(1, most)).sum())
    if extra <= 0:
        return ()
    found = [round(float(share), 6) for share in shares * (missing / chunks / extra)]
    while found and not found[-1]:
        found.pop()
    return tuple(found)
