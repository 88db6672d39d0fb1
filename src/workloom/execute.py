"""A run from plan to directory: the one way in which plans are carried out, live or simulated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from workloom import clock
from workloom.clock import RealClock, VirtualClock
from workloom.drive.driver import End, Options, Progress, drive
from workloom.engine.profile import Profile
from workloom.errors import BackendError
from workloom.plan import Plan, document
from workloom.records import ServerSample
from workloom.store import Manifest, Run, RunWriter

if TYPE_CHECKING:
    from workloom.drive.http import HttpBackend, Preflight
    from workloom.engine.engine import Gauges


class Simulated(Struct, frozen=True):
    """Run on the simulated engine, in virtual time."""

    profile: Profile
    prefix_cache: bool = True


class Live(Struct, frozen=True):
    """Run against a server. `salt` makes the texts; `api_key` goes into the requests and nowhere else."""

    url: str
    model: str
    salt: int
    endpoint: str = "chat"
    api_key: str | None = None
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    exact: bool = True
    verify: bool = True


def execute(
    plan: Plan,
    target: Simulated | Live,
    path: Path,
    *,
    options: Options,
    progress: Progress,
    argv: list[str],
    summarize: Callable[[Run], bytes],
) -> Run:
    """Carry out a plan; what was recorded is safe whatever happens.

    A KeyboardInterrupt or an error of our own ends the run as interrupted or failed, and is raised again.
    """
    writer = RunWriter.create(path, _manifest(plan, target, options, argv), document(plan))
    with writer:
        lag: float | None = None
        if isinstance(target, Simulated):
            end = clock.run_virtual(lambda time: _simulate(plan, target, time, writer, options, progress))
        else:
            end, lag = clock.run_real(lambda time: _live(plan, target, time, writer, options, progress))
        return writer.close(
            "finished",
            summarize=summarize,
            window_end_ns=end.window_end_ns,
            loaded_until_ns=end.loaded_until_ns,
            loop_lag_p99_s=lag,
        )


async def _simulate(
    plan: Plan, target: Simulated, time: VirtualClock, writer: RunWriter, options: Options, progress: Progress
) -> End:
    from workloom.drive.simulated import SimulatedBackend
    from workloom.engine.engine import Engine

    engine = Engine(target.profile, prefix_cache=target.prefix_cache)
    _sample(engine.gauges(), 0, writer)
    duration_s = plan.recipe.limits.duration_s
    if duration_s is not None:
        window_end = clock.to_ns(duration_s)
        time.call_at(window_end, lambda: _sample(engine.gauges(), window_end, writer))
    try:
        return await drive(plan, SimulatedBackend(engine, time), time, writer, options, progress)
    finally:
        _sample(engine.gauges(), time.now(), writer)


def _sample(gauges: Gauges, at_ns: int, writer: RunWriter) -> None:
    """The engine's own counters, by the names vLLM gives them."""
    for name, value in (
        ("vllm:prefix_cache_queries", gauges.queries_tokens),
        ("vllm:prefix_cache_hits", gauges.hits_tokens),
        ("vllm:num_preemptions", gauges.preemptions),
        ("vllm:prompt_tokens", gauges.prompt_tokens),
        ("vllm:generation_tokens", gauges.generated_tokens),
    ):
        writer.server(ServerSample(at_ns, name, float(value)))


async def _live(
    plan: Plan, target: Live, time: RealClock, writer: RunWriter, options: Options, progress: Progress
) -> tuple[End, float | None]:
    from workloom.drive.lag import LoopLag
    from workloom.quiet import quiet

    backend = _backend(target, time)
    try:
        with quiet():
            time.restart()
            lag = LoopLag(time)
            end = await drive(plan, backend, time, writer, options, progress)
            return end, lag.stop()
    finally:
        backend.close()


def _backend(target: Live, time: RealClock) -> HttpBackend:
    from workloom.drive.http import HttpBackend

    return HttpBackend(
        target.url,
        target.model,
        clock=time,
        salt=target.salt,
        endpoint="chat" if target.endpoint == "chat" else "completions",
        api_key=target.api_key,
        headers=target.headers,
        body=target.body,
        exact=target.exact,
        verify=target.verify,
    )


def preflight(target: Live, patience_s: float = 3.0) -> Preflight:
    """Ask the server what it is before anything is written.

    One that does not listen yet is asked again for `patience_s`; raises BackendError when none does by then.
    """

    async def ask(time: RealClock) -> Preflight:
        backend = _backend(target, time)
        give_up = time.now() + clock.to_ns(patience_s)
        try:
            while True:
                try:
                    return await backend.probe()
                except BackendError as fault:
                    if fault.kind != "connect" or time.now() > give_up:
                        raise
                await time.sleep_until(time.now() + clock.to_ns(0.25))
        finally:
            backend.close()

    return clock.run_real(ask)


def _manifest(plan: Plan, target: Simulated | Live, options: Options, argv: list[str]) -> Manifest:
    recipe = plan.recipe
    source = plan.source
    config: dict[str, Any] = {"recipe": msgspec.to_builtins(recipe), "options": msgspec.to_builtins(options)}
    if isinstance(target, Simulated):
        config["engine"] = msgspec.to_builtins(target.profile)
        config["prefix_cache"] = target.prefix_cache
    else:
        config["server"] = {
            name: value for name, value in msgspec.to_builtins(target).items() if name not in ("api_key",)
        }
    where = ", ".join(Path(path).name for path in recipe.trace.paths)
    return Manifest(
        backend="simulated" if isinstance(target, Simulated) else "http",
        plan_hash=plan.hash,
        seed=recipe.seed,
        argv=argv,
        config=config,
        workload=f"{where}: {len(source)} sessions, {source.calls} calls",
        load=recipe.load.say(),
        left_out=plan.left_out(),
    )
