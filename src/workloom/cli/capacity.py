"""`workloom capacity`: the load at which promises break."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from workloom.answers.capacity import Axis, Capacity, Probe, Search, Want, result, walk
from workloom.answers.capacity.fleet import Fleet, fleet
from workloom.answers.capacity.history import PROPOSED, History, Question
from workloom.answers.slo import Slo, slos
from workloom.cli.capacity_options import CapacityOptions
from workloom.cli.capacity_probes import Point, calls_of, live, simulated
from workloom.cli.engine import EngineOptions
from workloom.cli.prepare import Asked, Prepared, prepare
from workloom.cli.write import next_free, plain_name
from workloom.errors import UsageError
from workloom.execute import Live, Simulated
from workloom.store.run import alone, write_whole

STARTS = {"rate": 1.0, "concurrency": 8.0, "replicas": 1.0}
BATCH = 4
"""Simulated runs that are chosen together, however many of them run at once."""
EXIT_CODES = {"found": 0, "always holds": 0, "never holds": 3, "not enough data": 4}
"""As of SLOs: a promise that no load keeps is broken."""
PROPOSED_GROW = 1.25
"""Factor of the bracket where a simulator has proposed where to look."""


class Answer(Struct, frozen=True):
    """What `workloom capacity --json` prints."""

    capacities: list[Capacity]
    fleet: Fleet | None = None
    proposed: list[Capacity] = []


def capacity(asked: Asked, options: CapacityOptions, out: str | None, json: bool) -> None:
    """Search, and print what was found; of two workloads, what a fleet for the first has to spare for the second."""
    from workloom.cli import capacity_show as tables

    wanted = _check(asked, options)
    path = Path(out) if out is not None else next_free(f"capacity-{_name(asked.trace)}")
    workloads = [asked.trace, options.compare] if options.compare else [asked.trace]
    found, proposed, calls = [], [], []
    try:
        for number, trace in enumerate(workloads):
            one = replace(asked, trace=list(trace))
            where = path / f"{number + 1}-{_name(trace)}" if options.compare else path
            answer, proposal, mean = _searched(one, options, wanted, where)
            found.append(answer)
            proposed += [proposal] if proposal is not None else []
            calls.append(mean)
            if not json:
                tables.show(answer)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on: -o {path}", file=sys.stderr)
        raise
    both = None
    if len(found) == 2:
        per_session = options.over == "rate" and asked.load.per == "session"
        both = fleet(found[0], found[1], calls=(calls[0], calls[1]) if per_session else (1.0, 1.0))
        if not json and both is not None:
            tables.show_fleet(both)
    answer_whole = Answer(found, both, proposed)
    encoded = msgspec.json.format(msgspec.json.encode(answer_whole), indent=1)
    write_whole(path / "answer.json", encoded + b"\n")
    if json:
        print(encoded.decode())
    print(f"search kept in {path}", file=sys.stderr)
    code = max(EXIT_CODES[answer.status] for answer in found)
    if code:
        sys.stdout.flush()
        sys.exit(code)


def _searched(
    asked: Asked, options: CapacityOptions, wanted: list[Slo], path: Path
) -> tuple[Capacity, Capacity | None, float]:
    """One workload's capacity; what the simulator proposed; the calls of its sessions."""
    start = options.start or STARTS[options.over]
    overrides = asked.engine
    if options.propose is not None:  # options of the engine are then the proposer's
        asked = replace(asked, engine=EngineOptions())
    first = prepare(_started(asked, options.over, start))
    mean = calls_of(first.plan)
    point = Point(asked, options.over, wanted, asked.load.root_seed(), mean)
    search = _search(options, start, isinstance(first.target, Live), point)
    proposal = None
    if options.propose is not None:
        proposal = _proposed(asked, overrides, options, point, search, path)
        if proposal.value is not None:
            search = structs.replace(search, start=proposal.value / math.sqrt(PROPOSED_GROW), grow=PROPOSED_GROW)
            if search.axis.whole:
                search = structs.replace(search, start=float(max(1, round(search.start))))
            print(f"simulated, the capacity is {proposal.value:.4g}: live runs begin there", file=sys.stderr)
        else:
            print(f"the simulator proposes nothing: {proposal.status} {proposal.why}", file=sys.stderr)
    history = History(path, _question(first, search, point, wanted))
    if len(history):
        print(f"{len(history)} runs were made before; going on", file=sys.stderr)

    def measured(wants: list[Want]) -> Iterable[Probe]:
        for probe in history.measure(wants, make):
            _tell(probe, search.axis)
            yield probe

    with alone(path):
        if isinstance(first.target, Live):
            make = live(point, first.target, history)
            probes, stop = walk(search, measured)
        else:
            with simulated(point, options.jobs or os.cpu_count() or 1) as make:
                probes, stop = walk(search, measured)
    name, target = _name(asked.trace), _target(first.target)
    told = [one.text for one in wanted]
    found = result(search, probes, stop, workload=name, target=target, slos=told, unused=history.unused)
    return found, proposal, mean


