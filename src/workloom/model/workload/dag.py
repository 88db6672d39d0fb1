"""DAGs of calls told in short, as widths of levels."""

from __future__ import annotations

from collections.abc import Sequence

Parents = tuple[tuple[int, ...], ...]


def levels(widths: Sequence[int]) -> Parents:
    """For every call the calls it waits for: (1, 3, 9, 1) is a call, three behind it, three behind each, a join of all.

    A level at least as wide as the one before is fanned out from it, evenly; a narrower one joins it, evenly.
    """
    out: list[tuple[int, ...]] = []
    before: list[int] = []
    for width in widths:
        here = list(range(len(out), len(out) + width))
        for place in range(width):
            if not before:
                out.append(())
            elif width >= len(before):
                out.append((before[place * len(before) // width],))
            else:
                first, end = (edge * len(before) // width for edge in (place, place + 1))
                out.append(tuple(before[first:end]))
        before = here
    return tuple(out)
