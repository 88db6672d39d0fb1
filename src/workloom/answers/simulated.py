"""A plan on the simulated engine with its records in memory: for questions that take many short runs."""

from __future__ import annotations

from workloom import clock
from workloom.clock import VirtualClock
from workloom.drive.driver import End, Options, drive
from workloom.drive.simulated import SimulatedBackend
from workloom.engine.engine import Engine
from workloom.engine.profile import Profile
from workloom.errors import Hopeless
from workloom.metrics.summary import Summary, summarize_records
from workloom.plan import Plan
from workloom.records import CallRecord, SessionRecord


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.sessions: list[SessionRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)


def simulate(plan: Plan, profile: Profile) -> Summary:
    """The numbers of a plan on an engine."""
    kept = Kept()

    async def run(time: VirtualClock) -> End:
        return await drive(plan, SimulatedBackend(Engine(profile), time), time, kept, Options(timeout_s=None))

    end = clock.run_virtual(run)
    if end.fault is not None:
        raise Hopeless("the simulated run was ended early", found=end.fault, hint="do the calls fit into its context?")
    return summarize_records(kept.calls, kept.sessions)
