"""`workloom serve`."""

from __future__ import annotations

from pathlib import Path

from workloom.engine.fleet import Fleet
from workloom.engine.profile import Profile


def serve(
    fleet: Profile | Fleet, host: str, port: int, model: str | None, record: str | None, prefix_cache: bool
) -> None:
    """Serve until interrupted."""
    from workloom.serve import run_server

    run_server(
        fleet,
        host=host,
        port=port,
        model=model,
        prefix_cache=prefix_cache,
        record=None if record is None else Path(record),
    )
