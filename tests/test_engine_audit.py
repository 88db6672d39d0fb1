"""What the engine reports is what follows from what it did; and the auditor that says so notices when it does not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from engine_audit import Audit, AuditedEngine
from engine_world import TIERS, Fast, Node, Turn, graph, graphs, play_graph, profile, servers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workloom
from workloom.clock import VirtualClock, run_virtual
from workloom.drive.driver import End, Options, drive
from workloom.drive.simulated import SimulatedBackend
from workloom.engine.events import Admitted, Ended, Event, Evicted, Preempted, Queued, Ran, Received
from workloom.engine.profile import Profile, Speculative, load
from workloom.plan import Closed, Limits, Recipe, TraceRef, Waits, make
from workloom.records import CallRecord, SessionRecord

CANONICAL = Path(workloom.__file__).parent / "data/canonical.jsonl"


@given(graphs(), servers(), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_figure_follows_from_the_events(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    engine = AuditedEngine(server, prefix_cache=cache, leap=leap)
    play_graph(Fast(server, engine=engine), nodes)
    engine.settle()


@pytest.mark.parametrize("feature", ["tiers", "prefetch", "swap", "speculation"])
@given(data=st.data())
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_has_books_of_its_own_adds_up_by_itself(feature: str, data: st.DataObject) -> None:
    engine = AuditedEngine(data.draw(servers([feature])), leap=data.draw(st.booleans()))
    play_graph(Fast(engine.profile, engine=engine), data.draw(graphs()))
    engine.settle()


@pytest.mark.long
@given(graphs(most=25), servers(), st.booleans(), st.booleans())
@settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_worlds_add_up(nodes: list[Node], server: Profile, cache: bool, leap: bool) -> None:
    engine = AuditedEngine(server, prefix_cache=cache, leap=leap)
    play_graph(Fast(server, engine=engine), nodes)
    engine.settle()


def crowded() -> list[Node]:
    """Four chains in a cache for one and a half: hits, evictions, preemptions, chunks."""
    return graph([[Turn(None, 9, 25, 12, 0, None) for _ in range(2)] for _ in range(4)], [0, 3, 5, 9])


def lies(event: Event) -> Event | None:
    """The event with one figure that is wrong; None where this test has no lie to tell."""
    match event:
        case Queued():
            return event._replace(at_ps=event.at_ps + 1)
        case Admitted():
            return event._replace(cached_tokens=event.cached_tokens + 4)
        case Ran():
            return event._replace(first_ps=event.first_ps + 1)
        case Received():
            return None
        case Preempted():
            return event._replace(at_ps=event.at_ps - 1)
        case Evicted():
            return event._replace(blocks=event.blocks + 1)
        case Ended():
            return event._replace(output_tokens=event.output_tokens - 1)


@pytest.mark.parametrize("kind", [Queued, Admitted, Ran, Preempted, Evicted, Ended])
def test_one_wrong_figure_in_the_middle_is_noticed(kind: type) -> None:
    server = profile(kv_tokens=96)
    honest = AuditedEngine(server)
    play_graph(Fast(server, engine=honest), crowded())
    honest.settle()
    told = list(honest.told)
    of_kind = [index for index, event in enumerate(told) if isinstance(event, kind)]
    assert len(of_kind) > 1, "the story has some"
    told[of_kind[len(of_kind) // 2]] = lies(told[of_kind[len(of_kind) // 2]])  # type: ignore[call-overload]
    with pytest.raises(AssertionError):
        again(honest, told)


def loading() -> Profile:
    """A server whose calls often load: blocks come back from a slow host."""
    return profile(kv_tokens=96, kv_token_bytes=10, tiers=TIERS[1])


def speculating() -> Profile:
    return profile(speculative=Speculative(3, 2.5), max_batched_tokens=24)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_books_of_loads_and_swaps_have_something_to_say(preemption: str) -> None:
    engine = AuditedEngine(msgspec.structs.replace(loading(), preemption=preemption))
    play_graph(Fast(engine.profile, engine=engine), crowded())
    engine.settle()
    assert sum(event.joined for event in engine.told if isinstance(event, Ran)) >= 3
    saved = [event for event in engine.told if isinstance(event, Admitted) and event.cached_tokens % 4]
    assert bool(saved) == (preemption == "swap"), "only what was swapped has part of a block"
    back = [event.call for event in engine.told if isinstance(event, Admitted)]
    assert len(set(back)) < len(back), "preempted calls came back"


def misread(event: Event) -> Event | None:
    """A lie about what was read from a tier, or about what went on."""
    match event:
        case Admitted() if event.fetched:
            ((tier, tokens),) = event.fetched
            return event._replace(fetched=((tier, tokens + 4),))
        case _:
            return None


def miscounted(event: Event) -> Event | None:
    match event:
        case Ran() if event.joined:
            return event._replace(joined=event.joined - 1)
        case Ran() if event.tokens > 1:
            return event._replace(tokens=event.tokens - 1)
        case _:
            return None


@pytest.mark.parametrize(
    ("server", "lie"), [(loading(), misread), (loading(), miscounted), (speculating(), miscounted)]
)
def test_a_wrong_figure_of_a_load_or_of_speculation_is_noticed(
    server: Profile, lie: Callable[[Event], Event | None]
) -> None:
    engine = AuditedEngine(server)
    play_graph(Fast(server, engine=engine), crowded())
    engine.settle()
    lied = [(index, wrong) for index, event in enumerate(engine.told) if (wrong := lie(event)) is not None]
    assert lied
    index, wrong = lied[len(lied) // 2]
    told = list(engine.told)
    told[index] = wrong
    with pytest.raises(AssertionError):
        again(engine, told)


@pytest.mark.parametrize(
    "changes", [{"cached_tokens": 5}, {"output_tokens": 3}, {"done_ns": 7}, {"queued_ns": 1}, {"preemptions": 9}]
)
def test_one_wrong_figure_in_the_report_of_a_call_is_noticed(changes: dict[str, int]) -> None:
    server = profile(kv_tokens=96)
    engine = AuditedEngine(server)
    play_graph(Fast(server, engine=engine), crowded())
    engine.settle()
    engine.finished[3] = engine.finished[3]._replace(**changes)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        engine.settle()


def again(engine: AuditedEngine, told: list[Event]) -> None:
    """A second audit of the same run."""
    audit = Audit(engine.profile)
    for call in engine.audit.calls.values():
        audit.submit(call.submitted_ps // 1000, call.name, call.prompt, call.answer, call.outputs)
    for event in told:
        audit.hear(event)
    audit.check(engine.finished, engine.gauges()[""])


class Log:
    def __init__(self) -> None:
        self.calls: list[CallRecord] = []

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        pass


def test_a_run_of_the_canonical_workload_is_what_the_events_say() -> None:
    """Through the driver and the records: instants, cached tokens, and the run's totals."""
    server = msgspec.structs.replace(load("llama-3.1-70b-h200x4"), kv_tokens=160_000, block_tokens=256)
    plan = make(Recipe(TraceRef((str(CANONICAL),)), Closed(8), Limits(), Waits()))
    engine, log = AuditedEngine(server), Log()

    async def main(clock: VirtualClock) -> End:
        return await drive(plan, SimulatedBackend(engine, clock), clock, log, Options(timeout_s=None))

    run_virtual(main)
    engine.settle()
    audited = engine.audit.calls
    assert len(log.calls) == len(audited) > 100
    for record in log.calls:
        call = audited[f"{record.instance}/{record.call}"]
        assert record.first_ns == -(-call.came_ps[0] // 1000)
        assert record.last_ns is not None and abs(1000 * record.last_ns - call.came_ps[-1]) <= 1000
        assert record.sent_ns is not None and record.sent_ns * 1000 == call.submitted_ps
        assert record.prompt_tokens == call.prompt.tokens and record.cached_tokens == call.cached
        assert record.output_tokens == call.made == sum(run.count for run in record.chunks)
        gaps = [late - early for early, late in pairwise(call.came_ps)]
        told = [run.at(i) for run in record.chunks for i in range(run.count)]
        ours = [late - early for early, late in pairwise(told)]
        assert all(abs(1000 * one - other) <= 2000 for one, other in zip(ours, gaps, strict=True))
    end_s = max(call.came_ps[-1] for call in audited.values()) / 1e12
    tokens = sum(record.output_tokens or 0 for record in log.calls)
    assert tokens / end_s == pytest.approx(engine.audit.generated / (max(r.done_ns or 0 for r in log.calls) / 1e9))
    assert engine.audit.evicted > 0
