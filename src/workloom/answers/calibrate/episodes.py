"""Stalls: what the prefill of newly arrived calls does to one that decodes, step by step.

An episode is a stretch in which somebody prefills. One call that decodes all through it is the observer: each of its
chunks is one step. Where a new call's first chunks fall among those is found by the pattern of their gaps, which both
have in common, so the client's clock errors of some milliseconds do not matter. The step that made a call's first
token computed its last chunk of prompt, the step before that the chunk before, and so on.

    observer   |  D  |  D  |        stall        | tail|  D  |  D  |
    new call         sent      (steps with its chunks)  ^first ^ ^
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.answers.calibrate.observed import Floats, Ints, Observed
from workloom.answers.calibrate.prompts import Chunk

MATCHED = 8
"""Gaps behind a first token that are compared to find its place."""
CLOCK_S = 0.03
"""How far a place may be from where the clocks say it is."""
ALIKE_S = 0.0006
"""Root mean square of the difference of gaps, at most, for a place to be believed."""
NEARER = 0.02
"""What a second of clock error counts in that comparison: where all places look alike, the nearest is right."""
BEFORE, AFTER = 5, 5
"""Gaps of plain decoding that an episode keeps before and behind its stalls."""


class Step(NamedTuple):
    """A step with prefill. `chunks` of it; `new`: calls whose first chunk is among them."""

    chunks: tuple[Chunk, ...]
    new: int

    @property
    def tokens(self) -> int:
        return sum(tokens for tokens, _ in self.chunks)

    @property
    def pairs(self) -> float:
        return sum(tokens * before + tokens * tokens / 2 for tokens, before in self.chunks)


class Episode(NamedTuple):
    """`gaps_s[i]` ends with the tokens of step i, which is plain decoding where `steps[i]` is None.

    `decode_s`: the median gap before. `arrivals`: of every call that arrived, its index, the step its first token came
    from, and the time from its being sent to the beginning of gaps_s[0] (of the observer's clock, put right).
    """

    at_s: float
    batch: int
    context_tokens: float
    decode_s: float
    gaps_s: Floats
    steps: list[Step | None]
    arrivals: list[tuple[int, int, float]]


def episodes(observed: Observed, tokens: Floats, chunks: list[list[Chunk]]) -> list[Episode]:
    """All episodes that can be read beyond doubt, in time's order."""
    first, last = observed.first_s, observed.last_s
    found = []
    for group in _groups(observed.start_s, first):
        low, high = float(observed.start_s[group].min()), float(first[group].max())
        observers = np.flatnonzero((first < low - 0.1) & (last > high + 0.15))
        episode = _read(observed, group, low, high, observers, tokens, chunks)
        if episode is not None:
            found.append(episode)
    return found


def _groups(start: Floats, first: Floats) -> list[list[int]]:
    """Calls whose prefills overlap or touch."""
    groups: list[list[int]] = []
    until = -np.inf
    for call in np.argsort(start, kind="stable").tolist():
        if start[call] > until + 0.02:
            groups.append([])
        groups[-1].append(call)
        until = max(until, float(first[call]))
    return groups


def _read(
    observed: Observed,
    group: list[int],
    low: float,
    high: float,
    observers: Ints,
    tokens: Floats,
    chunks: list[list[Chunk]],
) -> Episode | None:
    best: tuple[float, Floats] | None = None
    for call in observers.tolist():
        instants = observed.chunks[call]
        around = np.diff(instants[(instants > low - 0.15) & (instants < low)])
        behind = np.diff(instants[(instants > high + 0.01) & (instants < high + 0.15)])
        if len(around) < BEFORE or len(behind) < AFTER:
            continue
        middle = float(np.median(around)) + float(np.median(behind))
        if best is None or middle < best[0]:
            best = middle, instants
    if best is None:
        return None
    instants = best[1]
    places = []
    for call in group:
        place = _place(instants, observed.chunks[call])
        if place is None:
            return None
        places.append(place)
    lengths = [len(chunks[call]) for call in group]
    begin = min(place - length for place, length in zip(places, lengths, strict=True)) + 1
    end = max(places) + 1
    if begin < BEFORE + 2 or end + AFTER >= len(instants):
        return None
    origin = begin - BEFORE - 1
    """The instant from which gaps_s[0] runs; gap i ends at instants[origin + 1 + i]."""
    parts: dict[int, list[Chunk]] = {}
    new: dict[int, int] = {}
    for call, place, length in zip(group, places, lengths, strict=True):
        for index, chunk in enumerate(chunks[call]):
            parts.setdefault(place - length + 1 + index, []).append(chunk)
        new[place - length + 1] = new.get(place - length + 1, 0) + 1
    if sorted(parts) != list(range(begin, end)):
        return None
    gaps = np.diff(instants[origin : end + AFTER])
    steps: list[Step | None] = [None] * len(gaps)
    for at, chunk_list in parts.items():
        steps[at - origin - 1] = Step(tuple(chunk_list), new.get(at, 0))
    first, last = observed.first_s, observed.last_s
    active = np.flatnonzero((first < low) & (last > high))
    context = sum(tokens[call] + np.searchsorted(observed.chunks[call], low) for call in active)
    arrivals = []
    for call, place in zip(group, places, strict=True):
        error = float(instants[place] - observed.chunks[call][0])
        arrivals.append((call, place - origin - 1, float(observed.start_s[call] + error - instants[origin])))
    decode = float(np.median(np.diff(instants[max(0, begin - 12) : begin - 1])))
    return Episode(low, len(active), float(context), decode, gaps, steps, arrivals)


def _place(observer: Floats, mine: Floats) -> int | None:
    """The index of the observer's chunk that came with my first one: the first gap apart, later gaps are alike."""
    if len(mine) < MATCHED + 2:
        return None
    gaps = np.diff(mine[: MATCHED + 2])
    low, high = np.searchsorted(observer, (mine[0] - CLOCK_S, mine[0] + CLOCK_S))
    best = (np.inf, np.inf, -1)
    for place in range(int(low), int(high)):
        if place + MATCHED + 2 > len(observer):
            break
        theirs = np.diff(observer[place : place + MATCHED + 2])
        off = float(np.sqrt(np.mean((theirs[1:] - gaps[1:]) ** 2)))
        best = min(best, (off + NEARER * abs(float(observer[place] - mine[0])), off, place))
    return best[2] if best[1] < ALIKE_S else None
