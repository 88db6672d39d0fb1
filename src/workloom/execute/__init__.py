"""A run from plan to directory: the one way in which plans are carried out, live or simulated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from workloom import clock
from workloom.clock import RealClock, VirtualClock
from workloom.drive.cost import WorkerCost
from workloom.drive.driver import Control, End, Options, Progress, Share, drive
from workloom.errors import BackendError
from workloom.execute.secrets import known
from workloom.execute.target import Live, Simulated
from workloom.plan import Plan, document
from workloom.store import Manifest, Run, RunWriter

if TYPE_CHECKING:
    from workloom.drive.http import HttpOptions, Preflight
    from workloom.engine.cluster import Cluster
    from workloom.execute.event_log import EventLog
    from workloom.execute.referee import Referee
    from workloom.execute.until import Until, Watching
    from workloom.metrics.frame import Window
    from workloom.metrics.measured import Measured

__all__ = ["Live", "Scenario", "Simulated", "execute", "preflight"]


class Scenario(Struct, frozen=True):
    """The protocol a run follows by name, and which options of it were changed."""

    name: str
    overrides: tuple[str, ...] = ()


def execute(
    plan: Plan,
    target: Simulated | Live,
    path: Path,
    *,
    options: Options,
    progress: Progress,
    argv: list[str],
    summarize: Callable[[Run], bytes],
    scenario: Scenario | None = None,
) -> Run:
    """Carry out a plan; what was recorded is safe whatever happens.

    Where the plan says how well figures must be known (`limits.until`), the window ends once they are, and until.json
    says how it went.

    The status of the run is `interrupted` when a live run was ended by Ctrl-C, `failed` when it was hopeless. A
    KeyboardInterrupt in virtual time and an error of our own end it likewise, and are raised again.
    """
    if isinstance(target, Live) and target.workers > 1:
        from workloom.execute.workers import check

        check(plan, target.workers)
    secrets = known(target.http) if isinstance(target, Live) else ()
    with (
        _event_log(target) as log,
        RunWriter.create(path, _manifest(plan, target, options, argv, scenario), document(plan), secrets) as writer,
    ):
        costs: list[WorkerCost] = []
        notes: list[str] = []
        until: Until | None
        if isinstance(target, Simulated):
            end, until = clock.run_virtual(
                lambda time: _simulate(plan, target, time, writer, options, progress, notes, log)
            )
        else:
            end, costs, until = _live(plan, target, path, writer, options, progress, notes)
        if until is not None:
            from workloom.execute.until import write_until

            write_until(path, until)
            notes.append(until.say())
        return writer.close(
            _STATUS.get(end.reason, "finished"),
            summarize=summarize,
            error=end.fault,
            window_start_ns=end.window_start_ns,
            window_end_ns=end.window_end_ns,
            loaded_until_ns=end.loaded_until_ns,
            loop_lag_p99_s=max((c.loop_lag_p99_s for c in costs if c.loop_lag_p99_s is not None), default=None),
            workers=costs,
            notes=notes,
            skipped_s=_skipped(progress),
        )


_STATUS: dict[str, Literal["finished", "interrupted", "failed"]] = {"interrupted": "interrupted", "hopeless": "failed"}


def _skipped(progress: Progress) -> dict[str, float]:
    """Seconds of waiting that caps left out, by cap."""
    told = {
        "wait": progress.skipped_wait_ns,
        "tree idle": progress.skipped_tree_ns,
        "system idle": progress.skipped_system_ns,
    }
    return {name: ns / clock.NS for name, ns in told.items() if ns}


# -- simulated


def _event_log(target: Simulated | Live) -> AbstractContextManager[EventLog | None]:
    if not isinstance(target, Simulated) or target.event_log is None:
        return nullcontext()
    from workloom.execute.event_log import EventLog, Head

    return EventLog(target.event_log, Head(1, target.whole, target.prefix_cache))


async def _simulate(
    plan: Plan,
    target: Simulated,
    time: VirtualClock,
    writer: RunWriter,
    options: Options,
    progress: Progress,
    notes: list[str],
    log: EventLog | None,
) -> tuple[End, Until | None]:
    from workloom.drive.simulated import SimulatedBackend
    from workloom.engine.cluster import Cluster, serving
    from workloom.execute.sampling import Sampler

    fleet = target.whole
    make = None
    if log is not None:
        make = partial(log.engine, prefix_cache=target.prefix_cache)
    server = serving(fleet, prefix_cache=target.prefix_cache, engines=make)
    sampler = Sampler(server, time, writer)
    sampler.look()

    def opened(start_ns: int, end_ns: int | None) -> None:
        for edge in {start_ns, end_ns} - {0, None}:
            assert edge is not None
            if edge >= time.now():
                time.call_at(edge, sampler.look)

    try:
        named = fleet.serving if fleet.models else None
        backend = SimulatedBackend(server, time, fleet, named, priorities=fleet.priorities, on_begin=sampler.wake)
        served = None if named is None else lambda agent, model, instance: fleet.serving(agent, model)
        control = Control()
        watching = _watching(plan, writer, control, time)
        sink = watching or writer
        end = await drive(plan, backend, time, sink, options, progress, control=control, served=served, opened=opened)
        return end, watching.pace.until if watching is not None else None
    finally:
        sampler.close()
        if isinstance(server, Cluster):
            notes.append(_cost(server, time.now()))


def _watching(plan: Plan, writer: RunWriter, control: Control, time: VirtualClock) -> Watching | None:
    """Between the driver and the run's writer: what looks at the run, where the plan says what must be known."""
    if not plan.recipe.limits.until:
        return None
    from workloom.execute.until import Watching, goals_of, recorded

    def see(window: Window) -> Measured:
        writer.sync()
        return recorded(writer.path, window)

    return Watching(writer, control, goals_of(plan), time.now, see)


