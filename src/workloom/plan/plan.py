"""Recipes and the sequence of instances they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from workloom import seeds
from workloom.clock import to_ns
from workloom.errors import PlanError
from workloom.model.workload.opening import open_sessions
from workloom.plan import load as loads
from workloom.plan.context import Context
from workloom.plan.load import Closed, Load, Open, Replay
from workloom.plan.source import Source
from workloom.plan.start import Start, Warmup
from workloom.prompt import Isolation
from workloom.session import Session
from workloom.traces import Reading

LARGEST = 1e9
"""Seconds, rates and scales beyond this are no plan but a slip of the keyboard."""


class TraceRef(Struct, frozen=True):
    """Which trace or workload: where it was found, and what was in it (paths are no part of a plan's identity).

    `generate`: how many sessions are made of a workload.
    """

    paths: tuple[str, ...]
    format: str | None = None
    skip_bad: bool = False
    generate: int | None = None
    content_hash: str = ""
    sessions: int = 0
    calls: int = 0


class Limits(Struct, frozen=True):
    """When a run ends: whatever comes first. With none set, every session runs once.

    `until`: figures that must be known so well, as `ttft_p95±5%`; the run ends once all of them are.
    """

    duration_s: float | None = None
    sessions: int | None = None
    calls: int | None = None
    until: tuple[str, ...] | UnsetType = UNSET


class Waits(Struct, frozen=True):
    """How recorded waits are taken: capped at `max_s` (None: never), then divided by `time_scale`.

    Two more caps act on a run as it goes, in its own seconds. `tree_idle_s`: when no call of a session is in flight and
    its next one is due later than that, all of it moves up. `system_idle_s`: the same for all sessions of a closed loop
    when nothing at all is in flight.
    """

    max_s: float | None = 60.0
    time_scale: float = 1.0
    tree_idle_s: float | None = None
    system_idle_s: float | None = None

    def wait_ns(self, wait_s: float) -> int:
        capped = wait_s if self.max_s is None else min(wait_s, self.max_s)
        return to_ns(capped / self.time_scale)


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole plan as data."""

    trace: TraceRef
    load: Load
    limits: Limits = Limits()
    waits: Waits = Waits()
    context: Context = Context()
    start: Start | None = None
    """None: every session from its first call."""
    warmup: Warmup = Warmup()
    isolation: Isolation = "after"
    share_scaffold: bool = False
    seed: int = 0
    version: int = 1

    @property
    def warms_up(self) -> bool:
        """Calls are sent before the window opens, and are not measured."""
        return self.start is not None or self.warmup.calls_per_slot > 0

    @property
    def hash(self) -> str:
        """Equal for two recipes that ask for the same calls, wherever the trace lies."""
        bare = msgspec.to_builtins(replace(self, trace=TraceRef((), content_hash=self.trace.content_hash)))
        del bare["trace"]["generate"]  # the content says it
        return blake2b(msgspec.json.encode(bare), digest_size=8).hexdigest()


class Instance(Struct, frozen=True):
    """Session number k of a plan. `recycled`: how often the session has been given out before.

    `start`: the share of itself that it begins at; None: at its first call.
    """

    k: int
    session: Session
    recycled: int
    start: float | None = None


class Plan:
    """A recipe with its trace opened."""

    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.recipe = recipe
        self.source = source
        self.hash = recipe.hash
        self._order: tuple[int, list[int]] = (-1, [])
        limits = recipe.limits
        endless = limits.duration_s is not None or limits.calls is not None or bool(limits.until)
        self.sessions: int | None = limits.sessions or (None if endless else len(source))
        """How many instances there are; None: as many as there is time for."""
        if isinstance(recipe.load, Replay):
            self._replay = sorted(range(len(source)), key=lambda i: (source.starts_s[i] or 0.0, i))
            self.sessions = min(self.sessions or len(source), len(source))

    def instance(self, k: int) -> Instance:
        """Instance k: a pure function of the trace's content, the seed and k."""
        size = len(self.source)
        if isinstance(self.recipe.load, Replay):
            return Instance(k, self.source[self._replay[k]], 0)
        epoch, place = divmod(k, size)
        if self._order[0] != epoch:
            shuffled = seeds.stream(self.recipe.seed, "order", self.recipe.trace.content_hash, epoch)
            self._order = (epoch, shuffled.permutation(size).tolist())
        return Instance(k, self.source[self._order[1][place]], epoch, self._start(k))

    def _start(self, k: int) -> float | None:
        """The share of itself that a session begins at, where it is the first of its slot."""
        start, load = self.recipe.start, self.recipe.load
        if start is None or not isinstance(load, Closed) or k >= load.concurrency:
            return None
        return float(seeds.stream(self.recipe.seed, "start", k).uniform(start.low, start.high))

    def instances(self, worker: int = 0, workers: int = 1) -> Iterator[Instance]:
        """Every instance in order; of several workers, those that are `worker`'s: k = worker modulo `workers`."""
        k = worker
        while self.sessions is None or k < self.sessions:
            yield self.instance(k)
            k += workers

    def slots(self, worker: int = 0, workers: int = 1) -> int:
        """Sessions at once of a closed loop, or a worker's share of them."""
        load = self.recipe.load
        assert isinstance(load, Closed)
        size = load.concurrency if self.sessions is None else min(load.concurrency, self.sessions)
        return len(range(worker, size, workers))

    def due(self) -> Iterator[int]:
        """Due instants of instance 0, 1, ... in nanoseconds; closed loops have none."""
        load = self.recipe.load
        if isinstance(load, Open):
            yield from loads.arrivals(load, self.recipe.seed)
        elif isinstance(load, Replay):
            starts = [self.source.starts_s[i] or 0.0 for i in self._replay]
            for start in starts:
                yield to_ns((start - starts[0]) / load.time_scale)

    @property
    def text_salt(self) -> int:
        """What the texts of this plan are made from."""
        return seeds.number(self.recipe.seed, "text", self.recipe.trace.content_hash)

    def left_out(self) -> dict[str, int]:
        """What the context limit left out or changed, and outputs of 0 that are asked for as 1."""
        source = self.source
        counts = {
            "sessions left out (first call too long)": source.sessions_out,
            "calls left out (too long, or after one)": source.calls_out,
            "calls cut": source.calls_cut,
            "recorded outputs of 0 tokens, asked for as 1": source.zero_outputs,
        }
        return {what: count for what, count in counts.items() if count}


def make(recipe: Recipe, reading: Reading | None = None) -> Plan:
    """Open the trace of a recipe and check everything; faults are reported together. Raises PlanError, TraceError.

    `reading`: the trace, where it is open already.
    """
    if recipe.version != 1:
        raise PlanError("the plan is of another version", expected=1, found=recipe.version)
    faults = loads.check(recipe.load)
    limits, waits, context = recipe.limits, recipe.waits, recipe.context
    for name, value in (("--duration", limits.duration_s), ("--sessions", limits.sessions), ("--calls", limits.calls)):
        if value is not None and not 0 < value <= LARGEST:
            faults.append(f"{name} must be above 0 and at most a billion, not {value}")
    if waits.max_s is not None and not waits.max_s >= 0:
        faults.append(f"--max-wait must be 0 or more, not {waits.max_s}")
    if not 1e-6 <= waits.time_scale <= LARGEST:
        faults.append(f"--time-scale must be above 0 and at most a billion, not {waits.time_scale}")
    faults += _opening_faults(recipe)
    if context.max_tokens is not None and context.max_tokens < 2:
        faults.append(f"--max-context must be 2 or more, not {context.max_tokens}")
    if faults:
        raise PlanError("the plan cannot be made: " + "; ".join(faults))
    trace = recipe.trace
    if reading is None:
        reading = open_sessions(
            trace.paths,
            format=trace.format,
            skip_bad=trace.skip_bad,
            seed=recipe.seed,
            sessions=trace.generate if trace.generate is not None else limits.sessions,
        )
    source = Source(reading, context)
    if trace.content_hash and trace.content_hash != source.content_hash:
        raise PlanError(
            "the trace is not the one the plan was made for",
            where=", ".join(trace.paths),
            expected=f"content {trace.content_hash}",
            found=source.content_hash,
            hint="make the plan again with `workloom plan`",
        )
    source.require()
    if isinstance(recipe.load, Replay) and source.common_clock and None in source.starts_s:
        raise PlanError(
            "this trace cannot be replayed as recorded: a session has no start",
            where=", ".join(trace.paths),
            expected="start_s on every session",
            found=f"none on session {source[source.starts_s.index(None)].id}",
            hint="use --concurrency N or --rate R instead",
        )
    if isinstance(recipe.load, Replay) and not source.common_clock:
        raise PlanError(
            "this trace cannot be replayed as recorded: its sessions share no clock",
            where=", ".join(trace.paths),
            expected="session starts on one common clock",
            found="each session starts at its own zero",
            hint="use --concurrency N or --rate R instead",
        )
    trace = replace(
        trace,
        generate=None if reading.paths else source.sessions_read,
        content_hash=source.content_hash,
        sessions=source.sessions_read,
        calls=source.calls_read,
    )
    return Plan(replace(recipe, trace=trace), source)


def _opening_faults(recipe: Recipe) -> list[str]:
    """What is wrong with where a run begins and with its caps on idle time."""
    start, warmup, waits = recipe.start, recipe.warmup, recipe.waits
    faults = []
    if start is not None and not 0 <= start.low <= start.high <= 1:
        faults.append(f"--start must be a range within 0 to 1, not {start.low:g} to {start.high:g}{_shares(start)}")
    for name, value in (("--max-tree-idle", waits.tree_idle_s), ("--max-idle", waits.system_idle_s)):
        if value is not None and not 0 <= value <= LARGEST:
            faults.append(f"{name} must be 0 or more, not {value}")
    for name, value in (("--warmup-pause", warmup.pause_s), ("--settle", warmup.settle_s)):
        if not 0 <= value <= LARGEST:
            faults.append(f"{name} must be 0 or more, not {value}")
    if not 0 < warmup.max_s <= LARGEST:
        faults.append(f"--warmup-limit must be above 0, not {warmup.max_s}")
    if not 0 <= warmup.max_failed <= 1:
        faults.append(f"--warmup-max-failed must be a share, not {warmup.max_failed}")
    if warmup.calls_per_slot < 0:
        faults.append(f"--warmup-calls must be 0 or more, not {warmup.calls_per_slot}")
    if not isinstance(recipe.load, Closed):
        given = [
            name
            for name, on in (
                ("--start", start is not None),
                ("--warmup-calls", warmup.calls_per_slot > 0),
                ("--max-idle", waits.system_idle_s is not None),
            )
            if on
        ]
        if given:
            faults.append(f"{', '.join(given)}: only a closed loop (--concurrency) has slots")
    return faults


def _shares(start: Start) -> str:
    """What per cent would have been as shares, where that is what was meant."""
    if not 0 <= start.low <= start.high <= 100:
        return ""
    return f" (shares, not per cent: {start.low / 100:g}-{start.high / 100:g})"


def per_request(rate: float, plan: Plan) -> float:
    """Sessions per second that make `rate` calls per second: the rate over the mean calls of a session."""
    return rate * len(plan.source) / plan.source.calls


def document(plan: Plan, first: int = 10) -> bytes:
    """The recipe and, to look at, the first instances, as JSON that :func:`read` takes."""
    due = plan.due() if not isinstance(plan.recipe.load, Closed) else None
    rows: list[dict[str, Any]] = []
    for instance in plan.instances():
        if len(rows) == first:
            break
        row: dict[str, Any] = {"k": instance.k, "session": instance.session.id, "calls": len(instance.session.calls)}
        if due is not None:
            row["due_s"] = next(due) / 1e9
        rows.append(row)
    paths = tuple(os.path.abspath(p) if os.path.exists(p) else p for p in plan.recipe.trace.paths)
    recipe = replace(plan.recipe, trace=replace(plan.recipe.trace, paths=paths))
    whole = {"workloom_plan": 1, "hash": plan.hash, "recipe": msgspec.to_builtins(recipe), "first": rows}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def write(plan: Plan, path: Path) -> None:
    """Write a plan to a new file, whole or not at all. Raises PlanError."""
    scratch = path.with_name(path.name + ".part")
    try:
        scratch.write_bytes(document(plan))
        scratch.replace(path)
    except OSError as fault:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise PlanError("the plan cannot be written", where=str(path), found=fault.strerror) from fault


def read(path: Path) -> Recipe | None:
    """The recipe in a plan file; None when the file is no plan. Raises PlanError for a broken one."""
    try:
        with path.open("rb") as file:
            if b'"workloom_plan"' not in file.read(200):
                return None
            file.seek(0)
            document = msgspec.json.decode(file.read())
            recipe = msgspec.convert(document["recipe"], Recipe)
    except OSError as fault:
        raise PlanError("the plan cannot be read", where=str(path), found=fault.strerror) from fault
    except (msgspec.DecodeError, KeyError, TypeError) as fault:
        raise PlanError("the plan is damaged", where=str(path), found=fault) from fault
    if document.get("hash") != recipe.hash:
        raise PlanError(
            "the plan was changed after it was made",
            where=str(path),
            expected=f"hash {document.get('hash')}",
            found=recipe.hash,
            hint="make a new one with `workloom plan`",
        )
    return recipe