def _proposed(
    asked: Asked, overrides: EngineOptions, options: CapacityOptions, point: Point, search: Search, path: Path
) -> Capacity:
    """The capacity of the profile that stands for the server, with what was overridden in it."""
    from workloom.cli.server import ServerOptions, TextOptions, WatchOptions

    there = replace(
        asked,
        engine=replace(overrides, engine=options.propose),
        server=ServerOptions(),
        text=TextOptions(history=asked.text.history),
        watch=WatchOptions(),
    )
    point = structs.replace(point, asked=there)
    first = prepare(_started(there, options.over, search.start))
    search = structs.replace(search, batch=BATCH, beside=0)
    history = History(path / PROPOSED, _question(first, search, point, point.slos))
    with alone(path / PROPOSED), simulated(point, options.jobs or os.cpu_count() or 1) as make:
        probes, stop = walk(search, lambda wants: history.measure(wants, make))
    told = [one.text for one in point.slos]
    return result(search, probes, stop, workload=_name(asked.trace), target=_target(first.target), slos=told)


def _search(options: CapacityOptions, start: float, on_line: bool, point: Point) -> Search:
    axis = {
        "rate": Axis("rate", "calls/s" if point.asked.load.per == "request" else "sessions/s"),
        "concurrency": Axis("concurrency", "sessions at once", whole=True),
        "replicas": Axis("replicas", "replicas", whole=True, easing=True),
    }[options.over]
    beside = options.beside if options.beside is not None else 1 if on_line else 3
    return Search(
        axis,
        start,
        precision=_share("--precision", options.precision),
        level=_share("--confidence", options.confidence),
        most=options.max_probes,
        batch=1 if on_line else BATCH,
        beside=beside,
        stretches=not point.chosen,
    )


def _started(asked: Asked, over: str, start: float) -> Asked:
    """The options of a run at the first load."""
    if over == "rate":
        return replace(asked, load=replace(asked.load, rate=start))
    if over == "concurrency":
        return replace(asked, load=replace(asked.load, concurrency=int(start)))
    return replace(asked, engine=replace(asked.engine, replicas=int(start)))


# -- what was asked


