"""When things happen in an engine: stories in picoseconds, and what holds however it is looked at.

The step of these stories takes 100 ps when it only decodes. One with prefill is launched in 500 ps and 40 more for each
new call, and ends 20 ps after that.
"""

from __future__ import annotations

from collections import Counter

from engine_world import Done, Fast, Turn, fitting, play, profile, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.engine.cost import Cost
from workloom.engine.engine import Engine, Finished
from workloom.engine.events import Admitted, Ended, Event, Evicted, Preempted, Queued, Ran
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd, Profile, Speculative, StepCost
from workloom.prefix import Key

NS = 1000
STEP = StepCost(100 * NS, 0, 0, 0, 0, 0, launch_ps=500 * NS, admit_ps=40 * NS, launch_tail_ps=20 * NS)
Chains = tuple[list[list[Turn]], list[int]]


def server(
    step: StepCost = STEP, front_end: FrontEnd | None = None, *, ahead: bool = True, **fields: object
) -> Profile:
    made = profile(step=step, front_end=front_end or FrontEnd(), max_num_seqs=8)
    return replace(made, async_scheduling=ahead, **fields)


def text(number: int, tokens: int = 8) -> Key:
    return Key().plus(number, tokens)


def run(engine: Engine, *calls: tuple[int, str, int], cancels: dict[str, int] | None = None) -> dict[str, Finished]:
    """Hand in (instant, name, output tokens) and cancels; what became of each."""
    inputs = [(at, 0, name, tokens) for at, name, tokens in calls]
    inputs += [(at, 1, name, 0) for name, at in (cancels or {}).items()]
    ends: dict[str, Finished] = {}
    for at, cancel, name, tokens in sorted(inputs):
        _until(engine, at, ends)
        if cancel:
            engine.cancel(at, name)
        else:
            engine.submit(at, name, text(ord(name[0])), 1000 + ord(name[0]), tokens)
    _until(engine, 1 << 60, ends)
    return ends


def _until(engine: Engine, to_ns: int, ends: dict[str, Finished]) -> None:
    """Up to an instant, of which nothing is asked yet: that would begin a step that is due."""
    while engine._told < to_ns * NS and (at_ns := engine.next_ns()) is not None and at_ns < to_ns:
        for end in engine.advance(at_ns):
            assert at_ns == end.done_ns, "next_ns tells of every end"
            ends[end.call] = end


