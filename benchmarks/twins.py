"""One plan run twice, in virtual time and over HTTP against `workloom serve`, and what the two make of every call.

Both clocks of a live run (the driver's and the server's) count from the machine's monotonic counter, so instants of the
two processes can be compared.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from workloom import seeds
from workloom.clock import RealClock, VirtualClock, run_real, run_virtual
from workloom.drive.backend import Backend, Request
from workloom.drive.driver import drive
from workloom.drive.http import HttpBackend, HttpOptions
from workloom.drive.simulated import SimulatedBackend
from workloom.drive.text import Texts
from workloom.engine.cluster import Cluster
from workloom.engine.engine import PS, Engine
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import Profile
from workloom.engine.timeline import Leap
from workloom.plan import Limits, Load, Plan, Recipe, TraceRef, make
from workloom.quiet import quiet
from workloom.records import CallRecord, ChunkRun, Outcome, SessionRecord
from workloom.serve.record import Row, end, read, replay, tokens_ns
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces import native

Name = tuple[int, str]
"""(instance, call)."""


# -- the workload


class Size(Struct, frozen=True):
    """Bounds of what sessions are drawn from, tokens and seconds."""

    sessions: int
    calls: tuple[int, int]
    fresh: tuple[int, int]
    output: tuple[int, int]
    wait_s: tuple[float, float]


def sessions(size: Size, seed: int) -> Iterator[Session]:
    """Agents that think and act on a shared scaffold; every third sends out two subagents and joins them."""
    for index in range(size.sessions):
        draw = seeds.stream(seed, "session", index)

        def tokens(bounds: tuple[int, int], draw: np.random.Generator = draw) -> int:
            return int(draw.integers(bounds[0], bounds[1] + 1))

        def wait(call: str, draw: np.random.Generator = draw) -> Edge:
            return Edge(call, float(draw.uniform(*size.wait_s)), "tool")

        scaffold = Span("scaffold", 300, "trace")
        calls = [Call("c0", tokens(size.output), spans=(scaffold,), fresh=(Part("user", tokens(size.fresh)),))]
        for turn in range(1, tokens(size.calls)):
            last = calls[-1].id
            after = (wait(last),)
            if index % 3 == 2 and turn == 2:
                for agent in ("a", "b"):
                    task = Part("user", tokens(size.fresh))
                    calls.append(
                        Call(agent, tokens(size.output), (wait(last),), agent, spans=(scaffold,), fresh=(task,))
                    )
                after = (wait("a"), wait("b"))
            fresh = (Part("tool", tokens(size.fresh)),)
            calls.append(Call(f"c{turn}", tokens(size.output), after, inherit=Inherit(last), fresh=fresh))
        yield Session(f"s{index}", tuple(calls))


def plan_of(folder: Path, size: Size, load: Load, seed: int) -> Plan:
    """A plan over such sessions, each once."""
    trace = folder / f"twins-{seed}.jsonl"
    native.write(trace, Header(source="twins"), sessions(size, seed))
    return make(Recipe(TraceRef((str(trace),)), load, Limits(), seed=seed))


# -- the two runs


class Ran:
    """The calls of a run; a sink of the driver."""

    def __init__(self) -> None:
        self.calls: dict[Name, CallRecord] = {}
        self.origin_ns = 0
        """What the machine's counter showed at instant 0, of a live run."""

    def call(self, record: CallRecord) -> None:
        self.calls[record.instance, record.call] = record

    def session(self, record: SessionRecord) -> None:
        pass

    @property
    def ttft_ms(self) -> np.ndarray:
        return np.array([ttft_ms(record) for record in self.calls.values()])

    @property
    def e2e_ms(self) -> np.ndarray:
        return np.array([e2e_ms(record) for record in self.calls.values()])

    @property
    def hit_rate(self) -> float:
        calls = self.calls.values()
        return sum(c.cached_tokens or 0 for c in calls) / sum(c.prompt_tokens or 0 for c in calls)


def ttft_ms(record: CallRecord) -> float:
    """From due to the first token."""
    assert record.first_ns is not None
    return (record.first_ns - record.due_ns) / 1e6


def e2e_ms(record: CallRecord) -> float:
    """From due to the last token."""
    assert record.last_ns is not None
    return (record.last_ns - record.due_ns) / 1e6