def _cost(cluster: Cluster, at_ns: int) -> str:
    """What the fleet cost, pool by pool."""
    pools = zip(cluster.fleet.pools, cluster.replica_s(at_ns), strict=True)
    said = [
        f"{pool.name or f'pool {number}'} {seconds:.1f} replica-seconds ({seconds * pool.profile.gpus:.1f} GPU-seconds)"
        for number, (pool, seconds) in enumerate(pools)
    ]
    return f"fleet: {', '.join(said)}; {len(cluster.replicas)} replicas in all"


# -- live


def _live(
    plan: Plan,
    target: Live,
    path: Path,
    writer: RunWriter,
    options: Options,
    progress: Progress,
    notes: list[str],
) -> tuple[End, list[WorkerCost], Until | None]:
    """Watch the servers and let one worker, or several, carry out the plan."""
    from workloom.drive.scrape.reset import reset_prefix_cache
    from workloom.drive.scrape.scraper import Scraper

    http = target.http
    headers = _page_headers(http)
    if target.reset_cache:
        for url in http.urls:
            said = reset_prefix_cache(url, headers=headers, ca=http.ca_file, insecure=not http.verify).say()
            notes.append(f"{said} ({url})" if len(http.urls) > 1 else said)
    scraper = None
    if target.scrape:
        scraper = Scraper(
            [*http.urls, *target.metrics_urls],
            writer.server,
            headers=headers,
            keyed=http.urls,
            gpu=target.gpu_power,
            ca=http.ca_file,
            insecure=not http.verify,
        )
        scraper.start()
        scraper.wait_first(0.6)  # so that growth has a beginning
    began = scraper.begin if scraper is not None else lambda origin_ns: None
    mark = scraper.mark if scraper is not None else None
    referee: Referee | None = None
    try:
        with _referee(plan, path) as referee:
            if target.workers > 1:
                from workloom.execute.workers import Workers

                end, costs = Workers(plan, target, path, options, progress, mark, began, referee).run()
            else:
                end, costs = clock.run_real(
                    lambda time: _alone(plan, target, path, time, writer, options, progress, mark, began, referee)
                )
        return end, costs, referee.pace.until if referee is not None else None
    finally:
        if scraper is not None:
            notes += scraper.stop().notes()
        if referee is not None and referee.fault is not None:
            notes.append(referee.fault)


