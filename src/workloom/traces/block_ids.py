"""From prompts to block ids: the other way round than :mod:`workloom.traces.blocks`.

An id stands for a block and everything before it, so two prompts share as many leading ids as they share whole blocks,
and no id has two predecessors. The ids of a prompt are found piece by piece: what lies inside one text is a slice of
a list that every prompt with the same beginning shares, so a long prompt costs steps per piece, not per token.

    pieces    |── text 7, 150 ──|──── text 9, 300 ────|── text 4, 20 ──|
    blocks    |  0  |  1  |  (2)   |  3  |  4  |  5  |  (6)  |  rest        blocks 0 1 and 3 4 5 are slices
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from workloom.prefix import Key
from workloom.prompt import TRACE_TEXTS, Prompt
from workloom.session import Call

LONGEST_PROMPT = 1 << 24
"""Tokens (16.8 million): no model reads more, and whoever writes it must hold it."""

_ROOT = -1


class _Known(NamedTuple):
    """Ids that were given out. `runs`: of blocks inside one text, by (id before, text, offset in it); `mixed`: of
    blocks of several pieces or less than a block, by (id before, (text, offset, tokens), ...)."""

    runs: dict[tuple[int, int, int], list[int]]
    mixed: dict[tuple[int, ...], int]


class BlockIds:
    """Ids for the blocks of any number of sessions, counted up from `first` as they come.

    `partial`: whether the last block of a prompt has an id too when it is not full. What sessions do not share is
    forgotten behind each, so memory is bounded by one session and the texts that all share.
    """

    def __init__(self, block_tokens: int, *, first: int, partial: bool) -> None:
        self._size = block_tokens
        self._partial = partial
        self.next = first
        self._shared = _Known({}, {})

    def session(self, planned: Sequence[tuple[Call, Prompt]]) -> list[list[int]]:
        """The ids of every prompt of a session, in order."""
        own = _Known({}, {})
        made: dict[Prompt, list[int]] = {}
        for _, prompt in planned:
            base = prompt.base
            kept: list[int] = []
            if base is not None:
                kept = made[base][: min(prompt.base_tokens, base.tokens) // self._size]
            made[prompt] = self._ids(prompt.key, kept, own)
        return list(made.values())

    def _ids(self, key: Key, kept: list[int], own: _Known) -> list[int]:
        """The ids of a sequence whose first ones are known."""
        size, ends = self._size, key.ends
        private = next((i for i, text in enumerate(key.ids) if text < TRACE_TEXTS), len(key.ids))
        ids, at = list(kept), len(kept) * size
        piece = bisect_right(ends, at)
        last = key.tokens if self._partial else key.tokens - key.tokens % size
        while at < last:
            before = ids[-1] if ids else _ROOT
            whole = (ends[piece] - at) // size
            if whole:
                known = self._shared if piece < private else own
                offset = at - (ends[piece - 1] if piece else 0)
                run = known.runs.setdefault((before, key.ids[piece], offset), [])
                if len(run) < whole:
                    run.extend(range(self.next, self.next + whole - len(run)))
                    self.next = run[-1] + 1
                ids += run[:whole]
                at += whole * size
            else:
                content = [before]
                end = min(at + size, key.tokens)
                while at < end:
                    begin = ends[piece - 1] if piece else 0
                    upto = min(ends[piece], end)
                    content += (key.ids[piece], at - begin, upto - at)
                    at = upto
                    if at == ends[piece] and at < end:
                        piece += 1
                ids.append(self._mixed(self._shared if piece < private else own, tuple(content)))
            if piece < len(ends) and at == ends[piece]:
                piece += 1
        return ids

    def _mixed(self, known: _Known, content: tuple[int, ...]) -> int:
        number = known.mixed.get(content)
        if number is None:
            number = known.mixed[content] = self.next
            self.next += 1
        return number
