"""Runs of a capacity search: simulated ones in processes of their own, live ones one after the other."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from typing import Literal

from msgspec import Struct, structs

from workloom.answers.capacity import Probe, Want, observe, seed_of
from workloom.answers.capacity.history import History
from workloom.answers.capacity.probe import Observed
from workloom.answers.slo import Slo
from workloom.cli.prepare import Asked, Prepared, prepare
from workloom.execute import Live, Simulated
from workloom.plan import Open, Plan

Over = Literal["rate", "concurrency", "replicas"]

SECONDS = 300.0
"""How long the first runs are, where nobody says."""
SESSIONS = 120
"""At least so many sessions are to arrive in them, where a rate says how many that takes."""


class Point(Struct, frozen=True):
    """What all runs of a search have in common."""

    asked: Asked
    over: Over
    slos: list[Slo]
    root: int
    """Root of their seeds."""
    calls: float
    """Of a session, on the average."""

    @property
    def chosen(self) -> bool:
        """Whether it was said how long runs are."""
        load = self.asked.load
        lasting = (load.duration, load.sessions, load.calls)
        return self.asked.running.scenario is not None or any(value is not None for value in lasting)

    def at(self, want: Want) -> Asked:
        """The options of one run."""
        load, engine = self.asked.load, self.asked.engine
        if self.over == "rate":
            load = replace(load, rate=want.load)
        elif self.over == "concurrency":
            load = replace(load, concurrency=int(want.load))
        else:
            engine = replace(engine, replicas=int(want.load))
        if not self.chosen:
            load = replace(load, duration=self._seconds(load.rate, load.per) * want.stretch)
        load = replace(load, seed=str(seed_of(self.root, want.number)))
        return replace(self.asked, load=load, engine=engine)

    def _seconds(self, rate: float | None, per: str) -> float:
        if rate is None:
            return SECONDS
        sessions_per_s = rate / self.calls if per == "request" else rate
        return max(SECONDS, float(round(SESSIONS / sessions_per_s)))


def calls_of(plan: Plan) -> float:
    """The mean number of calls of a session."""
    return plan.source.calls / max(1, len(plan.source))


# -- simulated


class Bench:
    """Makes the simulated runs of a point. The trace is opened once, where other seeds do not make another of it."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self._first: Prepared | None = None

    def run(self, want: Want) -> Probe:
        from workloom.answers.trial import in_memory
        from workloom.errors import Hopeless

        prepared = self._prepared(self.point.at(want))
        target = prepared.target
        assert isinstance(target, Simulated)
        seed = prepared.plan.recipe.seed
        try:
            run = in_memory(prepared.plan, target.whole, prepared.options)
        except Hopeless as fault:
            return Probe(
                want.number, want.purpose, want.load, seed, "fail", [], {}, want.stretch, note=str(fault.found)
            )
        told = observe(run, self.point.slos, drain_s=prepared.options.drain_s)
        return _probe(want, seed, told, offered=_offered(self.point.over, prepared.plan, want, told))

    def _prepared(self, asked: Asked) -> Prepared:
        first = self._first
        if first is None or asked.load.per == "request" or first.plan.recipe.trace.generate is not None:
            with contextlib.redirect_stderr(io.StringIO()):  # what there is to say was said of the first
                self._first = first = prepare(asked)
            return first
        from workloom.plan import Limits

        recipe = first.plan.recipe
        load = asked.load
        limits = structs.replace(recipe.limits, duration_s=load.duration, sessions=load.sessions, calls=load.calls)
        if self.point.asked.running.scenario is not None:
            limits = recipe.limits
        assert isinstance(limits, Limits)
        moved = structs.replace(recipe, load=load.load(), limits=limits, seed=load.root_seed())
        target = first.target
        if self.point.over == "replicas":
            target = Simulated.of(asked.engine.target(), asked.engine.prefix_cache == "on")
        return Prepared(Plan(moved, first.plan.source), target, first.options)


_bench: Bench | None = None


def _begin(point: Point) -> None:
    global _bench
    _bench = Bench(point)


def _in_process(want: Want) -> Probe:
    assert _bench is not None
    return _bench.run(want)


@contextlib.contextmanager
def simulated(point: Point, jobs: int) -> Iterator[Callable[[list[Want]], Iterable[Probe]]]:
    """A maker of simulated runs, `jobs` at once."""
    if jobs == 1:
        bench = Bench(point)
        yield lambda wants: map(bench.run, wants)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(point,))

    def make(wants: list[Want]) -> Iterable[Probe]:
        for future in as_completed([pool.submit(_in_process, want) for want in wants]):
            yield future.result()

    try:
        yield make
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- live


def live(point: Point, said: Live, history: History) -> Callable[[list[Want]], Iterable[Probe]]:
    """A maker of live runs, each in a directory of the search. Every run has a seed, and so texts, of its own."""

    def make(wants: list[Want]) -> Iterable[Probe]:
        for want in wants:
            yield _live(point, said, history, want)

    return make


def _live(point: Point, said: Live, history: History, want: Want) -> Probe:
    from workloom.answers.trial import again, kept, require_server
    from workloom.errors import Hopeless

    with contextlib.redirect_stderr(io.StringIO()):
        prepared = prepare(point.at(want), said)
    path = history.room(want.number)
    note = ""
    try:
        run = kept(prepared.plan, prepared.target, path, prepared.options, sys.argv)
    except Hopeless as fault:
        run, note = again(path), str(fault)
    status = run.manifest.status if run.manifest is not None else "finished"
    if status == "interrupted":
        raise KeyboardInterrupt
    told = observe(run, point.slos, drain_s=prepared.options.drain_s)
    if told.verdict != "pass":
        require_server(said, path, "this run is not counted; once the server is up again the same command goes on")
    if status == "failed":  # it failed more calls than was allowed: no figure makes that good
        told = structs.replace(told, verdict="fail")
        note = note or str(run.manifest.error if run.manifest is not None else "")
    offered = _offered(point.over, prepared.plan, want, told)
    return _probe(want, prepared.plan.recipe.seed, told, offered=offered, directory=path.name, note=note)


def _offered(over: Over, plan: Plan, want: Want, told: Observed) -> float | None:
    """The rate that a run saw, in the unit of the one that was asked for; None of a closed loop."""
    load = plan.recipe.load
    if over != "rate" or not isinstance(load, Open) or not told.window_s or not told.arrived:
        return None
    expected = load.sessions_per_s * told.window_s
    if isinstance(load.clip_means, float):  # clipped gaps come that much faster than their rate says
        expected /= 1 - math.exp(-load.clip_means)
    return want.load * told.arrived / expected


def _probe(
    want: Want, seed: int, told: Observed, *, offered: float | None = None, directory: str = "", note: str = ""
) -> Probe:
    return Probe(
        want.number,
        want.purpose,
        want.load,
        seed,
        told.verdict,
        told.slos,
        told.figures,
        want.stretch,
        told.window_s,
        told.calls,
        told.sessions,
        told.censored,
        offered,
        directory,
        note,
    )
