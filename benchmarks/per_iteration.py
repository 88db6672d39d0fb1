"""The engine beside a plain simulator that takes every step: the same results, and how much faster.

    python benchmarks/per_iteration.py [--profile build/provisional.yaml] [--only NAME] [--hot NAME]

The plain one is what is usually written: a loop over steps, in each a loop over calls, blocks by the hash of what is in
them, free blocks in an ordered dict. It knows first come first served, decode first, state pages and scheduling ahead;
not tiers, pins, cancels, nor how tokens are delivered, which both leave out. Each load is recorded once, with the
driver, and then handed to both as it was; every token of every call must come at the same picosecond. Twice: with all
that the plain one knows of a profile, and bare, without states and scheduling ahead, where its loop is leanest. Beside
them the engine as it steps instead of leaping.

    case-study-2   0.18 sessions/s of 5 calls in a chain, 500 fresh and 300 output tokens each, for 300 s (goal: 15x)
    frontier       the same at 1.1 sessions/s, 5.5 calls/s (goal: no slower)
    long answers   64 calls at once of 200 + 4,000 tokens (goal: 100x)
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from workloom.clock import VirtualClock, run_virtual
from workloom.drive.driver import End, Options, drive
from workloom.drive.simulated import SimulatedBackend
from workloom.engine import profile as profiles
from workloom.engine.cost import Cost, pairs
from workloom.engine.engine import Engine
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd, Profile, Retention, Template
from workloom.plan import Limits, Open, Recipe, TraceRef, make
from workloom.prefix import Key
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Session
from workloom.traces import native

PS = 1000


class Submission(NamedTuple):
    at_ns: int
    call: str
    prompt: Key
    answer: int
    output_tokens: int


class Answer(NamedTuple):
    """What both must agree on."""

    tokens_ps: list[int]
    cached_tokens: int
    preemptions: int


# -- the plain simulator


class Sequence:
    """A call. `blocks` are those it holds, `names` what is in its full blocks, as far as anybody asked."""

    def __init__(self, given: Submission) -> None:
        self.call = given.call
        self.ids, self.ends = [*given.prompt.ids, given.answer], [*given.prompt.ends, 1 << 60]
        self.prompt, self.wanted = given.prompt.tokens, given.output_tokens
        self.tokens = given.prompt.tokens
        """To be computed before the next token: the prompt and what was generated."""
        self.computed = 0
        self.blocks: list[int] = []
        self.names: list[int] = []
        self.registered = 0
        self.times: list[int] = []
        self.cached: int | None = None
        self.preemptions = 0
        self.decoding = False
        self.page: State | None = None
        self.spent: State | None = None
        """The state of the block before, for the step that begins from it."""


class State:
    """What the layers with states know at a block's end: a page each. `name`: what stands before, once it is done."""

    def __init__(self, pages: list[int]) -> None:
        self.pages, self.refs = pages, 1
        self.name: int | None = None


