"""How alike two workloads are: margins, what goes together, the cache curve, and what an engine makes of both.

Every line has a distance, a tolerance, a band and a verdict of three values, by the rule of
:func:`workloom.answers.fidelity.line.judge`. Calls of one session go together, so nothing is resampled but whole
sessions.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from workloom.answers.fidelity.line import Line, Verdict
from workloom.answers.fidelity.margins import LEVEL, arrivals, correlations, margins
from workloom.answers.fidelity.runs import Ask, Runs
from workloom.errors import UsageError
from workloom.model.curves import Curve
from workloom.model.facts import facts
from workloom.model.measures import sample
from workloom.session import Session
from workloom.traces import Reading

__all__ = ["LEVEL", "Ask", "Fidelity", "Line", "Verdict", "fidelity"]


class Fidelity(Struct, frozen=True):
    """All lines, and what they were found with.

    band_sessions: of the trace whose halves say how far is far. left_out: the share of calls, real and other, that the
    engine's context has no room for: its lines are about the others, the cache's line is about all.
    """

    real_sessions: int
    other_sessions: int
    band_sessions: int
    engine: str
    concurrency: int
    seed: int
    left_out: tuple[float, float]
    lines: list[Line]
    curves: dict[str, Curve]

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict == verdict for line in self.lines)


def fidelity(real: Reading, other: Reading, ask: Ask, band: Reading | None = None) -> Fidelity:
    """Compare two traces. `band`: the sessions whose halves say how far is far (default: the real ones).

    Sessions that repeat an earlier one of their side are left out: a copy is no second session. Raises UsageError where
    a trace is empty. Memory: the sessions of all.
    """
    ours, theirs = _plain(real), _plain(other)
    halved = ours if band is None else _plain(band)
    for name, sessions in (("the real trace", ours), ("the other trace", theirs), ("the trace for bands", halved)):
        if not sessions:
            raise UsageError(f"{name} holds no session", hint="look at it with `workloom inspect`")
    mine, its = sample(facts(ours)), sample(facts(theirs))
    halves = mine if band is None else sample(facts(halved))
    runs = Runs(ask, ours, theirs, halved)
    clocked = real.header.common_clock and other.header.common_clock
    return Fidelity(
        real_sessions=len(ours),
        other_sessions=len(theirs),
        band_sessions=len(halved),
        engine=ask.profile.name,
        concurrency=ask.concurrency,
        seed=ask.seed,
        left_out=(runs.ours.left_out, sum(shown.left_out for shown in runs.theirs) / len(runs.theirs)),
        lines=[
            *margins(mine, its, halves, ask.seed, ask.rounds),
            *(arrivals(ours, theirs) if clocked else []),
            *correlations(mine, its, halves, ask.seed),
            *runs.lines(),
        ],
        curves={"real": runs.ours.curve, "other": runs.theirs[0].curve},
    )


def _plain(reading: Reading) -> list[Session]:
    """Sessions, each once, without recorded instants, which only one side may have: both take their nominal times."""
    known: set[int] = set()
    out = []
    for session in reading:
        calls = tuple(replace(call, recorded=None) for call in session.calls)
        what = hash((calls, session.start_s, session.user))
        if what not in known or len(calls) == 1:
            known.add(what)
            out.append(replace(session, calls=calls))
    return out
