"""The plain simulator that the engine's speed is held against gives the engine's results, whatever runs short."""

from __future__ import annotations

import sys
from pathlib import Path

from engine_world import profile
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.prefix import Key

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from per_iteration import PerIteration, Submission, answers, replayed

OVER_NS = 3000
"""All calls are over by then: what repeats an answer comes after it."""


@st.composite
def loads(draw: st.DrawFn) -> list[Submission]:
    """Calls that share a scaffold, repeat an earlier call's prompt and answer, or are new."""
    given: list[Submission] = []
    at = 0
    for number in range(draw(st.integers(1, 12))):
        at += draw(st.sampled_from((0, 0, 1, 7, 40)))
        before = draw(st.sampled_from(given)) if given and draw(st.booleans()) else None
        if before is not None and draw(st.booleans()):
            at += OVER_NS
            kept = before.prompt.tokens + draw(st.integers(1, before.output_tokens))
            ids, ends = [*before.prompt.ids, before.answer], [*before.prompt.ends, kept]
        elif before is not None:
            ids, ends = [*before.prompt.ids], [*before.prompt.ends]
        else:
            ids, ends = [-1], [draw(st.integers(1, 20))]
        ids.append(2 * number)
        ends.append(ends[-1] + draw(st.integers(1, 30)))
        if ends[-1] <= 90:
            output = draw(st.integers(1, 25))
            given.append(Submission(at, f"c{number}", Key(tuple(ids), tuple(ends)), 2 * number + 1, output))
    return given


@settings(max_examples=150, deadline=None)
@given(loads(), st.sampled_from((None, 120, 160)), st.sampled_from((1, 4, 16)))
def test_every_token_comes_at_the_same_picosecond(calls: list[Submission], kv: int | None, block: int) -> None:
    server = profile(kv_tokens=kv, block_tokens=block)
    assert PerIteration(server).run(calls) == answers(replayed(server, calls))


def test_preemption_and_eviction_are_among_what_is_compared() -> None:
    """Four calls that grow to 75 tokens each, on room for 120."""
    calls = [Submission(0, f"c{i}", Key((2 * i,), (25,)), 2 * i + 1, 50) for i in range(4)]
    server = profile(kv_tokens=120, block_tokens=4)
    found = PerIteration(server).run(calls)
    assert found == answers(replayed(server, calls))
    assert sum(answer.preemptions for answer in found.values()) > 2