class Watched(Engine):
    """An engine that remembers how long its steps took."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.longest: list[tuple[int, int, int]] = []
        """(start, end, longest step) of every leap, nanoseconds."""

    def _settle(self, leap: Leap) -> None:
        step = leap.first_ps + (leap.steps - 1) * leap.slope_ps
        self.longest.append((leap.start_ps // PS, leap.end(leap.steps) // PS, step // PS))
        super()._settle(leap)

    def longest_step_ns(self, start_ns: int, end_ns: int) -> int:
        """The longest step that any of was between two instants."""
        return max((step for first, last, step in self.longest if last >= start_ns and first <= end_ns), default=0)


class Watching:
    """The engines of a virtual run, together."""

    def __init__(self) -> None:
        self.engines: list[Watched] = []

    def make(self, name: str, profile: Profile) -> Watched:
        """The engine of another replica."""
        self.engines.append(Watched(profile))
        return self.engines[-1]

    @property
    def preemptions(self) -> int:
        return sum(engine.scheduler.preemptions for engine in self.engines)

    @property
    def evicted(self) -> int:
        return sum(engine.queue.evicted for engine in self.engines)

    @property
    def steps(self) -> int:
        return sum(engine.scheduler.step for engine in self.engines)

    @property
    def fetched_tokens(self) -> int:
        """Tokens that were read back from memory below the GPUs'."""
        return sum(engine.tiers.hits_tokens for engine in self.engines if engine.tiers is not None)

    def longest_step_ns(self, start_ns: int, end_ns: int) -> int:
        """The longest step that any of them was in between two instants."""
        return max(engine.longest_step_ns(start_ns, end_ns) for engine in self.engines)


def fleet_of(server: Profile | Fleet) -> Fleet:
    """A profile is a fleet of one."""
    return server if isinstance(server, Fleet) else Fleet((Pool(server),))


class Jitter(Struct):
    """What the wire and two processes add: ways there (due to arrival) and back (made to seen), nanoseconds.

    The calls that all start a run together queue up behind one another in the same order every time: they keep their
    own way there.
    """

    there_ns: list[int]
    back_ns: list[int]
    at_start_ns: dict[str, int]


class _Jittered:
    """A backend in virtual time with the delays of a live one, drawn anew for every call."""

    def __init__(self, backend: Backend, clock: VirtualClock, jitter: Jitter, seed: int) -> None:
        self.backend, self.clock, self.jitter = backend, clock, jitter
        self.draw = seeds.stream(seed, "jitter")

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        drawn = self.jitter.there_ns[self.draw.integers(len(self.jitter.there_ns))]
        there = self.jitter.at_start_ns.get(request.name, drawn)
        back = self.jitter.back_ns[self.draw.integers(len(self.jitter.back_ns))]
        await self.clock.sleep_until(self.clock.now() + there)
        outcome = await self.backend.call(request, lambda run: on_chunk(replace(run, first_ns=run.first_ns + back)))
        outcome.done_ns += back
        await self.clock.sleep_until(outcome.done_ns)
        return outcome


def virtual(plan: Plan, server: Profile | Fleet, jitter: Jitter | None = None, seed: int = 0) -> tuple[Ran, Watching]:
    """The plan in virtual time."""
    ran, watching, fleet = Ran(), Watching(), fleet_of(server)
    first = fleet.pools[0].profile

    async def main(clock: VirtualClock) -> None:
        engine = watching.make("", first) if fleet.alone else Cluster(fleet, engines=watching.make)
        backend: Backend = SimulatedBackend(engine, clock, first)
        if jitter is not None:
            backend = _Jittered(backend, clock, jitter, seed)
        await drive(plan, backend, clock, ran)

    run_virtual(main)
    return ran, watching


MODEL = "twin"
_PROGRAM = """
import sys
from pathlib import Path
import msgspec
from workloom.engine.fleet import Fleet
from workloom.serve import run_server
fleet = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Fleet)
run_server(fleet, port=0, model=sys.argv[2], record=Path(sys.argv[3]))
"""


