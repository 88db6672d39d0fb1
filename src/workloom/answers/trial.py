"""One run of a question that takes several: carried out, kept, and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workloom.drive.driver import Options, Progress
from workloom.errors import BackendError, Hopeless
from workloom.execute import Live, Simulated, execute, preflight
from workloom.metrics.measured import Measured, measured, measured_records
from workloom.metrics.summary import summary_json
from workloom.plan import Plan
from workloom.store import open_run

if TYPE_CHECKING:
    from workloom.engine.fleet import Fleet
    from workloom.engine.profile import Profile


def kept(plan: Plan, target: Simulated | Live, path: Path, options: Options, argv: list[str]) -> Measured:
    """A run in a directory of its own, which any other command can open."""
    run = execute(
        plan, target, path, options=options, progress=Progress(), argv=argv, summarize=summary_json, scenario=None
    )
    return measured(run)


def again(path: Path) -> Measured:
    """A run that was made before."""
    return measured(open_run(path))


def in_memory(plan: Plan, server: Profile | Fleet, options: Options | None = None) -> Measured:
    """A simulated run of which only the records remain: for hundreds of short ones."""
    from workloom.answers.simulated import play

    played = play(plan, server, options=options)
    return measured_records(played.calls, played.sessions, window=played.window)


PATIENCE_S = 10.0
"""How long a server may take to be heard of again after a run that went badly, before it counts as lost."""


def require_server(target: Live, where: Path, hint: str) -> None:
    """A server that is gone says nothing of what it can carry. Raises Hopeless where none answers any more."""
    try:
        preflight(target, PATIENCE_S)
    except BackendError as fault:
        raise Hopeless("the server was lost", where=str(where), found=fault.what, hint=hint) from fault
