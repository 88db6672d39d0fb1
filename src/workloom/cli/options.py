"""Options that several commands share, and what they make."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

from workloom.errors import PlanError, UsageError

if TYPE_CHECKING:  # --help loads neither plans nor engines
    from workloom.engine.profile import Profile
    from workloom.plan import Load, Plan, Recipe
    from workloom.traces import Reading

WORKLOAD = Group("Workload", sort_key=1)
PRIVACY = Group("Privacy", sort_key=2)
LOAD = Group("Load", sort_key=2)
ENGINE = Group("Simulated engine", sort_key=3)
SERVER = Group("Live server", sort_key=4)


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number; 2.5 is none."""
    return int(tokens[0].value)


Whole = Annotated[int | None, Parameter(converter=_whole)]


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
    "Gaps of the open loop: poisson, constant or gamma:CV."
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
    max_wait: float = 60.0
    "Cap on every recorded wait, seconds; inf for none."
    max_context: Whole = None
    "Longest call, prompt + answer, in tokens (default: what the engine or server can take)."
    context_policy: Literal["stop", "cut", "skip", "refuse"] = "stop"
    "What a longer call does: ends its session, loses its oldest text, drops the session, refuses the plan."
    seed: str = "0"
    "Root of all randomness: a number, or random (then it is recorded)."

    def given(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return ["--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != f.default]

    def load(self) -> Load:
        from workloom.plan import Closed, Open, Replay
        from workloom.plan.load import parse_arrival

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
            arrival, cv = parse_arrival(self.arrival)
            return Open(self.rate, arrival, cv)
        if self.replay:
            return Replay(self.time_scale)
        return Closed(8 if self.concurrency is None else self.concurrency)

    def root_seed(self) -> int:
        from workloom import seeds

        if self.seed == "random":
            return seeds.fresh_seed()
        try:
            return int(self.seed)
        except ValueError:
            raise UsageError(
                "a seed is a number or random", where="--seed", expected="an integer or random", found=self.seed
            ) from None


def make_plan(trace: list[str], reading: TraceOptions, load: LoadOptions, context_limit: int | None) -> Plan:
    """The plan that a command line asks for: a new one, or the one in a plan file."""
    from workloom.plan import make, read

    if len(trace) == 1 and Path(trace[0]).is_file():
        recipe = read(Path(trace[0]))
        if recipe is not None:
            given = load.given() + (["--format"] if reading.format else [])
            if given:
                raise UsageError(
                    "a plan file says what the load is already",
                    where=trace[0],
                    found=", ".join(given),
                    hint="leave these options out, or make another plan with `workloom plan`",
                )
            return _fitting(make(recipe), context_limit)
    return planned(make_recipe(trace, reading, load, context_limit), load)


def make_recipe(trace: Sequence[str], reading: TraceOptions, load: LoadOptions, context_limit: int | None) -> Recipe:
    """The recipe that a command line asks for; its trace is not opened."""
    from workloom.plan import Context, Limits, Recipe, TraceRef, Waits

    return Recipe(
        trace=TraceRef(tuple(trace), reading.format, reading.skip_bad, reading.generate),
        load=load.load(),
        limits=Limits(load.duration, load.sessions, load.calls),
        waits=Waits(None if math.isinf(load.max_wait) else load.max_wait, load.time_scale),
        context=Context(load.max_context if load.max_context is not None else context_limit, load.context_policy),
        seed=load.root_seed(),
    )


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


@Parameter(name="*", group=ENGINE)
@dataclass(frozen=True)
class EngineOptions:
    """A profile, and what to change in it."""

    engine: str | None = None
    "Name of a profile (see `workloom profiles`) or a .yaml file."
    max_model_len: Whole = None
    "Override: longest call in tokens."
    kv_tokens: str | None = None
    "Override: KV capacity in tokens, or inf."
    max_num_seqs: Whole = None
    "Override: most calls running at once."
    max_batched_tokens: Whole = None
    "Override: tokens of one step."
    block_tokens: Whole = None
    "Override: tokens of a KV block."
    prefix_cache: Literal["on", "off"] = "on"
    "Reuse the KV of shared prefixes."

    def given(self) -> list[str]:
        return ["--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != f.default]

    def profile(self) -> Profile:
        """The profile with its overrides."""
        from msgspec.structs import replace

        from workloom.engine import profile as profiles

        if self.engine is None:
            raise UsageError("an engine is needed", where="--engine", hint="`workloom profiles` lists them")
        profile = profiles.load(self.engine)
        changes: dict[str, Any] = {}
        for name in ("max_model_len", "max_num_seqs", "max_batched_tokens", "block_tokens"):
            value = getattr(self, name)
            if value is not None:
                if value < 1:
                    raise UsageError(
                        "an engine limit is a count",
                        where="--" + name.replace("_", "-"),
                        expected="1 or more",
                        found=value,
                    )
                changes[name] = value
        if self.kv_tokens is not None:
            changes["kv_tokens"] = _kv_tokens(self.kv_tokens)
        return replace(profile, **changes)


def _kv_tokens(text: str) -> int | None:
    if text == "inf":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(
        "a KV capacity is a number of tokens", where="--kv-tokens", expected="a positive number or inf", found=text
    )


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True)
class ServerOptions:
    """A server, and how to talk to it."""

    url: str | None = None
    "Base URL up to and with /v1."
    model: str | None = None
    "Model to ask for (default: the one the server lists, if it lists one)."
    endpoint: Literal["chat", "completions"] = "chat"
    "Which API."
    api_key_env: str = "OPENAI_API_KEY"
    "Environment variable that holds the key, if the server wants one."
    header: Annotated[list[str], Parameter(negative="")] = field(default_factory=list)
    "Extra header, NAME:VALUE; may be given again."
    body: Annotated[list[str], Parameter(negative="")] = field(default_factory=list)
    "Extra body field, NAME=JSON (null takes a default one away); may be given again."
    output: Literal["exact", "cap"] = "exact"
    "exact: ask for exactly the planned tokens (ignore_eos, min_tokens); cap: at most."
    insecure: Annotated[bool, Parameter(negative="")] = False
    "Do not check the server's TLS certificate."
    salt: str = "random"
    "What makes this run's text unlike that of others: random (so no earlier run is hit), plan, or a number."

    def given(self) -> list[str]:
        defaults = ServerOptions()
        names = [f.name for f in fields(self)]
        return ["--" + n.replace("_", "-") for n in names if getattr(self, n) != getattr(defaults, n)]

    @property
    def api_key(self) -> str | None:
        return os.environ.get(self.api_key_env) or None

    def headers(self) -> dict[str, str]:
        pairs = {}
        for text in self.header:
            name, colon, value = text.partition(":")
            if not colon or not name.strip():
                raise UsageError("a header is NAME:VALUE", where="--header", found="one without a name or a colon")
            pairs[name.strip()] = value.strip()
        return pairs

    def fields(self) -> dict[str, Any]:
        pairs = {}
        for text in self.body:
            name, equals, value = text.partition("=")
            try:
                pairs[name] = json.loads(value)
            except json.JSONDecodeError:
                equals = ""
            if not equals or not name:
                raise UsageError(
                    "a body field is NAME=JSON", where="--body", found=text, hint="strings need quotes: 'user=\"me\"'"
                )
        return pairs

    def text_salt(self, plan: Plan) -> int:
        from workloom import seeds

        if self.salt == "random":
            return seeds.fresh_seed()
        if self.salt == "plan":
            return plan.text_salt
        try:
            return int(self.salt)
        except ValueError:
            raise UsageError(
                "a salt is a number, random or plan", where="--salt", expected="an integer", found=self.salt
            ) from None
