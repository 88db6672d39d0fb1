"""Plans over the engine, on random session DAGs: the driver, the clock and the engine together."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from engine_world import profile
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ReferenceEngine
from strategies import workload

from workloom.clock import VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import End, Options, drive
from workloom.drive.simulated import SimulatedBackend
from workloom.engine.check import check
from workloom.engine.engine import Engine, Finished, Steps
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd, Profile
from workloom.plan import Closed, Limits, Load, Open, Plan, Recipe, TraceRef, Waits, make
from workloom.prefix import Key, PrefixTree
from workloom.prompt import Prompts
from workloom.records import CallRecord, ChunkRun, SessionRecord
from workloom.session import Call, Edge, Header, Part, Session
from workloom.traces import native


class Log:
    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.sessions: list[SessionRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)


class ReferenceAsEngine:
    """The slow model behind the engine's interface."""

    def __init__(self, server: Profile, prefix_cache: bool = True) -> None:
        self.slow = ReferenceEngine(server, prefix_cache=prefix_cache)
        self.told = 0

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        self.slow.submit(at_ns * 1000, call, prompt, answer, output_tokens)

    def next_ns(self) -> int | None:
        at = self.slow.next_ps()
        return None if at is None else -(-at // 1000)

    def advance(self, to_ns: int) -> list[Finished]:
        self.slow.run_until(to_ns * 1000)
        ended = list(self.slow.finished.items())[self.told :]
        self.told += len(ended)
        return [
            Finished(
                call=str(call),
                status="done",
                queued_ns=0,
                admitted_ns=0,
                done_ns=-(-end.done_ps // 1000),
                output_tokens=len(end.token_times_ps),
                cached_tokens=end.cached_tokens,
                preemptions=end.preemptions,
                tokens=[Steps(0, at, 0, 0, 1) for at in end.token_times_ps],
            )
            for call, end in ended
        ]


class Submissions(Engine):
    """An engine that remembers what it was handed, in order."""

    def __init__(self, server: Profile, prefix_cache: bool = True) -> None:
        super().__init__(server, prefix_cache=prefix_cache)
        self.handed: list[tuple[str, Key, int, int]] = []

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        super().submit(at_ns, call, prompt, answer, output_tokens, hints)
        self.handed.append((call, prompt, answer, output_tokens))


def plan_of(sessions: list[Session], load: Load, limits: Limits) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        native.write(path, Header(source="test"), sessions)
        return make(Recipe(TraceRef((str(path),)), load, limits, Waits(1e-7)))


def play(plan: Plan, engine: Engine | ReferenceAsEngine) -> Log:
    log = Log()

    async def main(clock: VirtualClock) -> End:
        backend = SimulatedBackend(engine, clock)  # type: ignore[arg-type]
        return await drive(plan, backend, clock, log, Options(timeout_s=None))

    run_virtual(main)
    return log


def times(record: CallRecord) -> list[int]:
    return [run.at(i) for run in record.chunks for i in range(run.count)]


def test_the_client_hangs_up_after_so_many_tokens() -> None:
    session = Session("s", (Call("a", 50, stop_after=7, fresh=(Part("user", 20),)),))
    (row,) = play(plan_of([session], Closed(1), Limits()), Engine(profile())).calls
    assert (row.output_tokens, row.planned_output_tokens, row.finish) == (7, 7, "hangup")


def test_calls_that_end_at_one_instant_send_their_children_into_one_step() -> None:
    """The engine looks only when all that happens at an instant has happened."""
    calls = (
        Call("root", 1, fresh=(Part("user", 4),)),
        *(Call(f"leaf{i}", 1, after=(Edge("root"),), fresh=(Part("tool", 4),)) for i in range(3)),
    )
    server = profile(front_end=FrontEnd(), max_batched_tokens=64)
    engine = Engine(server)
    log = play(plan_of([Session("s", calls)], Closed(1), Limits()), engine)
    assert engine.scheduler.step == 2
    assert len({row.done_ns for row in log.calls if row.call != "root"}) == 1


def test_a_call_cancelled_at_the_instant_it_finishes_keeps_its_tokens() -> None:
    """Both happen before its task runs again; neither may be lost, and nothing may break."""

    async def main(clock: VirtualClock) -> tuple[list[ChunkRun], int | None]:
        engine = Engine(profile())
        backend = SimulatedBackend(engine, clock)
        session = Session("s", (Call("a", 3, fresh=(Part("user", 5),)),))
        prompt = Prompts(session, 0).make(session.calls[0])
        request = Request("0/a", 0, "s.0", "main", "", prompt, 3)
        chunks: list[ChunkRun] = []
        task = asyncio.create_task(backend.call(request, chunks.append))
        twin = Engine(profile())
        twin.submit(0, "a", prompt.key, 1, 3)
        finish = twin.advance(10**9)[0].done_ns

        def both() -> None:
            backend._pump()
            task.cancel()

        clock.call_at(finish, both)
        with pytest.raises(asyncio.CancelledError):
            await task
        return chunks, engine.next_ns()

    chunks, rest = run_virtual(main)
    assert sum(run.count for run in chunks) == 3
    assert rest is None


loads = st.sampled_from([Closed(1), Closed(3), Open(2e6, "constant")])


@given(workload(max_sessions=3, max_calls=6, max_tokens=120), loads, st.sampled_from([1, 4, 16]), st.booleans())
@settings(max_examples=10, deadline=None)
def test_on_random_dags_with_small_capacity_the_engine_equals_the_slow_reference(
    sessions: list[Session], load: Load, block: int, cache: bool
) -> None:
    server = profile(kv_tokens=1200, block_tokens=block, max_batched_tokens=64, max_num_seqs=5)
    plan = plan_of(sessions, load, Limits(sessions=6))
    fast = play(plan, Engine(server, prefix_cache=cache))
    slow = play(plan, ReferenceAsEngine(server, prefix_cache=cache))
    assert len(fast.calls) == len(slow.calls)
    for a, b in zip(fast.calls, slow.calls, strict=True):
        assert (a.instance, a.call, a.status, a.due_ns, a.done_ns) == (
            b.instance,
            b.call,
            b.status,
            b.due_ns,
            b.done_ns,
        )
        assert a.cached_tokens == b.cached_tokens
        assert all(abs(x - y) <= 1 for x, y in zip(times(a), times(b), strict=True))


@given(workload(max_sessions=4, max_calls=8), loads, st.sampled_from([1, 4, 16]))
@settings(max_examples=30, deadline=None)
def test_on_random_dags_without_overlap_and_with_infinite_capacity_hits_are_the_ideal(
    sessions: list[Session], load: Load, block: int
) -> None:
    server = profile(block_tokens=block, max_num_seqs=1, front_end=FrontEnd())
    engine = Submissions(server)
    log = play(plan_of(sessions, load, Limits(sessions=6)), engine)
    tree, known = PrefixTree(), {}
    for name, key, answer, output in engine.handed:
        known[name] = min(tree.match(key), key.tokens - 1) // block * block
        tree.add(key.plus(answer, output - 1))
    assert {f"{r.instance}/{r.call}": r.cached_tokens for r in log.calls if r.status == "ok"} == known
    check(engine)
    assert engine.queue.free == engine.queue.blocks, "when all is over every block is free"


@given(workload(max_sessions=4, max_calls=8), loads)
@settings(max_examples=40, deadline=None)
def test_every_call_ends_in_exactly_one_row_and_tokens_in_are_tokens_out(sessions: list[Session], load: Load) -> None:
    plan = plan_of(sessions, load, Limits(sessions=5))
    log = play(plan, Engine(profile()))
    rows = [(r.instance, r.call) for r in log.calls]
    assert len(rows) == len(set(rows)) == sum(len(i.session.calls) for i in plan.instances())
    assert len(log.sessions) == 5
    for row in log.calls:
        if row.status == "ok":
            assert row.output_tokens == max(1, row.planned_output_tokens) == len(times(row))
            assert row.due_ns <= (row.sent_ns or 0) <= (row.first_ns or 0) <= (row.last_ns or 0) <= (row.done_ns or 0)
