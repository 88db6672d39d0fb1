"""Options that several commands share, and what they make."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter, Token
from msgspec import Struct

from workloom.errors import PlanError, UsageError

if TYPE_CHECKING:  # --help loads no plans
    from workloom.plan import Load, Plan, Recipe, Start
    from workloom.plan.scenarios import Preset
    from workloom.traces import Reading

WORKLOAD = Group("Workload", sort_key=1)
PRIVACY = Group("Privacy", sort_key=2)
LOAD = Group("Load", sort_key=2)
RUN = Group("Run", sort_key=1)


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number; 2.5 is none."""
    return int(tokens[0].value)


Whole = Annotated[int | None, Parameter(converter=_whole)]
Count = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*", group=WORKLOAD)
@dataclass(frozen=True)
class TraceOptions:
    """How the trace is read."""

    format: str | None = None
    "Trace format; told from the content unless given."
    skip_bad: Annotated[bool, Parameter(negative="")] = False
    "Leave out and count what is malformed instead of stopping."
    generate: Whole = None
    "Sessions to make of a workload named instead of a trace (default: --sessions where there is one, else 200)."

    def open(self, trace: Sequence[str], seed: int = 0) -> Reading:
        """The trace or workload that is named."""
        from workloom.model.workload.opening import open_sessions

        if self.generate is not None and self.generate < 1:
            what = "a workload gives at least one session"
            raise UsageError(what, where="--generate", expected="1 or more", found=self.generate)
        return open_sessions(trace, format=self.format, skip_bad=self.skip_bad, seed=seed, sessions=self.generate)


@Parameter(name="*", group=PRIVACY)
@dataclass(frozen=True)
class PrivacyOptions:
    """What of a trace is kept."""

    keep_text: Annotated[bool, Parameter(negative="")] = False
    "Keep what messages, tool results and answers say (default: sizes, times, roles and names only)."
    hash_names: Annotated[bool, Parameter(negative="")] = False
    "Replace the names of tools, agents, models and workflows too."
    salt: str | None = None
    "Phrase that ids are hashed with, to get equal ids again (default: a fresh one that is kept nowhere)."


