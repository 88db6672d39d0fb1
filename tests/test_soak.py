"""Seeded live runs against a server that misbehaves in every way at once: nothing is lost, nothing is left.

40 of them in `make test`, 200 in `make test-long`.

Seed and options of a run are printed first; `pytest tests/test_soak.py -k 'by_seed and 17]'` has the same faults again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audit import audit, audit_server
from faulty_runs import Kept, chain, driven, live_run, nothing_left, target
from faulty_server import NAMES, Faults, FaultyServer, Pace
from planned import plan_of

from workloom import clock, seeds
from workloom.clock import NS, RealClock, VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import Control, drive
from workloom.plan import Closed, Limits, Open, Plan
from workloom.records import CallRecord, ChunkRun, Outcome
from workloom.session import Call, Edge, Inherit, Part, Session

SEEDS, QUICK = 200, 40
TIMEOUT_S = 0.4
DRAIN_S = 0.05
COSTLY = {"stall_head": 0.01, "stall_body": 0.01, "long_line": 0.005}
"""Faults that end with the time-out: rarer, to keep runs short."""


def random_session(name: str, draw: np.random.Generator) -> Session:
    """A chain, or an agent that spawns some others and waits for them all."""
    output, tokens = int(draw.integers(1, 12)), int(draw.integers(1, 40))
    if draw.random() < 0.5:
        return chain(name, int(draw.integers(1, 6)), output=output, tokens=tokens, wait_s=draw.random() * 0.01)
    root = Call("root", output, fresh=(Part("user", tokens),))
    spawned = [
        Call(f"spawned{i}", output, after=(Edge("root", draw.random() * 0.01, "spawn"),), fresh=(Part("user", tokens),))
        for i in range(int(draw.integers(1, 4)))
    ]
    waits = tuple(Edge(call.id, draw.random() * 0.005, "tool") for call in (root, *spawned))
    join = Call("join", output, after=waits, inherit=Inherit("root"), fresh=(Part("report", tokens),))
    after = Call("after", 2, after=(Edge("join"),), inherit=Inherit("join"), fresh=(Part("tool", 3),))
    return Session(name, (root, *spawned, join, after))


def random_plan(seed: int) -> Plan:
    draw = seeds.stream(seed, "plan")
    sessions = [random_session(f"s{i}", draw) for i in range(int(draw.integers(3, 9)))]
    load = Closed(int(draw.integers(1, 7))) if draw.random() < 0.7 else Open(60.0)
    kind = draw.random()
    limits = Limits()
    if kind < 0.15:
        limits = Limits(duration_s=0.15)
    elif kind < 0.3:
        limits = Limits(calls=int(draw.integers(1, 20)))
    return plan_of(sessions, load, limits)


def random_faults(seed: int) -> Faults:
    """Some of all faults, three calls in ten in all; one run in ten is without."""
    draw = seeds.stream(seed, "faults")
    if draw.random() < 0.1:
        return Faults()
    chosen = draw.permutation(len(NAMES))[: int(draw.integers(3, 12))]
    each = 0.3 / len(chosen)
    return Faults(**{NAMES[i]: min(each, COSTLY.get(NAMES[i], 1.0)) for i in chosen})


def soak(seed: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = random_plan(seed)
    pace = Pace(away_s=0.1, accept_s=0.02, gap_s=0.0005 if seed % 3 == 0 else 0.0)
    with nothing_left(monkeypatch), FaultyServer(random_faults(seed), seed, pace) as server:
        live = target(server.url, api="completions" if seed % 4 == 3 else "chat", scrape=seed % 10 == 0)
        run = live_run(plan, live, path / "run", timeout_s=TIMEOUT_S, drain_s=DRAIN_S)
    assert run.manifest.status == "finished", run.manifest.error
    rows, sessions = list(run.calls()), list(run.sessions())
    audit(plan, rows, sessions)
    audit_server(rows, server.log)
    if plan.sessions is not None:
        assert len(sessions) == plan.sessions
        assert not any(row.status == "censored" for row in rows)
    if plan.recipe.limits.calls is not None:
        assert sum(row.status != "cancelled" for row in rows) <= plan.recipe.limits.calls
    if not any(asked.fault != "none" for asked in server.log):
        assert {row.status for row in rows} <= {"ok", "censored"}


@pytest.mark.parametrize(
    "seed", [*range(QUICK), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(QUICK, SEEDS))]
)
def test_a_run_against_a_faulty_server_by_seed(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soak(seed, tmp_path, monkeypatch)


@pytest.mark.parametrize("seed", range(300, 312))
def test_a_run_that_is_interrupted_by_seed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drained at some moment, and in every second run stopped a moment later: the rows still add up."""
    plan = random_plan(seed)
    draw = seeds.stream(seed, "interrupt")

    def arm(time: RealClock) -> Control:
        control = Control()
        drain_ns = int(draw.integers(0, NS // 10))
        time.call_at(drain_ns, control.drain)
        if seed % 2:
            time.call_at(drain_ns + int(draw.integers(0, NS // 50)), control.stop)
        return control

    pace = Pace(away_s=0.1, gap_s=0.003)
    with nothing_left(monkeypatch), FaultyServer(random_faults(seed), seed, pace) as server:
        kept, end = driven(plan, target(server.url), timeout_s=TIMEOUT_S, control=arm)
    audit(plan, kept.calls, kept.sessions, cut=True)
    audit_server(kept.calls, server.log)
    if plan.sessions is not None and len(kept.sessions) < plan.sessions:
        assert end.reason == "interrupted"


class Together:
    """Answers the first two calls in one turn of the loop, and every other at once."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.waiting, self.both = clock, 0, asyncio.Event()

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        sent_ns = self.clock.now()
        self.waiting += 1
        if self.waiting == 2:
            self.clock.call_at(NS, self.both.set)
        await self.both.wait()
        on_chunk(ChunkRun(self.clock.now(), 0, 0, 1, request.output_tokens))
        return Outcome(done_ns=self.clock.now(), sent_ns=sent_ns, output_tokens=request.output_tokens)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_limit_on_calls_reached_in_the_turn_in_which_another_call_ended(swapped: bool) -> None:
    """Seed 134 once hung here: one session's call took the last of the limit while another's had ended, not landed."""
    waits = (5.0, 0.0) if swapped else (0.0, 5.0)
    plan = plan_of([chain(f"s{i}", 2, wait_s=wait) for i, wait in enumerate(waits)], Closed(2), Limits(calls=3))
    kept = Kept()
    run_virtual(lambda clock: drive(plan, Together(clock), clock, kept))
    audit(plan, kept.calls, kept.sessions)
    assert sorted(session.status for session in kept.sessions) == ["censored", "ok"]
    assert len(kept.calls) == 3


# --- canaries


class Forgetful(Kept):
    """A sink that loses the row of the third call."""

    def call(self, record: CallRecord) -> None:
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen != 3:
            super().call(record)


def test_a_row_that_is_lost_is_missed() -> None:
    plan = random_plan(4)
    with FaultyServer() as server:
        kept, _ = driven(plan, target(server.url), sink=Forgetful())
    with pytest.raises(AssertionError, match="no row for"):
        audit(plan, kept.calls, kept.sessions)


def test_what_is_left_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless(time: RealClock) -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(60), name="careless")

    with pytest.raises(AssertionError, match="careless"), nothing_left(monkeypatch):
        clock.run_real(careless)
    held = []
    with pytest.raises(AssertionError, match="left open"), nothing_left(monkeypatch):
        held.append(socket.socket())
    held.pop().close()
    with pytest.raises(AssertionError, match="unclosed"), nothing_left(monkeypatch):
        socket.socket()


def test_every_fault_is_met_in_some_run() -> None:
    """By the seeds alone, so that no fault is a dead letter."""
    met = {name for seed in range(QUICK) for name in NAMES if getattr(random_faults(seed), name)}
    assert met == set(NAMES)
