"""From options to what a run needs: its plan, its target, how calls are treated. `run` and its kin share it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from workloom.answers.until import until_known
from workloom.cli.engine import EngineOptions, tell_strangers
from workloom.cli.options import LoadOptions, RunOptions, TraceOptions, make_plan
from workloom.cli.server import ServerOptions, TextOptions, WatchOptions, ask, check_models, target, tell_texts
from workloom.drive.driver import Options
from workloom.errors import UsageError, nearest
from workloom.execute import Live, Scenario, Simulated
from workloom.execute.goals import goals
from workloom.plan import Plan

if TYPE_CHECKING:
    from workloom.plan.scenarios import Preset


@dataclass(frozen=True)
class Asked:
    """The options of a run."""

    trace: list[str]
    running: RunOptions = field(default_factory=RunOptions)
    reading: TraceOptions = field(default_factory=TraceOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    text: TextOptions = field(default_factory=TextOptions)
    watch: WatchOptions = field(default_factory=WatchOptions)


class Prepared(Struct, frozen=True):
    """What :func:`workloom.execute.execute` needs."""

    plan: Plan
    target: Simulated | Live
    options: Options
    scenario: Scenario | None = None


def prepare(
    asked: Asked, asked_servers: Live | None = None, *, announce: Callable[[Plan], None] | None = None
) -> Prepared:
    """Plan and target, checked. A live server is asked what it is, unless `asked_servers` is what it said before.

    `announce`: told of the plan. Raises UsageError, PlanError, TraceError, BackendError.
    """
    running, load, server, text = asked.running, asked.load, asked.server, asked.text
    if running.until:
        goals(running.until)  # a slip is told before anything is opened
    preset = preset_of(running.scenario)
    options = options_of(running, text, preset)
    where = asked_servers or target_of(asked.engine, server, text, asked.watch, preset)
    if running.event_log is not None:
        where = _logged(where, Path(running.event_log))
    limit = where.longest_call if isinstance(where, Simulated) else None
    if isinstance(where, Live):
        where = asked_servers or ask(where)
        limit = where.max_model_len
    if preset is not None and preset.start is not None and (load.rate is not None or load.replay):
        raise UsageError(
            "the scenario is a closed loop", where="--scenario", found="--rate or --replay", hint="use --concurrency N"
        )
    plan = make_plan(asked.trace, asked.reading, load, limit, preset)
    if running.until:
        plan = until_known(plan, running.until, live=isinstance(where, Live))
    scenario = None
    if preset is not None and running.scenario is not None:
        scenario = _scenario(running, preset, plan, load, server, text)
    if isinstance(where, Live):
        check_models(where.http.models, plan)
        tell_texts(where.text, options.history, plan)
        salt = text.text_salt(plan)
        where = replace(where, salt=salt, http=replace(where.http, salt=salt))
    else:
        tell_strangers(where.whole, plan)
    if announce is not None:
        announce(plan)
    return Prepared(plan, where, options, scenario)


def preset_of(name: str | None) -> Preset | None:
    """The scenario of that name; None without one. Raises UsageError for a name that is none."""
    if name is None:
        return None
    from workloom.plan.scenarios import SCENARIOS

    if name not in SCENARIOS:
        close = nearest(name, list(SCENARIOS))
        raise UsageError(
            "there is no such scenario",
            where="--scenario",
            expected=", ".join(SCENARIOS),
            found=name,
            hint=f"did you mean {close}?" if close else None,
        )
    return SCENARIOS[name]


def _scenario(
    running: RunOptions, preset: Preset, plan: Plan, load: LoadOptions, server: ServerOptions, text: TextOptions
) -> Scenario:
    """What the run may call itself: with the options that differ from the scenario's own."""
    assert running.scenario is not None
    free = {"--concurrency", "--max-context", "--context-policy"}
    given = [name for name in load.given() if name not in free]
    if "--duration" in given and (plan.recipe.limits.duration_s or 0) >= preset.least_duration_s:
        given.remove("--duration")
    given += [name for name in running.given() if name not in ("--scenario", "--event-log", "--seeds", "--jobs")]
    locked = ("--output", "--endpoint", "--model-for", "--body", "--retries")
    given += [name for name in server.given() if name in locked]
    given += [name for name in text.given() if name in ("--history", "--tools", "--text", "--reasoning", "--correct")]
    if server.workers > 1 and (preset.waits.system_idle_s is not None or preset.warmup.calls_per_slot):
        given.append("--workers")  # idle caps of the system and the rule of the warm-up act in each by itself
    own = _own_options(running, preset, plan, load, server, text)
    return Scenario(running.scenario, tuple(name for name in dict.fromkeys(given) if name not in own))