@Parameter(name="*", group=LOAD)
@dataclass(frozen=True)
class LoadOptions:
    """How sessions are offered, and for how long."""

    concurrency: Whole = None
    "Closed loop: so many session trees at once (default 8)."
    rate: float | None = None
    "Open loop: so many sessions (or, with --per request, calls) per second."
    per: Literal["session", "request"] = "session"
    "What --rate counts."
    arrival: str = "poisson"
    "Gaps of the open loop: poisson, poisson:clip=MEANS (no gap is longer), constant or gamma:CV."
    replay: Annotated[bool, Parameter(negative="")] = False
    "Start sessions when they were recorded to."
    time_scale: float = 1.0
    "Recorded time runs so many times as fast: starts of --replay, and all waits."
    duration: float | None = None
    "Measure for so many seconds; sessions come again when the trace is used up."
    sessions: Whole = None
    "Stop after so many sessions."
    calls: Whole = None
    "Stop after so many calls."
    max_wait: float | None = None
    "Cap on every recorded wait, seconds (default 60); inf for none."
    max_context: Whole = None
    "Longest call, prompt + answer, in tokens (default: what the engine or server can take)."
    context_policy: Literal["stop", "cut", "skip", "refuse"] = "stop"
    "What a longer call does: ends its session, loses its oldest text, drops the session, refuses the plan."
    start: str | None = None
    "LOW-HIGH, shares: slots begin inside their sessions, what comes before is prefilled. LOW-HIGH:index: by calls."
    warmup_calls: Whole = None
    "One-token calls a slot sends before it is measured."
    warmup_pause: float | None = None
    "Quiet seconds between warm-up and window."
    warmup_limit: float | None = None
    "Seconds that prefills and one-token calls may take in all (default 1800)."
    warmup_max_failed: float | None = None
    "Share of the slots whose warm-up may fail (default 0.1)."
    settle: float | None = None
    "Seconds under load before the window opens."
    max_tree_idle: float | None = None
    "When a session is idle, its next call comes after so many seconds at most."
    max_idle: float | None = None
    "When nothing at all is in flight, the next call comes after so many seconds at most (closed loop)."
    isolation: Literal["after", "before", "none", "play"] | None = None
    """What is shared: the declared scaffold (after, the default), nothing (before), all of a recycled session (none), \
the scaffold of a session's plays (play)."""
    share_scaffold: Annotated[bool, Parameter(negative="")] = False
    "The scaffolds of hashed traces, which each file has for itself, are one."
    seed: str | None = None
    "Root of all randomness: a number (default 0), or random (then it is recorded)."

    def given(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return ["--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != f.default]

    def load(self) -> Load:
        from workloom.plan import Closed, Replay
        from workloom.plan.load import open_load

        chosen = [
            name
            for name, on in (
                ("--concurrency", self.concurrency is not None),
                ("--rate", self.rate is not None),
                ("--replay", self.replay),
            )
            if on
        ]
        if len(chosen) > 1:
            raise UsageError(
                "a run has one kind of load", expected="--concurrency, --rate or --replay", found=" and ".join(chosen)
            )
        if self.rate is None and (self.per != "session" or self.arrival != "poisson"):
            raise UsageError("--per and --arrival belong to an open loop", hint="add --rate R")
        if self.rate is not None:
            return open_load(self.rate, self.arrival)
        if self.replay:
            return Replay(self.time_scale)
        return Closed(8 if self.concurrency is None else self.concurrency)

    def start_range(self) -> Start:
        """The range that sessions begin in."""
        from workloom.plan import Start

        assert self.start is not None
        match = re.fullmatch(r"([0-9.]+)-([0-9.]+)(?::(clock|index))?", self.start)
        try:
            if match is not None:
                return Start(float(match[1]), float(match[2]), "index" if match[3] == "index" else "clock")
        except ValueError:
            pass
        raise UsageError(
            "where sessions begin is not a range",
            where="--start",
            expected="LOW-HIGH or LOW-HIGH:index, shares from 0 to 1",
            found=self.start,
            hint="shares: 0.1-0.5",
        )

    def root_seed(self) -> int:
        from workloom import seeds

        if self.seed is None:
            return 0
        if self.seed == "random":
            return seeds.fresh_seed()
        try:
            return int(self.seed)
        except ValueError:
            raise UsageError(
                "a seed is a number or random", where="--seed", expected="an integer or random", found=self.seed
            ) from None


def make_plan(
    trace: list[str],
    reading: TraceOptions,
    load: LoadOptions,
    context_limit: int | None,
    preset: Preset | None = None,
) -> Plan:
    """The plan that a command line asks for: a new one, or the one in a plan file."""
    from workloom.plan import make, read

    if len(trace) == 1 and Path(trace[0]).is_file():
        recipe = read(Path(trace[0]))
        if recipe is not None:
            given = load.given() + (["--format"] if reading.format else []) + (["--scenario"] if preset else [])
            if given:
                raise UsageError(
                    "a plan file says what the load is already",
                    where=trace[0],
                    found=", ".join(given),
                    hint="leave these options out, or make another plan with `workloom plan`",
                )
            return _fitting(make(recipe), context_limit)
    return planned(make_recipe(trace, reading, load, context_limit, preset), load)


def make_recipe(
    trace: Sequence[str],
    reading: TraceOptions,
    load: LoadOptions,
    context_limit: int | None,
    preset: Preset | None = None,
) -> Recipe:
    """The recipe that a command line asks for; its trace is not opened. A preset gives what the options do not."""
    from msgspec.structs import replace

    from workloom.plan import Context, Limits, Recipe, TraceRef, Waits, Warmup

    given = set(load.given())
    waits, warmup, start = preset.waits if preset else Waits(), preset.warmup if preset else Warmup(), None
    if preset is None or given & {"--max-wait", "--time-scale", "--max-tree-idle", "--max-idle"}:
        wait_s = load.max_wait if load.max_wait is not None else waits.max_s
        waits = replace(waits, max_s=None if wait_s is None or math.isinf(wait_s) else wait_s)
        waits = replace(waits, time_scale=load.time_scale)
        waits = _changed(waits, tree_idle_s=load.max_tree_idle, system_idle_s=load.max_idle)
    warmup = _changed(
        warmup,
        calls_per_slot=load.warmup_calls,
        pause_s=load.warmup_pause,
        settle_s=load.settle,
        max_s=load.warmup_limit,
        max_failed=load.warmup_max_failed,
    )
    start = load.start_range() if load.start is not None else preset.start if preset else None
    duration_s = load.duration
    if preset is not None and duration_s is None and load.sessions is None and load.calls is None:
        duration_s = preset.duration_s
    seed = load.root_seed() if preset is None or "--seed" in given else preset.seed
    return Recipe(
        trace=TraceRef(tuple(trace), reading.format, reading.skip_bad, reading.generate),
        load=load.load(),
        limits=Limits(duration_s, load.sessions, load.calls),
        waits=waits,
        context=Context(load.max_context if load.max_context is not None else context_limit, load.context_policy),
        start=start,
        warmup=warmup,
        isolation=load.isolation or (preset.isolation if preset is not None else "after"),
        share_scaffold=load.share_scaffold,
        seed=seed,
    )


S = TypeVar("S", bound=Struct)


def _changed(struct: S, **values: Any) -> S:
    """The struct with those fields that were given."""
    from msgspec.structs import replace

    return replace(struct, **{name: value for name, value in values.items() if value is not None})


def planned(recipe: Recipe, load: LoadOptions, opened: Reading | None = None) -> Plan:
    """The plan of a recipe. A rate per request becomes one per session. `opened`: the trace, if it is open already."""
    from msgspec.structs import replace

    from workloom.plan import Open, Plan, make
    from workloom.plan.plan import per_request

    plan = make(recipe, opened)
    if load.per == "request" and isinstance(recipe.load, Open):
        rate = per_request(recipe.load.sessions_per_s, plan)
        recipe = replace(plan.recipe, load=replace(recipe.load, sessions_per_s=rate))
        plan = Plan(recipe, plan.source)
    return plan


def _fitting(plan: Plan, context_limit: int | None) -> Plan:
    """The plan, if the target can take its calls."""
    longest = plan.source.longest_call
    if context_limit is not None and longest > context_limit:
        raise PlanError(
            "the plan holds calls that the target cannot take",
            expected=f"at most {context_limit} tokens (prompt + answer)",
            found=f"{longest} in the longest call",
            hint=f"make it again with `workloom plan --max-context {context_limit}`",
        )
    return plan


@Parameter(name="*", group=RUN)
@dataclass(frozen=True)
class RunOptions:
    """How calls are treated, and when a run ends early."""

    scenario: str | None = None
    "A protocol to follow to the letter: agentx-mvp, agentx-v1 or trie. Options given besides are noted as changes."
    timeout: float | None = None
    "Total time of one call, seconds (default 1800); inf for no end."
    drain: float | None = None
    "How long calls due in the window may take after it, seconds (default 120)."
    max_failed: float | None = None
    "End the run when of the last 100 calls this share or more failed (default 1)."
    after_error: Literal["cancel", "advance"] | None = None
    "What follows a failed call: its dependants are cancelled (the default), or its session goes on all the same."
    event_log: str | None = None
    "A new file for all that simulated engines do, a JSON line an event; see docs/run-directory.md."
    until: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    """Go on until a figure is known so well, as in ttft_p95±5% (or +-5%, ±50ms); may be given again. --duration, \
--sessions or --calls are then the most it may take (default: an hour, or a million simulated calls)."""
    seeds: Whole = None
    "Make the run so many times, with seeds one above the other, each in a folder of its own; see docs/how-long.md."
    jobs: Whole = None
    "With --seeds: simulated runs at once (default: as many as there are CPUs)."

    def given(self) -> list[str]:
        return ["--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != f.default]
