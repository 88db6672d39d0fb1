"""When the calls of a session began and ended, for formats that want instants of sessions that may have none."""

from __future__ import annotations

from typing import NamedTuple

from workloom.session import Call, Session, ready


class Instant(NamedTuple):
    """Seconds from the start of the session. `told`: the start is the trace's; `end_told`: so is the end."""

    start_s: float
    end_s: float
    told: bool
    end_told: bool


def instants(session: Session) -> dict[str, Instant]:
    """Instants of every call: those recorded, or else due times as if a call without a recorded end took no time."""
    out: dict[str, Instant] = {}
    done: dict[str, float] = {}
    for call in session.calls:
        start, end = _recorded(call)
        began = ready(call, done) if start is None else start
        assert began is not None, "edges point backwards"
        done[call.id] = began if end is None else max(began, end)
        out[call.id] = Instant(began, done[call.id], start is not None, end is not None)
    return out


def _recorded(call: Call) -> tuple[float | None, float | None]:
    return (None, None) if call.recorded is None else (call.recorded.start_s, call.recorded.end_s)