def _own_options(
    running: RunOptions, preset: Preset, plan: Plan, load: LoadOptions, server: ServerOptions, text: TextOptions
) -> set[str]:
    """Options that say what the scenario says anyway."""
    waits, warmup = preset.waits, preset.warmup
    pairs = {
        "--timeout": (running.timeout, preset.timeout_s),
        "--drain": (running.drain, preset.drain_s),
        "--max-failed": (running.max_failed, preset.max_failed),
        "--after-error": (running.after_error, preset.after_error),
        "--max-wait": (load.max_wait, math.inf if waits.max_s is None else waits.max_s),
        "--max-tree-idle": (load.max_tree_idle, waits.tree_idle_s),
        "--max-idle": (load.max_idle, waits.system_idle_s),
        "--start": (plan.recipe.start, preset.start),
        "--warmup-calls": (load.warmup_calls, warmup.calls_per_slot),
        "--warmup-pause": (load.warmup_pause, warmup.pause_s),
        "--warmup-limit": (load.warmup_limit, warmup.max_s),
        "--warmup-max-failed": (load.warmup_max_failed, warmup.max_failed),
        "--settle": (load.settle, warmup.settle_s),
        "--isolation": (load.isolation, preset.isolation),
        "--seed": (plan.recipe.seed, preset.seed),
        "--endpoint": (server.endpoint, preset.endpoint),
        "--output": (server.output, preset.output),
        "--retries": (server.retries, preset.retries),
        "--history": (text.history, preset.history),
    }
    return {name for name, (given, own) in pairs.items() if given == own}


def options_of(running: RunOptions, text: TextOptions, preset: Preset | None) -> Options:
    """How a run treats time-outs, failures and its end; what is not given is the scenario's. Raises UsageError."""
    usual = preset or Options()
    timeout_s = running.timeout if running.timeout is not None else usual.timeout_s or math.inf
    drain_s = running.drain if running.drain is not None else usual.drain_s
    max_failed = running.max_failed if running.max_failed is not None else usual.max_failed
    if not timeout_s > 0:
        raise UsageError("a time-out is above 0", where="--timeout", expected="seconds, or inf", found=timeout_s)
    if not 0 <= drain_s < math.inf:
        raise UsageError("a drain has an end", where="--drain", expected="seconds, 0 or more", found=drain_s)
    if not 0 < max_failed <= 1:
        raise UsageError("a share of failures", where="--max-failed", expected="above 0, up to 1", found=max_failed)
    return Options(
        timeout_s=None if math.isinf(timeout_s) else timeout_s,
        drain_s=drain_s,
        history=text.history or usual.history,
        max_failed=max_failed,
        after_error=running.after_error or usual.after_error,
    )


def target_of(
    engine: EngineOptions, server: ServerOptions, text: TextOptions, watch: WatchOptions, preset: Preset | None
) -> Simulated | Live:
    """What a run goes against: a simulated engine or fleet, or the servers at --url. Raises UsageError."""
    if not server.url and engine.engine is None and engine.fleet is None:
        raise UsageError(
            "where to run is missing",
            expected="--engine NAME for a simulated engine or --url URL for a server",
            hint="`workloom profiles` lists the engines",
        )
    if server.url and engine.given():
        raise UsageError(
            "a run has one target", expected="--engine or --url", found=", ".join(["--url", *engine.given()])
        )
    if not server.url:
        stray = [*server.given(), *(name for name in text.given() if name != "--history"), *watch.given()]
        if stray:
            raise UsageError("these options belong to a live server", found=", ".join(stray), hint="add --url URL")
        return Simulated.of(engine.target(), engine.prefix_cache == "on")
    return target(server, text, watch, preset)


def _logged(where: Simulated | Live, path: Path) -> Simulated:
    """The target with an event log."""
    from workloom.execute.event_log import refuse_used as refuse_used_log

    if isinstance(where, Live):
        raise UsageError("a live server tells no events", where="--event-log", found="--url", hint="use --engine")
    refuse_used_log(path)
    return replace(where, event_log=path)
