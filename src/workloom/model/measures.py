"""What two traces are compared by: samples of calls and sessions, kept session by session.

Calls of one session are no independent draws, so whatever is resampled is sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloom.model.describe import extent
from workloom.model.facts import CallFacts, SessionFacts

Floats = NDArray[np.float64]
LEAST_GAPS = 8
"""Waits of a session below which its burstiness says nothing."""


class Measure(NamedTuple):
    """A name for tables, a unit, and the values that a session has of it (none, one, or one a call)."""

    name: str
    unit: str
    values: Callable[[SessionFacts], Iterator[float]]


def _of_calls(value: Callable[[CallFacts], float]) -> Callable[[SessionFacts], Iterator[float]]:
    return lambda session: (value(call) for call in session.calls)


def _waits(gap: str) -> Callable[[SessionFacts], Iterator[float]]:
    return lambda session: (call.wait_s for call in session.calls if call.parents and call.gap == gap)


def _overlap(session: SessionFacts) -> Iterator[float]:
    """The share of each prompt behind the first that is inherited."""
    return (call.inherited_tokens / max(1, call.prompt_tokens) for call in session.calls if call.before is not None)


def _kept(session: SessionFacts) -> Iterator[float]:
    """The share of the context before (prompt and answer) that each call keeps."""
    for call in session.calls:
        if call.before is not None:
            before = session.calls[call.before]
            yield call.inherited_tokens / max(1, before.prompt_tokens + before.call.answer_tokens)


def _burstiness(session: SessionFacts) -> Iterator[float]:
    """(sd - mean) / (sd + mean) of a session's waits (Goh and Barabasi 2008): -1 even, 0 as chance, 1 in bursts."""
    waits = np.array([call.wait_s for call in session.calls if call.parents])
    if len(waits) >= LEAST_GAPS and waits.mean() > 0:
        yield float((waits.std() - waits.mean()) / (waits.std() + waits.mean()))


def _task_calls(session: SessionFacts) -> Iterator[float]:
    return (float(n) for n in np.bincount([call.task for call in session.calls]))


MEASURES = (
    Measure("prompt", "tokens", _of_calls(lambda call: call.prompt_tokens)),
    Measure("fresh text", "tokens", _of_calls(lambda call: call.call.fresh_tokens)),
    Measure("output", "tokens", _of_calls(lambda call: call.call.output_tokens)),
    Measure("wait for tools", "s", _waits("tool")),
    Measure("wait for humans", "s", _waits("human")),
    Measure("prefix overlap", "share", _overlap),
    Measure("context kept", "share", _kept),
    Measure("calls per session", "calls", lambda session: iter([float(len(session.calls))])),
    Measure("calls per task", "calls", _task_calls),
    Measure("first prompt", "tokens", lambda session: iter([float(session.calls[0].prompt_tokens)])),
    Measure("longest prompt", "tokens", lambda session: iter([float(max(c.prompt_tokens for c in session.calls))])),
    Measure("depth", "calls", lambda session: iter([float(extent(session.session)[0])])),
    Measure("width", "calls", lambda session: iter([float(extent(session.session)[1])])),
    Measure("agents per session", "agents", lambda s: iter([float(len({c.call.agent for c in s.calls}))])),
    Measure("burstiness of waits", "B", _burstiness),
)
"""Margins."""

PAIRS = (("fresh", "output"), ("fresh", "wait"), ("output", "wait"))


class Sample(NamedTuple):
    """A trace by its sessions: of every measure the values of each, and the (fresh, output, wait) of its calls."""

    values: dict[str, list[Floats]]
    calls: list[Floats]

    @property
    def sessions(self) -> int:
        return len(self.calls)


def sample(sessions: Sequence[SessionFacts] | Iterator[SessionFacts]) -> Sample:
    """The sample of a trace."""
    values: dict[str, list[Floats]] = {measure.name: [] for measure in MEASURES}
    calls: list[Floats] = []
    for session in sessions:
        for measure in MEASURES:
            values[measure.name].append(np.fromiter(measure.values(session), dtype=np.float64))
        rows = [(c.call.fresh_tokens, c.call.output_tokens, c.wait_s) for c in session.calls if c.gap == "tool"]
        calls.append(np.array(rows, dtype=np.float64).reshape(-1, 3))
    return Sample(values, calls)
