"""Plans of hand-made sessions."""

from __future__ import annotations

import tempfile
from pathlib import Path

from workloom.plan import Limits, Load, Plan, Recipe, TraceRef, Waits, make
from workloom.session import Header, Session
from workloom.traces import native


def plan_of(
    sessions: list[Session], load: Load, limits: Limits | None = None, *, max_wait_s: float | None = None
) -> Plan:
    """A plan whose trace is these sessions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        native.write(path, Header(source="test"), sessions)
        return make(Recipe(TraceRef((str(path),)), load, limits or Limits(), Waits(max_wait_s)))
