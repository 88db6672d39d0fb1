"""Chunks of a simulated answer: tokens are neither lost nor early when some come together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workloom import seeds
from workloom.drive.chunks import chunks
from workloom.engine.engine import Steps
from workloom.records import ChunkRun


def instants(runs: list[ChunkRun]) -> list[tuple[int, int]]:
    """(instant in ns, tokens) of every chunk."""
    return [(run.at(i), run.tokens_each) for run in runs for i in range(run.count)]


answers = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=6)


@given(answers, st.lists(st.floats(0, 0.3), max_size=3), st.integers(0, 99))
def test_every_token_comes_once_and_at_the_end_of_a_step(
    spells: list[tuple[int, int, int]], merged: list[float], seed: int
) -> None:
    steps, at, first = [], 0, 0
    for length, gap, slope in spells:
        at += 5_000
        steps.append(Steps(first, at, gap * 1000, slope * 1000, length))
        at, first = steps[-1].at(length - 1), first + length
    told = instants(list(chunks(steps, tuple(merged), seeds.stream(seed, "chunks"))))
    ends = [each.at(i) // 1000 for each in steps for i in range(each.length)]
    assert sum(tokens for _, tokens in told) == len(ends)
    token = 0
    for when, tokens in told:
        token += tokens
        assert when == ends[token - 1]
    if not sum(merged):
        assert len(told) == len(ends)


def test_the_share_is_what_was_asked_for() -> None:
    answer = [Steps(0, 1_000, 1_000, 0, 1_000_000)]
    told = instants(list(chunks(answer, (0.004, 0.0012), seeds.stream(1, "chunks"))))
    share = [sum(tokens == n for _, tokens in told) / len(told) for n in (2, 3)]
    assert abs(share[0] - 0.004) < 0.0004 and abs(share[1] - 0.0012) < 0.0003