def _referee(plan: Plan, path: Path) -> AbstractContextManager[Referee | None]:
    """The process that looks at the run, where the plan says what must be known."""
    if not plan.recipe.limits.until:
        return nullcontext()
    from workloom.execute.referee import Referee
    from workloom.execute.until import goals_of

    return Referee(path, goals_of(plan))


def _page_headers(http: HttpOptions) -> dict[str, str]:
    """Headers of the requests beside the calls: the key as the API wants it, and the user's own, which win."""
    name, before = http.speaks().key_header
    own = {header.lower() for header in http.headers}
    key = {name: before + http.api_key} if http.api_key and name.lower() not in own else {}
    return {**key, **http.headers}


async def _alone(
    plan: Plan,
    target: Live,
    path: Path,
    time: RealClock,
    writer: RunWriter,
    options: Options,
    progress: Progress,
    mark: Callable[[], None] | None,
    began: Callable[[int], None],
    referee: Referee | None,
) -> tuple[End, list[WorkerCost]]:
    from workloom.execute.live import quiet_s, two_stage_interrupt, watched, work

    control = Control()

    def ready() -> None:
        began(time.raw())

    async def gate() -> int:
        if mark is not None:
            mark()
        return time.now() + clock.to_ns(quiet_s(plan, mark is not None))

    with two_stage_interrupt(control, progress), watched(writer, referee, control, time) as log:
        share = Share(gate=gate) if plan.recipe.warms_up else Share()
        edge = mark if mark is not None else lambda: None
        end, cost = await work(
            plan, target, path, time, log, options, progress, control, share, ready=ready, ended=edge
        )
        return end, [cost]


def preflight(target: Live, patience_s: float = 3.0) -> Preflight:
    """Ask the servers what they are before anything is written.

    One that does not listen yet is asked again for `patience_s`; raises BackendError when none does by then.
    """
    from workloom.drive.http import HttpBackend

    async def ask(time: RealClock) -> Preflight:
        backend = HttpBackend(target.http, clock=time, style=target.style())
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


# -- what a run says of itself


def _manifest(
    plan: Plan, target: Simulated | Live, options: Options, argv: list[str], scenario: Scenario | None
) -> Manifest:
    recipe = plan.recipe
    source = plan.source
    config: dict[str, Any] = {"recipe": msgspec.to_builtins(recipe), "options": msgspec.to_builtins(options)}
    if scenario is not None:
        config["scenario"] = msgspec.to_builtins(scenario)
    if isinstance(target, Simulated):
        config["engine"] = {**msgspec.to_builtins(target.profile), "gpus": target.whole.gpus}
        if not target.whole.alone:
            config["fleet"] = msgspec.to_builtins(target.whole)
        config["prefix_cache"] = target.prefix_cache
    else:
        config["server"] = {
            **target.http.public(),
            **{name: getattr(target, name) for name in target.__struct_fields__ if name != "http"},
            "metrics_urls": list(target.metrics_urls),
            "temperature": target.http.body.get("temperature"),
            "max_model_len": _context(plan, target),
            "max_model_len_lowered": _limited(plan, target),
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


def _context(plan: Plan, target: Live) -> int | None:
    """The longest call there may be: by the plan, else by the servers' own word."""
    limit = plan.recipe.context.max_tokens
    return target.max_model_len if limit is None else limit


def _limited(plan: Plan, target: Live) -> bool:
    """A context that was set below the server's own left out calls of the workload."""
    source, limit = plan.source, plan.recipe.context.max_tokens
    lower = limit is not None and (target.max_model_len is None or limit < target.max_model_len)
    return lower and bool(source.sessions_out or source.calls_out or source.calls_cut)
