"""A plan on the simulated engine with its records in memory: for questions that take many short runs."""

from __future__ import annotations

from workloom import clock
from workloom.clock import VirtualClock
from workloom.drive.driver import Control, End, Options, drive
from workloom.drive.simulated import SimulatedBackend
from workloom.engine.cluster import serving
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import Profile
from workloom.errors import Hopeless
from workloom.execute.until import Until, Watching, goals_of
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.metrics.summary import Summary, summarize_records
from workloom.plan import Plan
from workloom.records import CallRecord, SessionRecord


class Kept:
    """A sink that keeps everything. `window`: what was measured, once the run is over."""

    def __init__(self) -> None:
        self.window = Window(0, 0)
        self.until: Until | None = None
        """How it was ended, where its plan says what must be known."""
        self.calls: list[CallRecord] = []
        self.sessions: list[SessionRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)

    def measured(self, window: Window | None = None) -> Measured:
        """What was recorded, in the run's window or in another."""
        return measured_records(self.calls, self.sessions, window=window or self.window)


def play(plan: Plan, server: Profile | Fleet, *, prefix_cache: bool = True, options: Options | None = None) -> Kept:
    """The records of a plan on an engine, or on a fleet. Raises Hopeless when the run was ended early."""
    kept = Kept()
    fleet = server if isinstance(server, Fleet) else Fleet((Pool(server),))
    named = fleet.serving if fleet.models else None

    async def run(time: VirtualClock) -> End:
        server = serving(fleet, prefix_cache=prefix_cache)
        backend = SimulatedBackend(server, time, fleet, named, priorities=fleet.priorities)
        served = None if named is None else lambda agent, model, instance: fleet.serving(agent, model)
        how, control = options or Options(timeout_s=None), Control()
        asked = goals_of(plan)
        if not asked:
            return await drive(plan, backend, time, kept, how, served=served)
        watching = Watching(kept, control, asked, time.now, kept.measured)
        kept.until = watching.pace.until
        return await drive(plan, backend, time, watching, how, control=control, served=served)

    end = clock.run_virtual(run)
    if end.fault is not None:
        raise Hopeless("the simulated run was ended early", found=end.fault, hint="do the calls fit into its context?")
    kept.window = Window(end.window_start_ns, end.window_end_ns)
    return kept


def simulate(plan: Plan, server: Profile | Fleet) -> Summary:
    """The numbers of a plan on an engine, or on a fleet."""
    kept = play(plan, server)
    return summarize_records(kept.calls, kept.sessions)
