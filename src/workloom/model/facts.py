"""What every characterization asks of a session, worked out once: prompts, waits, tasks, instants, reuse.

    facts(sessions, pace) -> SessionFacts -> each section's add(); each section's result() is its numbers

Instants are seconds from the start of the session: recorded where the trace has them, else worked out from the edges
and a pace that is named in every result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from workloom.model.reuse import CallReuse, reuse
from workloom.session import Call, Gap, Session


class Pace(Struct, frozen=True):
    """How long a call takes whose end the trace does not tell: an assumption, named wherever it is used.

    10,000 tokens/s of prefill and 50 tokens/s of decode are round figures for a 70B model on current hardware.
    """

    prefill_tokens_per_s: float = 10_000.0
    decode_tokens_per_s: float = 50.0

    def first_s(self, computed_tokens: int) -> float:
        """Seconds to the first token of a call with so many prompt tokens to compute."""
        return computed_tokens / self.prefill_tokens_per_s

    def call_s(self, computed_tokens: int, output_tokens: int) -> float:
        """Seconds a call lasts."""
        return self.first_s(computed_tokens) + output_tokens / self.decode_tokens_per_s


class CallFacts(NamedTuple):
    """One call in its session; other calls are named by their place in `SessionFacts.calls`."""

    call: Call
    place: int
    role: str
    prompt_tokens: int
    inherited_tokens: int
    """Prompt tokens taken from an ancestor's prompt and answer."""
    reuse: CallReuse
    """What infinite caches held of the prompt: see :mod:`workloom.model.reuse`."""
    parents: tuple[int, ...]
    """The calls it waits for, each once, in order."""
    before: int | None
    """The call whose context it goes on from: the one it inherits from, else the previous call of its agent."""
    gap: Gap
    """Of the edge that waits longest (the last such); `none` for a call without edges."""
    wait_s: float
    """The longest wait of its edges."""
    task: int
    """Tasks are numbered from 0: a call with a human edge, or without any, begins one."""
    start_s: float
    end_s: float
    timed: bool
    """Whether start and end are the trace's own."""

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


class SessionFacts(NamedTuple):
    """A session and its calls' facts. `number`: its place in the trace."""

    session: Session
    number: int
    calls: tuple[CallFacts, ...]
    tasks: int

    @property
    def makespan_s(self) -> float:
        """From the first start to the last end."""
        return max(c.end_s for c in self.calls) - min(c.start_s for c in self.calls)


def role(agent: str) -> str:
    """The role an agent plays: its name without the number of the instance (``Explore:a1``, ``explore-3``)."""
    name = agent.split(":", 1)[0]
    return re.sub(r"[-_#]\d+$", "", name) or agent


def facts(sessions: Iterable[Session], pace: Pace | None = None) -> Iterator[SessionFacts]:
    """Every session with its facts; memory is a session's, and what :func:`workloom.model.reuse.reuse` holds."""
    pace = pace or Pace()
    passed = _Passed(sessions)
    rows: list[CallReuse] = []
    for row in reuse(passed):
        assert passed.session is not None
        rows.append(row)
        if len(rows) == len(passed.session.calls):
            yield _session(passed.session, passed.count - 1, rows, pace)
            rows = []


class _Passed:
    """Sessions on their way through an iterator: the last that passed, and how many did."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._sessions = sessions
        self.session: Session | None = None
        self.count = 0

    def __iter__(self) -> Iterator[Session]:
        for session in self._sessions:
            self.session = session
            self.count += 1
            yield session


def _session(session: Session, number: int, rows: list[CallReuse], pace: Pace) -> SessionFacts:
    places = {call.id: index for index, call in enumerate(session.calls)}
    last_of: dict[str, int] = {}
    calls: list[CallFacts] = []
    tasks = 0
    for index, (call, row) in enumerate(zip(session.calls, rows, strict=True)):
        parents = tuple(dict.fromkeys(places[edge.call] for edge in call.after))
        before = places[call.inherit.call] if call.inherit is not None else last_of.get(call.agent)
        last_of[call.agent] = index
        if not parents or any(edge.gap == "human" for edge in call.after):
            task, tasks = tasks, tasks + 1
        else:
            task = max(calls[parent].task for parent in parents)
        wait_s = 0.0
        gap: Gap = "none"
        for edge in call.after:
            if edge.wait_s >= wait_s:
                wait_s, gap = edge.wait_s, edge.gap
        start, end, timed = _instants(call, row, calls, places, pace)
        inherited = row.prompt_tokens - call.span_tokens - call.fresh_tokens
        calls.append(
            CallFacts(
                call=call,
                place=index,
                role=role(call.agent),
                prompt_tokens=row.prompt_tokens,
                inherited_tokens=inherited,
                reuse=row,
                parents=parents,
                before=before,
                gap=gap,
                wait_s=wait_s,
                task=task,
                start_s=start,
                end_s=end,
                timed=timed,
            )
        )
    return SessionFacts(session, number, tuple(calls), tasks)


def _instants(
    call: Call, row: CallReuse, calls: list[CallFacts], places: dict[str, int], pace: Pace
) -> tuple[float, float, bool]:
    """Start, end, and whether both are the trace's own."""
    recorded = call.recorded
    start = recorded.start_s if recorded is not None else None
    end = recorded.end_s if recorded is not None else None
    timed = start is not None and end is not None and end >= start
    if start is None:
        start = max((calls[places[edge.call]].end_s + edge.wait_s for edge in call.after), default=0.0)
    if end is None or end < start:
        end = start + pace.call_s(row.fresh_tokens, call.answer_tokens)
    return start, end, timed