class PerIteration:
    """One replica, every step of it."""

    def __init__(self, profile: Profile) -> None:
        assert not (profile.tiers or profile.speculative or profile.watermark_blocks)
        self.ahead, self.groups = profile.async_scheduling, profile.state_groups
        self.profile, self.size = profile, profile.block_tokens
        self.cost = Cost(profile.step)
        count = profile.kv_blocks
        self.infinite = count is None
        self.refs: list[int] = [0] * (count or 0)
        self.held_name: list[int | None] = [None] * (count or 0)
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count or 0))
        self.found: dict[int, list[int]] = {}
        self.states: dict[int, list[State]] = {}
        self.state_of: dict[int, State] = {}
        """By its pages, those that can be found."""
        self.interned: dict[tuple[int, tuple[tuple[int, int, int], ...]], int] = {}
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.refused: Sequence | None = None
        self.out: dict[str, Answer] = {}
        self.done: list[Sequence] = []
        """Those that were complete with the last step."""
        self.steps = 0

    def run(self, given: Iterable[Submission]) -> dict[str, Answer]:
        """All answers."""
        arriving: deque[tuple[int, Sequence]] = deque()
        free_at, front = 0, self.profile.front_end
        for each in given:
            free_at = max(free_at, each.at_ns * PS) + front.call_ps + front.prompt_token_ps * each.prompt.tokens
            arriving.append((free_at, Sequence(each)))
        now = early = 0
        while arriving or self.waiting or self.running:
            if not (self.waiting or self.running):
                now, early = max(now, arriving[0][0]), 0
                while arriving and arriving[0][0] <= now:
                    self.waiting.append(arriving.popleft()[1])
            launch, end = self.step(now, early)
            decided, now = now + launch if self.ahead else end, end
            early = now - decided if launch else 0
            while arriving and arriving[0][0] < decided:
                self.waiting.append(arriving.popleft()[1])
        return self.out

    def step(self, start: int, early: int) -> tuple[int, int]:
        """Schedule, run, settle; its launch, if that is what scheduling ahead waits for, and its end."""
        self.steps += 1
        before = [*self.running, *self.done] if self.ahead else []
        chunks, preempted = self.schedule()
        admitted = 0 if preempted else self.admit(chunks)
        cost, decodes, context, tokens, work = self.cost, 0, 0, 0, 0
        for sequence in self.running:
            if sequence.decoding:
                decodes += 1
                context += sequence.computed + 1
        launch, now = 0, start
        if chunks:
            for sequence, chunk in chunks:
                tokens += chunk
                work += pairs(chunk, sequence.computed)
            gpu = cost.gpu(tokens, work, decodes, context)
            launch = max(0, cost.launch(tokens, decodes, admitted) - early)
            now += max(gpu, launch + self.profile.step.launch_tail_ps)
            for sequence in before:  # the launch holds back the tokens of the step before
                if sequence.times and sequence.times[-1] == start:
                    sequence.times[-1] += launch
        else:
            now += cost.decode(decodes, context)[0]
        self.settle(chunks, now)
        return (launch if self.ahead else 0), now

    def schedule(self) -> tuple[list[tuple[Sequence, int]], bool]:
        """One token of every decoding call, the rest of a half-computed prompt; the newest gives way without room."""
        chunks: list[tuple[Sequence, int]] = []
        preempted = False
        taken = 0
        if self.groups:
            for sequence in self.running:
                if sequence.spent is not None:
                    self.let_go_state(sequence.spent)
                    sequence.spent = None
        for sequence in list(self.running):
            if sequence.preemptions and sequence not in self.running:
                continue
            chunk = 1
            if not sequence.decoding:
                decodes = sum(other.decoding for other in self.running)
                left = self.profile.max_batched_tokens - decodes - taken
                chunk = self.chunk(sequence, sequence.computed, left)
                if not chunk:
                    continue
            need = -(-(sequence.computed + chunk) // self.size) - len(sequence.blocks)
            if need > 0:
                need += self.groups
            while need > 0 and not self.infinite and need > len(self.free):
                victim = self.running.pop()
                self.preempt(victim)
                preempted = True
                if victim is sequence:
                    break
            else:
                if need > 0:
                    self.take(sequence, need)
                if not sequence.decoding:
                    chunks.append((sequence, chunk))
                    taken += chunk
        return chunks, preempted

    def chunk(self, sequence: Sequence, computed: int, left: int) -> int:
        """Prompt tokens of a call in this step. Where there are states they end with a block, but for the last."""
        chunk = min(sequence.tokens - computed, left)
        if self.groups:
            last, end = sequence.tokens // self.size * self.size, computed + chunk
            if end < last:
                return max(0, end // self.size * self.size - computed)
            if computed < last < end:
                return last - computed
        return chunk

    def preempt(self, sequence: Sequence) -> None:
        sequence.preemptions += 1
        self.let_go(sequence)
        sequence.computed, sequence.decoding = 0, False
        self.waiting.appendleft(sequence)

    def admit(self, chunks: list[tuple[Sequence, int]]) -> int:
        """Waiting calls while budget and room last."""
        budget = self.profile.max_batched_tokens - sum(chunk for _, chunk in chunks)
        budget -= sum(sequence.decoding for sequence in self.running)
        admitted = 0
        while self.waiting and budget > 0 and len(self.running) < self.profile.max_num_seqs:
            sequence = self.waiting[0]
            if sequence is self.refused:
                break
            hit, state = self.lookup(sequence)
            if self.groups and any(self.expects(sequence, len(hit), other, n) for other, n in chunks):
                break
            chunk = self.chunk(sequence, len(hit) * self.size, budget)
            if not chunk:
                break
            need = -(-(len(hit) * self.size + chunk) // self.size) - len(hit) + self.groups
            evictable = sum(not self.refs[block] for block in hit)
            if state is not None and not state.refs:
                evictable += self.groups
            if not self.infinite and need + evictable > len(self.free):
                self.refused = sequence
                break
            self.waiting.popleft()
            for block in hit:
                if not self.refs[block]:
                    self.free.pop(block, None)
                self.refs[block] += 1
            if state is not None:
                if not state.refs:
                    for page in state.pages:
                        self.free.pop(page, None)
                state.refs += 1
            sequence.blocks, sequence.registered, sequence.page = hit, len(hit), state
            sequence.computed = len(hit) * self.size
            if sequence.cached is None:
                sequence.cached = sequence.computed
            self.take(sequence, need)
            self.running.append(sequence)
            chunks.append((sequence, chunk))
            budget -= chunk
            admitted += 1
        return admitted

    def expects(self, sequence: Sequence, hit: int, other: Sequence, chunk: int) -> bool:
        """Whether this very step makes a state that the call could go on from."""
        end = other.computed + chunk
        if end % self.size or not hit * self.size < end < sequence.tokens:
            return False
        place = end // self.size - 1
        return self.name(sequence, place) == self.name(other, place)

    def settle(self, chunks: list[tuple[Sequence, int]], now: int) -> None:
        """Tokens come, full blocks can be found, complete calls leave."""
        size = self.size
        done = []
        for sequence in self.running:
            if sequence.decoding:
                sequence.computed += 1
                sequence.tokens += 1
                sequence.times.append(now)
                if not sequence.computed % size:
                    self.register(sequence)
                if len(sequence.times) == sequence.wanted:
                    done.append(sequence)
        for sequence, chunk in chunks:
            sequence.computed += chunk
            self.register(sequence)
            if sequence.computed == sequence.tokens:
                sequence.decoding = True
                sequence.tokens += 1
                sequence.times.append(now)
                if len(sequence.times) == sequence.wanted:
                    done.append(sequence)
        self.done = done
        for sequence in done:
            self.running.remove(sequence)
            self.let_go(sequence)
            self.out[sequence.call] = Answer(sequence.times, sequence.cached or 0, sequence.preemptions)

    # -- blocks

    def take(self, sequence: Sequence, count: int) -> None:
        """Blocks for a call; with states, the last of them are its new pages."""
        for _ in range(count):
            if self.infinite:
                block = len(self.refs)
                self.refs.append(1)
                self.held_name.append(None)
            else:
                block = self.free.popitem(last=False)[0]
                self.lose(block)
                self.refs[block] = 1
            sequence.blocks.append(block)
        if self.groups:
            sequence.spent = sequence.page
            sequence.page = State(sequence.blocks[-self.groups :])
            del sequence.blocks[-self.groups :]

    def lose(self, block: int) -> None:
        """What is in a block cannot be found any more."""
        name = self.held_name[block]
        if name is not None:
            copies = self.found[name]
            copies.remove(block)
            if not copies:
                del self.found[name]
            self.held_name[block] = None
        elif block in self.state_of:
            state = self.state_of[block]
            assert state.name is not None
            self.states[state.name].remove(state)
            if not self.states[state.name]:
                del self.states[state.name]
            for page in state.pages:
                del self.state_of[page]

    def let_go(self, sequence: Sequence) -> None:
        """Its states, then its blocks, the last first."""
        for state in (sequence.page, sequence.spent):
            if state is not None:
                self.let_go_state(state)
        sequence.page = sequence.spent = None
        for block in reversed(sequence.blocks):
            self.refs[block] -= 1
            if not self.refs[block]:
                self.free[block] = None
        sequence.blocks = []
        sequence.registered = 0
        self.refused = None

    def let_go_state(self, state: State) -> None:
        state.refs -= 1
        if not state.refs:
            self.refused = None
            for page in state.pages:
                self.free[page] = None

    def lookup(self, sequence: Sequence) -> tuple[list[int], State | None]:
        """Blocks that need not be computed, and the state at their end."""
        hit: list[int] = []
        best, state = 0, None
        for place in range((sequence.tokens - 1) // self.size):
            name = self.name(sequence, place)
            copies = self.found.get(name)
            if copies is None:
                break
            hit.append(copies[0])
            if name in self.states:
                best, state = len(hit), self.states[name][0]
        return (hit[:best], state) if self.groups else (hit, None)

    def register(self, sequence: Sequence) -> None:
        for place in range(sequence.registered, sequence.computed // self.size):
            name, block = self.name(sequence, place), sequence.blocks[place]
            self.found.setdefault(name, []).append(block)
            self.held_name[block] = name
        sequence.registered = sequence.computed // self.size
        page = sequence.page
        if page is not None and page.name is None and not sequence.computed % self.size:
            page.name = self.name(sequence, sequence.registered - 1)
            self.states.setdefault(page.name, []).append(page)
            for block in page.pages:
                self.state_of[block] = page

    def name(self, sequence: Sequence, place: int) -> int:
        """A number for a block's content and all before it."""
        names = sequence.names
        while len(names) <= place:
            begin = len(names) * self.size
            key = (names[-1] if names else -1, _pieces(sequence, begin, begin + self.size))
            names.append(self.interned.setdefault(key, len(self.interned)))
        return names[place]


def _pieces(sequence: Sequence, begin: int, end: int) -> tuple[tuple[int, int, int], ...]:
    """What stands at tokens begin..end-1: (text, from, to) each."""
    out, start = [], 0
    for text, stop in zip(sequence.ids, sequence.ends, strict=True):
        if stop > begin:
            out.append((text, max(begin - start, 0), min(end, stop) - start))
        if stop >= end:
            break
        start = stop
    return tuple(out)


# -- the engine, on the same


class Recording(Engine):
    """An engine that keeps what it is handed."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.given: list[Submission] = []

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        super().submit(at_ns, call, prompt, answer, output_tokens, hints)
        self.given.append(Submission(at_ns, call, prompt, answer, output_tokens))


class Nothing:
    """A sink."""

    def call(self, record: CallRecord) -> None:
        pass

    def session(self, record: SessionRecord) -> None:
        pass


def replayed(profile: Profile, given: Iterable[Submission], leap: bool = True) -> Engine:
    """The engine, with all answers still to be taken."""
    engine = Engine(profile, leap=leap)
    for each in given:
        engine.submit(each.at_ns, each.call, each.prompt, each.answer, each.output_tokens)
    return engine


def answers(engine: Engine) -> dict[str, Answer]:
    out = {}
    while (at := engine.next_ns()) is not None:
        for done in engine.advance(at):
            instants = [steps.at(i) for steps in done.tokens for i in range(steps.length)]
            out[done.call] = Answer(instants, done.cached_tokens, done.preemptions)
    return out


def drain(profile: Profile, given: Iterable[Submission], leap: bool = True) -> None:
    """What is timed: all of it, tokens as the engine says them."""
    engine = replayed(profile, given, leap)
    while (at := engine.next_ns()) is not None:
        engine.advance(at)


# -- loads


def chains(rate_per_s: float, duration_s: float) -> Callable[[Profile], list[Submission]]:
    """Case study 2's linear sessions, open loop, as the driver hands them in."""

    def record(profile: Profile) -> list[Submission]:
        calls = [
            Call(
                f"c{i}",
                300,
                after=(Edge(f"c{i - 1}", 0.0, "tool"),) if i else (),
                inherit=Inherit(f"c{i - 1}") if i else None,
                fresh=(Part("user", 500),),
            )
            for i in range(5)
        ]
        engines = []

        async def main(clock: VirtualClock) -> End:
            engines.append(Recording(profile))
            return await drive(plan, SimulatedBackend(engines[0], clock), clock, Nothing(), Options(timeout_s=None))

        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.jsonl"
            native.write(trace, Header(source="benchmark"), [Session("s", tuple(calls))])
            limits = Limits(sessions=round(rate_per_s * duration_s))
            plan = make(Recipe(TraceRef((str(trace),)), Open(rate_per_s), limits))
            run_virtual(main)
        return engines[0].given

    return record


def at_once(calls: int, prompt: int, output: int) -> Callable[[Profile], list[Submission]]:
    def record(_: Profile) -> list[Submission]:
        return [Submission(0, f"c{i}", Key((2 * i,), (prompt,)), 2 * i + 1, output) for i in range(calls)]

    return record


LOADS: dict[str, tuple[Callable[[Profile], list[Submission]], str]] = {
    "case-study-2": (chains(0.18, 300), "goal 15x"),
    "frontier": (chains(1.1, 300), "goal 1x"),
    "long answers": (at_once(64, 200, 4000), "goal 100x"),
}


def plain(profile: Profile, *, bare: bool = False) -> Profile:
    """What the plain simulator knows of a profile; `bare`: and where its loop is leanest."""
    front = FrontEnd(call_ps=profile.front_end.call_ps, prompt_token_ps=profile.front_end.prompt_token_ps)
    known = replace(profile, template=Template(), front_end=front, tiers=(), policy="fcfs", mixing="decode_first")
    known = replace(known, cache="vllm", speculative=None, watermark_blocks=0, retention=Retention())
    return replace(known, state_groups=0, async_scheduling=False) if bare else known


def seconds(work: Callable[[], object], least_s: float = 0.3) -> float:
    """CPU time of one round, the least of as many as are needed to see it."""
    best, spent = float("inf"), 0.0
    while not spent or spent < least_s:
        gc.collect()
        began = time.process_time()
        work()
        best = min(best, took := time.process_time() - began)
        spent += took
    return best


def compare(name: str, whole: Profile) -> None:
    """Both on one load, with all that both know of a profile and bare."""
    full, bare = plain(whole), plain(whole, bare=True)
    timed(name, "", full)
    if bare != full:
        timed(name, ", without states and scheduling ahead", bare)


def timed(name: str, said: str, profile: Profile) -> None:
    record, goal = LOADS[name]
    given = record(profile)
    slow = PerIteration(profile)
    theirs, ours = slow.run(given), answers(replayed(profile, given))
    assert ours == theirs, f"{name}{said}: the results differ"
    slow_s = seconds(lambda: PerIteration(profile).run(given))
    fast_s = seconds(lambda: drain(profile, given))
    step_s = seconds(lambda: drain(profile, given, leap=False), least_s=0.0)
    tokens = sum(len(answer.tokens_ps) for answer in theirs.values())
    print(f"{name}{said}: {len(given):,} calls, {tokens:,} tokens in {slow.steps:,} steps, equal to the picosecond")
    per_step, per_call = 1e6 * slow_s / slow.steps, 1e6 * fast_s / len(given)
    print(f"  per iteration {slow_s:8.4f} s, {per_step:6.1f} us a step")
    print(f"  engine        {fast_s:8.4f} s, {per_call:6.1f} us a call: ratio {slow_s / fast_s:.1f} ({goal})")
    print(f"  it steps      {step_s:8.4f} s: ratio {step_s / fast_s:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="llama-3.1-8b-h100x1")
    parser.add_argument("--only", choices=LOADS)
    parser.add_argument("--hot", choices=LOADS, help="where the engine's time goes, for one of the loads")
    options = parser.parse_args()
    profile = profiles.load(options.profile)
    if options.hot:
        given = LOADS[options.hot][0](profile)
        watched = cProfile.Profile()
        watched.runcall(drain, profile, given)
        pstats.Stats(watched).sort_stats("tottime").print_stats(30)
        return
    for name in [options.only] if options.only else LOADS:
        compare(name, profile)


if __name__ == "__main__":
    main()