@contextmanager
def serving(server: Profile | Fleet, record: Path) -> Iterator[str]:
    """The URL of a server in a process of its own; its record is whole afterwards."""
    engine = record.with_suffix(".fleet.json")
    engine.write_bytes(msgspec.json.encode(fleet_of(server)))
    command = [sys.executable, "-c", _PROGRAM, str(engine), MODEL, str(record)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(word for word in process.stdout.readline().split() if word.startswith("http"))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def live(plan: Plan, server: Profile | Fleet, record: Path) -> Ran:
    """The plan over HTTP against a server of its own."""
    ran = Ran()

    async def main(clock: RealClock) -> None:
        backend = HttpBackend(
            HttpOptions(urls=(url,), model=MODEL, affinity_headers=("x-session-id",)),
            clock=clock,
            style=Texts(plan.text_salt),
        )
        try:
            await backend.probe()
            with quiet():
                clock.restart()
                ran.origin_ns = clock.origin
                await drive(plan, backend, clock, ran)
        finally:
            backend.close()

    with serving(server, record) as url:
        run_real(main)
    return ran


# -- what they make of every call


class Replayed(Struct):
    """(i) A live server's calls against the same arrivals in a fresh engine."""

    calls: int
    differing: list[str]
    """Calls that ended otherwise or in another order."""
    late_ms: np.ndarray
    """Of every token: written minus made."""


def replayed(record: Path) -> Replayed:
    """Feed a record to a fresh engine."""
    head, rows = read(record)
    again = replay(head, rows)
    differing = [row.name for row, finished in zip(rows, again, strict=True) if row.end != end(finished)]
    late = [
        (written - made) / 1e6
        for row, finished in zip(rows, again, strict=True)
        for written, made in zip(row.written_ns, tokens_ns(finished), strict=False)
    ]
    return Replayed(len(rows), differing, np.array(late))


def served_as(ran: Ran, record: Path) -> dict[Name, tuple[Row, int]]:
    """Which row of a record a call became, and by how much server instants are ahead of the driver's.

    Calls of equal lengths are told apart by their order.
    """
    head, rows = read(record)
    ahead = ran.origin_ns - head.clock_origin_ns
    groups: dict[tuple[int | None, int | None], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.arrival_ns):
        groups[row.ends[-1], row.output_tokens].append(row)
    found = {}
    for name, call in sorted(ran.calls.items(), key=lambda item: item[1].sent_ns or 0):
        found[name] = (groups[call.prompt_tokens, call.output_tokens].pop(0), ahead)
    return found


def jitter_of(ran: Ran, record: Path) -> Jitter:
    """The delays of a live run's calls."""
    jitter = Jitter([], [], {})
    first_done = min(call.done_ns or 0 for call in ran.calls.values())
    for name, (row, ahead) in served_as(ran, record).items():
        call = ran.calls[name]
        assert call.done_ns is not None
        there = max(0, row.arrival_ns - ahead - call.due_ns)
        if call.due_ns < first_done:
            jitter.at_start_ns["{}/{}".format(*name)] = there
        else:
            jitter.there_ns.append(there)
        jitter.back_ns.append(max(0, call.done_ns - (row.done_ns - ahead)))
    return jitter


class Pair(Struct):
    """(ii) One call in both runs; live minus virtual, milliseconds."""

    name: Name
    ttft_ms: float
    ttft_by_ms: float
    e2e_ms: float
    e2e_by_ms: float
    longest_step_ms: float

    @property
    def within(self) -> bool:
        """Both differences within the larger of 10 ms and the longest step during the call."""
        return max(abs(self.ttft_by_ms), abs(self.e2e_by_ms)) <= max(10.0, self.longest_step_ms)


def pairs(simulated: Ran, engine: Watching, real: Ran) -> list[Pair]:
    """Every call, side by side."""
    out = []
    for name, one in simulated.calls.items():
        other = real.calls[name]
        assert one.last_ns is not None
        out.append(
            Pair(
                name,
                ttft_ms(one),
                ttft_ms(other) - ttft_ms(one),
                e2e_ms(one),
                e2e_ms(other) - e2e_ms(one),
                engine.longest_step_ns(one.due_ns, one.last_ns) / 1e6,
            )
        )
    return out


def counts(ran: Ran) -> dict[Name, tuple[str, int | None, int | None]]:
    """What must be equal in both runs: how each call ended, and its tokens."""
    return {name: (c.status, c.prompt_tokens, c.output_tokens) for name, c in ran.calls.items()}


def cached(ran: Ran) -> dict[Name, int | None]:
    return {name: c.cached_tokens for name, c in ran.calls.items()}
