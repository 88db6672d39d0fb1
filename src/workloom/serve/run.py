"""The server as a program: until somebody ends it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from workloom.clock import RealClock, run_real
from workloom.engine.fleet import Fleet
from workloom.engine.profile import Profile
from workloom.quiet import quiet
from workloom.serve.app import serve
from workloom.serve.texts import MAX_BYTES


def run(
    fleet: Profile | Fleet,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str | None = None,
    prefix_cache: bool = True,
    record: Path | None = None,
    text_bytes: int = MAX_BYTES,
) -> None:
    """Serve until SIGINT or SIGTERM; one line with the URL goes to stdout when it listens. Raises UsageError."""

    async def main(clock: RealClock) -> None:
        server = await serve(
            fleet,
            host=host,
            port=port,
            model=model,
            prefix_cache=prefix_cache,
            record=record,
            text_bytes=text_bytes,
        )
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends = (signal.SIGINT, signal.SIGTERM)
        for number in ends:
            loop.add_signal_handler(number, stop.set)
        try:
            with quiet():
                print(f"{_say(server.fleet)} at {server.url} as model {', '.join(server.models)}", flush=True)
                await stop.wait()
        finally:
            for number in ends:
                loop.remove_signal_handler(number)
            await server.close()

    run_real(main)


def _say(fleet: Fleet) -> str:
    """What serves, in a few words."""
    if fleet.alone:
        return fleet.pools[0].profile.name
    pools = (f"{pool.replicas} x {pool.profile.name}{_ROLES[pool.role]}" for pool in fleet.pools)
    return f"{', '.join(pools)} behind {fleet.router}"


_ROLES = {"both": "", "prefill": " (prefill)", "decode": " (decode)"}