def instants(end: Finished) -> list[int]:
    """When its tokens came, in nanoseconds."""
    return [steps.at(i) // NS for steps in end.tokens for i in range(steps.length)]


# -- what a step costs


def test_a_small_step_with_prefill_runs_as_graphs_and_a_large_one_eagerly() -> None:
    step = StepCost(0, 0, 10, 0, 0, 0, launch_ps=700, admit_ps=9, graph_tokens=50, graph_launch_ps=200)
    cost = Cost(replace(step, graph_token_ps=7))
    assert [cost.launch(n, 10, 1) for n in (1, 40, 41)] == [209, 209, 709], "decodes count: 40 + 10 is the limit"
    assert [cost.gpu(n, 0, 10, 0) for n in (40, 41)] == [280, 410]


def test_beyond_the_knee_tokens_have_another_price() -> None:
    cost = Cost(StepCost(0, 5, 10, 0, 0, 0, knee_tokens=100, beyond_token_ps=6))
    assert [cost.gpu(n, 0, 0, 0) for n in (99, 100, 101, 150)] == [995, 1005, 1011, 1305]


def test_a_step_with_prefill_ends_its_tail_after_its_launch_or_when_the_gpu_is_done() -> None:
    for weights_ns, end in ((100, 560), (600, 600)):
        engine = Engine(server(replace(STEP, weights_ps=weights_ns * NS), ahead=False))
        assert instants(run(engine, (0, "a", 1))["a"]) == [end]


# -- scheduling ahead


def test_who_comes_while_a_decode_step_runs_waits_for_its_rest_and_a_whole_one() -> None:
    # a prefills until 560 and decodes in steps that begin at 560, 660, 760, ...
    for arrival, admitted in ((659, 760), (660, 860), (661, 860), (759, 860), (760, 960)):
        ends = run(Engine(server()), (0, "a", 9), (arrival, "b", 1))
        assert ends["b"].admitted_ns == admitted, arrival


def test_without_it_one_waits_for_the_rest_of_the_step() -> None:
    for arrival, admitted in ((659, 660), (660, 760), (661, 760)):
        ends = run(Engine(server(ahead=False)), (0, "a", 9), (arrival, "b", 1))
        assert ends["b"].admitted_ns == admitted, arrival


def test_who_comes_during_a_launch_gets_into_the_next_step_and_after_it_into_the_one_after() -> None:
    # a's launch takes from 0 to 540, its step until 560; the next step is decided at 540.
    for arrival, admitted in ((0, 0), (539, 560), (540, 660), (559, 660), (560, 760)):
        ends = run(Engine(server()), (0, "a", 9), (arrival, "b", 1))
        assert ends["b"].admitted_ns == admitted, arrival


def test_a_launch_holds_back_the_tokens_of_the_step_before_it() -> None:
    ends = run(Engine(server()), (0, "a", 6), (700, "b", 3))
    # Steps: a's prefill to 560, decodes to 660, 760, 860, then b's prefill, launched until 1400, to 1420.
    assert instants(ends["a"]) == [560, 660, 760, 1400, 1420, 1520], "a long gap, then one of the tail"
    assert instants(ends["b"]) == [1420, 1520, 1620]


def test_the_first_chunk_of_a_long_prompt_is_held_back_by_its_second_and_has_no_token_anyway() -> None:
    engine = Engine(server(max_batched_tokens=6))
    ends = run(engine, (0, "a", 3))
    assert ends["a"].admitted_ns == 0
    # 6 of 8 tokens by 560; the rest are launched from 540 to 1040.
    assert instants(ends["a"]) == [1060, 1160, 1260]


def test_the_tokens_of_several_prefill_steps_in_a_row_are_each_held_back_by_the_next_launch() -> None:
    engine = Engine(server(max_batched_tokens=4))
    engine.submit(0, "a", text(1, 3), 9, 9)
    engine.submit(600, "b", text(2, 9), 8, 1)
    ends = {}
    while (at := engine.next_ns()) is not None:
        ends |= {end.call: instants(end) for end in engine.advance(at)}
    # a decodes to 660, 760; b's chunks of 3 are launched until 760 + 540, + 500, + 500; a's tokens come with these.
    assert ends["a"] == [560, 660, 1300, 1800, 2300, 2320, 2420, 2520, 2620]
    assert ends["b"] == [2320]


def test_a_launch_is_hidden_under_a_long_prefill_step_before_it() -> None:
    engine = Engine(server(replace(STEP, prefill_token_ps=300 * NS), max_batched_tokens=4))
    ends = run(engine, (0, "a", 1), (100, "b", 1))
    # Chunks of 4 take 1,200; those of a from 0 and 1,200, then b's. b's first is launched from 1,200 (a's second takes
    # no time of its own) to 1,740 and so hidden as well.
    assert [instants(ends[call]) for call in "ab"] == [[2400], [4800]]


def test_a_call_that_ended_in_a_step_held_back_is_told_late_and_its_blocks_are_free_at_once() -> None:
    # Room for one call of 8 + 3 tokens. b is decided while a's last step runs and takes a's blocks at its end.
    engine = Engine(server(kv_tokens=12))
    ends = run(engine, (0, "a", 3), (600, "b", 3))
    assert ends["b"].admitted_ns == 760
    assert ends["a"].done_ns == 760 + 540
    assert instants(ends["a"]) == [560, 660, 1300]


def test_an_engine_that_is_idle_begins_at_once_and_holds_nothing_back() -> None:
    ends = run(Engine(server()), (0, "a", 2), (660, "b", 1), (2000, "c", 1))
    assert instants(ends["a"]) == [560, 660]
    assert (ends["b"].admitted_ns, ends["c"].admitted_ns) == (660, 2000)


def test_who_comes_after_the_decision_that_nobody_runs_on_is_begun_at_the_boundary() -> None:
    ends = run(Engine(server()), (0, "a", 2), (600, "b", 1))
    assert ends["b"].admitted_ns == 660
    assert instants(ends["a"]) == [560, 660], "the engine had nothing to do but to wait for this token"


def test_a_cancel_counts_at_the_end_of_the_step_it_falls_into() -> None:
    for at, tokens in ((600, [560, 660]), (659, [560, 660]), (660, [560, 660, 760])):
        end = run(Engine(server()), (0, "a", 9), cancels={"a": at})["a"]
        assert (end.status, instants(end), end.done_ns) == ("cancelled", tokens, tokens[-1]), at


# -- delivery


def test_the_first_token_is_delivered_later_and_the_stream_ends_later() -> None:
    slow = FrontEnd(first_token_ps=30 * NS, end_ps=7 * NS)
    ends = run(Engine(server(front_end=slow, ahead=False)), (0, "a", 3), (5000, "b", 1))
    assert (instants(ends["a"]), ends["a"].done_ns) == ([590, 660, 760], 767)
    assert (instants(ends["b"]), ends["b"].done_ns) == ([5590], 5597)


def test_the_first_token_never_comes_after_the_second_nor_after_the_end_of_a_cancelled_answer() -> None:
    slow = FrontEnd(first_token_ps=300 * NS, end_ps=7 * NS)
    ends = run(Engine(server(front_end=slow, ahead=False)), (0, "a", 3), (5000, "b", 9), cancels={"b": 5300})
    assert instants(ends["a"]) == [660, 660, 760]
    assert (instants(ends["b"]), ends["b"].done_ns) == ([5560], 5560)


def test_a_cancel_of_an_answer_that_is_complete_but_not_delivered_changes_nothing() -> None:
    engine = Engine(server(front_end=FrontEnd(first_token_ps=30 * NS, end_ps=50 * NS)))
    engine.submit(0, "a", text(1), 2, 1)
    assert engine.advance(570) == []
    assert (engine.generated("a", 589), engine.generated("a", 590)) == (0, 1)
    engine.cancel(580, "a")
    assert engine.next_ns() == 640
    (end,) = engine.advance(640)
    assert (end.status, instants(end)) == ("done", [590])


# -- speculation


def test_a_decode_step_with_speculation_is_told_token_by_token() -> None:
    # Two calls verify 3 tokens each: 6 slots at 10 and 2 to make the guesses, 2.5 tokens from 160.
    step = StepCost(98 * NS, 0, 0, 10 * NS, 0, 0)
    made = server(step, ahead=False, speculative=Speculative(2, 2.5, 2 * NS))
    ends = run(Engine(made), (0, "a", 6), (0, "b", 6))
    assert instants(ends["a"]) == instants(ends["b"]) == [100, 164, 228, 292, 356, 420]


def test_a_context_is_read_once_however_many_tokens_are_verified() -> None:
    cost = Cost(StepCost(0, 0, 0, 0, 0, 100), Speculative(3, 2.0))
    assert cost.decode(2, 1000) == (50_000, 100)


def test_a_step_with_prefill_gives_whole_tokens_and_in_the_mean_as_many_as_the_acceptance_length_says() -> None:
    step = replace(STEP, launch_tail_ps=0, launch_ps=0, admit_ps=0)
    made = server(step, ahead=False, speculative=Speculative(2, 2.5), max_batched_tokens=7)
    engine = Engine(made)
    engine.submit(0, "a", text(1, 4), 9, 12)
    engine.submit(1, "b", text(2, 16), 8, 1)
    ends = {}
    while (at := engine.next_ns()) is not None:
        ends |= {end.call: instants(end) for end in engine.advance(at)}
    # b gets 7 - 3 tokens in each of four steps of 100; a 2, 3, 2 and 3 tokens, then one each 40.
    assert ends["a"] == [100] + [200] * 2 + [300] * 3 + [400] * 2 + [500] * 3 + [540]
    assert ends["b"] == [500]


def test_with_speculation_throughput_is_right_beside_prefills_and_without() -> None:
    for length in (1.0, 1.7, 2.4, 3.0):
        made = server(speculative=Speculative(2, length), max_batched_tokens=20)
        events: list[Event] = []
        engine = Engine(made, listener=events.append)
        engine.submit(0, "a", text(1, 10), 9, 2000)
        engine.submit(0, "b", text(2, 1700), 8, 1)
        engine.advance(1 << 60)
        beside = [event for event in events if isinstance(event, Ran) and event.prefills and event.decodes]
        assert len(beside) == 100
        assert abs(sum(event.tokens for event in beside) - 100 * length) < 1


# -- whatever happens

kinds = st.sampled_from([{}, {}, {"speculative": Speculative(3, 2.3, 1_009)}, {"state_groups": 2}])
fronts = st.sampled_from([FrontEnd(1_777, 29), FrontEnd(1_777, 29, 7_001, 3_003), FrontEnd(1, 0, 60_000, 11)])
steps = st.sampled_from(
    [
        profile().step,
        replace(profile().step, graph_tokens=9, graph_launch_ps=6_007, graph_token_ps=503, launch_tail_ps=1_201),
        replace(profile().step, launch_tail_ps=903, knee_tokens=7, beyond_token_ps=311),
        replace(profile().step, launch_ps=0, admit_ps=0),
    ]
)


@given(worlds(), st.sampled_from([96, 400, None]), steps, fronts, kinds, st.booleans())
@settings(max_examples=150, deadline=None)
def test_leaping_equals_stepping(
    world: Chains, kv: int | None, step: StepCost, front: FrontEnd, kind: dict[str, object], ahead: bool
) -> None:
    chains, starts = world
    made = profile(kv_tokens=kv, max_batched_tokens=8, step=step, front_end=front, async_scheduling=ahead, **kind)
    chains = fitting(chains, 60)
    stepping = Fast(made, leap=False, books=False, log_steps=1)
    assert play(Fast(made), chains, starts) == play(stepping, chains, starts)


class _Nosy(Fast):
    """Asks for tokens and what comes next all the time, as `serve` does, and keeps the answers."""

    def __init__(self, made: Profile) -> None:
        super().__init__(made)
        self.told: list[tuple[int, str, int]] = []
        self.at = 0

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        self.at = max(self.at, at_ns)
        super().submit(at_ns, call, prompt, answer, output, hints)

    def cancel(self, at_ns: int, call: str) -> None:
        self.at = max(self.at, at_ns)
        super().cancel(at_ns, call)

    def _look(self, at: int) -> None:
        self.at = at
        for call in list(self.engine._calls):
            count = self.engine.generated(call, at)
            assert sum(steps.length for steps in self.engine.answer_so_far(call, at)) == count
            self.told.append((at, call, count))

    def advance(self, to_ns: int) -> list[Done]:
        while (step := self.engine.next_step_ns(self.at)) is not None and self.at < step < to_ns:
            self._look(step)
        out = super().advance(to_ns)
        self._look(to_ns)
        return out


@given(worlds(), st.sampled_from([96, 400]), steps, fronts, kinds, st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_told_under_way_is_what_is_told_in_the_end(
    world: Chains, kv: int, step: StepCost, front: FrontEnd, kind: dict[str, object], ahead: bool
) -> None:
    chains, starts = world
    made = profile(kv_tokens=kv, step=step, front_end=front, async_scheduling=ahead, **kind)
    chains = fitting(chains, 60)
    nosy = _Nosy(made)
    log = play(nosy, chains, starts)
    assert log == play(Fast(made), chains, starts), "looking changes nothing"
    tokens = {done.call: done.tokens_ps for done in log}
    for at, call, count in nosy.told:
        assert count == sum(ps <= at * NS for ps in tokens[call]), (at, call)
    for done in log:
        assert done.tokens_ps == sorted(done.tokens_ps)


@given(worlds(), st.sampled_from([64, 96]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_listener_hears_what_happens_to_every_call(world: Chains, kv: int, ahead: bool) -> None:
    chains, starts = world
    made = replace(profile(kv_tokens=kv), async_scheduling=ahead)
    events: list[Event] = []
    fast = Fast(made)
    fast.engine = Engine(made, listener=events.append)
    log = play(fast, fitting(chains, 60), starts)
    ran = [event for event in events if isinstance(event, Ran)]
    assert [event.start_ps for event in ran] == sorted(event.start_ps for event in ran)
    assert sum(event.steps for event in ran) == fast.engine.scheduler.step
    ended = {event.call: event for event in events if isinstance(event, Ended)}
    assert {call: (end.status, end.output_tokens) for call, end in ended.items()} == {
        done.call: (done.status, len(done.tokens_ps)) for done in log
    }
    first = {}
    for event in events:
        if isinstance(event, Admitted):
            first.setdefault(event.call, event.cached_tokens)
    assert {done.call: done.cached for done in log if done.call in first} == first
    waited = {event.call for event in events if isinstance(event, Queued)}
    assert first.keys() <= waited
    assert Counter(event.call for event in events if isinstance(event, Preempted)) == Counter(
        {done.call: done.preemptions for done in log if done.preemptions}
    )
    evicted = sum(event.blocks for event in events if isinstance(event, Evicted))
    assert evicted == fast.engine.queue.evicted