def _check(asked: Asked, options: CapacityOptions) -> list[Slo]:
    """The SLOs, if the options make sense together. Raises UsageError."""
    if not options.slo:
        raise UsageError("what has to hold is missing", where="--slo", expected='--slo "ttft_p95<=0.75s", say')
    wanted = slos(options.slo)
    load, over = asked.load, options.over
    fixed = [f"--{name}" for name in ("rate", "concurrency") if getattr(load, name) is not None]
    if load.replay:
        raise UsageError("recorded starts are one load", where="--replay", hint="use --over rate or concurrency")
    if over != "replicas" and fixed:
        raise UsageError(
            "what is looked for cannot be given",
            where=" and ".join(fixed),
            hint=f"--from N says where to begin with {over}",
        )
    if over == "replicas" and len(fixed) != 1:
        raise UsageError(
            "replicas for what load?", where="--over replicas", expected="--rate or --concurrency", found=fixed
        )
    if over == "replicas" and asked.server.url:
        raise UsageError("a live server has the replicas it has", where="--over replicas", hint="use --engine")
    if over == "replicas" and asked.engine.replicas != EngineOptions().replicas:
        raise UsageError("what is looked for cannot be given", where="--replicas", hint="--from N says where to begin")
    if options.start is not None and (not 0 < options.start < math.inf or (over != "rate" and options.start % 1)):
        whole = "a rate above 0" if over == "rate" else "1, 2, ..."
        raise UsageError("a search cannot begin there", where="--from", expected=whole, found=options.start)
    for name, value, least in (
        ("--max-probes", options.max_probes, 2),
        ("--jobs", options.jobs, 1),
        ("--beside", options.beside, 0),
    ):
        if value is not None and value < least:
            raise UsageError("a count is out of range", where=name, expected=f"{least} or more", found=value)
    if options.propose is not None and not asked.server.url:
        raise UsageError("the simulator proposes for a live server", where="--propose", hint="add --url URL")
    if asked.server.url and asked.text.salt not in ("random", "plan") and not asked.watch.reset_cache:
        raise UsageError(
            "with one salt for all runs each hits the KV of the one before",
            where="--salt",
            expected="random or plan",
            found=asked.text.salt,
            hint="leave it out, or add --reset-cache",
        )
    if asked.server.url and asked.text.text == "recorded" and not asked.watch.reset_cache:
        raise UsageError(
            "recorded text is the same in all runs: each hits the KV of the one before",
            where="--text recorded",
            hint="add --reset-cache, or leave it out",
        )
    if asked.running.event_log is not None:
        raise UsageError("many runs keep no event log", where="--event-log", hint="use it with `workloom run`")
    return wanted


def _share(option: str, text: str) -> float:
    """`5%` or 0.05."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0.001 <= value <= 0.999:
        raise UsageError("a share is needed", where=option, expected="5% or 0.05, say", found=text)
    return value


def _question(first: Prepared, search: Search, point: Point, wanted: list[Slo]) -> Question:
    recipe = structs.replace(first.plan.recipe, seed=0)
    load = point.asked.load
    kept = {f.name: getattr(load, f.name) for f in fields(load) if f.name not in (point.over, "seed")}
    lasting = {name: kept[name] for name in ("duration", "sessions", "calls") if kept[name] is not None}
    length = ", ".join(f"{name} {value:g}" for name, value in lasting.items())
    plan = _digest({"content": recipe.trace.content_hash, "load": kept, "running": structs_of(point.asked.running)})
    return Question(
        workload=plan,
        target=_digest(_described(first.target)),
        over=search.axis.name,
        slos=sorted(one.say() for one in wanted),
        seed=point.root,
        start=search.start,
        length=length or "automatic",
        batch=search.batch,
        beside=search.beside,
    )


def structs_of(options: Any) -> dict[str, Any]:
    """Options as plain values."""
    return {f.name: getattr(options, f.name) for f in fields(options)}


def _described(target: Simulated | Live) -> dict[str, Any]:
    """What a target is, without secrets and what is another each time."""
    if isinstance(target, Simulated):
        described: dict[str, Any] = msgspec.to_builtins(structs.replace(target, event_log=None))
        return described
    left_out = ("http", "salt", "metrics_urls", "scrape", "gpu_power", "debug_trace")
    public = {name: value for name, value in target.http.public().items() if name != "salt"}
    return {**public, **{n: getattr(target, n) for n in target.__struct_fields__ if n not in left_out}}


def _digest(value: Any) -> str:
    return blake2b(msgspec.json.encode(value, order="deterministic", enc_hook=str), digest_size=8).hexdigest()


def _target(target: Simulated | Live) -> str:
    if isinstance(target, Live):
        return ", ".join(target.http.urls)
    count = sum(pool.replicas for pool in target.whole.pools)
    return target.profile.name + (f" x {count}" if count > 1 else "")


def _name(trace: list[str]) -> str:
    return plain_name(trace, "workload")


def _tell(probe: Probe, axis: Axis) -> None:
    """A run that was made, to stderr."""
    broken = " and ".join(probe.broken) or probe.note
    said = {"pass": "holds", "fail": f"breaks {broken}", "not enough data": "not enough data"}
    print(
        f"{probe.number + 1:3} {probe.purpose:8} {probe.load:9.4g} {axis.unit}: {said[probe.verdict]}", file=sys.stderr
    )
